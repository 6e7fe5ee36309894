"""ledger_worker.py WORKER SECONDS JOURNAL KEEP DATABASE

Each transaction puts a row into `left` and one into `right` and moves money between two accounts.
"""

from worker import Worker


class Ledger(Worker):
    def transaction(self, db, number):
        db.execute("INSERT INTO left VALUES (?, ?, ?)", (self.worker, number, f"left {number}"))
        db.execute("INSERT INTO right VALUES (?, ?, ?)", (self.worker, number, bytes(100)))
        source, target = self.chance.sample(range(32), 2)
        db.execute("UPDATE account SET amount = amount - 1 WHERE id = ?", (source,))
        db.execute("UPDATE account SET amount = amount + 1 WHERE id = ?", (target,))


Ledger().run()
