//! What a scale has timed, each in a process of its own.

use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use clap::ValueEnum;
use rusqlite::{Connection, ErrorCode};

use crate::side::Side;
use crate::stats::{Measured, time_each};

/// Rows of the table that probes use. A row fills more than half a page, so each has its own.
const ROWS: u64 = 64;
const ROW_BYTES: u64 = 5_000;

/// One timed piece of work on one database.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// Makes the table. Counts nothing.
    Create,
    /// Updates of one and the same row, each its own transaction.
    UpdateOne,
    /// Updates by that many clients at once, each of a row of its own; `--total` in all.
    UpdateOwn,
    /// As `UpdateOwn`, each client in a database of its own: `NAME-0`, `NAME-1`, …
    UpdateApart,
    /// Fills a table of its own with so many megabytes, in one transaction.
    Fill,
    /// Opens the database anew for each of so many reads of one row.
    OpenAndRead,
}

impl Probe {
    /// Runs it: `count` operations in all, by `clients` connections where it has several.
    pub fn run(self, side: Side, database: &str, count: u64, clients: u64) -> Result<Measured> {
        match self {
            Self::Create => create(&side.open(database)?),
            Self::UpdateOne => update_one(&side.open(database)?, count),
            Self::UpdateOwn => updates(count, clients, |_| side.open(database)),
            Self::UpdateApart => {
                updates(count, clients, |client| side.open(&apart(database, client)))
            }
            Self::Fill => fill(&side.open(database)?, count),
            Self::OpenAndRead => open_and_read(side, database, count),
        }
    }
}

/// The database of one client of [`Probe::UpdateApart`].
pub(super) fn apart(database: &str, client: u64) -> String {
    format!("{database}-{client}")
}

fn create(connection: &Connection) -> Result<Measured> {
    let start = Instant::now();
    connection.execute_batch(&format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, body BLOB);
         WITH RECURSIVE i(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM i WHERE id < {ROWS} - 1)
         INSERT INTO t SELECT id, 0, zeroblob({ROW_BYTES}) FROM i;"
    ))?;
    Ok(Measured::from_total(start.elapsed(), 1))
}

fn fill(connection: &Connection, megabytes: u64) -> Result<Measured> {
    let start = Instant::now();
    connection.execute_batch(&format!(
        "BEGIN;
         CREATE TABLE filling(id INTEGER PRIMARY KEY, body BLOB);
         WITH RECURSIVE i(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM i WHERE id < {megabytes})
         INSERT INTO filling SELECT id, randomblob(1000000) FROM i;
         COMMIT;"
    ))?;
    Ok(Measured::from_total(start.elapsed(), megabytes))
}

fn update_one(connection: &Connection, count: u64) -> Result<Measured> {
    let mut update = connection.prepare("UPDATE t SET n = n + 1 WHERE id = 7")?;
    Ok(time_each(count, |_| update.execute([]).map(drop))?)
}

/// Time per commit of `count` commits by `clients` at once.
fn updates(
    count: u64,
    clients: u64,
    open: impl Fn(u64) -> Result<Connection> + Sync,
) -> Result<Measured> {
    ensure!((1..=ROWS).contains(&clients), "up to {ROWS} clients");
    let each = count / clients;
    let barrier = Barrier::new(clients as usize + 1);
    std::thread::scope(|scope| {
        let client = |id: u64| {
            let (barrier, open) = (&barrier, &open);
            scope.spawn(move || {
                let connection = open(id);
                barrier.wait();
                update_own(&connection?, id, each)
            })
        };
        let threads: Vec<_> = (0..clients).map(client).collect();
        barrier.wait();
        let start = Instant::now();
        for thread in threads {
            let ended = thread.join().map_err(|_| anyhow!("a client panicked"))?;
            ended?;
        }
        Ok(Measured::from_total(start.elapsed(), each * clients))
    })
}

/// A conflict or a busy database is tried again: the file's writers wait, ours may collide.
fn update_own(connection: &Connection, id: u64, count: u64) -> Result<()> {
    let mut update = connection.prepare("UPDATE t SET n = n + 1 WHERE id = ?1")?;
    let mut done = 0;
    while done < count {
        match update.execute([id as i64]) {
            Ok(_) => done += 1,
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == ErrorCode::DatabaseBusy => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn open_and_read(side: Side, database: &str, count: u64) -> Result<Measured> {
    time_each(count, |_| {
        let connection = side.open(database)?;
        let sql = "SELECT n FROM t WHERE id = 7";
        connection.query_row(sql, [], |row| row.get::<_, i64>(0))?;
        Ok::<_, anyhow::Error>(())
    })
}
