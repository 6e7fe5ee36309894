//! Namespace locks: who sees what, who may write, and rollback as a restore.

use mvsqlite_protocol::v2::{BeginRequest, KnownState};
use mvsqlite_protocol::{Code, Version};
use mvstore::kv::faults::Fault;
use mvstore::store::{LockAcquired, LockReleased, ReleaseMode};

use crate::support::{Fixture, filled, page_one};
use crate::truncate::truncate;

use LockAcquired::Acquired;
use LockReleased::Released;
use ReleaseMode::{Commit, Rollback};

async fn acquire(f: &Fixture, owner: &str, version: Option<Version>) -> LockAcquired {
    f.store.acquire_lock(&f.key, owner, version).await.unwrap()
}

async fn release(f: &Fixture, owner: &str, mode: ReleaseMode) -> LockReleased {
    f.store.release_lock(&f.key, owner, mode).await.unwrap()
}

async fn three_versions(f: &Fixture) -> [Version; 3] {
    let first = f.put(&[(0, page_one(2, 1)), (1, filled(1))]).await.version;
    let second = f.put(&[(1, filled(2))]).await.version;
    let third = f.put(&[(1, filled(3))]).await.version;
    [first, second, third]
}

fn held_by(owner: &str) -> LockAcquired {
    LockAcquired::Held {
        owner: owner.to_owned(),
    }
}

fn not_held(owner: Option<&str>) -> LockReleased {
    LockReleased::NotHeld {
        owner: owner.map(str::to_owned),
    }
}

#[tokio::test]
async fn a_lock_is_its_owners_until_it_is_given_back() {
    let f = Fixture::new().await;
    let [first, .., last] = three_versions(&f).await;
    assert_eq!(release(&f, "w1", Commit).await, not_held(None));
    assert_eq!(release(&f, "w1", Rollback).await, not_held(None));
    assert_eq!(acquire(&f, "", None).await, LockAcquired::InvalidOwner);
    let long = "x".repeat(257);
    assert_eq!(acquire(&f, &long, None).await, LockAcquired::InvalidOwner);
    assert_eq!(acquire(&f, "w1", None).await, Acquired);
    // Again: nothing changes, whatever version is named.
    assert_eq!(acquire(&f, "w1", Some(first)).await, Acquired);
    let lock = f
        .store
        .stat_namespace(&f.key)
        .await
        .unwrap()
        .metadata
        .lock
        .unwrap();
    assert_eq!((lock.owner.as_str(), lock.snapshot_version), ("w1", last));
    assert!(!lock.rolling_back && lock.nonce.len() == 32);
    assert_eq!(acquire(&f, "w2", None).await, held_by("w1"));
    assert_eq!(release(&f, "w2", Commit).await, not_held(Some("w1")));
    assert_eq!(release(&f, "w2", Rollback).await, not_held(Some("w1")));
    assert_eq!(release(&f, "", Commit).await, LockReleased::InvalidOwner);
    assert_eq!(release(&f, "w1", Commit).await, Released);
    assert_eq!(f.begin().await.version, last);
    f.put(&[(1, filled(4))]).await;
}

#[tokio::test]
async fn a_version_that_cannot_be_locked_is_refused_with_the_reason() {
    let f = Fixture::new().await;
    let [first, second, last] = three_versions(&f).await;
    truncate(&f, second, true).await.unwrap();
    let above = Version::new(last.commit() + 1, 0);
    for (version, words) in [(above, "above"), (first, "truncated")] {
        let LockAcquired::Refused { reason } = acquire(&f, "w1", Some(version)).await else {
            panic!("{version} was locked");
        };
        assert!(reason.contains(words), "{reason}");
    }
    // Between two commits: the one before.
    let between = Version::new(last.commit() - 1, u16::MAX);
    assert_eq!(acquire(&f, "w1", Some(between)).await, Acquired);
    assert_eq!(f.begin().await.version, second);
}

#[tokio::test]
async fn others_see_the_snapshot_and_cannot_commit_while_it_is_locked() {
    let f = Fixture::new().await;
    let [first, second, last] = three_versions(&f).await;
    let before = f.begin().await;
    assert_eq!(acquire(&f, "w1", Some(second)).await, Acquired);
    let base = f.begin().await;
    assert_eq!(base.version, second);
    // What a client knows lies above what it sees now.
    let known = KnownState {
        incarnation: before.incarnation,
        namespace: before.namespace,
        version: before.version,
        own: Vec::new(),
    };
    let request = BeginRequest {
        known: Some(known),
        as_of: Some(before.read_version),
        ..BeginRequest::default()
    };
    let again = f.store.begin(&f.key, request).await.unwrap();
    assert_eq!((again.version, again.changed), (second, None));
    for base in [&base, &before] {
        let refusal = f
            .commit(&f.write(base, &[(1, filled(9))]))
            .await
            .unwrap_err();
        assert_eq!(refusal.code(), Code::Locked);
        assert!(
            refusal.to_string().contains("its namespace lock is held"),
            "{refusal}"
        );
    }
    for (version, byte) in [(first, 1), (second, 2), (last, 3)] {
        assert_eq!(f.content(version, 1).await, Some(filled(byte)));
    }
    // History is held at the snapshot.
    let held = truncate(&f, last, true).await.unwrap();
    assert_eq!((held.horizon, held.page_versions), (second, 1));
    assert_eq!(release(&f, "w1", Commit).await, Released);
    assert_eq!(truncate(&f, last, true).await.unwrap().horizon, last);
}

