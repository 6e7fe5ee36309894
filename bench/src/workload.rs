//! The workloads of the README's table. Each runs alone in its process.

use std::sync::Barrier;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;
use rusqlite::{Connection, ErrorCode, params};

use crate::side::Side;
use crate::stats::{Measured, time_each};

/// Rows of the prepared table: about 14 MB with its index.
const ROWS: u64 = 100_000;
const BULK_ROWS: u64 = 200_000;
const POINT_READS: u64 = 300;
const WRITER_COMMITS: u64 = 1_000;

/// What is measured, and against what it is judged.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Not measured: fills the table that the reading workloads read.
    Prepare,
    /// Rows per second inserted by one transaction.
    BulkInsert,
    /// One-row transactions.
    AutocommitInsert,
    /// Single rows at random, right after opening a connection.
    ColdPointReads,
    /// Single rows at random, each its own transaction, everything cached.
    WarmAutocommitReads,
    /// The same, where reads may be a second behind.
    StaleAutocommitReads,
    /// Single rows at random inside one transaction, everything cached.
    WarmTransactionReads,
    /// The whole table, right after opening a connection.
    ColdScan,
    /// 1,000 rows by an index whose order has nothing to do with the table's.
    ColdIndexRange,
    /// One writer of rows on pages of its own.
    #[value(name = "writers-1")]
    Writers1,
    /// Four.
    #[value(name = "writers-4")]
    Writers4,
    /// Sixteen.
    #[value(name = "writers-16")]
    Writers16,
}

/// A figure of the design.
pub enum Goal {
    /// At least so many times the local file's throughput.
    SpeedOfLocal(f64),
    /// At most so many times the local file's time.
    TimeOfLocal(f64),
    /// At most so many times a bare loopback HTTP exchange.
    TimeOfEcho(f64),
}

impl Workload {
    /// In the order of the table.
    pub const ALL: [Self; 11] = [
        Self::BulkInsert,
        Self::AutocommitInsert,
        Self::ColdPointReads,
        Self::WarmAutocommitReads,
        Self::StaleAutocommitReads,
        Self::WarmTransactionReads,
        Self::ColdScan,
        Self::ColdIndexRange,
        Self::Writers1,
        Self::Writers4,
        Self::Writers16,
    ];

    /// The name of its database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::BulkInsert => "bulk-insert",
            Self::AutocommitInsert => "autocommit-insert",
            Self::ColdPointReads => "cold-point-reads",
            Self::WarmAutocommitReads => "warm-autocommit-reads",
            Self::StaleAutocommitReads => "stale-autocommit-reads",
            Self::WarmTransactionReads => "warm-transaction-reads",
            Self::ColdScan => "cold-scan",
            Self::ColdIndexRange => "cold-index-range",
            Self::Writers1 => "writers-1",
            Self::Writers4 => "writers-4",
            Self::Writers16 => "writers-16",
        }
    }

    /// Its line in the table; times are per what is named last.
    pub fn title(self) -> &'static str {
        match self {
            Self::Prepare => "preparation",
            Self::BulkInsert => "bulk insert in one transaction, per row",
            Self::AutocommitInsert => "autocommit insert, p50",
            Self::ColdPointReads => "cold point read (300 after opening, 14 MB), p50",
            Self::WarmAutocommitReads => "warm autocommit read, p50",
            Self::StaleAutocommitReads => "the same, a second behind at most, p50",
            Self::WarmTransactionReads => "warm read inside a transaction, p50",
            Self::ColdScan => "cold full scan, 14 MB",
            Self::ColdIndexRange => "cold index range, 1,000 rows",
            Self::Writers1 => "1 writer, distinct pages, per commit",
            Self::Writers4 => "4 writers, distinct pages, per commit",
            Self::Writers16 => "16 writers, distinct pages, per commit",
        }
    }

    /// What the design wants of it.
    pub fn goal(self) -> Goal {
        match self {
            Self::Prepare | Self::BulkInsert => Goal::SpeedOfLocal(0.8),
            Self::AutocommitInsert => Goal::TimeOfLocal(2.0),
            Self::ColdPointReads => Goal::TimeOfEcho(3.0),
            Self::WarmAutocommitReads => Goal::TimeOfEcho(1.5),
            Self::StaleAutocommitReads => Goal::TimeOfLocal(2.0),
            Self::WarmTransactionReads => Goal::TimeOfLocal(1.2),
            Self::ColdScan => Goal::TimeOfLocal(4.0),
            Self::ColdIndexRange => Goal::TimeOfLocal(15.0),
            Self::Writers1 => Goal::SpeedOfLocal(0.5),
            Self::Writers4 => Goal::SpeedOfLocal(1.5),
            Self::Writers16 => Goal::SpeedOfLocal(4.0),
        }
    }

    /// Whether it reads or updates the prepared table.
    pub fn needs_preparation(self) -> bool {
        !matches!(
            self,
            Self::Prepare | Self::BulkInsert | Self::AutocommitInsert
        )
    }

    /// Runs it in this process.
    pub fn run(self, side: Side, database: &str) -> Result<Measured> {
        match self {
            Self::Prepare => insert_rows(&side.open(database)?, ROWS, true),
            Self::BulkInsert => insert_rows(&side.open(database)?, BULK_ROWS, false),
            Self::AutocommitInsert => autocommit_inserts(&side.open(database)?),
            Self::ColdPointReads => point_reads(&side.open(database)?, POINT_READS),
            Self::WarmAutocommitReads => warm_reads(&side.open(database)?, false),
            Self::StaleAutocommitReads => {
                let connection = side.open(database)?;
                if side == Side::Mvsqlite {
                    connection.execute_batch("PRAGMA mvsqlite_staleness = 1000")?;
                }
                warm_reads(&connection, false)
            }
            Self::WarmTransactionReads => warm_reads(&side.open(database)?, true),
            Self::ColdScan => scan(&side.open(database)?),
            Self::ColdIndexRange => index_range(&side.open(database)?),
            Self::Writers1 => writers(side, database, 1),
            Self::Writers4 => writers(side, database, 4),
            Self::Writers16 => writers(side, database, 16),
        }
    }
}

