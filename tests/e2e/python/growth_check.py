"""growth_check.py COPY MODEL...: compares a plain copy with what the writers know they committed."""

import json
import sqlite3
import sys

db = sqlite3.connect(sys.argv[1])


def states(path):
    """For each owner the last line about it. What kill -9 cut off at the end is no line."""
    last = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                state = json.loads(line)
                last[state["worker"]] = state
    return last


def rows_of(model):
    return {int(row): tuple(state) for row, state in model.items()}


def found_of(owner):
    found = {}
    rows = db.execute("SELECT id, generation, body FROM item WHERE worker = ?", (owner,))
    for row, generation, text in rows:
        token = f"{owner}:{row}:{generation};"
        assert text == (token * (len(text) // len(token) + 1))[: len(text)], (owner, row)
        found[row] = (generation, len(text))
    return found


total = 0
for path in sys.argv[2:]:
    for owner, state in states(path).items():
        found = found_of(owner)
        expected = [rows_of(model) for model in (state["rows"], state["maybe"]) if model is not None]
        differences = [sorted(set(found.items()) ^ set(rows.items())) for rows in expected]
        assert found in expected, f"owner {owner}, {path}: differs by {differences}"
        total += len(found)
strangers = db.execute("SELECT count(*) FROM item").fetchone()[0] - total
assert strangers == 0, f"{strangers} rows that nobody wrote"
print(f"{total} rows as the writers left them")
