"""list_worker.py WORKER SECONDS JOURNAL KEEP ONE OTHER

Appends to lists and reads them, in tables of both databases, and writes down, beside the journal in
JOURNAL.history, what each transaction did and saw: a line of JSON when it is about to COMMIT, outcome
unknown, and another one with the same index when it knows more. Judged by crate tests/checker.

A list is a text in one row (even keys), or a row for each element (odd ones). The keys are those of a
round, so that each round is a history by itself: MVSQLITE_E2E_ROUND.
"""

import json
import os
import time

from mv import one
from worker import Appended, Worker, attached

KEYS = 24
FIRST = int(os.environ.get("MVSQLITE_E2E_ROUND", "0")) * 1000


class Lists(Worker):
    def __init__(self):
        super().__init__()
        self.history = Appended(self.journal_path + ".history")
        self.record = None
        self.elements = 0

    def open(self):
        db = attached(*self.databases)
        # What SQLite's own cache keeps, the VFS does not see read again; a small one spills.
        db.execute(f"PRAGMA cache_size = {self.chance.choice((4, 50, 2000))}")
        return db

    def attempt(self, number):
        begun = time.monotonic_ns()
        self.record = None
        outcome = super().attempt(number)
        if self.record is not None:
            ended = None if outcome == "U" else time.monotonic_ns()
            names = {"A": "committed", "U": "unknown", "C": "aborted", "R": "aborted"}
            self.record |= {"begun": begun, "ended": ended, "outcome": names[outcome]}
            if outcome == "A":
                self.record["committed_at"] = self.committed_at()
            self.write_down()
        return outcome

    def version(self):
        """The newest version known in either database."""
        return max(one(self.db, f"SELECT mv_last_known_version('{name}')") for name in ("main", "other"))

    def committed_at(self):
        """The version of a commit, where there was one."""
        wrote = any("append" in operation for operation in self.record["operations"])
        return self.version() if wrote else None

    def transaction(self, db, number):
        self.record = {
            "process": self.worker,
            "index": number,
            "begun": time.monotonic_ns(),
            "ended": None,
            "outcome": "unknown",
            "operations": [],
            "read_at": None,
            "committed_at": None,
        }
        if self.chance.random() < 0.5:
            # Only with snapshots of both does the newer one tell the moment.
            db.execute("SELECT count(*) FROM main.sqlite_schema, other.sqlite_schema").fetchone()
            self.record["read_at"] = self.version()
        for _ in range(self.chance.randint(1, 5)):
            # A few keys are everybody's favourites.
            key = FIRST + min(self.chance.randrange(KEYS), self.chance.randrange(KEYS))
            self.append(db, key) if self.chance.random() < 0.5 else self.read(db, key)
        self.write_down()

    def write_down(self):
        self.history.line(json.dumps({"transaction": self.record}))

    def append(self, db, key):
        self.elements += 1
        element = self.worker * 1_000_000 + self.elements
        where = ("main", "other")[key // 2 % 2]
        if key % 2 == 0:
            sql = f"UPDATE {where}.text SET elements = elements || ? WHERE key = ?"
            changed = db.execute(sql, (f" {element}", key)).rowcount
            if changed == 0:
                sql = f"INSERT INTO {where}.text VALUES (?, ?, zeroblob(1500))"
                db.execute(sql, (key, str(element)))
        else:
            db.execute(f"INSERT INTO {where}.element (key, element) VALUES (?, ?)", (key, element))
        self.record["operations"].append({"append": {"key": key, "element": element}})

    def read(self, db, key):
        where = ("main", "other")[key // 2 % 2]
        if key % 2 == 0:
            row = db.execute(f"SELECT elements FROM {where}.text WHERE key = ?", (key,)).fetchone()
            elements = [int(element) for element in row[0].split()] if row else []
        else:
            sql = f"SELECT element FROM {where}.element WHERE key = ? ORDER BY place"
            elements = [element for (element,) in db.execute(sql, (key,))]
        self.record["operations"].append({"read_list": {"key": key, "elements": elements}})


Lists().run()
