//! The FoundationDB engine against the key-value contract, and when things go wrong. FoundationDB is
//! the stand-in here: real loader, real crate, a cluster in memory.

#[path = "conformance/suite.rs"]
mod conformance;
#[path = "foundationdb/fake_cluster.rs"]
mod fake_cluster;
#[path = "../fdb-client/tests/support/fake_home.rs"]
mod fake_home;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fake_cluster::{FakeCluster, Fate};
use mvsqlite_protocol::{ReadVersion, Version};
use mvstore::kv::foundationdb::open;
use mvstore::kv::{Engine, Freshness, Isolation, KvError, Transaction};

fn begin(engine: &Arc<dyn Engine>) -> Box<dyn Transaction> {
    engine.begin(Freshness::Strict)
}

async fn put(engine: &Arc<dyn Engine>, key: &[u8]) -> Result<Version, KvError> {
    let mut transaction = begin(engine);
    transaction.set(key, b"value");
    transaction.commit().await
}

async fn exists(engine: &Arc<dyn Engine>, key: &[u8]) -> bool {
    let value = begin(engine).get(key, Isolation::Snapshot).await;
    value.expect("the cluster answers").is_some()
}

fn reason(error: KvError) -> String {
    match error {
        KvError::MaybeCommitted { reason } | KvError::Unavailable { reason } => reason,
        error => panic!("{error:?} gives no reason"),
    }
}

#[test]
fn the_foundationdb_engine_keeps_the_contract() {
    let cluster = FakeCluster::new();
    conformance::check_engine(&cluster.engine(), 200);
}

#[test]
fn a_transaction_that_the_cluster_finds_too_old_is_too_old() {
    let cluster = FakeCluster::new();
    conformance::check_too_old(&cluster.engine(), || {
        std::thread::scope(|scope| {
            // A thread of its own, because the caller's is inside a runtime.
            scope.spawn(|| conformance::block_on(cluster.skip_versions(5_100_000)));
        });
    });
}

#[test]
fn a_transaction_that_has_outlived_its_time_is_too_old_whatever_the_cluster_would_say() {
    let cluster = FakeCluster::new();
    conformance::check_too_old(&cluster.engine(), || {
        cluster.clock.advance(Duration::from_millis(5_001));
    });
}

#[test]
fn a_second_engine_on_the_cluster_sees_what_the_first_committed() {
    let cluster = FakeCluster::new();
    conformance::check_reopened(|_| cluster.engine(), cluster.engine());
}

