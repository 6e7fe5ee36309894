"""wal_habits.py DATABASE WORKERS ROUNDS: a program written for a local file in WAL mode.

It begins with BEGIN IMMEDIATE when it is going to write, waits by the busy timeout, and does not
expect COMMIT to fail: an error of COMMIT ends it. Prints what the counter and the log hold.
"""

import multiprocessing
import sqlite3
import sys

from mv import BUSY_SNAPSHOT, connect, one


def add_one(db, worker):
    """Reads, computes and writes, as programs do."""
    db.execute("BEGIN IMMEDIATE")
    value = one(db, "SELECT value FROM counter")
    db.execute("UPDATE counter SET value = ?", (value + 1,))
    db.execute("INSERT INTO log (worker, value) VALUES (?, ?)", (worker, value + 1))
    db.execute("COMMIT")


def add_one_after_reading(db, worker):
    """The same without IMMEDIATE: the first write may come too late, COMMIT may not fail."""
    while True:
        db.execute("BEGIN")
        value = one(db, "SELECT value FROM counter")
        try:
            db.execute("UPDATE counter SET value = ?", (value + 1,))
        except sqlite3.OperationalError as error:
            db.execute("ROLLBACK")
            if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, BUSY_SNAPSHOT):
                raise
            continue
        db.execute("INSERT INTO log (worker, value) VALUES (?, ?)", (worker, value + 1))
        db.execute("COMMIT")
        return


def roll_back(db, worker):
    """Leaves nothing, and keeps nobody waiting."""
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE counter SET value = value + 1000")
    db.execute("ROLLBACK")


def work(database, worker, rounds):
    db = connect(database)
    for round in range(rounds):
        if round % 10 == 3:
            add_one_after_reading(db, worker)
        else:
            add_one(db, worker)
        if round % 10 == 7:
            roll_back(db, worker)
        # A statement outside a transaction waits in its place too.
        db.execute("UPDATE total SET value = value + 1")
    db.close()


if __name__ == "__main__":
    database, workers, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    db = connect(database)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE counter (value INTEGER)")
    db.execute("CREATE TABLE total (value INTEGER)")
    db.execute("INSERT INTO counter VALUES (0)")
    db.execute("INSERT INTO total VALUES (0)")
    db.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, worker INTEGER, value INTEGER)")
    context = multiprocessing.get_context("spawn")
    running = [
        context.Process(target=work, args=(database, worker, rounds)) for worker in range(workers)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join()
    failed = [process.exitcode for process in running if process.exitcode != 0]
    assert not failed, failed
    values = [value for (value,) in db.execute("SELECT value FROM log ORDER BY id")]
    assert values == list(range(1, workers * rounds + 1)), "the writers were not one after another"
    counter, total = one(db, "SELECT value FROM counter"), one(db, "SELECT value FROM total")
    check = one(db, "PRAGMA integrity_check")
    print(f"counter {counter} total {total} log {len(values)} {check}")
