//! Namespaces: made, named, listed, described, deleted.

use std::sync::Arc;

use mvsqlite_protocol::Code;
use mvsqlite_protocol::v2::BeginRequest;
use mvstore::error::StoreError;
use mvstore::kv::faults::Fault;
use mvstore::kv::memory::MemoryEngine;
use mvstore::kv::{Engine, Freshness, Isolation, KeyRange, RangeOptions};
use mvstore::store::{Store, StoreOptions};

use crate::support::{Fixture, Random, filled, key, options, page_one};

async fn names(store: &Store, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let listed = store.list_namespaces(prefix, after, limit).await.unwrap();
    listed.into_iter().map(|entry| entry.nskey).collect()
}

#[tokio::test]
async fn a_namespace_is_made_once() {
    let f = Fixture::new().await;
    let refusal = f.store.create_namespace(&f.key).await.unwrap_err();
    assert_eq!(refusal.code(), Code::NamespaceExists);
    let id = f.store.create_namespace(&key("other")).await.unwrap();
    let stat = f.store.stat_namespace(&key("other")).await.unwrap();
    assert_eq!((stat.nsid, stat.version), (id, id.as_version()));
    assert_eq!((stat.page_size, stat.page_count), (0, 0));
}

#[tokio::test]
async fn a_creation_whose_outcome_is_unknown_is_still_made_once() {
    let f = Fixture::new().await;
    for (name, fault) in [
        ("a", Fault::UnknownCommitted),
        ("b", Fault::UnknownNotCommitted),
    ] {
        f.faults([Some(fault)]);
        let id = f.store.create_namespace(&key(name)).await.unwrap();
        assert_eq!(f.store.stat_namespace(&key(name)).await.unwrap().nsid, id);
    }
    assert_eq!(names(&f.store, "", None, 9).await, ["a", "b", "db"]);
}

#[tokio::test]
async fn the_listing_comes_in_pages_by_prefix_in_byte_order() {
    let f = Fixture::new().await;
    for name in ["b", "a/1", "a/2", "a/3", "a.", "B"] {
        f.store.create_namespace(&key(name)).await.unwrap();
    }
    let all = ["B", "a.", "a/1", "a/2", "a/3", "b", "db"];
    assert_eq!(names(&f.store, "", None, 99).await, all);
    assert_eq!(names(&f.store, "a/", None, 2).await, ["a/1", "a/2"]);
    assert_eq!(names(&f.store, "a/", Some("a/2"), 2).await, ["a/3"]);
    assert_eq!(names(&f.store, "a/", Some("zzz"), 2).await, [""; 0]);
    assert_eq!(names(&f.store, "none", None, 2).await, [""; 0]);
}

#[tokio::test]
async fn a_renamed_namespace_keeps_its_pages_and_refuses_transactions_of_its_old_name() {
    let f = Fixture::new().await;
    let before = f.put(&[(0, page_one(1, 1))]).await;
    let base = f.begin().await;
    for fault in [
        None,
        Some(Fault::UnknownCommitted),
        Some(Fault::UnknownNotCommitted),
    ] {
        f.faults([fault]);
        f.store.rename_namespace(&f.key, &key("new")).await.unwrap();
        let refusal = f.read(&base, before.version, [0]).await.unwrap_err();
        assert_eq!(refusal.code(), Code::NamespaceNotFound);
        let stat = f.store.stat_namespace(&key("new")).await.unwrap();
        assert_eq!((stat.nsid, stat.version), (base.namespace, before.version));
        f.store.rename_namespace(&key("new"), &f.key).await.unwrap();
    }
    // The new key is looked at first.
    f.store.create_namespace(&key("new")).await.unwrap();
    for old in ["db", "none"] {
        let refusal = f.store.rename_namespace(&key(old), &key("new")).await;
        assert_eq!(refusal.unwrap_err().code(), Code::NamespaceExists);
    }
    let refusal = f.store.rename_namespace(&key("none"), &key("x")).await;
    assert_eq!(refusal.unwrap_err().code(), Code::NamespaceNotFound);
}

#[tokio::test]
async fn a_transaction_begun_on_a_namespace_never_reaches_another_of_the_same_key() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    f.store.delete_namespace(&f.key).await.unwrap();
    let gone = f.store.begin(&f.key, BeginRequest::default()).await;
    assert_eq!(gone.unwrap_err().code(), Code::NamespaceNotFound);
    f.store.create_namespace(&f.key).await.unwrap();

    let commit = f.commit(&f.write(&base, &[(1, filled(1))])).await;
    assert_eq!(commit.unwrap_err().code(), Code::NamespaceChanged);
    let read = f.read(&base, base.version, [1]).await;
    assert_eq!(read.unwrap_err().code(), Code::NamespaceChanged);
    let stage = f.stage(&base, None, &[(1, filled(1))]).await;
    assert_eq!(stage.unwrap_err().code(), Code::NamespaceChanged);
}

