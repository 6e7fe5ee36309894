//! The client side of mvSQLite: a SQLite database file whose pages live in mvstore.
//!
//! This crate knows SQLite's call sequences and its file format, but has not one line of its C
//! API: crate `mvsqlite-vfs` translates between the two. The host is somebody else's process, so
//! nothing here prints, panics, starts a thread before there is work for it, or keeps state outside an
//! [`Environment`].
//!
//! | module | what |
//! |---|---|
//! | [`config`] | what the environment variables say |
//! | [`environment`] | what the databases of a process share |
//! | [`system`] | clock, randomness, process id and threads, behind a seam |
//! | [`descriptor`] | file descriptors that the host may close |
//! | [`client`] | the blocking client of data plane v2 |
//! | [`database`] | one open database: snapshot, transaction, page cache |

pub mod client;
pub mod config;
pub mod database;
pub mod descriptor;
pub mod environment;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod keeper;
mod per_process;
pub mod system;
mod workers;

pub use client::{LockError, Release};
pub use config::{Config, ConfigError, LocateError};
pub use database::{
    CommitGroupError, ConnectionId, DatabaseFile, Error, LockLevel, OpenOptions, PinError, Pragma,
    PrefetchMetrics, Read, SqliteCode, begin_commit_group, commit_commit_group,
    rollback_commit_group, sleep_for_lease,
};
pub use environment::Environment;
pub use per_process::PerProcess;
