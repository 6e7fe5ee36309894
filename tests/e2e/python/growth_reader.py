"""growth_reader.py DATABASE SECONDS

Reads while others grow and shrink the database: every snapshot must be a whole database, and must
look the same when it is opened again by its version.
"""

import json
import sys
import time

from mv import connect

database, seconds = sys.argv[1:]
end = time.monotonic() + float(seconds)
DIGEST = "SELECT count(*), total(length(body)), total(id * generation) FROM item"

db = connect(database)
seen = []
while time.monotonic() < end:
    db.execute("BEGIN")
    digest = db.execute(DIGEST).fetchone()
    verdict = db.execute("PRAGMA integrity_check").fetchall()
    version = db.execute("SELECT mv_last_known_version('main')").fetchone()[0]
    again = db.execute(DIGEST).fetchone()
    db.execute("COMMIT")
    assert verdict == [("ok",)], (version, verdict)
    assert digest == again, (version, digest, again)
    seen.append((version, digest))
    # The writers are to have the machine: there is little to see between two commits.
    time.sleep(0.02)

step = max(1, len(seen) // 20)
for version, digest in seen[::step]:
    past = connect(f"{database}@{version}")
    found = past.execute(DIGEST).fetchone()
    past.close()
    assert found == digest, (version, digest, found)
print(json.dumps({"snapshots": len(seen), "reopened": len(seen[::step])}))
