"""crash_worker.py DATABASE WORKER SECONDS JOURNAL KEEP

Commits transactions while the store is killed and started again. Each one puts a row into `left`
and one into `right` and moves money between two accounts. Before it goes on, it writes into
JOURNAL what it knows: `A n` for a transaction acknowledged, `U n` for a COMMIT whose outcome it was
not told, `F n` for one that failed otherwise. That one is certain not to have happened: its number is
used again, and the primary key proves it.

KEEP is 1 to keep the connection over failures, 0 to open a new one after each.
"""

import json
import os
import random
import sqlite3
import sys
import time

from mv import BUSY_SNAPSHOT, CANTOPEN, IOERR, connect, primary

database, worker, seconds, journal, keep = sys.argv[1:]
worker = int(worker)
end = time.monotonic() + float(seconds)
chance = random.Random(worker)
journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
counts = {"acknowledged": 0, "unknown": 0, "conflicts": 0, "failed": 0, "slowest": 0.0}


def note(kind, number):
    os.write(journal, f"{kind} {number}\n".encode())


def attempt(db, number):
    """Tries once: 'acknowledged', 'unknown', 'conflicts' or 'failed'."""
    committing = False
    try:
        db.execute("BEGIN")
        db.execute("INSERT INTO left VALUES (?, ?, ?)", (worker, number, f"left {number}"))
        db.execute("INSERT INTO right VALUES (?, ?, ?)", (worker, number, bytes(100)))
        source, target = chance.sample(range(32), 2)
        db.execute("UPDATE account SET amount = amount - 1 WHERE id = ?", (source,))
        db.execute("UPDATE account SET amount = amount + 1 WHERE id = ?", (target,))
        committing = True
        db.execute("COMMIT")
        return "acknowledged"
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != BUSY_SNAPSHOT and primary(error) not in (IOERR, CANTOPEN):
            raise
        conflict = error.sqlite_errorcode == BUSY_SNAPSHOT
    try:
        if db.in_transaction:
            db.execute("ROLLBACK")
    except sqlite3.OperationalError:
        pass
    if conflict:
        return "conflicts"
    return "unknown" if committing else "failed"


db = None
number = 0
while time.monotonic() < end:
    begun = time.monotonic()
    try:
        db = db or connect(database)
    except sqlite3.OperationalError as error:
        if primary(error) not in (IOERR, CANTOPEN):
            raise
        counts["failed"] += 1
        continue
    outcome = attempt(db, number)
    counts[outcome] += 1
    counts["slowest"] = max(counts["slowest"], time.monotonic() - begun)
    if outcome != "conflicts":
        note({"acknowledged": "A", "unknown": "U", "failed": "F"}[outcome], number)
    if outcome in ("acknowledged", "unknown"):
        number += 1
    if outcome in ("unknown", "failed"):
        if keep == "0":
            db.close()
            db = None
        # The store is being restarted: do not let the errors eat the machine.
        time.sleep(0.02)

print(json.dumps(counts))