/// A number that looks random and is the same in every run (the finalizer of SplitMix64).
fn scatter(i: u64) -> u64 {
    let mut z = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn insert_rows(connection: &Connection, rows: u64, index: bool) -> Result<Measured> {
    connection.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, body BLOB)")?;
    let start = Instant::now();
    connection.execute_batch("BEGIN")?;
    let mut insert = connection.prepare("INSERT INTO t VALUES(?1, ?2, ?3)")?;
    let mut body = [0_u8; 100];
    for id in 0..rows {
        for (chunk, i) in body.chunks_mut(8).zip(0..) {
            let bytes = scatter(id * 13 + i).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        insert.execute(params![id as i64, (scatter(id) >> 2) as i64, &body[..]])?;
    }
    if index {
        connection.execute_batch("CREATE INDEX by_k ON t(k)")?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(Measured::from_total(start.elapsed(), rows))
}

fn autocommit_inserts(connection: &Connection) -> Result<Measured> {
    connection.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")?;
    let mut insert = connection.prepare("INSERT INTO t(body) VALUES(?1)")?;
    let body = [7_u8; 100];
    Ok(time_each(2_000, |_| insert.execute([&body[..]]).map(drop))?)
}

fn point_reads(connection: &Connection, count: u64) -> Result<Measured> {
    let mut select = connection.prepare("SELECT body FROM t WHERE id = ?1")?;
    Ok(time_each(count, |i| {
        let id = (scatter(i) % ROWS) as i64;
        select
            .query_row([id], |row| row.get::<_, Vec<u8>>(0))
            .map(drop)
    })?)
}

fn warm_reads(connection: &Connection, in_transaction: bool) -> Result<Measured> {
    // SQLite's own cache is 2 MB by default; what is read again and again here fits it.
    let mut select = connection.prepare("SELECT body FROM t WHERE id = ?1")?;
    let mut read = |i: u64| {
        let id = (scatter(i) % 5_000) as i64;
        select
            .query_row([id], |row| row.get::<_, Vec<u8>>(0))
            .map(drop)
    };
    if in_transaction {
        connection.execute_batch("BEGIN")?;
    }
    time_each(5_000, &mut read)?;
    Ok(time_each(5_000, &mut read)?)
}

fn scan(connection: &Connection) -> Result<Measured> {
    let start = Instant::now();
    let sum: i64 =
        connection.query_row("SELECT sum(length(body)) FROM t NOT INDEXED", [], |row| {
            row.get(0)
        })?;
    anyhow::ensure!(sum == ROWS as i64 * 100, "the scan read {sum} bytes");
    Ok(Measured::from_total(start.elapsed(), 1))
}

fn index_range(connection: &Connection) -> Result<Measured> {
    let sql = "SELECT body FROM t INDEXED BY by_k WHERE k > ?1 ORDER BY k LIMIT 1000";
    let mut select = connection.prepare(sql)?;
    let start = Instant::now();
    let bodies = select.query_map([1_i64 << 60], |row| row.get::<_, Vec<u8>>(0))?;
    let rows = bodies.collect::<Result<Vec<_>, _>>()?.len();
    anyhow::ensure!(rows == 1_000, "the range has {rows} rows");
    Ok(Measured::from_total(start.elapsed(), 1))
}

/// Each writer updates rows of a stretch of the table of its own, one row per transaction, and runs
/// a transaction again when it conflicts or finds the database busy.
fn writers(side: Side, database: &str, count: u64) -> Result<Measured> {
    let barrier = Barrier::new(count as usize + 1);
    let each = WRITER_COMMITS / count;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|writer| {
                let barrier = &barrier;
                scope.spawn(move || -> Result<()> {
                    let connection = side.open(database);
                    barrier.wait();
                    let connection = connection?;
                    let mut update =
                        connection.prepare("UPDATE t SET body = zeroblob(100) WHERE id = ?1")?;
                    let stretch = ROWS / count;
                    for i in 0..each {
                        let id = writer * stretch + scatter(i) % (stretch - 200) + 100;
                        commit_one(|| update.execute([id as i64]))?;
                    }
                    Ok(())
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok(Measured::from_total(start.elapsed(), each * count))
    })
}

/// Runs an autocommit statement until it is neither busy nor in conflict.
fn commit_one(mut statement: impl FnMut() -> rusqlite::Result<usize>) -> rusqlite::Result<()> {
    loop {
        match statement() {
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == ErrorCode::DatabaseBusy => {}
            other => return other.map(drop),
        }
    }
}
