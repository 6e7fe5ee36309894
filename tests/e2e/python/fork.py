"""fork.py DATABASE: what a child may do after fork, and what it may not."""

import os
import sqlite3
import sys

from mv import IOERR, connect, one, primary

database = sys.argv[1]


def in_child(action):
    """Runs the action in a child; what it raises there is raised here."""
    sys.stdout.flush()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os.write(writer, b"fine")
        except BaseException as error:
            os.write(writer, repr(error).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(pid, 0)
    said = os.read(reader, 10000).decode()
    os.close(reader)
    assert status == 0, f"the child ended with {status}"
    assert said == "fine", said


def child_opens_its_own():
    own = connect(database)
    own.execute("INSERT INTO t VALUES ('child')")
    own.close()


def child_may_not_go_on_with_a_transaction():
    try:
        db.execute("INSERT INTO t VALUES ('both')")
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        assert primary(error) == IOERR, error
        return
    raise AssertionError("the child committed its parent's transaction")


db = connect(database)
db.execute("CREATE TABLE t (who TEXT)")

# Without a transaction open. Connections were used before the fork: nothing of them is shared.
in_child(child_opens_its_own)
db.execute("INSERT INTO t VALUES ('parent')")
assert one(db, "SELECT group_concat(who) FROM t") == "child,parent"

# With a transaction open over the fork.
db.execute("BEGIN")
db.execute("INSERT INTO t VALUES ('transaction')")
in_child(child_may_not_go_on_with_a_transaction)
db.execute("COMMIT")
assert one(connect(database), "SELECT group_concat(who) FROM t") == "child,parent,transaction"

# A connection that is idle over the fork is either refused in the child or works there.
def child_reads_with_its_parents_connection():
    try:
        assert one(db, "SELECT count(*) FROM t") == 3
    except sqlite3.OperationalError as error:
        assert primary(error) == IOERR, error


in_child(child_reads_with_its_parents_connection)
db.execute("INSERT INTO t VALUES ('end')")
assert one(connect(database), "SELECT count(*) FROM t") == 4
print("fork: the child has its own connections, the parent goes on")
