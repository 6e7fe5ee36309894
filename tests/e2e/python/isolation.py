"""isolation.py DATABASE: Python's own transaction control, and what one connection sees of others."""

import sqlite3
import sys

from mv import BUSY_SNAPSHOT, connect, one

database = sys.argv[1]
db = connect(database)
db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER)")
db.executemany("INSERT INTO t VALUES (?, ?)", [(1, 10), (2, 20)])


def conflicts(action):
    try:
        action()
    except sqlite3.OperationalError as error:
        assert error.sqlite_errorcode == BUSY_SNAPSHOT, error
        return True
    return False


# A transaction reads one moment, whatever commits meanwhile.
reader, writer = connect(database), connect(database)
reader.execute("BEGIN")
assert one(reader, "SELECT x FROM t WHERE id = 1") == 10
writer.execute("UPDATE t SET x = 11 WHERE id = 1")
assert one(reader, "SELECT x FROM t WHERE id = 1") == 10
reader.execute("COMMIT")
assert one(reader, "SELECT x FROM t WHERE id = 1") == 11

# Write skew does not slip through: each reads what the other writes.
db.execute("CREATE TABLE u (x INTEGER)")
db.execute("INSERT INTO u VALUES (0)")
for one_side in (reader, writer):
    one_side.execute("BEGIN")
assert one(reader, "SELECT x FROM u") == 0 and one(writer, "SELECT x FROM t WHERE id = 2") == 20
reader.execute("UPDATE t SET x = 21 WHERE id = 2")
writer.execute("UPDATE u SET x = 1")
reader.execute("COMMIT")
assert conflicts(lambda: writer.execute("COMMIT"))
assert not writer.in_transaction, "a conflict ends the transaction"
assert one(writer, "SELECT x FROM u") == 0

# Blind writes to different tables do not conflict.
for one_side, table in ((reader, "t"), (writer, "u")):
    one_side.execute("BEGIN")
    one_side.execute(f"UPDATE {table} SET x = x + 1")
reader.execute("COMMIT")
writer.execute("COMMIT")

# A stale snapshot cannot be written from.
reader.execute("BEGIN")
one(reader, "SELECT x FROM u")
writer.execute("UPDATE u SET x = x + 1")


def write_and_commit():
    reader.execute("UPDATE u SET x = 0")
    reader.execute("COMMIT")


assert conflicts(write_and_commit)
if reader.in_transaction:
    reader.execute("ROLLBACK")

# Python's implicit transactions, in each kind of BEGIN, and the context manager.
for level in ("DEFERRED", "IMMEDIATE", "EXCLUSIVE"):
    implicit = sqlite3.connect(database, isolation_level=level)
    with implicit:
        implicit.execute("INSERT INTO t (x) VALUES (1)")
    try:
        with implicit:
            implicit.execute("INSERT INTO t (x) VALUES (2)")
            raise KeyError
    except KeyError:
        pass
    implicit.execute("INSERT INTO t (x) VALUES (3)")
    implicit.rollback()
    implicit.close()
assert [x for (x,) in db.execute("SELECT x FROM t WHERE id > 2")] == [1, 1, 1]

# Savepoints over several statements; the outermost one commits.
db.execute("SAVEPOINT a")
db.execute("INSERT INTO t (x) VALUES (50)")
db.execute("SAVEPOINT b")
db.execute("INSERT INTO t (x) VALUES (51)")
db.execute("ROLLBACK TO b")
db.execute("RELEASE a")
assert one(connect(database), "SELECT group_concat(x) FROM t WHERE x >= 50") == "50"

# A statement outside a transaction is run again by the library after a conflict.
others = [connect(database) for _ in range(4)]
for _ in range(25):
    for other in others:
        other.execute("UPDATE u SET x = x + 1")
assert one(db, "PRAGMA integrity_check") == "ok"
print("isolation: snapshots, write skew, implicit transactions, savepoints")
