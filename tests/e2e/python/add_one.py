"""add_one.py DATABASE WORKER ROUNDS: transactions that add one, run again after conflicts.

With MVSQLITE_CONCURRENCY=exclusive none may fail at COMMIT.
"""

import os
import sqlite3
import sys

from mv import BUSY_SNAPSHOT, connect, one

database, worker, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
careful = os.environ.get("MVSQLITE_CONCURRENCY") == "exclusive"
db = connect(database)
conflicts = 0
for _ in range(rounds):
    while True:
        db.execute("BEGIN IMMEDIATE")
        value = one(db, "SELECT value FROM counter")
        db.execute("UPDATE counter SET value = ?", (value + 1,))
        db.execute("INSERT INTO log (worker, value) VALUES (?, ?)", (worker, value + 1))
        try:
            db.execute("COMMIT")
            break
        except sqlite3.OperationalError as error:
            assert not careful and error.sqlite_errorcode == BUSY_SNAPSHOT, error
            conflicts += 1
print(f"{rounds} done, {conflicts} conflicts")
