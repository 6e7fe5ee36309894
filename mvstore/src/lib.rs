//! The mvSQLite server.
//!
//! | module | what |
//! |---|---|
//! | [`kv`] | the ordered transactional key-value contract, and its engines |
//! | [`store`] | versioned pages over it: what the HTTP server calls |
//! | [`error`] | why the store refuses, and how that reads on the wire |
//! | [`http`] | the listeners: data plane, admin API, health |
//! | [`daemon`] | the process: engine, store, listeners, tasks, shutdown |
//! | [`config`] | its flags and environment variables |
//! | [`environment`] | time and randomness, behind seams |
//! | [`fsck`] | checking a store, in use or not |
//! | [`fsck_command`] | the same by command line |
//! | [`failpoint`] | points at which tests end the process |
//! | `layout` | every key and value of the on-disk format |
//! | `namespace` | the catalog, and who is let in |
//! | `page` | snapshots, reads, stages, commits |
//! | [`v1`] | the store as protocol v1 sees it |
//! | `history` | moments, records of time, expiry |

pub mod config;
mod context;
pub mod daemon;
pub mod environment;
pub mod error;
pub mod failpoint;
pub mod fsck;
pub mod fsck_command;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod history;
pub mod http;
pub mod kv;
mod layout;
mod namespace;
mod page;
pub mod store;
pub mod v1;
