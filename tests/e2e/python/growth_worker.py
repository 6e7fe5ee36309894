"""growth_worker.py DATABASE WORKER SECONDS MODEL

Grows and shrinks a database: rows of 20 bytes to 60 KB (overflow chains) come and go, indexes and
tables are made and dropped, free pages are given back if the database can. Every row's content
follows from (worker, id, generation), so the last acknowledged state, kept in MODEL as JSON, says
exactly what must be there in the end.
"""

import json
import random
import sys
import time

from mv import connect, one, run

database, worker, seconds, model_file = sys.argv[1:]
worker = int(worker)
end = time.monotonic() + float(seconds)
chance = random.Random(worker * 7919)
counts = {"commits": 0, "conflicts": 0, "churned": 0}
SIZES = (20, 200, 2000, 9000, 60000)


def body(row, generation, size):
    token = f"{worker}:{row}:{generation};"
    return (token * (size // len(token) + 1))[:size]


def insert(db, model):
    for _ in range(chance.randint(1, 6)):
        row = model["next"]
        model["next"] += 1
        size = chance.choice(SIZES)
        db.execute("INSERT INTO item VALUES (?, ?, ?, ?)", (worker, row, 0, body(row, 0, size)))
        model["rows"][row] = (0, size)


def resize(db, model):
    for row in chance.sample(sorted(model["rows"]), min(3, len(model["rows"]))):
        generation = model["rows"][row][0] + 1
        size = chance.choice(SIZES)
        db.execute(
            "UPDATE item SET generation = ?, body = ? WHERE worker = ? AND id = ?",
            (generation, body(row, generation, size), worker, row),
        )
        model["rows"][row] = (generation, size)


def delete(db, model):
    rows = sorted(model["rows"])
    share = 1.0 if chance.random() < 0.1 else 0.4
    gone = chance.sample(rows, int(len(rows) * share))
    db.executemany("DELETE FROM item WHERE worker = ? AND id = ?", [(worker, row) for row in gone])
    for row in gone:
        del model["rows"][row]
    counts["churned"] += len(gone)


def reshape(db, _model):
    """Schema changes conflict with everybody: rare, and short."""
    if one(db, "SELECT count(*) FROM sqlite_schema WHERE name = ?", f"extra_{worker}"):
        db.execute(f"DROP TABLE extra_{worker}")
    else:
        db.execute(f"CREATE TABLE extra_{worker} AS SELECT id, generation FROM item LIMIT 100")


def give_back(db, _model):
    db.execute("PRAGMA incremental_vacuum(8)").fetchall()


def step(db, model):
    """One transaction; returns the model as it is if that commits."""
    before = {"next": model["next"], "rows": dict(model["rows"])}
    actions = chance.choices(
        (insert, resize, delete, reshape, give_back), (10, 6, 3, 0.2, 1), k=chance.randint(1, 3)
    )

    def transaction(db):
        after = {"next": before["next"], "rows": dict(before["rows"])}
        for action in actions:
            action(db, after)
        return after

    after = run(db, transaction, counts)
    counts["commits"] += 1
    return after


db = connect(database)
model = {"next": 0, "rows": {}}
while time.monotonic() < end:
    model = step(db, model)
# What a connection sees of its own work.
assert one(db, "SELECT count(*) FROM item WHERE worker = ?", worker) == len(model["rows"])
with open(model_file, "w", encoding="utf-8") as out:
    json.dump({"worker": worker, "rows": model["rows"]}, out)
print(json.dumps(counts))
