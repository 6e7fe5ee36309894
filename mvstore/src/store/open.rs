//! Opening a store: its format and incarnation, and what its engine's limits mean for it.

use std::sync::Arc;
use std::time::Duration;

use mvsqlite_protocol::page::MAX_PAGE_SIZE;
use mvsqlite_protocol::{Incarnation, v2};
use tokio::sync::Semaphore;

use super::{Knobs, StoreOptions};
use crate::context::{Bounds, Context, Failure, Reruns, corrupt_in};
use crate::error::StoreError;
use crate::kv::{Engine, Freshness, Isolation, KvError, Limits, Transaction};
use crate::layout::{
    FIRST_GENERATION, GENERATION, Keyspace, PageValue, StoreFormat, decode_version,
};
use crate::page::{MAX_CHUNKS, MAX_RANGES, PageCache, PageOneCache, StageTurns};
use crate::v1::Slots;

/// Most bytes of pages that travel in one call, whatever the engine would take.
const MOST_INLINE_BYTES: u64 = 16 << 20;
const MOST_BATCH_BYTES: u64 = 4 << 20;
const MOST_CHUNK_BYTES: usize = 8 << 10;

/// A commit whose staged pages would cost a transaction more than this makes a layer.
const LAYER_BYTES: u64 = 4 << 20;
/// Most pages of a step of folding, most that are read at once, and about its most bytes.
const FOLD_PAGES: usize = 4096;
const FOLD_CHUNK: u32 = 64;
const FOLD_BYTES: u64 = 4 << 20;

/// Large commits under way at once; the others wait. One may take as much memory as the engine's
/// transactions take bytes, and a request that cuts a database off asks for it in a few of them.
const LARGE_COMMITS: usize = 2;

/// Opens the store, or makes it.
pub(super) async fn open(
    engine: Arc<dyn Engine>,
    options: StoreOptions,
) -> Result<Context, StoreError> {
    if options.idempotency_ttl < StoreOptions::MIN_IDEMPOTENCY_TTL {
        return Err(bad(
            "the outcomes of commits must be kept for an hour at least",
        ));
    }
    if options.stage_ttl < Duration::from_secs(1) {
        return Err(bad("a stage must live for a second at least"));
    }
    if options.lease_ttl < Duration::from_millis(50) {
        return Err(bad("a write lease must live for 50 ms at least"));
    }
    if options.lease_place_ttl < Duration::from_millis(10) {
        return Err(bad("a place in a queue must be kept for 10 ms at least"));
    }
    match engine.check().await {
        Ok(()) => (),
        // What is there can be read, and removed to make room.
        Err(full @ KvError::StorageFull { .. }) => tracing::warn!("writing is refused: {full}"),
        Err(error) => return Err(error.into()),
    }
    let mut context = context_for(engine, options)?;
    let fresh = Incarnation::from_bytes(context.random()?);
    let mut reruns = Reruns::new();
    context.incarnation = loop {
        match enter(&context, fresh).await {
            Ok(incarnation) => break incarnation,
            Err(failure) => reruns.after(failure)?,
        }
    };
    Ok(context)
}

/// What is needed to look at a store, without an incarnation. Neither reads nor writes.
pub(crate) fn context_for(
    engine: Arc<dyn Engine>,
    options: StoreOptions,
) -> Result<Context, StoreError> {
    let keys = Keyspace::new(&options.metadata_prefix, &options.raw_data_prefix)?;
    let (limits, bounds) = derive(engine.limits(), &keys, options.knobs)?;
    let page_cache_bytes = options.page_cache_bytes;
    Ok(Context {
        engine,
        keys,
        options,
        incarnation: Incarnation::from_bytes([0; 8]),
        limits,
        bounds,
        page_one: PageOneCache::default(),
        v1_slots: Slots::default(),
        page_cache: PageCache::new(page_cache_bytes),
        large_commits: Arc::new(Semaphore::new(LARGE_COMMITS)),
        stage_turns: StageTurns::default(),
    })
}

fn bad(reason: impl Into<String>) -> StoreError {
    StoreError::BadOptions {
        reason: reason.into(),
    }
}

/// Reads the store's format, or writes it where there is none.
async fn enter(ctx: &Context, fresh: Incarnation) -> Result<Incarnation, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let key = ctx.keys.format();
    let Some(format) = txn.get(&key, Isolation::Serializable).await? else {
        let format = StoreFormat {
            generation: GENERATION.into(),
            // What needs more says so itself.
            min_reader: FIRST_GENERATION.into(),
            min_writer: FIRST_GENERATION.into(),
            incarnation: fresh,
        };
        txn.set(&key, &format.encode());
        txn.commit().await?;
        return Ok(fresh);
    };
    let format = StoreFormat::decode(&format).map_err(corrupt_in("the metadata prefix"))?;
    let needed = format.min_reader.max(format.min_writer);
    if needed > GENERATION.into() {
        return Err(StoreError::UnknownFormat {
            what: "the store".to_owned(),
            found: needed,
            known: GENERATION.into(),
        }
        .into());
    }
    expect_order(ctx, &*txn).await?;
    Ok(format.incarnation)
}

