"""history_check.py COPY HISTORY...: replays all commits in the order of their versions.

Each transaction must have read what the commits before it left (serializable, in commit order),
each read-only one what stood at its version, and the copy must be what the last commit left.
"""

import json
import sqlite3
import sys

KEYS = 60
copy, *files = sys.argv[1:]
history = [done for file in files for done in json.load(open(file, encoding="utf-8"))]
# A commit's own version comes before the snapshots taken at it.
history.sort(key=lambda done: (done.get("version") or done["at"], "at" in done))

register = dict.fromkeys(range(KEYS), 0)
events = {}


def expected(what):
    kind, _, argument = what.partition(" ")
    if kind == "key":
        return register[int(argument)]
    if kind == "sum":
        low = int(argument)
        return float(sum(value for key, value in register.items() if low <= key <= low + 5))
    if kind == "count":
        return sum(owner == int(argument) for owner in events.values())
    return max(events, default=None)


def apply(step):
    kind, *arguments = step
    if kind == "set":
        register[arguments[0]] = arguments[1]
    elif kind == "add":
        events[arguments[0]] = arguments[1]
    else:
        for token in [token for token, owner in events.items() if owner == arguments[0]]:
            del events[token]


versions = [done["version"] for done in history if "version" in done]
assert len(versions) == len(set(versions)), "two commits at one version"
reads = 0
for done in history:
    for what, value in done["seen"].items():
        assert value == expected(what), f"{done}: {what} should be {expected(what)}"
        reads += 1
    for step in done.get("written", []):
        apply(step)

db = sqlite3.connect(copy)
assert dict(db.execute("SELECT key, value FROM register")) == register
assert dict(db.execute("SELECT id, owner FROM event")) == events
print(f"{len(versions)} commits and {len(history) - len(versions)} snapshots explain {reads} reads")
