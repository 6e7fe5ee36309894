"""processes.py DATABASE: multiprocessing writers, forked and spawned, on one counter."""

import multiprocessing
import sys

from mv import connect, one, run

ROUNDS = 30


def work(database, number):
    db = connect(database)
    counts = {}

    def transaction(db):
        db.execute("UPDATE counter SET value = value + 1")
        db.execute("INSERT INTO log (worker, value) SELECT ?, value FROM counter", (number,))

    for _ in range(ROUNDS):
        run(db, transaction, counts)
    return counts.get("conflicts", 0)


if __name__ == "__main__":
    database = sys.argv[1]
    db = connect(database)
    db.execute("CREATE TABLE counter (value INTEGER)")
    db.execute("INSERT INTO counter VALUES (0)")
    db.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, worker INTEGER, value INTEGER)")
    for method in ("fork", "spawn"):
        before = one(db, "SELECT value FROM counter")
        with multiprocessing.get_context(method).Pool(4) as pool:
            conflicts = pool.starmap(work, [(database, number) for number in range(4)])
        after = one(db, "SELECT value FROM counter")
        assert after - before == 4 * ROUNDS, (before, after)
        print(f"{method}: {after - before} increments by 4 processes, {sum(conflicts)} conflicts")
    # Serializable: the log saw each value once, in the order of its ids.
    values = [value for (value,) in db.execute("SELECT value FROM log ORDER BY id")]
    assert values == list(range(1, 8 * ROUNDS + 1)), values
