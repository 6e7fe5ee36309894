//! A copy of a database as a plain file, judged by an ordinary SQLite.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags};

use crate::{Client, Store};

/// A plain SQLite file that was read back from a store.
pub struct Copied {
    connection: Connection,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

/// Copies a namespace to a plain file with Python's backup API under the preload library: page by
/// page, as one snapshot. `source` may name a past version.
///
/// # Panics
/// If copying fails, or if an ordinary SQLite finds anything wrong with the copy.
pub fn copy_out(store: &Store, source: &str) -> Copied {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live.db");
    let copy = directory.path().join("copy.db");
    let arguments = [live.to_str().unwrap(), copy.to_str().unwrap()];
    let client = Client::of(store).mapped(&live, source);
    client.python("backup.py", &arguments).ok();
    assert!(!live.exists(), "the mapped name must not become a file");

    let connection = Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let copied = Copied {
        connection,
        path: copy,
        _directory: directory,
    };
    let verdict: Vec<String> = copied.column("PRAGMA integrity_check");
    assert_eq!(verdict, ["ok"], "integrity_check of a copy of {source}");
    copied
}

impl Copied {
    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first column of a query's rows.
    ///
    /// # Panics
    /// If the query fails.
    pub fn column<T: FromSql>(&self, sql: &str) -> Vec<T> {
        let mut statement = self.connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(|value| value.unwrap()).collect()
    }

    /// Columns `worker` and `number` of a table, by worker.
    ///
    /// # Panics
    /// If it has no such columns.
    pub fn numbers(&self, table: &str) -> BTreeMap<u32, BTreeSet<i64>> {
        let sql = format!("SELECT worker, number FROM \"{table}\"");
        let mut statement = self.connection.prepare(&sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        let mut numbers = BTreeMap::<u32, BTreeSet<i64>>::new();
        for (worker, number) in rows.unwrap().map(Result::unwrap) {
            numbers.entry(worker).or_default().insert(number);
        }
        numbers
    }

    /// The one value of a query with one row.
    ///
    /// # Panics
    /// If the query fails or has no row.
    pub fn value<T: FromSql>(&self, sql: &str) -> T {
        self.connection
            .query_row(sql, [], |row| row.get(0))
            .unwrap()
    }
}
