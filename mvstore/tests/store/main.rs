//! The store over the memory engine: each rule by name, then everything at once against a model.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod catalog;
mod commit;
mod family;
mod forks;
mod fsck;
mod group;
mod group_model;
mod history;
mod interleave;
mod layers;
mod lease;
mod lock;
mod mixture;
mod model;
mod original;
mod page_cache;
mod race;
mod read;
mod settle;
mod stage;
mod support;
mod truncate;
mod waiting;
