"""backup.py SOURCE TARGET: copies a database with SQLite's backup API, in one step."""

import sqlite3
import sys

source = sqlite3.connect(sys.argv[1])
target = sqlite3.connect(sys.argv[2])
source.backup(target)
target.close()
source.close()
