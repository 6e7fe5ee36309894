//! `libmvsqlite_preload.so`: mvSQLite for unmodified programs, through `LD_PRELOAD`.
//!
//! The library puts itself before SQLite's `sqlite3_open`, `sqlite3_open_v2`, `sqlite3_open16`,
//! `sqlite3_step` and `sqlite3_errmsg`. At a program's first open it registers the VFS `mvsqlite` with the SQLite
//! library that the program uses, as its default; then, and at each later open, it calls the real
//! function and adds the SQL functions to the new connection. A single statement that lost a
//! conflict is run again.
//!
//! | module | what |
//! |---|---|
//! | `entry` | the interposed functions |
//! | `errmsg` | saying why a call failed |
//! | `scope` | which library's function a caller would have got without us |
//! | `step`, `statements` | running a statement again that lost against another transaction |
//! | `process_lock` | a lock that a forked child does not find held by its parent |
//! | `served` | the SQLite libraries that have the VFS |
//!
//! Invariants:
//! - Nothing happens when the library is loaded: no constructor, no thread, no allocation.
//! - With no environment variable of mvSQLite's set, calls are passed on and nothing else is done.
//! - Nothing is printed unasked and nothing unwinds: the host is somebody else's process.
//! - Only the interposed functions are exported.
//!
//! Not here: programs with SQLite linked into them statically, or that look its functions up with
//! `dlsym`, call nothing that could be interposed.

#![allow(unsafe_code, reason = "this crate is a C library")]

mod entry;
mod errmsg;
mod process_lock;
mod scope;
mod served;
mod statements;
mod step;
