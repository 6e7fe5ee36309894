"""history_worker.py DATABASE WORKER SECONDS HISTORY [split]

Runs random transactions and writes into HISTORY, as JSON lines for crate mvsqlite-checker, what each
of them read and wrote, when, and at which versions.

What a connection read earlier stays in SQLite's cache, where the VFS does not see it read again;
small caches spill; savepoints are undone; rows move between pages; some transactions are rolled back.

With `split` the program is at fault: it commits between what it reads and what it writes, and
records both as one transaction.
"""

import json
import random
import sqlite3
import sys
import time

from mv import BUSY_SNAPSHOT, connect, one

database, worker, seconds, history_file = sys.argv[1:5]
split = "split" in sys.argv[5:]
worker = int(worker)
end = time.monotonic() + float(seconds)
chance = random.Random(worker * 104729)
KEYS = 60
LISTS = 24
counts = {"committed": 0, "aborted": 0}
number = 0


def read_registers(db, low, high):
    rows = dict(db.execute("SELECT key, value FROM register WHERE key BETWEEN ? AND ?", (low, high)))
    # A row that is not there is as wrong as any other value.
    keys = range(low, min(high, KEYS - 1) + 1)
    return [{"read": {"key": key, "value": rows.get(key, -1) or None}} for key in keys]


def read_list(db, key):
    rows = db.execute("SELECT id FROM event WHERE owner = ? ORDER BY place", (key,))
    return {"read_list": {"key": key, "elements": [element for (element,) in rows]}}


def read(db, operations):
    kind = chance.random()
    if kind < 0.5:
        key = chance.randrange(KEYS)
        operations += read_registers(db, key, key)
    elif kind < 0.65:
        low = chance.randrange(KEYS)
        operations += read_registers(db, low, low + 5)
    else:
        operations.append(read_list(db, chance.randrange(LISTS)))


def write(db, operations):
    global number
    number += 1
    token = worker * 10_000_000 + number
    if chance.random() < 0.5:
        key = chance.randrange(KEYS)
        db.execute("UPDATE register SET value = ? WHERE key = ?", (token, key))
        operations.append({"write": {"key": key, "value": token}})
        return
    key = chance.randrange(LISTS)
    place = one(db, "SELECT coalesce(max(place), 0) + 1 FROM event WHERE owner = ?", key)
    size = chance.choice((10, 500, 9000))
    db.execute("INSERT INTO event VALUES (?, ?, ?, zeroblob(?))", (token, key, place, size))
    operations.append({"append": {"key": key, "element": token}})


def move_rows(db):
    """Changes nothing that is read, but the sizes of rows, and so which pages they lie on."""
    owner = chance.randrange(LISTS)
    size = chance.choice((10, 500, 9000))
    db.execute("UPDATE event SET body = zeroblob(?) WHERE owner = ? AND place % 7 = 0", (size, owner))


def last_known(db):
    return one(db, "SELECT mv_last_known_version('main')")


def transaction(db, record):
    """One transaction; answers whether it was meant to be committed."""
    operations = record["operations"]
    db.execute(chance.choice(("BEGIN", "BEGIN", "BEGIN IMMEDIATE")))
    for _ in range(chance.randint(1, 4)):
        read(db, operations)
    record["read_at"] = last_known(db)
    if chance.random() < 0.3:
        db.execute("COMMIT")
        return True
    if split:
        db.execute("COMMIT")
        db.execute("BEGIN")
    if chance.random() < 0.2:
        db.execute("SAVEPOINT undone")
        write(db, [])
        db.execute("ROLLBACK TO undone")
    for _ in range(chance.randint(1, 3)):
        write(db, operations)
        if chance.random() < 0.3:
            read(db, operations)
    if chance.random() < 0.1:
        move_rows(db)
    if chance.random() < 0.1:
        db.execute("ROLLBACK")
        return False
    db.execute("COMMIT")
    record["ended"] = time.monotonic_ns()
    record["committed_at"] = last_known(db)
    return True


def attempt(db, index):
    record = {"process": worker, "index": index, "begun": time.monotonic_ns(), "operations": []}
    try:
        record["outcome"] = "committed" if transaction(db, record) else "aborted"
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != BUSY_SNAPSHOT:
            raise
        record["outcome"] = "aborted"
        if db.in_transaction:
            db.execute("ROLLBACK")
    record.setdefault("ended", time.monotonic_ns())
    counts[record["outcome"]] += 1
    return record


db = connect(database)
if worker % 2:
    db.execute("PRAGMA cache_size = 4")
with open(history_file, "w", encoding="utf-8") as out:
    index = 0
    while time.monotonic() < end:
        out.write(json.dumps({"transaction": attempt(db, index)}) + "\n")
        index += 1
print(json.dumps(counts))
