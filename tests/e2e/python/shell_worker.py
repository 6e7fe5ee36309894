"""shell_worker.py WORKER SECONDS JOURNAL KEEP DATABASE

The sqlite3 shell, again and again: each inserts numbers, every one a transaction by itself, says which
it has inserted, and ends at the first error; sometimes it begins with VACUUM.
"""

import subprocess
import sys
import time

from worker import Worker

SHELL = ["sqlite3", "-batch", "-init", "/dev/null"]
AT_ONCE = 25


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
        outcomes = [*said, *([f"U {last}"] if last in numbers else [])]
        outcomes += [f"R {number}" for number in range(last + 1, numbers[-1] + 1)]
        self.journal.line("\n".join(outcomes))
        if last in numbers:
            time.sleep(0.1)


Shells().run()
