"""attached_worker.py WORKER SECONDS JOURNAL KEEP ONE OTHER

Moves money between the accounts of two databases, in transactions over both. Each transfer also
puts its number into `transfer` of both.
"""

from worker import Worker, attached


class Transfers(Worker):
    def open(self):
        return attached(*self.databases)

    def transaction(self, db, number):
        source, target = self.chance.sample(("main", "other"), 2)
        amount = self.chance.randrange(1, 10)
        for name, change in ((source, -amount), (target, amount)):
            account = self.chance.randrange(16)
            row = (self.worker, number, bytes(200))
            db.execute(f"INSERT INTO {name}.transfer VALUES (?, ?, ?)", row)
            db.execute(f"UPDATE {name}.account SET amount = amount + ? WHERE id = ?", (change, account))


Transfers().run()
