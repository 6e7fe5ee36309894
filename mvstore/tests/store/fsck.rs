//! `mvstore fsck`'s library: a store in which everything occurs has nothing wrong with it, each kind of
//! damage is found and nothing else with it, and what is done meanwhile is never taken for damage.

pub(crate) mod busy;
mod damage;
mod leftovers;
mod plausible;
mod timing;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use mvsqlite_protocol::v2::{LeaseAction, LeaseRequest};
use mvsqlite_protocol::{IdempotencyKey, LeaseNonce, NamespaceId, StageId, Version};
use mvstore::fsck::{self, Event, FsckError, FsckOptions};
use mvstore::kv::memory::MemoryEngine;
use mvstore::kv::{Engine, Freshness, Isolation, KeyRange, RangeOptions};

use crate::layers::{fixture, fold, head, put_large};
use crate::support::{Fixture, expect_sound, filled, findings, key};

/// Every key of a store.
type Dump = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store in which everything occurs that it can keep.
struct World {
    f: Fixture,
    /// Commits, staged content that is folded, uploads, outcomes, an open stage, a base of `fork`.
    db: NamespaceId,
    versions: Vec<Version>,
    open_stage: StageId,
    outcome: IdempotencyKey,
    /// A layer with a stage, not folded.
    layered: NamespaceId,
    layered_at: Version,
    /// A restore, not folded, behind a horizon, and a namespace lock.
    restored: NamespaceId,
    horizon: Version,
    /// A write lease.
    leased: NamespaceId,
    fork: NamespaceId,
    /// Hidden, and the base of `orphan`.
    hidden: NamespaceId,
    orphan: NamespaceId,
    /// Deleted, and not removed yet.
    deleted: NamespaceId,
}

async fn enter(f: &mut Fixture, name: &str) -> NamespaceId {
    f.key = key(name);
    f.store.create_namespace(&f.key).await.unwrap()
}

impl World {
    async fn new() -> Self {
        let mut f = fixture().await;
        f.store.record_time().await.unwrap();
        let (db, versions, open_stage, outcome) = everyday(&f).await;
        let layered = enter(&mut f, "layered").await;
        f.put(&[head(6, 1), (1, filled(1)), (5, filled(1))]).await;
        let pages = vec![head(4, 2), (1, filled(2)), (3, filled(2))];
        let layered_at = put_large(&f, &pages).await;
        let restored = enter(&mut f, "restored").await;
        let horizon = restored_history(&f).await;
        let leased = enter(&mut f, "leased").await;
        take_lease(&f, leased).await;
        f.key = key("fork");
        let fork = f.store.fork_namespace(&f.key, db, versions[1]);
        let fork = fork.await.unwrap();
        f.put(&[(2, filled(9))]).await;
        let hidden = enter(&mut f, "hidden").await;
        let at = f.put(&[head(2, 1), (1, filled(1))]).await.version;
        let name = key("orphan");
        let orphan = f.store.fork_namespace(&name, hidden, at);
        let orphan = orphan.await.unwrap();
        f.store.delete_namespace(&f.key).await.unwrap();
        let deleted = enter(&mut f, "deleted").await;
        f.put(&[head(2, 1), (1, filled(1))]).await;
        f.store.delete_namespace(&f.key).await.unwrap();
        f.clock.advance(1000);
        f.store.record_time().await.unwrap();
        Self {
            f,
            db,
            versions,
            open_stage,
            outcome,
            layered,
            layered_at,
            restored,
            horizon,
            leased,
            fork,
            hidden,
            orphan,
            deleted,
        }
    }

    fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(self.f.engine.clone())
    }

    async fn dump(&self) -> Dump {
        let options = RangeOptions {
            limit: 100_000,
            reverse: false,
            isolation: Isolation::Snapshot,
        };
        let txn = self.f.engine.begin(Freshness::Strict);
        let all = KeyRange::new(vec![0], vec![0xff]);
        let pairs = txn.get_range(&all, options).await.unwrap();
        let pairs = pairs
            .iter()
            .map(|(key, value)| (key.to_vec(), value.to_vec()));
        pairs.collect()
    }
}

/// Commits of several kinds to `db`.
async fn everyday(f: &Fixture) -> (NamespaceId, Vec<Version>, StageId, IdempotencyKey) {
    let first = f
        .put(&[head(5, 1), (1, filled(1)), (2, filled(1)), (4, filled(1))])
        .await;
    let base = f.begin().await;
    let request = f.write(&base, &[(1, filled(2)), (2, filled(2))]);
    let second = f.commit(&request).await.unwrap();
    let third = put_large(f, &vec![(2, filled(3)), (3, filled(3))]).await;
    fold(f).await;
    let fourth = f.put(&[head(4, 4)]).await;
    fold(f).await;
    let content = [filled(7)];
    f.store
        .original()
        .upload(&f.key, &[&content[0]])
        .await
        .unwrap();
    let base = f.begin().await;
    let staged = f
        .stage(&base, None, &[(1, filled(8)), (2, filled(8))])
        .await;
    let versions = vec![first.version, second.version, third, fourth.version];
    (base.namespace, versions, staged.unwrap().stage, request.key)
}

/// A horizon, a restore behind it, and a lock.
async fn restored_history(f: &Fixture) -> Version {
    f.put(&[head(3, 1), (1, filled(1))]).await;
    let cut = f.put(&[(1, filled(2))]).await.version;
    f.put(&[(1, filled(3)), (2, filled(3))]).await;
    let all = |_| ControlFlow::Continue(());
    f.store
        .truncate_namespace(&f.key, cut, true, all)
        .await
        .unwrap();
    f.store.restore_namespace(&f.key, cut).await.unwrap();
    f.store
        .acquire_lock(&f.key, "somebody", None)
        .await
        .unwrap();
    cut
}

async fn take_lease(f: &Fixture, id: NamespaceId) {
    let request = LeaseRequest {
        namespace: id,
        incarnation: None,
        nonce: LeaseNonce::from_bytes([5; 16]),
        action: LeaseAction::Acquire { place: None },
    };
    f.store.lease(&f.key, request).await.unwrap();
}

#[tokio::test]
async fn a_store_in_which_everything_occurs_is_sound() {
    let world = World::new().await;
    expect_sound(world.engine()).await;
    let found = findings(world.engine()).await;
    assert_eq!(found.counts.namespaces, 8);
    assert!(found.counts.page_versions > 15 && found.counts.staged_pages > 4);
    // As it goes on, too.
    fold(&world.f).await;
    expect_sound(world.engine()).await;
    world.f.clock.advance(100_000_000);
    while world.f.store.collect_expired().await.unwrap().more {}
    expect_sound(world.engine()).await;
}

#[tokio::test]
async fn an_engine_without_a_store_is_sound_and_a_check_writes_nothing_there() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let found = findings(engine.clone()).await;
    assert_eq!(found, Default::default());
    let all = KeyRange::new(vec![0], vec![0xff]);
    let options = RangeOptions {
        limit: 1,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let txn = engine.begin(Freshness::Strict);
    assert!(txn.get_range(&all, options).await.unwrap().is_empty());
}

#[tokio::test]
async fn whoever_listens_can_end_a_check() {
    let world = World::new().await;
    let options = FsckOptions::new("mvstore-test", "m");
    let mut told = 0;
    let checked = fsck::check_with(world.engine(), options, |event| {
        told += u32::from(matches!(event, Event::Progress(_)));
        match told {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    assert_eq!(checked.await, Err(FsckError::Stopped));
    assert_eq!(told, 2);
}