#[tokio::test]
async fn a_rollback_is_a_new_version_that_shows_the_old_one() {
    let f = Fixture::new().await;
    let [first, second, last] = three_versions(&f).await;
    let late = f.begin().await;
    assert_eq!(acquire(&f, "w1", Some(first)).await, Acquired);
    assert_eq!(release(&f, "w1", Rollback).await, Released);
    let restored = f.begin().await;
    assert!(
        restored.version > last,
        "versions are never given out again"
    );
    assert_eq!(f.content(restored.version, 1).await, Some(filled(1)));
    // What was rolled back stays readable, but nothing can be committed on it.
    assert_eq!(f.content(second, 1).await, Some(filled(2)));
    assert_eq!(f.content(last, 1).await, Some(filled(3)));
    let refusal = f
        .commit(&f.write(&late, &[(5, filled(9))]))
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::Conflict);
    // A client that knows a version from before drops all that it knows.
    let request = BeginRequest {
        known: Some(KnownState {
            incarnation: late.incarnation,
            namespace: late.namespace,
            version: late.version,
            own: Vec::new(),
        }),
        ..BeginRequest::default()
    };
    let begun = f.store.begin(&f.key, request).await.unwrap();
    assert_eq!((begun.version, begun.changed), (restored.version, None));
    let next = f.put(&[(1, filled(7))]).await.version;
    assert_eq!(f.content(next, 1).await, Some(filled(7)));
    // A rollback is undone by another one.
    assert_eq!(acquire(&f, "w2", Some(last)).await, Acquired);
    assert_eq!(release(&f, "w2", Rollback).await, Released);
    let head = f.begin().await.version;
    assert_eq!(f.content(head, 1).await, Some(filled(3)));
}

#[tokio::test]
async fn a_rollback_without_anything_to_undo_makes_no_version() {
    let f = Fixture::new().await;
    let [.., last] = three_versions(&f).await;
    assert_eq!(acquire(&f, "w1", None).await, Acquired);
    assert_eq!(release(&f, "w1", Rollback).await, Released);
    assert_eq!(f.begin().await.version, last);
}

#[tokio::test]
async fn a_rollback_that_was_cut_short_can_only_be_finished() {
    let f = Fixture::new().await;
    let [first, .., last] = three_versions(&f).await;
    assert_eq!(acquire(&f, "w1", Some(first)).await, Acquired);
    // The mark is written; the engine fails before the restore.
    f.faults([None, Some(Fault::Unavailable)]);
    let failed = f.store.release_lock(&f.key, "w1", Rollback).await;
    assert_eq!(failed.unwrap_err().code(), Code::Unavailable);
    let lock = f
        .store
        .stat_namespace(&f.key)
        .await
        .unwrap()
        .metadata
        .lock
        .unwrap();
    assert!(lock.rolling_back);
    assert_eq!(f.begin().await.version, first);
    assert_eq!(release(&f, "w1", Commit).await, LockReleased::RollingBack);
    assert_eq!(release(&f, "w2", Rollback).await, not_held(Some("w1")));
    assert_eq!(acquire(&f, "w1", None).await, Acquired);
    assert_eq!(release(&f, "w1", Rollback).await, Released);
    let head = f.begin().await.version;
    assert!(head > last);
    assert_eq!(f.content(head, 1).await, Some(filled(1)));
    assert_eq!(release(&f, "w1", Rollback).await, not_held(None));
}

/// The reply of the engine got lost: a second look must not take one's own doing for another's.
#[tokio::test]
async fn unknown_outcomes_are_found_out() {
    use Fault::{UnknownCommitted, UnknownNotCommitted};
    for fault in [UnknownCommitted, UnknownNotCommitted] {
        let f = Fixture::new().await;
        let [first, .., last] = three_versions(&f).await;
        f.faults([Some(fault)]);
        assert_eq!(acquire(&f, "w1", None).await, Acquired);
        f.faults([Some(fault)]);
        assert_eq!(release(&f, "w1", Commit).await, Released);
        assert_eq!(acquire(&f, "w1", Some(first)).await, Acquired);
        f.faults([Some(fault), Some(fault)]);
        assert_eq!(release(&f, "w1", Rollback).await, Released);
        let restored = f.begin().await.version;
        assert!(restored > last);
        let stat = f.store.stat_namespace(&f.key).await.unwrap();
        assert_eq!((stat.metadata.lock, stat.version), (None, restored));
    }
}

/// The clients of data plane v2 say with each call in whose name they come.
#[tokio::test]
async fn the_owner_of_a_lock_sees_and_writes_on_while_others_stay_outside() {
    let f = Fixture::new().await;
    let [.., last] = three_versions(&f).await;
    assert_eq!(acquire(&f, "w1", None).await, Acquired);
    let begin = |owner: &'static str| {
        let request = BeginRequest::default();
        f.store.begin_as(Some(owner), &f.key, request)
    };
    let base = begin("w1").await.unwrap();
    let request = f.write(&base, &[(1, filled(4))]);
    let owner = |name: &str| Some(name.to_owned());
    let refused = f.store.commit_as(owner("w2"), &f.key, request.clone());
    assert_eq!(refused.await.unwrap_err().code(), Code::Locked);
    let done = f.store.commit_as(owner("w1"), &f.key, request);
    let written = done.await.unwrap().version;
    assert_eq!(begin("w1").await.unwrap().version, written);
    assert_eq!(
        f.begin().await.version,
        last,
        "as it was when it was locked"
    );
    assert_eq!(begin("w2").await.unwrap_err().code(), Code::Locked);
    assert_eq!(release(&f, "w1", Commit).await, Released);
    assert_eq!(f.begin().await.version, written);
    assert_eq!(begin("w1").await.unwrap_err().code(), Code::Locked);
}
