"""session.py: one connection, driven line by line.

Reads a JSON string per line from standard input. The first names the database to open; each further
one is a statement. Answers each with a line: {"rows": [...]} or {"code": ..., "name": ..., "message": ...}.
"""

import json
import sqlite3
import sys

from mv import connect

db = None
for line in sys.stdin:
    text = json.loads(line)
    try:
        if db is None:
            db = connect(text)
            answer = {"rows": []}
        else:
            answer = {"rows": [list(map(str, row)) for row in db.execute(text)]}
    except sqlite3.Error as error:
        answer = {
            "code": getattr(error, "sqlite_errorcode", None),
            "name": getattr(error, "sqlite_errorname", None),
            "message": str(error),
        }
    print(json.dumps(answer), flush=True)
