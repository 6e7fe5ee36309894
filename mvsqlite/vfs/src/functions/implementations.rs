//! What each SQL function does.

use std::ffi::c_int;

use mvsqlite::{PrefetchMetrics, Release};

use super::call::{Call, error};
use crate::failure::Failure;
use crate::ffi::{sqlite3_context, sqlite3_value};

/// Defines implementations as SQLite calls them. Each gets the call and its name, and gives text or
/// NULL.
macro_rules! implementations {
    ($(fn $name:ident($call:ident, $function:ident = $sql:literal) $body:block)*) => {
        $(
            pub(super) unsafe extern "C" fn $name<const SLOT: usize>(
                context: *mut sqlite3_context,
                count: c_int,
                arguments: *mut *mut sqlite3_value,
            ) {
                let $function = $sql;
                let body = |$call: &mut Call| -> Result<Option<String>, Failure> { $body };
                // SAFETY: called by SQLite as declared.
                unsafe { Call::run(SLOT, context, count, arguments, $sql, body) };
            }
        )*
    };
}

implementations! {
    fn last_known_version(call, function = "mv_last_known_version") {
        let version = call.database(function)?.file().last_known_version();
        Ok(version.map(|version| version.to_string()))
    }

    fn time_to_version(call, function = "mv_time2version") {
        let seconds = call.integer(1);
        let version = call.database(function)?.file().time_to_version(seconds)?;
        Ok(version.map(|version| version.to_string()))
    }

    fn pin_version(call, function = "mv_pin_version") {
        let version = call.text(1, function, "version")?;
        let version = version_of(&version, function)?;
        call.database(function)?.file().pin(version).map_err(error)?;
        Ok(None)
    }

    fn unpin_version(call, function = "mv_unpin_version") {
        call.database(function)?.file().unpin().map_err(error)?;
        Ok(None)
    }

    fn prefetch_metrics(call, function = "mv_prefetch_metrics") {
        let metrics = call.database(function)?.file().prefetch_metrics();
        Ok(Some(metrics_text(metrics)))
    }

    fn nslock_acquire(call, function = "mv_nslock_acquire") {
        let owner = call.text(1, function, "owner")?;
        let version = match call.optional_text(2, function, "version")? {
            Some(version) => Some(version_of(&version, function)?),
            None => None,
        };
        let file = call.database(function)?.file();
        file.acquire_lock(&owner, version).map_err(error)?;
        Ok(None)
    }

    fn nslock_release_commit(call, _function = "mv_nslock_release_commit") {
        release(call, Release::Commit)
    }

    fn nslock_release_rollback(call, _function = "mv_nslock_release_rollback") {
        release(call, Release::Rollback)
    }

    fn commit_group_begin(_call, _function = "mv_commit_group_begin") {
        mvsqlite::begin_commit_group()?;
        Ok(None)
    }

    fn commit_group_commit(call, function = "mv_commit_group_commit") {
        call.database(function)?;
        let version = mvsqlite::commit_commit_group()?;
        Ok(version.map(|version| version.to_string()))
    }

    fn commit_group_rollback(call, function = "mv_commit_group_rollback") {
        call.database(function)?;
        mvsqlite::rollback_commit_group()?;
        Ok(None)
    }

    fn library_version(_call, _function = "mvsqlite_version") {
        Ok(Some(env!("CARGO_PKG_VERSION").to_owned()))
    }
}

fn release(call: &mut Call, release: Release) -> Result<Option<String>, Failure> {
    // The name that the original's messages have for both functions.
    let function = "mv_nslock_release";
    let owner = call.text(1, function, "owner")?;
    let file = call.database(function)?.file();
    file.release_lock(&owner, release).map_err(error)?;
    Ok(None)
}

fn version_of(text: &str, function: &str) -> Result<mvsqlite_protocol::Version, Failure> {
    let version = text.parse();
    version.map_err(|_| {
        error(format!(
            "{function}: '{text}' is not a version of 20 hex digits"
        ))
    })
}

/// In the words of the original, whose guesses were of four kinds. Ours are of none of them.
fn metrics_text(metrics: PrefetchMetrics) -> String {
    let PrefetchMetrics {
        page_reads,
        cache_misses,
        predictions_made,
        predictions_hit,
        ..
    } = metrics;
    let hit_rate = match predictions_made {
        0 => 0.0,
        made => predictions_hit as f64 / made as f64,
    };
    let mut text = format!(
        "{{\"page_reads\":{page_reads},\"cache_misses\":{cache_misses},\
         \"predictions_made\":{predictions_made},\"predictions_hit\":{predictions_hit},\
         \"hit_rate\":{hit_rate:.4}"
    );
    for kind in ["stride", "markov", "markov_chain", "frequency"] {
        text.push_str(&format!(",\"{kind}_predictions\":0,\"{kind}_hits\":0"));
    }
    text.push('}');
    text
}
