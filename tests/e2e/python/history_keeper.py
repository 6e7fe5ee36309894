"""history_keeper.py WORKER SECONDS JOURNAL KEEP DATABASE

Keeps the history of a database short while others grow and shrink it (growth_worker.py): truncates it
to what it was some seconds ago, removes unreferenced content, and makes forks, which must look like the
moment they were made from, can be written to and are deleted again.
"""

import sqlite3
import sys
import time

import admin
from mv import connect, one
from snapshot_check import DIGEST
from worker import Abandoned, Worker, damage, outcome_of

# History that is not truncated. A reader that takes longer is refused.
KEPT_SECONDS = 3


class Keeper(Worker):
    def __init__(self):
        super().__init__()
        self.seen = []
        self.forks = 0

    def transaction(self, db, number):
        digest = db.execute(DIGEST).fetchone()
        version = one(db, "SELECT mv_last_known_version('main')")
        self.seen.append((time.monotonic(), version, digest))

    def attempt(self, number):
        outcome = super().attempt(number)
        if outcome == "A":
            try:
                self.chance.choices((self.truncate, self.remove, self.fork), (3, 1, 2))[0]()
            except admin.Refused as refused:
                print(refused, file=sys.stderr)
                outcome = "R"
        time.sleep(0.1)
        return outcome

    def truncate(self):
        old = [seen for seen in self.seen if seen[0] < time.monotonic() - KEPT_SECONDS]
        if old:
            self.seen = self.seen[len(old) :]
            self.remove("truncate_namespace", before_version=old[-1][1])

    def remove(self, how="delete_unreferenced_content", **what):
        text = admin.call(how, key=self.databases[0], apply=True, **what)
        if not text.endswith("DONE\n"):
            raise admin.Refused(f"{how}: {text}")

    def fork(self):
        """A fork of the moment that was looked at last."""
        _, version, digest = self.seen[-1]
        base = {"ns_id": admin.stat(self.databases[0])["nsid"], "snapshot_version": version}
        self.forks += 1
        name = f"fork-{self.worker}-{self.forks}"
        admin.call("create_namespace", 201, key=name, overlay_base=base)
        try:
            self.look_at(name, digest)
        except Abandoned as abandoned:
            raise admin.Refused(f"{name}: not all of it could be read") from abandoned
        except sqlite3.OperationalError as error:
            raise admin.Refused(f"{name}: {outcome_of(error, True)} {error}") from error
        admin.call("delete_namespace", key=name)

    def look_at(self, name, digest):
        fork = connect(name)
        try:
            found = fork.execute(DIGEST).fetchone()
            if found != digest:
                sys.exit(f"{name} is a fork of {digest} and looks like {found}")
            if self.chance.random() < 0.5:
                self.lock_and_roll_back(fork, digest)
            fork.execute("DELETE FROM item WHERE id % 2")
            if wrong := damage(fork):
                sys.exit(f"{name}: integrity_check says {wrong}")
        finally:
            fork.close()

    def lock_and_roll_back(self, fork, digest):
        """What is done under a namespace lock is gone when it is rolled back."""
        lock(fork, "mv_nslock_acquire")
        fork.execute("UPDATE item SET body = 'locked', generation = 1000")
        lock(fork, "mv_nslock_release_rollback")
        found = fork.execute(DIGEST).fetchone()
        if found != digest:
            sys.exit(f"rolled back to {digest}, and it looks like {found}")


def lock(db, function):
    """Takes or gives back the namespace's lock. These functions have no error codes of their own."""
    try:
        db.execute(f"SELECT {function}('main', 'keeper')").fetchall()
    except sqlite3.OperationalError as error:
        raise admin.Refused(f"{function}: {error}") from error


Keeper().run()
