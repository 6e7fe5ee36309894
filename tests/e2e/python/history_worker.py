"""history_worker.py DATABASE WORKER SECONDS HISTORY

Runs random transactions and writes into HISTORY what each of them read, what it wrote, and its
version. Commits in the order of their versions must explain every read (history_check.py).

What a connection read earlier stays in SQLite's cache, where the VFS does not see it read again;
small caches spill; savepoints are undone; some transactions are rolled back.
"""

import json
import random
import sqlite3
import sys
import time

from mv import BUSY_SNAPSHOT, connect, one

database, worker, seconds, history_file = sys.argv[1:]
worker = int(worker)
end = time.monotonic() + float(seconds)
chance = random.Random(worker * 104729)
KEYS = 60
counts = {"commits": 0, "reads": 0, "conflicts": 0}
number = 0


def read(db, seen):
    kind = chance.random()
    if kind < 0.6:
        key = chance.randrange(KEYS)
        seen[f"key {key}"] = one(db, "SELECT value FROM register WHERE key = ?", key)
    elif kind < 0.75:
        low = chance.randrange(KEYS)
        query = "SELECT total(value) FROM register WHERE key BETWEEN ? AND ?"
        seen[f"sum {low}"] = one(db, query, low, low + 5)
    elif kind < 0.9:
        owner = chance.randrange(6)
        seen[f"count {owner}"] = one(db, "SELECT count(*) FROM event WHERE owner = ?", owner)
    else:
        seen["last"] = one(db, "SELECT max(id) FROM event")


def write(db, written):
    global number
    number += 1
    token = worker * 10_000_000 + number
    if chance.random() < 0.6:
        key = chance.randrange(KEYS)
        db.execute("UPDATE register SET value = ? WHERE key = ?", (token, key))
        written.append(["set", key, token])
    elif chance.random() < 0.8:
        owner = chance.randrange(6)
        db.execute("INSERT INTO event VALUES (?, ?, zeroblob(?))", (token, owner, chance.choice((10, 500, 9000))))
        written.append(["add", token, owner])
    else:
        owner = chance.randrange(6)
        db.execute("DELETE FROM event WHERE owner = ?", (owner,))
        written.append(["clear", owner])


def transaction(db):
    """One transaction: what it read before it wrote, and what it wrote; None if rolled back."""
    seen, written = {}, []
    db.execute(chance.choice(("BEGIN", "BEGIN", "BEGIN IMMEDIATE")))
    for _ in range(chance.randint(1, 4)):
        read(db, seen)
    if chance.random() < 0.3:
        version = one(db, "SELECT mv_last_known_version('main')")
        db.execute("COMMIT")
        return {"at": version, "seen": seen}
    if chance.random() < 0.2:
        db.execute("SAVEPOINT undone")
        write(db, [])
        db.execute("ROLLBACK TO undone")
    before = db.total_changes
    for _ in range(chance.randint(1, 3)):
        write(db, written)
    changed = db.total_changes > before
    if chance.random() < 0.1:
        db.execute("ROLLBACK")
        return None
    db.execute("COMMIT")
    version = one(db, "SELECT mv_last_known_version('main')")
    if not changed:
        # There was nothing to delete: no commit was made, or one that says nothing.
        return {"at": version, "seen": seen}
    return {"version": version, "seen": seen, "written": written}


db = connect(database)
if worker % 2:
    db.execute("PRAGMA cache_size = 4")
history = []
while time.monotonic() < end:
    try:
        done = transaction(db)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != BUSY_SNAPSHOT:
            raise
        counts["conflicts"] += 1
        if db.in_transaction:
            db.execute("ROLLBACK")
        continue
    if done:
        history.append(done)
        counts["commits" if "version" in done else "reads"] += 1
with open(history_file, "w", encoding="utf-8") as out:
    json.dump(history, out)
print(json.dumps(counts))
