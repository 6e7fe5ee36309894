"""What the scripts share: connecting, and running transactions again after conflicts."""

import sqlite3

BUSY_SNAPSHOT = 517
IOERR = 10
CANTOPEN = 14


def connect(name, **options):
    """A connection that begins and ends transactions only when told to."""
    return sqlite3.connect(name, timeout=10, isolation_level=None, **options)


def run(db, transaction, counts=None):
    """Runs a transaction until it commits, again from its beginning after each conflict."""
    while True:
        try:
            db.execute("BEGIN")
            result = transaction(db)
            db.execute("COMMIT")
            return result
        except sqlite3.OperationalError as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if error.sqlite_errorcode != BUSY_SNAPSHOT:
                raise
            if counts is not None:
                counts["conflicts"] = counts.get("conflicts", 0) + 1


def primary(error):
    """The primary result code of an error."""
    return error.sqlite_errorcode & 0xFF


def one(db, sql, *parameters):
    """The one value that a query answers."""
    return db.execute(sql, parameters).fetchone()[0]
