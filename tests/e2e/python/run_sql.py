"""run_sql.py DATABASE SCRIPT: runs a script statement by statement; prints rows and errors.

Ends with integrity_check and a dump, so that equal output means equal databases.
"""

import sqlite3
import sys

from mv import connect

database, script = sys.argv[1:]
db = connect(database)
db.create_function("py_reverse", 1, lambda text: text[::-1], deterministic=True)

statement = ""
for line in open(script, encoding="utf-8"):
    # What starts with a dot is for the sqlite3 shell.
    if not statement and line.startswith("."):
        continue
    statement += line
    if not sqlite3.complete_statement(statement):
        continue
    try:
        for row in db.execute(statement):
            print("|".join("" if value is None else str(value) for value in row))
    except sqlite3.Error as error:
        print(f"{error.sqlite_errorname}: {error}")
    statement = ""
if db.in_transaction:
    raise SystemExit(f"{script} left a transaction open")

for (verdict,) in db.execute("PRAGMA integrity_check"):
    print("integrity_check:", verdict)
for pragma in ("page_size", "page_count", "freelist_count", "encoding", "auto_vacuum", "user_version"):
    print(pragma, db.execute(f"PRAGMA {pragma}").fetchone()[0])
for line in db.iterdump():
    print(line)
