"""snapshot_reader.py WORKER SECONDS JOURNAL KEEP DATABASE

Reads while others grow and shrink the database (growth_worker.py): every snapshot must be a whole
database that stands still, also for a cursor that is open for long. JOURNAL.snapshots gets a line of
JSON for each, its version and what it looked like; snapshot_check.py reads them again later.
"""

import json
import sys
import time

from mv import one
from snapshot_check import DIGEST
from worker import Appended, Worker, damage


class Snapshots(Worker):
    def __init__(self):
        super().__init__()
        self.snapshots = Appended(self.journal_path + ".snapshots")

    def by_cursor(self, db):
        """The same digest, by a cursor that dawdles while others commit."""
        count, lengths, generations = 0, 0.0, 0.0
        for length, row, generation in db.execute("SELECT length(body), id, generation FROM item"):
            count, lengths, generations = count + 1, lengths + length, generations + row * generation
            if self.chance.random() < 0.02:
                time.sleep(0.05)
        return count, lengths, generations

    def transaction(self, db, number):
        digest = db.execute(DIGEST).fetchone()
        found = damage(db)
        version = one(db, "SELECT mv_last_known_version('main')")
        again = self.by_cursor(db) if self.chance.random() < 0.3 else db.execute(DIGEST).fetchone()
        if found:
            sys.exit(f"version {version}: integrity_check says {found}")
        if digest != again:
            sys.exit(f"version {version} does not stand still: {digest}, {again}")
        self.snapshots.line(json.dumps([version, digest]))

    def note(self, outcome, number):
        super().note(outcome, number)
        # The writers are to have the machine: there is little to see between two commits.
        time.sleep(0.02)


if __name__ == "__main__":
    Snapshots().run()
