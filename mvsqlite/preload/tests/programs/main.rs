//! Unmodified programs with the preload library: Debian's sqlite3 shell and Python's sqlite3.
//!
//! The pages live in a model of the store behind a small HTTP server of this process.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../../vfs/tests/sqlite/model_store.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of the VFS, which use all of it"
)]
mod model_store;

mod configuration;
mod library;
mod program;
mod python;
mod server;
mod shell;
