"""What the workers share that commit while something terrible happens to the store, the network or
themselves: numbered transactions, and a journal of what they were told about each.

Command line: WORKER SECONDS JOURNAL KEEP DATABASE...

WORKER is a number of its own for each process. JOURNAL is appended to by single writes (O_APPEND),
a line for each transaction before the next one begins:

    A n   acknowledged: it is there for ever
    U n   COMMIT did not say: there as a whole, or not at all
    C n   a conflict: not there, ever
    R n   refused for another reason: not there, ever
    I n   may have begun; nothing more is known unless another line about n follows

Numbers ascend from 0 and each is used once. So of a worker that was killed at most the number after
its last line is in doubt, if that has no `I`.

KEEP is 1 to keep the connection over failures, 0 to open a new one after each. A worker ends after
SECONDS, or when the file named by MVSQLITE_E2E_STOP is there. Any error that is not among those that
such a time may bring ends it with a traceback, and fails the test.
"""

import json
import os
import random
import sqlite3
import sys
import time

from mv import BUSY_SNAPSHOT, CANTOPEN, connect, primary

BUSY, FULL = 5, 13
IOERR_READ, IOERR_WRITE, IOERR_FSYNC, IOERR_LOCK, IOERR_COMMIT_ATOMIC = 266, 778, 1034, 3850, 7690
# "Nothing was committed", says docs/reference/client.md.
REFUSED = {IOERR_READ, IOERR_WRITE, IOERR_FSYNC, IOERR_LOCK}
STOP = os.environ.get("MVSQLITE_E2E_STOP")
# Set where the store's disk may fill up.
MAY_BE_FULL = os.environ.get("MVSQLITE_E2E_MAY_BE_FULL") == "1"
# How integrity_check puts SQLITE_IOERR_READ.
UNREADABLE = ("failed to get page", "Failed to read ptrmap", "unable to get the page. error code=266")


class Abandoned(Exception):
    """Raised by a transaction that is to be rolled back."""


def outcome_of(error, committing):
    """The letter for an error; raises it if there is no excuse for it."""
    code = error.sqlite_errorcode
    if code in (BUSY, BUSY_SNAPSHOT):
        return "C"
    if code == IOERR_COMMIT_ATOMIC and committing:
        return "U"
    if code in REFUSED or primary(error) == CANTOPEN or (primary(error) == FULL and MAY_BE_FULL):
        return "R"
    raise error


def roll_back(db):
    try:
        if db.in_transaction:
            db.execute("ROLLBACK")
    except sqlite3.OperationalError:
        pass


def damage(db):
    """What integrity_check finds wrong; nothing, if it is fine.

    It reports pages that could not be read as if they were damaged, and all that they led to as never
    used. Such a verdict says nothing about the database.
    """
    verdict = [text for (text,) in db.execute("PRAGMA integrity_check")]
    if any(text in line for line in verdict for text in UNREADABLE):
        raise Abandoned
    return [] if verdict == ["ok"] else verdict


class Appended:
    """A file that is only ever appended to, by single writes."""

    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def line(self, text):
        os.write(self.file, f"{text}\n".encode())


class Worker:
    """One process. A kind of worker says what a transaction is."""

    begin = "BEGIN"

    def __init__(self):
        worker, seconds, self.journal_path, keep, *self.databases = sys.argv[1:]
        self.worker = int(worker)
        self.end = time.monotonic() + float(seconds)
        self.keep = keep == "1"
        self.chance = random.Random(self.worker * 104729)
        self.journal = Appended(self.journal_path)
        self.counts = dict.fromkeys("AUCR", 0)
        self.counts["slowest"] = 0.0
        self.db = None

    def open(self):
        """A connection; may fail as any statement may."""
        return connect(self.databases[0])

    def transaction(self, db, number):
        """What is done between BEGIN and COMMIT."""
        raise NotImplementedError

    def note(self, outcome, number):
        """Writes down the outcome."""
        self.journal.line(f"{outcome} {number}")

    def may_go_on(self):
        return time.monotonic() < self.end and not (STOP and os.path.exists(STOP))

    def attempt(self, number):
        """Tries once; the outcome's letter."""
        committing = False
        try:
            self.db = self.db or self.open()
            self.db.execute(self.begin)
            self.transaction(self.db, number)
            committing = True
            self.db.execute("COMMIT")
            return "A"
        except sqlite3.OperationalError as error:
            outcome = outcome_of(error, committing)
        except Abandoned:
            outcome = "R"
        if self.db is not None:
            roll_back(self.db)
        return outcome

    def run(self):
        number = 0
        while self.may_go_on():
            begun = time.monotonic()
            outcome = self.attempt(number)
            self.note(outcome, number)
            self.counts[outcome] += 1
            self.counts["slowest"] = max(self.counts["slowest"], round(time.monotonic() - begun, 3))
            number += 1
            if outcome in "UR":
                self.after_failure()
        print(json.dumps(self.counts))

    def after_failure(self):
        if not self.keep and self.db is not None:
            self.db.close()
            self.db = None
        # The store is being restarted: do not let the errors eat the machine.
        time.sleep(0.02)


def attached(one, other):
    """A connection with two databases, `main` and `other`."""
    db = connect(one)
    try:
        db.execute("ATTACH ? AS other", (other,))
    except sqlite3.OperationalError:
        db.close()
        raise
    return db