#[tokio::test]
async fn a_deleted_namespace_leaves_no_key_behind() {
    let memory = Arc::new(MemoryEngine::new());
    let f = Fixture::over(memory.clone(), 1).await;
    f.store.delete_namespace(&f.key).await.unwrap();
    while f.store.collect_expired().await.unwrap().more {}
    let empty = all_keys(&*memory).await;

    f.store.create_namespace(&f.key).await.unwrap();
    let pages: Vec<_> = (0..700).map(|index| (index, filled(1))).collect();
    f.put(&pages).await;
    let base = f.begin().await;
    f.stage(&base, None, &[(5, filled(2))]).await.unwrap();
    for fault in [None, Some(Fault::UnknownCommitted)] {
        if fault.is_some() {
            f.store.create_namespace(&f.key).await.unwrap();
        }
        f.faults([fault]);
        f.store.delete_namespace(&f.key).await.unwrap();
        let again = f.store.delete_namespace(&f.key).await.unwrap_err();
        assert_eq!(again.code(), Code::NamespaceNotFound);
    }
    let mut removed = 0;
    loop {
        let collected = f.store.collect_expired().await.unwrap();
        removed += collected.namespaces_removed;
        if !collected.more {
            break;
        }
    }
    assert_eq!(removed, 2);
    // What expires later is still in the index, and goes with its time.
    f.clock.advance(10 * 3600 * 1000);
    while f.store.collect_expired().await.unwrap().more {}
    assert_eq!(all_keys(&*memory).await, empty);
}

async fn all_keys(engine: &dyn Engine) -> Vec<Vec<u8>> {
    let options = RangeOptions {
        limit: 10_000,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let all = KeyRange::new([], [0xff]);
    let txn = engine.begin(Freshness::Strict);
    let pairs = txn.get_range(&all, options).await.unwrap();
    pairs.into_iter().map(|(key, _)| key.to_vec()).collect()
}

#[tokio::test]
async fn a_store_reopened_is_the_same_store() {
    let memory = Arc::new(MemoryEngine::new());
    let f = Fixture::over(memory.clone(), 1).await;
    let reopened = Store::open(memory, options(f.clock.clone(), Arc::new(Random::new(9)))).await;
    let reopened = reopened.unwrap();
    assert_eq!(reopened.incarnation(), f.store.incarnation());
    assert_eq!(names(&reopened, "", None, 9).await, ["db"]);
    let other = Fixture::over(Arc::new(MemoryEngine::new()), 2).await;
    assert_ne!(other.store.incarnation(), f.store.incarnation());
}

#[tokio::test]
async fn a_store_of_a_newer_format_is_refused() {
    let memory = Arc::new(MemoryEngine::new());
    let mut txn = memory.begin(Freshness::Strict);
    txn.set(
        b"mvstore-test\0mf",
        &[0, 3, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    txn.commit().await.unwrap();
    let refusal = Store::open(memory, StoreOptions::new("mvstore-test", "m")).await;
    let Err(StoreError::UnknownFormat {
        found: 3, known: 2, ..
    }) = refusal
    else {
        panic!("a newer format must be refused");
    };
}

/// Symptom: a server deleted a namespace that a newer one had made, forks and all that hung on it.
/// Cause: reading and writing asked for the namespace's generation, deleting did not. Fix: it does.
#[tokio::test]
async fn a_namespace_of_a_newer_generation_is_not_deleted() {
    let memory = Arc::new(MemoryEngine::new());
    let f = Fixture::over(memory.clone(), 1).await;
    let mut guard = b"m\0d".to_vec();
    guard.extend_from_slice(f.begin().await.namespace.as_bytes());
    guard.push(b'g');
    for generations in [[3, 3], [1, 3]] {
        let mut newer = vec![0; 47];
        newer[..2].copy_from_slice(&generations);
        let mut txn = memory.begin(Freshness::Strict);
        txn.set(&guard, &newer);
        txn.commit().await.unwrap();
        let refusal = f.store.delete_namespace(&f.key).await.unwrap_err();
        assert!(
            matches!(refusal, StoreError::UnknownFormat { .. }),
            "{refusal}"
        );
        assert_eq!(names(&f.store, "", None, 9).await, ["db"]);
    }
}

#[tokio::test]
async fn an_engine_whose_versions_went_back_is_refused() {
    let memory = Arc::new(MemoryEngine::new());
    let f = Fixture::over(memory.clone(), 1).await;
    let mut txn = memory.begin(Freshness::Strict);
    txn.set(b"mvstore-test\0mh", &[0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    txn.commit().await.unwrap();
    let refusal = Store::open(memory, options(f.clock.clone(), f.random.clone())).await;
    let Err(refusal) = refusal else {
        panic!("versions that went back must be noticed");
    };
    let problem = mvsqlite_protocol::Problem::from(refusal);
    assert!(problem.hint.unwrap().contains("fdbcli advanceversion"));
}
