"""backups.py NAMESPACE FILE: SQLite's backup API in both directions.

NAMESPACE must be the only name that is not an ordinary file.
"""

import sqlite3
import sys

from mv import connect, one

namespace, file = sys.argv[1:]
SUM = "SELECT count(*), total(length(x)) FROM t"

# From a file, with pages of another size than ours, into the namespace.
local = connect(file)
local.execute("PRAGMA page_size = 1024")
local.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB)")
local.executemany("INSERT INTO t (x) VALUES (?)", [(bytes(size * 7),) for size in range(300)])
local.execute("CREATE INDEX i ON t (length(x))")
ours = connect(namespace)
local.backup(ours)
assert ours.execute(SUM).fetchone() == local.execute(SUM).fetchone()
assert one(ours, "PRAGMA integrity_check") == "ok"
assert one(ours, "PRAGMA page_size") == 1024
again = connect(namespace)
assert again.execute(SUM).fetchone() == local.execute(SUM).fetchone()

# Back into memory, a few pages at a time; a connection that only reads lets it end.
steps = []
memory = sqlite3.connect(":memory:")
again.backup(memory, pages=20, progress=lambda *state: steps.append(state))
assert memory.execute(SUM).fetchone() == local.execute(SUM).fetchone()
assert 3 < len(steps) < 200, len(steps)

# Over existing content.
local.execute("DELETE FROM t WHERE id % 2")
local.backup(ours)
assert again.execute(SUM).fetchone() == local.execute(SUM).fetchone()
assert one(again, "PRAGMA integrity_check") == "ok"

# VACUUM INTO an ordinary file.
again.execute("VACUUM INTO ?", (file + ".vacuumed",))
assert connect(file + ".vacuumed").execute(SUM).fetchone() == local.execute(SUM).fetchone()
print(f"backup in, out ({len(steps)} steps), over content, VACUUM INTO")