/// The engine must not have gone back behind what the store has reached.
async fn expect_order(ctx: &Context, txn: &dyn Transaction) -> Result<(), Failure> {
    let key = ctx.keys.high_water_mark();
    let Some(mark) = txn.get(&key, Isolation::Snapshot).await? else {
        return Ok(());
    };
    let mark = decode_version(&mark).map_err(corrupt_in("the high-water mark"))?;
    let read_version = txn.read_version().await?;
    if read_version.sees(mark) {
        return Ok(());
    }
    Err(StoreError::VersionsWentBack {
        read_version: read_version.0,
        version: mark.commit(),
    }
    .into())
}

/// What one call may carry, by what one transaction of the engine takes.
///
/// Of a transaction's bytes, two fifths are for page content, a sixteenth each for the changelog
/// and for the ranges that are watched, a tenth stays free, and the rest is for what a page costs
/// besides its content: key, value header, and the conflict range of its key.
fn derive(
    engine: Limits,
    keys: &Keyspace,
    knobs: Knobs,
) -> Result<(v2::Limits, Bounds), StoreError> {
    let value_bytes = MAX_PAGE_SIZE as usize + PageValue::OVERHEAD;
    let whole = engine.transaction_bytes;
    if engine.value_bytes < value_bytes || whole < 4 * value_bytes as u64 {
        return Err(bad(format!(
            "the engine takes values of {} bytes and transactions of {whole}: too little for a page",
            engine.value_bytes
        )));
    }
    let key_bytes = (keys.prefix_len() + 48) as u64;
    let page_cost = 3 * key_bytes + 32;
    let content = whole * 2 / 5;
    let free = whole / 10 + whole / 8;
    let chunk_bytes = MOST_CHUNK_BYTES.min(engine.value_bytes);
    let chunks = whole / 16 / chunk_bytes as u64;
    let ranges = whole / 16 / (2 * key_bytes);
    let fold_bytes = (whole / 4).min(FOLD_BYTES);
    let limits = v2::Limits {
        inline_bytes: content.min(MOST_INLINE_BYTES),
        stage_batch_bytes: (content / 2).clamp(MAX_PAGE_SIZE.into(), MOST_BATCH_BYTES),
        // As many as a database can have: what one transaction cannot hold is staged.
        commit_pages: u32::MAX.into(),
        read_pages: 1024,
        read_bytes: MOST_BATCH_BYTES,
    };
    let bounds = Bounds {
        changelog_chunk_bytes: chunk_bytes,
        changelog_chunks: u16::try_from(chunks)
            .unwrap_or(MAX_CHUNKS)
            .clamp(1, MAX_CHUNKS),
        watched_ranges: usize::try_from(ranges)
            .unwrap_or(MAX_RANGES)
            .clamp(1, MAX_RANGES),
        page_cost,
        transaction_pages: (whole - content - free) / page_cost,
        layer_bytes: knobs.layer_bytes.unwrap_or(LAYER_BYTES.min(content)),
        fold_pages: usize::try_from(fold_bytes / (2 * page_cost))
            .unwrap_or(FOLD_PAGES)
            .clamp(
                1,
                knobs.fold_pages.unwrap_or(FOLD_PAGES).clamp(1, FOLD_PAGES),
            ),
        fold_chunk: u32::try_from(fold_bytes / value_bytes as u64)
            .unwrap_or(FOLD_CHUNK)
            .clamp(1, FOLD_CHUNK),
        fold_bytes,
    };
    Ok((limits, bounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(engine: Limits) -> (v2::Limits, Bounds) {
        let keys = Keyspace::new("mvstore-test", "m").unwrap();
        derive(engine, &keys, Knobs::default()).unwrap()
    }

    #[test]
    fn limits_follow_the_engines() {
        let (limits, bounds) = derived(Limits::FOUNDATIONDB);
        assert_eq!(limits.inline_bytes, 4_000_000);
        assert_eq!(limits.stage_batch_bytes, 2_000_000);
        assert!(bounds.transaction_pages > 15_000, "{bounds:?}");
        assert!(
            (1000..=FOLD_PAGES).contains(&bounds.fold_pages),
            "{bounds:?}"
        );
        assert_eq!((bounds.layer_bytes, bounds.fold_chunk), (4_000_000, 64));
        assert_eq!(bounds.watched_ranges, MAX_RANGES);
        let (_, bounds) = derived(Limits::EMBEDDED);
        assert_eq!(bounds.layer_bytes, LAYER_BYTES);
    }

    #[test]
    fn knobs_only_make_smaller_what_an_engine_takes() {
        let keys = Keyspace::new("mvstore-test", "m").unwrap();
        let knobs = Knobs {
            layer_bytes: Some(0),
            fold_pages: Some(usize::MAX),
        };
        let (_, bounds) = derive(Limits::FOUNDATIONDB, &keys, knobs).unwrap();
        assert_eq!(bounds.layer_bytes, 0);
        assert!(bounds.fold_pages <= FOLD_PAGES, "{bounds:?}");
        let knobs = Knobs {
            fold_pages: Some(0),
            ..knobs
        };
        let (_, bounds) = derive(Limits::FOUNDATIONDB, &keys, knobs).unwrap();
        assert_eq!(bounds.fold_pages, 1);
    }

    #[test]
    fn an_engine_that_cannot_hold_a_page_is_refused() {
        let keys = Keyspace::new("a", "b").unwrap();
        let small = Limits {
            value_bytes: 32_768,
            ..Limits::FOUNDATIONDB
        };
        derive(small, &keys, Knobs::default()).expect_err("no room for the header of a page");
    }
}
