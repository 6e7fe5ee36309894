//! The embedded engine's own behaviour: its directory, its end, its restart.

#![allow(clippy::unwrap_used, reason = "a panic is the report of a test")]

use std::path::Path;
use std::sync::Arc;

use mvsqlite_protocol::v2::{BeginRequest, SettleReply, SettleRequest};
use mvsqlite_protocol::{IdempotencyKey, NamespaceKey, Version};
use mvstore::error::StoreError;
use mvstore::kv::embedded::{EmbeddedEngine, EmbeddedOptions, OpenError};
use mvstore::kv::{Engine, Freshness, Isolation, KvError};
use mvstore::store::{Store, StoreOptions};

fn open(path: &Path) -> Result<EmbeddedEngine, OpenError> {
    EmbeddedEngine::open(path, EmbeddedOptions::default())
}

async fn put(engine: &dyn Engine, key: &[u8], value: &[u8]) -> Result<Version, KvError> {
    let mut transaction = engine.begin(Freshness::Strict);
    transaction.set(key, value);
    transaction.commit().await
}

async fn get(engine: &dyn Engine, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
    let transaction = engine.begin(Freshness::Strict);
    let value = transaction.get(key, Isolation::Snapshot).await?;
    Ok(value.map(|value| value.to_vec()))
}

#[test]
fn a_second_engine_on_one_directory_is_refused_with_its_name() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("made/as/needed");
    let first = open(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    first.close();
    open(&path).unwrap();
}

#[tokio::test]
async fn a_closed_engine_answers_unavailable() {
    let home = tempfile::tempdir().unwrap();
    let engine = open(home.path()).unwrap();
    put(&engine, b"key", b"value").await.unwrap();
    engine.close();
    engine.close();
    for outcome in [
        put(&engine, b"key", b"later").await.map(drop),
        get(&engine, b"key").await.map(drop),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, KvError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("closed"), "{error}");
    }
}

#[tokio::test]
async fn commits_that_wait_when_it_closes_are_answered_and_kept() {
    let home = tempfile::tempdir().unwrap();
    let engine = Arc::new(open(home.path()).unwrap());
    let commits: Vec<_> = (0..50u8)
        .map(|number| {
            let engine = engine.clone();
            tokio::spawn(async move { (number, put(engine.as_ref(), &[b'k', number], b"").await) })
        })
        .collect();
    tokio::task::yield_now().await;
    let closing = engine.clone();
    tokio::task::spawn_blocking(move || closing.close())
        .await
        .unwrap();
    let mut outcomes = Vec::new();
    for commit in commits {
        outcomes.push(commit.await.unwrap());
    }
    let engine = open(home.path()).unwrap();
    for (number, outcome) in outcomes {
        let there = get(&engine, &[b'k', number]).await.unwrap().is_some();
        match outcome {
            Ok(_) => assert!(there, "commit {number} was acknowledged"),
            Err(KvError::Unavailable { .. }) => assert!(!there, "commit {number} was refused"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn after_a_restart_versions_begin_above_all_that_were_reserved() {
    let home = tempfile::tempdir().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let engine = open(home.path()).unwrap();
        let transaction = engine.begin(Freshness::Strict);
        let begun = transaction.read_version().await.unwrap().0;
        assert!(begun > last);
        last = put(&engine, b"key", b"").await.unwrap().commit();
        assert_eq!(last, begun + 1);
        drop(transaction);
        engine.close();
    }
}

#[tokio::test]
async fn the_empty_key_and_the_empty_value_are_kept() {
    let home = tempfile::tempdir().unwrap();
    let engine = open(home.path()).unwrap();
    put(&engine, b"", b"").await.unwrap();
    assert_eq!(get(&engine, b"").await.unwrap(), Some(Vec::new()));
}

#[test]
fn damaged_files_are_refused_with_what_and_where() {
    let home = tempfile::tempdir().unwrap();
    open(home.path()).unwrap().close();
    let marker = home.path().join("fjall/version");
    std::fs::write(&marker, b"not a version").unwrap();
    let error = open(home.path()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("fjall"), "{error}");
}

/// Symptom: on a full disk no namespace could be deleted to make room, no lost commit could be
/// settled, and after a restart the store did not even open. Cause: a commit that set a single byte
/// was refused like one that brings pages, and opening asked whether pages could be written. Fix:
/// marks of a few hundred bytes go on as long as removals, and opening asks only for reads.
#[tokio::test]
async fn a_store_whose_disk_is_full_opens_reads_settles_and_makes_room() {
    let home = tempfile::tempdir().unwrap();
    let disk = rustix::fs::statvfs(home.path()).unwrap();
    let free = disk.f_bavail * disk.f_frsize;
    let options = || StoreOptions::new("meta", "m");
    let key: NamespaceKey = "db".parse().unwrap();
    {
        let engine = Arc::new(open(home.path()).unwrap());
        let store = Store::open(engine.clone(), options()).await.unwrap();
        store.create_namespace(&key).await.unwrap();
        engine.close();
    }
    let full = EmbeddedOptions {
        // Less than that is free, and more than half of it.
        reserve_bytes: free + free / 3,
        ..EmbeddedOptions::default()
    };
    let engine = Arc::new(EmbeddedEngine::open(home.path(), full).unwrap());
    let store = Store::open(engine.clone(), options()).await.unwrap();
    let checked = store.check().await.unwrap_err();
    assert!(
        matches!(checked, StoreError::StorageFull { .. }),
        "{checked}"
    );
    let refused = put(engine.as_ref(), b"key", &[7; 1024]).await.unwrap_err();
    assert!(matches!(refused, KvError::StorageFull { .. }), "{refused}");

    let begun = store.begin(&key, BeginRequest::default()).await.unwrap();
    let lost = SettleRequest {
        namespace: begun.namespace,
        key: IdempotencyKey::from_bytes([1; 16]),
    };
    let settled = store.settle(&key, lost).await.unwrap();
    assert_eq!(settled, SettleReply::Aborted);
    store.delete_namespace(&key).await.unwrap();
    let collected = store.collect_expired().await.unwrap();
    assert_eq!(collected.namespaces_removed, 1);
    engine.close();
}

/// Symptom: a commit on a very old snapshot, which compares itself with a hundred thousand others,
/// held its thread until it was through; a few of them, and the server answered nobody, health
/// checks included. Cause: reads are made where they are asked for and never wait, so a task that
/// only reads never gave way. Fix: they take part in the runtime's sharing of its threads.
#[tokio::test(flavor = "current_thread")]
async fn a_task_that_only_reads_gives_way_to_others() {
    let home = tempfile::tempdir().unwrap();
    let engine = Arc::new(open(home.path()).unwrap());
    let reading = engine.clone();
    let long = tokio::spawn(async move {
        let transaction = reading.begin(Freshness::Strict);
        for _ in 0..10_000 {
            let value = transaction.get(b"key", Isolation::Snapshot).await;
            assert_eq!(value.unwrap(), None);
        }
    });
    let short = tokio::spawn(async {});
    short.await.unwrap();
    assert!(!long.is_finished());
    long.await.unwrap();
}
