"""large_check.py COPY: all parts of every whole are there, as they were written, and no others."""

import sqlite3
import sys
import zlib

db = sqlite3.connect(sys.argv[1])
found = {}
for worker, number, part, checksum, body in db.execute("SELECT worker, number, part, checksum, body FROM part"):
    assert zlib.crc32(body) == checksum, (worker, number, part)
    found.setdefault((worker, number), []).append(part)
expected = {
    (worker, number): list(range(parts))
    for worker, number, parts in db.execute("SELECT worker, number, parts FROM whole")
}
assert {whole: sorted(parts) for whole, parts in found.items()} == expected, (found, expected)
print(f"{len(expected)} large transactions whole")
