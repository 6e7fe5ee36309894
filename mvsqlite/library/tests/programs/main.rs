//! Programs that link SQLite themselves: the examples in Rust and in C, and this very binary.
//!
//! The pages live in a model of the store behind a small HTTP server of this process.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

// The shared modules call the client side by its short name, which is that of the crate under test.
extern crate mvsqlite as library;
extern crate mvsqlite_client as mvsqlite;

#[path = "../../../vfs/tests/sqlite/model_store.rs"]
#[allow(dead_code, reason = "shared with the tests of the VFS")]
mod model_store;
#[path = "../../../preload/tests/programs/server.rs"]
mod server;

mod c;
mod program;
mod rust;
