"""growth_check.py COPY MODEL...: compares a plain copy with what the writers know they committed."""

import json
import sqlite3
import sys

db = sqlite3.connect(sys.argv[1])
total = 0
for model_file in sys.argv[2:]:
    model = json.load(open(model_file, encoding="utf-8"))
    worker = model["worker"]
    expected = {int(row): tuple(state) for row, state in model["rows"].items()}
    found = {}
    rows = db.execute("SELECT id, generation, body FROM item WHERE worker = ?", (worker,))
    for row, generation, text in rows:
        token = f"{worker}:{row}:{generation};"
        assert text == (token * (len(text) // len(token) + 1))[: len(text)], (worker, row)
        found[row] = (generation, len(text))
    assert found == expected, (worker, set(found.items()) ^ set(expected.items()))
    total += len(found)
assert total == db.execute("SELECT count(*) FROM item").fetchone()[0]
print(f"{total} rows as the writers left them")
