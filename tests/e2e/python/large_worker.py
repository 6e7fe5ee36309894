"""large_worker.py WORKER SECONDS JOURNAL KEEP DATABASE

Large transactions: parts of 256 KiB, one to six megabytes of them, some rolled back at the end, some
to a savepoint on the way. `whole` says how many parts there are, each part its checksum.
"""

import time
import zlib

from worker import Abandoned, Worker

PART = 256 * 1024


class Large(Worker):
    def insert(self, db, number, part):
        body = self.chance.randbytes(PART)
        db.execute("INSERT INTO part VALUES (?, ?, ?, ?, ?)", (self.worker, number, part, zlib.crc32(body), body))

    def transaction(self, db, number):
        parts = self.chance.randrange(4, 25)
        db.execute("INSERT INTO whole VALUES (?, ?, ?)", (self.worker, number, parts))
        for part in range(parts):
            if self.chance.random() < 0.1:
                db.execute("SAVEPOINT undone")
                self.insert(db, number, part + 1000)
                db.execute("ROLLBACK TO undone")
            self.insert(db, number, part)
        if self.chance.random() < 0.15:
            raise Abandoned

    def note(self, outcome, number):
        super().note(outcome, number)
        # It is not to fill the disk.
        time.sleep(0.3)


Large().run()
