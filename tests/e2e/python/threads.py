"""threads.py DATABASE: threads with a connection each, on one counter and on rows of their own."""

import threading

import sys

from mv import connect, one, run

database = sys.argv[1]
THREADS, ROUNDS = 8, 25

db = connect(database)
db.execute("CREATE TABLE counter (value INTEGER)")
db.execute("INSERT INTO counter VALUES (0)")
db.execute("CREATE TABLE own (thread INTEGER, round INTEGER)")
failures = []
counts = [{} for _ in range(THREADS)]


def work(thread):
    try:
        mine = connect(database)
        for number in range(ROUNDS):

            def transaction(mine, number=number):
                value = one(mine, "SELECT value FROM counter")
                mine.execute("INSERT INTO own VALUES (?, ?)", (thread, number))
                mine.execute("UPDATE counter SET value = ?", (value + 1,))

            run(mine, transaction, counts[thread])
        mine.close()
    except BaseException as error:
        failures.append(repr(error))
        raise


threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
assert one(db, "SELECT value FROM counter") == THREADS * ROUNDS
assert one(db, "SELECT count(DISTINCT thread * 1000 + round) FROM own") == THREADS * ROUNDS
conflicts = sum(count.get("conflicts", 0) for count in counts)
print(f"{THREADS * ROUNDS} increments, {conflicts} conflicts, nothing lost")
