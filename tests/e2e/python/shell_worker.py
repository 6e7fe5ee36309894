"""shell_worker.py WORKER SECONDS JOURNAL KEEP DATABASE

The sqlite3 shell, again and again: each inserts numbers, every one a transaction by itself, says which
it has inserted, and ends at the first error; sometimes it begins with VACUUM.
"""

import subprocess
import sys
import time

from worker import MAY_BE_FULL, Worker

SHELL = ["sqlite3", "-batch", "-init", "/dev/null"]
AT_ONCE = 25
# SQLite's texts for the codes that such a time may bring: 10 in all its kinds, 14, 5 and 517, 13.
EXPECTED = ["disk I/O error", "unable to open database", "database is locked"]
EXPECTED += ["database or disk is full"] if MAY_BE_FULL else []


class Shells(Worker):
    def script(self, numbers):
        yield ".bail on"
        if self.chance.random() < 0.2:
            yield "VACUUM;"
        for number in numbers:
            size = self.chance.choice((10, 1000, 9000))
            yield f"INSERT INTO shell VALUES ({self.worker}, {number}, hex(zeroblob({size})));"
            yield f".print A {number}"

    def run(self):
        first = 0
        while self.may_go_on():
            numbers = range(first, first + AT_ONCE)
            first += AT_ONCE
            self.journal.line("\n".join(f"I {number}" for number in numbers))
            script = "\n".join(self.script(numbers)) + "\n"
            ended = subprocess.run([*SHELL, *self.databases], input=script, text=True, capture_output=True)
            if ended.returncode < 0:
                sys.exit(f"the shell was ended by signal {-ended.returncode}\n{ended.stderr}")
            self.judge(numbers, ended)

    def judge(self, numbers, ended):
        """One line for all: those said to be there, perhaps the next, certainly none of the others."""
        said = [line for line in ended.stdout.splitlines() if line.startswith("A ")]
        last = numbers[0] + len(said)
        assert said == [f"A {number}" for number in range(numbers[0], last)], ended.stdout
        if last in numbers and not any(text in ended.stderr for text in EXPECTED):
            sys.exit(f"the shell ended with {ended.returncode} for no good reason\n{ended.stderr}")
        outcomes = [*said, *([f"U {last}"] if last in numbers else [])]
        outcomes += [f"R {number}" for number in range(last + 1, numbers[-1] + 1)]
        self.journal.line("\n".join(outcomes))
        # It is neither to fill the disk nor, with errors, to eat the machine.
        time.sleep(0.1)


Shells().run()
