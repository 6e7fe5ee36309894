//! All targets.

mod client;
mod evil_server;
mod http;
mod json;
mod names;
mod page_set;
mod store;
mod store_calls;
mod v1;
mod v2;

use crate::Target;

macro_rules! targets {
    ($($name:literal: $run:expr, $seeds:expr;)*) => {
        /// All targets, in the order in which `make fuzz` runs them.
        pub const TARGETS: &[Target] = &[
            $(Target { name: $name, run: $run, seeds: $seeds },)*
        ];
    };
}

targets! {
    "v1_frames": v1::v1_frames, v1::seeds;
    "v2_requests": v2::v2_requests, v2::request_seeds;
    "v2_replies": v2::v2_replies, v2::reply_seeds;
    "json": json::json, json::seeds;
    "names": names::names, names::seeds;
    "page_set": page_set::page_set, page_set::seeds;
    "http_requests": http::http_requests, http::request_seeds;
    "http_replies": http::http_replies, http::reply_seeds;
    "store_calls": store_calls::store_calls, store_calls::seeds;
    "store_values": mvstore::fuzzing::layout_value, store::value_seeds;
    "store_keys": mvstore::fuzzing::layout_key, store::key_seeds;
    "store_guard": mvstore::fuzzing::guard, store::guard_seeds;
    "store_changelog": store::changelog, store::changelog_seeds;
    "store_page_value": mvstore::fuzzing::page_value, store::page_value_seeds;
    "store_page_one": mvstore::fuzzing::page_one, store::page_one_seeds;
    "store_read_set": mvstore::fuzzing::read_set, store::read_set_seeds;
    "store_page_cache": mvstore::fuzzing::page_cache, store::page_cache_seeds;
    "journal": mvstore::fuzzing::journal, store::journal_seeds;
    "format_file": mvstore::fuzzing::format_file, store::format_file_seeds;
    "client_config": client::config, client::config_seeds;
    "client_page_one": mvsqlite::fuzzing::page_one, client::page_one_seeds;
    "client_read_set": mvsqlite::fuzzing::read_set, client::read_set_seeds;
    "client_page_cache": mvsqlite::fuzzing::page_cache, client::page_cache_seeds;
    "client_disk_cache": client::disk_cache, client::disk_cache_seeds;
    "evil_server": evil_server::evil_server, evil_server::seeds;
    "prefetch": mvsqlite::fuzzing::prefetch, client::prefetch_seeds;
}
