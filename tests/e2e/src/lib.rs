//! Tests with real processes: the release builds of `mvstore` and `libmvsqlite_preload.so`, driven
//! by the sqlite3 shell, Python and speedtest1 as a user would drive them.
//!
//! This library is the harness; the tests are in `tests/`, a file per theme, the programs they run
//! in `python/` and `sql/`. Invariants:
//!
//! - it links none of the product's crates: what a test needs to know, a user can know;
//! - every process has a deadline, listens on loopback and is gone when its owner is dropped;
//! - no test waits by sleeping: it polls for what it waits for, up to a deadline;
//! - a line of WARN or ERROR in a store's log that the test did not announce fails the test.
//!
//! The SQLite linked in here (rusqlite's) is the ordinary one that judges what was copied out of a
//! store: this process is never started under the preload library.

#![allow(
    clippy::unwrap_used,
    reason = "in a test harness, a panic is the report"
)]

mod artifacts;
mod check;
mod client;
pub mod crash;
mod journal;
mod ledger;
mod poll;
mod ports;
mod process;
mod proxy;
mod session;
mod small_disk;
mod store;
mod worker;

pub use artifacts::{mvstore, newest_sqlite, preload_library, repository, speedtest1};
pub use check::{Copied, copy_out};
pub use client::Client;
pub use journal::{Journal, Told, judge_all};
pub use ledger::{LEDGER, Ledger};
pub use poll::until;
pub use ports::{free_port, is_free};
pub use process::{Finished, Running};
pub use proxy::{Fault, Proxy};
pub use session::{Session, SqlError};
pub use small_disk::SmallDisk;
pub use store::{Store, StoreOptions};
pub use worker::{Job, Worker};

/// The SQLite result codes that the tests name: those that docs/reference/client.md promises.
pub mod code {
    /// SQLITE_ERROR
    pub const ERROR: i64 = 1;
    /// SQLITE_READONLY
    pub const READONLY: i64 = 8;
    /// SQLITE_FULL
    pub const FULL: i64 = 13;
    /// SQLITE_CANTOPEN
    pub const CANTOPEN: i64 = 14;
    /// SQLITE_BUSY_SNAPSHOT
    pub const BUSY_SNAPSHOT: i64 = 517;
    /// SQLITE_IOERR_READ
    pub const IOERR_READ: i64 = 266;
    /// SQLITE_IOERR_WRITE
    pub const IOERR_WRITE: i64 = 778;
    /// SQLITE_IOERR_FSYNC: COMMIT failed and nothing was committed
    pub const IOERR_FSYNC: i64 = 1034;
    /// SQLITE_READONLY_DBMOVED
    pub const READONLY_DBMOVED: i64 = 1032;
    /// SQLITE_IOERR_LOCK
    pub const IOERR_LOCK: i64 = 3850;
    /// SQLITE_IOERR_COMMIT_ATOMIC: the outcome of COMMIT is not known
    pub const IOERR_COMMIT_ATOMIC: i64 = 7690;
}
