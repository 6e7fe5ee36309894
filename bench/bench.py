#!/usr/bin/env python3
"""Benchmarks against a local SQLite file, printed as ratios measured in one run (`make bench`).

The local file is in WAL mode with synchronous=FULL, pages of 8 KiB; ours is a store on the embedded
engine, on loopback, through the preload library. Both sides run the same Python, each workload in a
process of its own. "Echo" is the p50 of a bare HTTP request on a kept-alive loopback connection.
Figures of a busy machine say little: compare ratios, and run it twice.

    bench.py                 all workloads
    bench.py NAME...         some of them
"""

import json
import os
import random
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROWS = 50_000  # of about 280 bytes: 14 MB
WRITERS = 16
SECONDS = 4.0


def connect(name):
    db = sqlite3.connect(name, timeout=60, isolation_level=None)
    if os.environ.get("BENCH_LOCAL"):
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
    return db


def p50(times):
    return statistics.median(times) * 1e6


def timed(count, action):
    """The seconds that each of `count` calls took."""
    times = []
    for number in range(count):
        begun = time.perf_counter()
        action(number)
        times.append(time.perf_counter() - begun)
    return times


# Each workload opens `name` in a fresh process and answers one figure.


def setup(name):
    chance = random.Random(1)
    db = connect(name)
    db.execute("PRAGMA page_size = 8192")
    db.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, random INTEGER, body TEXT)")
    db.execute("CREATE TABLE cell (id INTEGER PRIMARY KEY, n INTEGER, filler BLOB)")
    db.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, body TEXT)")
    db.execute("BEGIN")
    rows = ((chance.getrandbits(40), f"{chance.getrandbits(900):0270x}") for _ in range(ROWS))
    db.executemany("INSERT INTO item (random, body) VALUES (?, ?)", rows)
    # One row a page, so that writers of different rows write different pages.
    db.executemany("INSERT INTO cell (n, filler) VALUES (0, ?)", [(bytes(6000),)] * WRITERS)
    db.execute("CREATE INDEX item_random ON item (random)")
    db.execute("COMMIT")
    return 0


def bulk(name):
    db = connect(name)
    begun = time.perf_counter()
    db.execute("BEGIN")
    db.executemany("INSERT INTO log (body) VALUES (?)", (("x" * 200,) for _ in range(100_000)))
    db.execute("COMMIT")
    return 100_000 / (time.perf_counter() - begun)


def autocommit(name):
    db = connect(name)
    db.execute("INSERT INTO log (body) VALUES ('first')")
    return p50(timed(400, lambda _: db.execute("INSERT INTO log (body) VALUES (?)", ("y" * 200,))))


def cold_points(name):
    chance = random.Random(2)
    db = connect(name)
    db.execute("BEGIN")
    read = "SELECT body FROM item WHERE id = ?"
    return p50(timed(300, lambda _: db.execute(read, (chance.randint(1, ROWS),)).fetchone()))


def warm_autocommit(name):
    db = connect(name)
    read = "SELECT body FROM item WHERE id = 777"
    db.execute(read).fetchone()
    return p50(timed(1000, lambda _: db.execute(read).fetchone()))


def warm_transaction(name):
    db = connect(name)
    db.execute("BEGIN")
    read = "SELECT body FROM item WHERE id = ?"
    timed(500, lambda number: db.execute(read, (number + 1,)).fetchone())
    return p50(timed(5000, lambda number: db.execute(read, (number % 500 + 1,)).fetchone()))


def scan(name):
    db = connect(name)
    return timed(1, lambda _: db.execute("SELECT sum(length(body)) FROM item").fetchone())[0] * 1e6


def index_range(name):
    db = connect(name)
    query = "SELECT sum(length(body)) FROM (SELECT body FROM item INDEXED BY item_random WHERE random > 0 LIMIT 1000)"
    return timed(1, lambda _: db.execute(query).fetchone())[0] * 1e6


def writer(name, number):
    """Commits until the time is up; prints how many."""
    db = connect(name)
    commits = 0
    sys.stdin.readline()  # all begin together
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            db.execute("UPDATE cell SET n = n + 1 WHERE id = ?", (number + 1,))
            commits += 1
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
    print(commits)


