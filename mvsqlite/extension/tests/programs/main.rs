//! The extension loaded by real programs: Debian's sqlite3 shell and Debian's Python.
//!
//! The pages live in a model of the store behind a small HTTP server of this process.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../../vfs/tests/sqlite/model_store.rs"]
#[allow(dead_code, reason = "shared with the tests of the VFS")]
mod model_store;
#[path = "../../../preload/tests/programs/server.rs"]
mod server;

mod library;
mod program;
mod python;
mod shell;
