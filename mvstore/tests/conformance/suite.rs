//! The conformance suite of the key-value contract: what `mvstore::kv` promises, as checks that any
//! engine can be put through.
//!
//! A test file includes it with `#[path = "conformance/suite.rs"] mod conformance;` and calls
//! [`check_engine`], and [`check_too_old`] and [`check_reopened`] where it can make the occasion.
//! All keys are under a prefix of each check's own, so an engine that holds other data will do.

#![allow(
    clippy::unwrap_used,
    reason = "a panic is the report of a failed check"
)]
#![allow(dead_code, reason = "not every engine can make every occasion")]

#[path = "concurrent.rs"]
mod concurrent;
#[path = "limits.rs"]
mod limits;
#[path = "model.rs"]
mod model;
#[path = "rules.rs"]
mod rules;

use std::future::Future;
use std::sync::Arc;

use mvstore::kv::{Engine, Freshness, Isolation, KeyRange, KvError, Transaction};

/// Puts an engine through everything that needs no restart and no patience. `cases` is the number
/// of random histories run against the model.
pub(crate) fn check_engine(engine: &Arc<dyn Engine>, cases: u32) {
    block_on(async {
        rules::check(engine).await;
        limits::check(engine).await;
        concurrent::check(engine).await;
    });
    model::check(engine, cases);
}

/// Checks what happens to a transaction that outlives its time; `outlive` lets more than
/// `Limits::transaction_age` pass.
pub(crate) fn check_too_old(engine: &Arc<dyn Engine>, outlive: impl FnOnce()) {
    block_on(async {
        let range = KeyRange::prefix(b"conformance/too-old/");
        clear(engine, &range).await;
        let key = b"conformance/too-old/key".as_slice();
        let mut writer = begin(engine);
        writer.get(key, Isolation::Serializable).await.unwrap();
        writer.set(key, b"late");
        let reader = begin(engine);
        reader.read_version().await.unwrap();
        outlive();
        assert_eq!(
            reader.get(key, Isolation::Snapshot).await,
            Err(KvError::TooOld)
        );
        assert_eq!(writer.commit().await, Err(KvError::TooOld));
        let fresh = begin(engine);
        assert_eq!(fresh.get(key, Isolation::Snapshot).await, Ok(None));
    });
}

/// Checks that what was committed on one engine is there on the next one over the same bytes, and
/// that versions go on above.
pub(crate) fn check_reopened(
    reopen: impl FnOnce(Arc<dyn Engine>) -> Arc<dyn Engine>,
    engine: Arc<dyn Engine>,
) {
    let key = b"conformance/reopen/key".as_slice();
    let (before, read_before) = block_on(async {
        clear(&engine, &KeyRange::prefix(b"conformance/reopen/")).await;
        let mut transaction = begin(&engine);
        transaction.set(key, b"kept");
        let version = transaction.commit().await.unwrap();
        let read_version = begin(&engine).read_version().await.unwrap();
        (version, read_version)
    });
    let engine = reopen(engine);
    block_on(async {
        let reader = begin(&engine);
        let kept = reader.get(key, Isolation::Snapshot).await.unwrap();
        assert_eq!(kept.as_deref(), Some(b"kept".as_slice()));
        assert!(reader.read_version().await.unwrap() >= read_before);
        let mut transaction = begin(&engine);
        transaction.set(key, b"again");
        let after = transaction.commit().await.unwrap();
        assert!(after > before && after.commit() > read_before.0);
    });
}

/// Runs a future to its end on a runtime of its own, as the store's runtime would.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made")
        .block_on(future)
}

fn begin(engine: &Arc<dyn Engine>) -> Box<dyn Transaction> {
    engine.begin(Freshness::Strict)
}

/// Empties a check's own range, whatever a run before left there.
async fn clear(engine: &Arc<dyn Engine>, range: &KeyRange) {
    let mut transaction = begin(engine);
    transaction.clear_range(range);
    transaction
        .commit()
        .await
        .expect("an empty range is needed to begin with");
}

async fn get(engine: &Arc<dyn Engine>, key: &[u8]) -> Option<Vec<u8>> {
    let value = begin(engine).get(key, Isolation::Snapshot).await.unwrap();
    value.map(|value| value.to_vec())
}

/// Commits one value.
async fn put(engine: &Arc<dyn Engine>, key: &[u8], value: &[u8]) {
    let mut transaction = begin(engine);
    transaction.set(key, value);
    transaction.commit().await.unwrap();
}
