"""growth_worker.py WORKER SECONDS JOURNAL KEEP DATABASE

Grows and shrinks a database: rows of 20 bytes to 60 KB (overflow chains) come and go, indexes and
tables are made and dropped, free pages are given back if the database can.

Every row's content follows from (owner, id, generation). JOURNAL.model says which rows there must be:
a line of JSON before each COMMIT (`rows` if it fails, `maybe` if it succeeds) and one after it. The
owner is the worker; after a COMMIT of unknown outcome it becomes another owner and starts with
nothing, because what was sent may still arrive.
"""

import json
import time

from mv import one
from worker import Appended, Worker

SIZES = (20, 200, 2000, 9000, 60000)
# Owners of one worker: how many unknown outcomes it may have.
OWNERS = 10_000


class Growth(Worker):
    def __init__(self):
        super().__init__()
        self.model = Appended(self.journal_path + ".model")
        self.owner = self.worker * OWNERS
        self.next = 0
        self.rows = {}
        self.after = None

    def body(self, row, generation, size):
        token = f"{self.owner}:{row}:{generation};"
        return (token * (size // len(token) + 1))[:size]

    def insert(self, db):
        for _ in range(self.chance.randint(1, 6)):
            row = self.next
            self.next += 1
            size = self.chance.choice(SIZES)
            db.execute("INSERT INTO item VALUES (?, ?, ?, ?)", (self.owner, row, 0, self.body(row, 0, size)))
            self.after[row] = (0, size)

    def resize(self, db):
        for row in self.chance.sample(sorted(self.after), min(3, len(self.after))):
            generation = self.after[row][0] + 1
            size = self.chance.choice(SIZES)
            db.execute(
                "UPDATE item SET generation = ?, body = ? WHERE worker = ? AND id = ?",
                (generation, self.body(row, generation, size), self.owner, row),
            )
            self.after[row] = (generation, size)

    def delete(self, db):
        share = 1.0 if self.chance.random() < 0.1 else 0.4
        gone = self.chance.sample(sorted(self.after), int(len(self.after) * share))
        db.executemany("DELETE FROM item WHERE worker = ? AND id = ?", [(self.owner, row) for row in gone])
        for row in gone:
            del self.after[row]

    def reshape(self, db):
        """Schema changes conflict with everybody: rare, and short."""
        if one(db, "SELECT count(*) FROM sqlite_schema WHERE name = ?", f"extra_{self.worker}"):
            db.execute(f"DROP TABLE extra_{self.worker}")
        else:
            db.execute(f"CREATE TABLE extra_{self.worker} AS SELECT id, generation FROM item LIMIT 100")

    def give_back(self, db):
        db.execute("PRAGMA incremental_vacuum(8)").fetchall()

    def transaction(self, db, number):
        self.after = dict(self.rows)
        actions = (self.insert, self.resize, self.delete, self.reshape, self.give_back)
        for action in self.chance.choices(actions, (10, 6, 3, 0.2, 1), k=self.chance.randint(1, 3)):
            action(db)
        self.write_down(self.rows, maybe=self.after)

    def write_down(self, rows, maybe=None):
        self.model.line(json.dumps({"worker": self.owner, "rows": rows, "maybe": maybe}))

    def note(self, outcome, number):
        if outcome == "A":
            self.rows = self.after
            self.write_down(self.rows)
        elif outcome == "U":
            self.owner += 1
            self.next, self.rows = 0, {}
        else:
            self.write_down(self.rows)
        super().note(outcome, number)
        # All versions of all pages are kept: it is not to fill the disk.
        time.sleep(0.01)


Growth().run()
