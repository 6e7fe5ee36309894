"""attached_reader.py WORKER SECONDS JOURNAL KEEP ONE OTHER

Looks while others move money (attached_worker.py): at every moment all accounts together hold the
same, and both databases the same transfers, whether asked by one statement or by several of one
transaction.
"""

import sys

from worker import Worker, attached

TOTAL = 2 * 16 * 1000
SUM = "(SELECT sum(amount) FROM {}.account)"
COUNT = "(SELECT count(*) FROM {}.transfer)"
ALL = f"SELECT {SUM.format('main')} + {SUM.format('other')}, {COUNT.format('main')} - {COUNT.format('other')}"


class Looks(Worker):
    def open(self):
        return attached(*self.databases)

    def transaction(self, db, number):
        if self.chance.random() < 0.5:
            found = db.execute(ALL).fetchone()
        else:
            sums = [db.execute(f"SELECT {SUM.format(name)}").fetchone()[0] for name in ("main", "other")]
            numbers = [db.execute(f"SELECT {COUNT.format(name)}").fetchone()[0] for name in ("other", "main")]
            found = (sum(sums), numbers[1] - numbers[0])
        if found != (TOTAL, 0):
            sys.exit(f"at one moment: {found} instead of {(TOTAL, 0)}")


Looks().run()
