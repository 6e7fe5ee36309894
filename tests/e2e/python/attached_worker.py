"""attached_worker.py ONE OTHER WORKER SECONDS JOURNAL

Moves money between the accounts of two databases, in transactions over both, while stores and
clients are killed. Each transfer also puts its number into `transfer` of both databases. Writes into
JOURNAL what it knows: `A n` for a transfer acknowledged, `U n` for a COMMIT whose outcome it was not
told, `F n` for one that failed otherwise and certainly did not happen.

WORKER -1 only reads: at every moment all accounts together hold the same, and both databases the
same transfers, whether asked by one statement or by several of one transaction.
"""

import json
import os
import random
import sqlite3
import sys
import time

from mv import BUSY_SNAPSHOT, CANTOPEN, IOERR, connect, primary

one, other, worker, seconds, journal = sys.argv[1:]
worker = int(worker)
end = time.monotonic() + float(seconds)
chance = random.Random(worker)
journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
counts = {"acknowledged": 0, "unknown": 0, "conflicts": 0, "failed": 0, "looks": 0}

TOTAL = 2 * 16 * 1000
SUM = "(SELECT sum(amount) FROM {}.account)"
COUNT = "(SELECT count(*) FROM {}.transfer)"
ALL = f"SELECT {SUM.format('main')} + {SUM.format('other')}, {COUNT.format('main')} - {COUNT.format('other')}"


def opened():
    db = connect(one)
    try:
        db.execute("ATTACH ? AS other", (other,))
    except sqlite3.OperationalError:
        db.close()
        raise
    return db


def look(db):
    """Reads everything, in one statement or in four."""
    if chance.random() < 0.5:
        found = db.execute(ALL).fetchone()
    else:
        db.execute("BEGIN")
        sums = [db.execute(f"SELECT {SUM.format(name)}").fetchone()[0] for name in ("main", "other")]
        numbers = [db.execute(f"SELECT {COUNT.format(name)}").fetchone()[0] for name in ("other", "main")]
        db.execute("COMMIT")
        found = (sum(sums), numbers[1] - numbers[0])
    if found != (TOTAL, 0):
        sys.exit(f"at one moment: {found} instead of {(TOTAL, 0)}")
    counts["looks"] += 1


def transfer(db, number):
    """Returns whether COMMIT was reached and the error that ended it."""
    committing = False
    try:
        db.execute("BEGIN")
        source, target = chance.sample(("main", "other"), 2)
        amount = chance.randrange(1, 10)
        for name, change in ((source, -amount), (target, amount)):
            account = chance.randrange(16)
            db.execute(f"INSERT INTO {name}.transfer VALUES (?, ?, ?)", (worker, number, bytes(200)))
            db.execute(f"UPDATE {name}.account SET amount = amount + ? WHERE id = ?", (change, account))
        committing = True
        db.execute("COMMIT")
        return True, None
    except sqlite3.OperationalError as error:
        return committing, error


def undo(db):
    try:
        if db.in_transaction:
            db.execute("ROLLBACK")
    except sqlite3.OperationalError:
        pass


def expected(error):
    if error.sqlite_errorcode != BUSY_SNAPSHOT and primary(error) not in (IOERR, CANTOPEN):
        raise error
    return error.sqlite_errorcode == BUSY_SNAPSHOT


db = None
number = 0
while time.monotonic() < end:
    try:
        db = db or opened()
        if worker < 0:
            look(db)
            continue
        committing, error = transfer(db, number)
    except sqlite3.OperationalError as failure:
        committing, error = False, failure
    if error is None:
        outcome = "acknowledged"
        os.write(journal, f"A {number}\n".encode())
    elif expected(error):
        outcome = "conflicts"
    elif committing:
        outcome = "unknown"
        os.write(journal, f"U {number}\n".encode())
    else:
        outcome = "failed"
        os.write(journal, f"F {number}\n".encode())
    counts[outcome] += 1
    if outcome in ("acknowledged", "unknown"):
        number += 1
    if error is not None and db is not None:
        undo(db)
    if outcome in ("unknown", "failed"):
        if db is not None and chance.random() < 0.5:
            db.close()
            db = None
        # The store is being restarted: do not let the errors eat the machine.
        time.sleep(0.02)

print(json.dumps(counts))
