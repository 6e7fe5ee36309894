//! mvSQLite for programs that link SQLite themselves.
//!
//! [`register`] makes the VFS `mvsqlite` known to the SQLite of the program, such as the one that
//! `rusqlite` brings along with its feature `bundled`. A database is then opened through it by name,
//! and everything else of the program stays as it is:
//!
//! ```no_run
//! use rusqlite::{Connection, OpenFlags};
//!
//! mvsqlite::register()?; // as MVSQLITE_DATA_PLANE and the other variables say
//! let flags = OpenFlags::default();
//! let orders = Connection::open_with_flags_and_vfs("orders", flags, c"mvsqlite")?;
//! orders.execute("INSERT INTO item(name) VALUES (?1)", ["lamp"])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `file:orders?vfs=mvsqlite` as a URI, also in `ATTACH`, does the same. `examples/notes.rs` is a
//! whole program. For C the same crate is `libmvsqlite.a` with `include/mvsqlite.h`.
//!
//! # Linking
//!
//! This crate has no SQLite and depends on no crate that has one, so that it fits every version: it
//! refers to functions of the SQLite C API, which the program's own SQLite resolves when the program
//! is linked. SQLite 3.31 or later.
//!
//! # What differs from the preload library
//!
//! A single statement that lost a conflict is not run again: `SQLITE_BUSY_SNAPSHOT` (517) comes out of
//! it, and the program runs it again, as it does with transactions.

#![allow(unsafe_code, reason = "this crate is the link to a C library")]

pub mod c;
mod linked;
mod registration;

pub use mvsqlite_client::{Config, ConfigError};
pub use mvsqlite_vfs::VFS_NAME;
#[doc(hidden)]
pub use mvsqlite_vfs::Vfs;
#[doc(hidden)]
pub use registration::register_as;
pub use registration::{Error, Registration, register};

// The tests are linked with this SQLite.
#[cfg(test)]
use rusqlite as _;
