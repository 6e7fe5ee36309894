//! The SQLite VFS of mvSQLite: databases whose pages live in mvstore, opened like files.
//!
//! This crate is SQLite's C API and nothing else: each callback checks its arguments, translates
//! them, and calls the `mvsqlite` crate, where snapshots, commits and caches are decided.
//!
//! | module | what |
//! |---|---|
//! | `ffi` | SQLite's C ABI, as far as it is needed |
//! | `api` | the table of SQLite's functions, filled from the host's library |
//! | `failure` | the guard around every callback; result code and error log |
//! | `routines` | the table of functions that SQLite hands to extensions |
//! | `registration` | the names under which SQLite knows the VFS |
//! | `vfs`, `names`, `delegate` | the VFS: which names are ours, and where the others go |
//! | `handle`, `database_file`, `control` | an open database: file methods and file controls |
//! | `journal`, `private_file`, `super_journal` | journals, private to their connection |
//! | `functions` | the SQL functions |
//!
//! Invariants:
//! - No SQLite is linked: all calls go through [`Api`].
//! - No callback unwinds, aborts or prints; each failure is a result code and one line in SQLite's
//!   error log.
//! - No thread is started and no lock is held across a call into SQLite, the host or the store.
//! - After the commit point (`SQLITE_FCNTL_SYNC`, or the deletion of a super-journal of ours)
//!   nothing can fail: journals are private and in memory, and the rest answers OK.
//!
//! Not here: shared memory (so no WAL), memory maps, and retries of conflicts.

#![allow(unsafe_code, reason = "this crate is SQLite's C API")]

use std::ffi::CStr;

mod api;
mod control;
mod database_file;
mod delegate;
mod failure;
mod ffi;
mod functions;
mod handle;
mod journal;
mod names;
mod private_file;
mod registration;
mod routines;
mod super_journal;
mod temporary_file;
mod vfs;

pub use api::{Api, MissingFunction};
pub use failure::{forget_failure, last_failure};
pub use ffi::sqlite3;
pub use registration::RegisterError;
pub use routines::{ApiRoutines, UnusableRoutines};
pub use vfs::Vfs;

/// The name under which the VFS is registered, as in `file:orders?vfs=mvsqlite`.
pub const VFS_NAME: &str = "mvsqlite";
const VFS_NAME_C: &CStr = c"mvsqlite";
