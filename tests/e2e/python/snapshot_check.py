"""snapshot_check.py DATABASE AT_MOST SNAPSHOTS...: past versions look the way readers saw them.

With MVSQLITE_E2E_ADMIN set history may have been truncated: then those that the store says are left.
"""

import json
import sys

import admin
from mv import connect

DIGEST = "SELECT count(*), total(length(body)), total(id * generation) FROM item"


def seen(paths):
    """What readers wrote down. What kill -9 cut off at the end is no line."""
    for path in paths:
        with open(path, encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.endswith("\n"))


def main(database, at_most, *paths):
    snapshots = sorted((version, tuple(digest)) for version, digest in seen(paths))
    if admin.ADDRESS:
        oldest = admin.stat(database)["metadata"]["truncated_before"] or ""
        snapshots = [snapshot for snapshot in snapshots if snapshot[0] >= oldest]
    step = max(1, len(snapshots) // int(at_most))
    for version, digest in snapshots[::step]:
        past = connect(f"{database}@{version}")
        found = past.execute(DIGEST).fetchone()
        past.close()
        assert found == digest, f"version {version} was {digest} and is {found}"
    print(f"{len(snapshots[::step])} of {len(snapshots)} versions read again")


if __name__ == "__main__":
    main(*sys.argv[1:])
