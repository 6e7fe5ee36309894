"""time_travel.py DATABASE: every version by its name, and by its time."""

import sqlite3
import sys
import time

from mv import connect, one, primary

database = sys.argv[1]
READONLY = 8
SUM = "SELECT count(*), total(x) FROM t"

db = connect(database)
db.execute("CREATE TABLE t (x INTEGER)")
history = []
for x in range(30):
    db.execute("INSERT INTO t VALUES (?)", (x,))
    history.append((one(db, "SELECT mv_last_known_version('main')"), db.execute(SUM).fetchone()))
versions = [version for version, _ in history]
assert versions == sorted(set(versions)), "versions grow with every commit"
assert all(len(version) == 20 for version in versions)

for version, expected in history:
    past = connect(f"{database}@{version}")
    assert past.execute(SUM).fetchone() == expected, version
    past.close()

# An open past version stands still while the database goes on.
past = connect(f"{database}@{versions[10]}")
assert past.execute(SUM).fetchone() == history[10][1]
db.execute("DELETE FROM t")
assert past.execute(SUM).fetchone() == history[10][1]
assert one(past, "SELECT mv_last_known_version('main')") == versions[10]
try:
    past.execute("INSERT INTO t VALUES (1)")
    raise AssertionError("a past version was written to")
except sqlite3.OperationalError as error:
    assert primary(error) == READONLY, error

# Versions side by side in one query.
db.execute("ATTACH ? AS past", (f"{database}@{versions[20]}",))
assert db.execute("SELECT count(*) FROM past.t EXCEPT SELECT count(*) FROM main.t").fetchall() == [(21,)]
db.execute("DETACH past")

# A time names the last version before it. Clocks differ by less than the two seconds waited for.
empty = one(db, "SELECT mv_last_known_version('main')")
deadline = time.time() + 2
while time.time() < deadline:
    time.sleep(0.1)
db.execute("INSERT INTO t VALUES (99)")
found = one(db, "SELECT mv_time2version('main', ?)", int(deadline))
assert found is not None and versions[-1] < found, (found, versions[-1])
past = connect(f"{database}@{found}")
assert past.execute(SUM).fetchone() == (0, 0.0), (found, empty)
print(f"{len(history)} versions opened by name, one by its time")