def writers(count):
    def run(name):
        command = [sys.executable, __file__, "--writer", name]
        pipe = subprocess.PIPE
        running = [
            subprocess.Popen([*command, str(number)], stdin=pipe, stdout=pipe, text=True)
            for number in range(count)
        ]
        time.sleep(1.0)  # until all have connected
        for process in running:
            process.stdin.write("\n")
            process.stdin.flush()
        commits = sum(int(process.communicate()[0]) for process in running)
        return commits / SECONDS

    return run


# name: (workload, what is measured, unit, what it is compared with, what must be reached, better)
WORKLOADS = {
    "bulk": (bulk, "bulk insert, one transaction", "rows/s", "local", 0.8, "more"),
    "autocommit": (autocommit, "autocommit insert, p50", "us", "local", 2.0, "less"),
    "cold-points": (cold_points, "cold point read, p50", "us", "echo", 3.0, "less"),
    "warm-autocommit": (warm_autocommit, "warm autocommit read, p50", "us", "echo", 1.5, "less"),
    "warm-transaction": (warm_transaction, "warm read in a transaction, p50", "us", "local", 1.2, "less"),
    "scan": (scan, "cold full scan, 14 MB", "us", "local", 4.0, "less"),
    "index-range": (index_range, "cold index range, 1,000 rows", "us", "local", 15.0, "less"),
    "writers-1": (writers(1), "1 writer, distinct pages", "commits/s", "local", 0.5, "more"),
    "writers-4": (writers(4), "4 writers, distinct pages", "commits/s", "local", 1.5, "more"),
    "writers-16": (writers(16), "16 writers, distinct pages", "commits/s", "local", 4.0, "more"),
}


def measure(workload, name, environment):
    """Runs one workload in a process of its own."""
    command = [sys.executable, __file__, "--workload", workload, name]
    answer = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True)
    return json.loads(answer.stdout)


def echo(port):
    """p50 of the smallest request, over a kept-alive connection."""
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def once(_):
            connection.sendall(request)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")

        timed(200, once)
        return p50(timed(2000, once))


def free_port():
    while True:
        port = random.randint(20_000, 31_999)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


class Store:
    """A release build of mvstore on an empty directory, with the namespace `bench`."""

    def __init__(self, work):
        self.port, admin = free_port(), free_port()
        arguments = ["--data-plane", f"127.0.0.1:{self.port}", "--admin-api", f"127.0.0.1:{admin}"]
        command = [os.environ["MVSTORE"], *arguments, "--data-dir", f"{work}/store"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz").close()
                break
            except OSError:
                assert time.monotonic() < deadline, "mvstore does not start"
                time.sleep(0.05)
        url = f"http://127.0.0.1:{admin}/api/create_namespace"
        urllib.request.urlopen(url, data=b'{"key":"bench"}').close()

    def environment(self):
        return {
            "MVSQLITE_DATA_PLANE": f"http://127.0.0.1:{self.port}",
            "LD_PRELOAD": os.environ["MVSQLITE_PRELOAD"],
        }

    def stop(self):
        self.process.terminate()
        self.process.wait()


def main(chosen):
    work = tempfile.mkdtemp(prefix="mvsqlite-bench-")
    store = Store(work)
    try:
        local, ours = {"BENCH_LOCAL": "1"}, store.environment()
        file = f"{work}/local.db"
        measure("setup", file, local)
        measure("setup", "bench", ours)
        one_echo = echo(store.port)
        print(f"echo: {one_echo:.0f} us\n")
        print(f"{'workload':34}{'local':>12}{'ours':>12}  unit       ratio    must reach")
        for name in chosen or WORKLOADS:
            _, what, unit, base, target, better = WORKLOADS[name]
            on_file, on_store = measure(name, file, local), measure(name, "bench", ours)
            ratio = on_store / (one_echo if base == "echo" else on_file)
            reached = ratio >= target if better == "more" else ratio <= target
            sign = ">=" if better == "more" else "<="
            print(
                f"{what:34}{on_file:12,.0f}{on_store:12,.0f}  {unit:10} {ratio:5.2f}    "
                f"{sign} {target} x {base}{'' if reached else '   (missed)'}"
            )
    finally:
        store.stop()
        shutil.rmtree(work)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--workload"]:
        workload, name = sys.argv[2:]
        action = setup if workload == "setup" else WORKLOADS[workload][0]
        print(json.dumps(action(name)))
    elif sys.argv[1:2] == ["--writer"]:
        writer(sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1:])
