//! The HTTP server over real sockets: each path, each refusal, limits, shutdown, and the real
//! process. The store's own rules have tests of their own; here it stands on the memory engine.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod admin;
mod client;
mod collect;
mod connections;
mod crash_points;
mod data_plane;
mod deadlines;
mod fsck;
mod group;
mod process;
mod refusals;
mod server;
mod shutdown;
mod stalled;
mod v1;