#[tokio::test]
async fn an_unknown_outcome_is_reported_as_that_whether_it_was_committed_or_not() {
    let cluster = FakeCluster::new();
    let engine = cluster.engine();
    for code in [1021, 1031, 1039] {
        for (fate, key, committed) in [
            (Fate::Applied, b"applied", true),
            (Fate::Lost, b"forgone", false),
        ] {
            let key = [key.as_slice(), &[code as u8]].concat();
            cluster.fail_commit(code, fate).await;
            let reason = reason(put(&engine, &key).await.unwrap_err());
            assert!(reason.contains(&code.to_string()), "{reason}");
            assert!(!reason.contains("may still happen"), "{reason}");
            assert_eq!(exists(&engine, &key).await, committed, "{code} {fate:?}");
        }
    }
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_does_not_happen_later_on() {
    let cluster = FakeCluster::new();
    let engine = cluster.engine();
    for code in [1021, 1031, 1039] {
        cluster.fail_commit(code, Fate::InFlight).await;
        let error = put(&engine, b"late").await.unwrap_err();
        assert!(matches!(error, KvError::MaybeCommitted { .. }), "{error}");
        // Its request arrives after one of these at the latest.
        for _ in 0..3 {
            put(&engine, b"another").await.unwrap();
            assert!(!exists(&engine, b"late").await, "{code}");
        }
    }
}

#[tokio::test]
async fn a_refused_commit_leaves_no_trace() {
    let cluster = FakeCluster::new();
    let engine = cluster.engine();
    for (code, expected) in [(1020, KvError::Conflict), (1007, KvError::TooOld)] {
        cluster.fail_commit(code, Fate::Lost).await;
        assert_eq!(put(&engine, b"refused").await, Err(expected));
    }
    cluster.fail_commit(1038, Fate::Lost).await;
    let reason = reason(put(&engine, b"refused").await.unwrap_err());
    assert!(reason.contains("locked"), "{reason}");
    assert!(!exists(&engine, b"refused").await);
}

#[tokio::test]
async fn a_cluster_that_is_away_is_unavailable_when_the_timeout_is_over_and_serves_again_when_it_is_back()
 {
    let cluster = FakeCluster::new();
    let engine = cluster.engine();
    cluster.set_away(true).await;
    let read = begin(&engine).get(b"key", Isolation::Snapshot).await;
    let written = put(&engine, b"key").await.map(drop);
    let checked = engine.check().await;
    for error in [read.map(drop), written, checked] {
        let reason = reason(error.unwrap_err());
        assert!(reason.contains("fdb.cluster"), "{reason}");
        assert!(reason.contains("--exec status"), "{reason}");
    }
    cluster.set_away(false).await;
    engine.check().await.unwrap();
    assert!(!exists(&engine, b"key").await, "nothing was sent");
}

#[tokio::test]
async fn a_commit_that_cannot_be_settled_because_the_cluster_is_away_says_that_it_may_still_happen()
{
    let cluster = FakeCluster::new();
    let engine = cluster.engine();
    let mut transaction = begin(&engine);
    transaction.set(b"key", b"value");
    transaction.read_version().await.unwrap();
    cluster.set_away(true).await;
    let reason = reason(transaction.commit().await.unwrap_err());
    assert!(reason.contains("may still happen"), "{reason}");
}

#[tokio::test]
async fn a_known_read_version_serves_without_asking_the_cluster_until_it_is_two_seconds_old() {
    let cluster = FakeCluster::new();
    let engine = cluster.engine();
    let known = begin(&engine).read_version().await.unwrap();
    cluster.fail_read(1037).await;
    let read_version = |least| {
        let transaction = engine.begin(Freshness::AtLeast(least));
        async move { transaction.read_version().await }
    };
    assert_eq!(read_version(known).await, Ok(known));
    assert_eq!(read_version(ReadVersion(0)).await, Ok(known));
    cluster.clock.advance(Duration::from_secs(2));
    let asked = read_version(known).await;
    assert!(
        matches!(asked, Err(KvError::Unavailable { .. })),
        "{asked:?}"
    );
    assert!(read_version(known).await.unwrap() > known);
}

#[tokio::test]
async fn what_was_just_committed_can_be_read_without_asking_for_a_read_version() {
    let cluster = FakeCluster::new();
    let engine = cluster.engine();
    let committed = ReadVersion(put(&engine, b"key").await.unwrap().commit());
    let transaction = engine.begin(Freshness::AtLeast(committed));
    assert_eq!(transaction.read_version().await, Ok(committed));
    let value = transaction.get(b"key", Isolation::Snapshot).await.unwrap();
    assert!(value.is_some());
}

#[tokio::test]
async fn a_strict_transaction_asks_the_cluster_even_when_a_read_version_is_known() {
    let cluster = FakeCluster::new();
    let (engine, other) = (cluster.engine(), cluster.engine());
    begin(&engine).read_version().await.unwrap();
    put(&other, b"elsewhere").await.unwrap();
    assert!(exists(&engine, b"elsewhere").await);
}

/// FoundationDB counts more for a small write than its key and value. What the engine counts must
/// never be less, or a transaction that it called small enough would be refused.
#[tokio::test]
async fn many_small_writes_that_the_engine_finds_small_enough_are_taken() {
    let cluster = FakeCluster::new();
    let engine = cluster.engine();
    let limit = engine.limits().transaction_bytes;
    let mut transaction = begin(&engine);
    let mut index = 0u32;
    while transaction.approximate_bytes() < limit - 1_000 {
        let key = index.to_be_bytes();
        transaction.atomic(mvstore::kv::Atomic::Add, &key, &[1]);
        index += 1;
    }
    transaction.commit().await.unwrap();
    assert!(exists(&engine, &0u32.to_be_bytes()).await);
}

#[test]
fn a_missing_cluster_file_is_named_when_the_engine_is_opened() {
    let _cluster = FakeCluster::new();
    let Err(error) = open(Path::new("/nowhere/fdb.cluster")) else {
        panic!("a missing cluster file was opened");
    };
    let message = error.to_string();
    assert!(message.contains("/nowhere/fdb.cluster"), "{message}");
}
