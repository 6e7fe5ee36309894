#!/usr/bin/env python3
"""One transaction of two gigabytes, over the preload library and on a local file, beside each other.

Starts a store of its own in a scratch directory, fills a table in one transaction in a process of
its own on each side, and prints: how long that took and how much of it was COMMIT, the largest size
of the program and of the store, and how long the store took afterwards to fold the commit into page
versions. Ordinary SQLite must count the same rows on both sides.

Not a test: no figure makes it fail. It stops before it would leave less than 15 GB of disk.
"""

import argparse
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

ROW = 1000
ROWS_A_STATEMENT = 10_000
FREE_BYTES = 15 << 30
FOLDED_WITHIN = 1800

FILL = f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS_A_STATEMENT})
    INSERT INTO t(k, body) SELECT random(), randomblob({ROW}) FROM n"""


def peak(pid):
    """The largest resident size that a process has had, in MB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1000


def worker(database, size, index):
    """Fills the table, and says how it went, in a line of JSON; then counts its rows, in another."""
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA page_size=8192")
    db.execute("PRAGMA journal_mode=WAL").fetchall()
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, body BLOB)")
    begun = time.monotonic()
    db.execute("BEGIN")
    for _ in range(size // (ROW * ROWS_A_STATEMENT)):
        db.execute(FILL)
    if index:
        db.execute("CREATE INDEX by_k ON t(k)")
    committing = time.monotonic()
    db.execute("COMMIT")
    ended = time.monotonic()
    answer = {
        "seconds": ended - begun,
        "commit": ended - committing,
        "peak": peak(os.getpid()),
    }
    print(json.dumps(answer), flush=True)
    print(db.execute("SELECT count(*) FROM t").fetchone()[0])


def run_worker(database, arguments, environment, committed=None):
    """Runs the worker in a process of its own; calls `committed` when it has committed."""
    command = [sys.executable, __file__, "--worker", database, "--bytes", str(arguments.bytes)]
    command += ["--index"] if arguments.index else []
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE)
    with process:
        line = process.stdout.readline()
        measured = json.loads(line) if line else {}
        if measured and committed:
            measured.update(committed())
        rest = process.stdout.read()
    if process.returncode != 0:
        raise SystemExit(f"the worker failed on {database}")
    return {**measured, "rows": int(rest)}


def free_address():
    """A loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % listener.getsockname()[1]


def admin(address, call, body):
    """One call of the admin API."""
    request = urllib.request.Request(f"http://{address}/api/{call}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def wait_ready(address):
    """Waits until the store serves."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def wait_folded(address, key):
    """How long until nothing of the large commit is left to work off, in seconds."""
    begun = time.monotonic()
    while True:
        layers = json.loads(admin(address, "stat_namespace", {"key": key}))["layers"]
        elapsed = time.monotonic() - begun
        if layers == 0:
            return elapsed
        if elapsed > FOLDED_WITHIN:
            raise SystemExit(f"not folded within {FOLDED_WITHIN} s")
        time.sleep(0.1)


def with_store(arguments, scratch):
    """The side of mvSQLite."""
    data_plane, admin_api = free_address(), free_address()
    with open(os.path.join(scratch, "mvstore.log"), "wb") as log:
        store = subprocess.Popen(
            [arguments.mvstore, "--data-plane", data_plane, "--admin-api", admin_api]
            + ["--data-dir", os.path.join(scratch, "store")],
            stdout=log,
            stderr=log,
        )
    try:
        wait_ready(admin_api)
        admin(admin_api, "create_namespace", {"key": "large"})
        environment = {"LD_PRELOAD": arguments.preload, "MVSQLITE_DATA_PLANE": f"http://{data_plane}"}

        def committed():
            before = peak(store.pid)
            folded = wait_folded(admin_api, "large")
            return {"store_peak": before, "folded": folded, "store_peak_folded": peak(store.pid)}

        return run_worker("large", arguments, environment, committed)
    finally:
        store.kill()
        store.wait()


def expect_room(directory, size):
    """Each side takes its size a few times over: WAL and file, stage and page versions."""
    free = shutil.disk_usage(directory).free
    if free - 5 * size < FREE_BYTES:
        raise SystemExit(f"{directory} has {free >> 30} GB free: too little for this")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mvstore", default=os.environ.get("MVSTORE", "target/release/mvstore"))
    preload = os.environ.get("MVSQLITE_PRELOAD", "target/release/libmvsqlite_preload.so")
    parser.add_argument("--preload", default=preload)
    parser.add_argument("--directory", help="where both sides live", default=tempfile.gettempdir())
    parser.add_argument("--bytes", type=int, default=2_000_000_000, help="content of the table")
    parser.add_argument("--index", action="store_true", help="make an index at the end, too")
    parser.add_argument("--worker", metavar="DATABASE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments.worker, arguments.bytes, arguments.index)
    arguments.mvstore = os.path.abspath(arguments.mvstore)
    arguments.preload = os.path.abspath(arguments.preload)
    expect_room(arguments.directory, arguments.bytes)
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="mvsqlite-large-") as scratch:
        file = os.path.join(scratch, "local.db")
        local = run_worker(file, arguments, {})
        os.remove(file)
        ours = with_store(arguments, scratch)
    if local["rows"] != ours["rows"]:
        raise SystemExit(f"{ours['rows']} rows, and {local['rows']} on the local file")
    print(f"one transaction of {arguments.bytes / 1e6:.0f} MB in {local['rows']} rows")
    print(f"{'':24}{'local file':>12}{'mvSQLite':>12}")
    for title, key, unit in [
        ("all of it", "seconds", "s"),
        ("of that, COMMIT", "commit", "s"),
        ("largest size of program", "peak", "MB"),
    ]:
        print(f"{title:24}{local[key]:>9.1f} {unit:2}{ours[key]:>9.1f} {unit}")
    print(f"speed: {local['seconds'] / ours['seconds']:.2f} x local")
    print(f"folded {ours['folded']:.1f} s after COMMIT")
    print(f"largest size of store: {ours['store_peak']} MB, folding included {ours['store_peak_folded']} MB")
    return None


if __name__ == "__main__":
    main()
