"""exclusive_worker.py WORKER SECONDS JOURNAL KEEP DATABASE

Adds one to a counter and logs it, with the habits of WAL mode: reads, computes, writes. The database
is one in exclusive mode.
"""

from mv import one
from worker import Worker


class Counter(Worker):
    begin = "BEGIN IMMEDIATE"

    def transaction(self, db, number):
        value = one(db, "SELECT value FROM counter") + 1
        db.execute("UPDATE counter SET value = ?", (value,))
        db.execute("INSERT INTO log VALUES (?, ?, ?)", (value, self.worker, number))


Counter().run()
