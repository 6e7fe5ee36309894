//! The VFS under the newest SQLite, over a model of the store: what a program sees.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unsafe_code, reason = "parts of SQLite's C API have no safe wrapper")]

mod attached;
mod bugs;
mod commit_group;
mod exclusive;
mod files;
mod functions;
mod group;
mod host;
mod large;
mod maintenance;
mod model_store;
mod named;
mod open_readers;
mod page_sizes;
mod past_versions;
mod pragmas;
mod prefetch;
mod transactions;
