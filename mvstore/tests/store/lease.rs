//! The write lease: who holds it, who waits, and who may commit.

mod model;

use std::sync::Arc;
use std::time::Duration;

use mvsqlite_protocol::v2::{
    BeginReply, CommitReply, CommitRequest, Concurrency, LeaseAction, LeaseReply, LeaseRequest,
    StageRef,
};
use mvsqlite_protocol::{Code, LeaseNonce, Version};
use mvstore::error::StoreError;
use mvstore::kv::clock::ManualClock;
use mvstore::kv::memory::{MemoryEngine, MemoryOptions};

use mvstore::store::{Knobs, ReleaseMode, StoreOptions};

use crate::support::{Fixture, filled, page_one};

const TTL: Duration = Duration::from_secs(5);
const PLACE_TTL: Duration = Duration::from_secs(1);

const ANNA: LeaseNonce = LeaseNonce::from_bytes([1; 16]);
const BERT: LeaseNonce = LeaseNonce::from_bytes([2; 16]);
const CLEO: LeaseNonce = LeaseNonce::from_bytes([3; 16]);

/// A store whose engine's clock moves when told.
struct Leases {
    fixture: Fixture,
    engine: MemoryEngine,
    clock: Arc<ManualClock>,
    begun: BeginReply,
}

impl Leases {
    async fn new(mode: Concurrency) -> Self {
        Self::with_knobs(mode, Knobs::default()).await
    }

    async fn with_knobs(mode: Concurrency, knobs: Knobs) -> Self {
        let clock = Arc::new(ManualClock::default());
        let engine = MemoryEngine::with_options(MemoryOptions {
            clock: clock.clone(),
            ..MemoryOptions::default()
        });
        let shared = Arc::new(engine.clone());
        let change = |options: &mut StoreOptions| options.knobs = knobs;
        let fixture = Fixture::with_options(shared, 1, change).await;
        let set = fixture.store.set_concurrency(&fixture.key, mode);
        set.await.unwrap();
        let begun = fixture.begin().await;
        Self {
            fixture,
            engine,
            clock,
            begun,
        }
    }

    async fn call(&self, nonce: LeaseNonce, action: LeaseAction) -> Result<LeaseReply, StoreError> {
        let request = LeaseRequest {
            namespace: self.begun.namespace,
            incarnation: Some(self.begun.incarnation),
            nonce,
            action,
        };
        self.fixture.store.lease(&self.fixture.key, request).await
    }

    /// The head if it was granted, the place if not.
    async fn acquire(&self, nonce: LeaseNonce, place: Option<u64>) -> Result<Version, u64> {
        let action = LeaseAction::Acquire { place };
        match self.call(nonce, action).await.unwrap() {
            LeaseReply::Granted { head, .. } => Ok(head),
            LeaseReply::Busy { place, .. } => Err(place),
            LeaseReply::Released => panic!("nothing was released"),
        }
    }

    async fn renew(&self, nonce: LeaseNonce) -> Result<(), Code> {
        let reply = self.call(nonce, LeaseAction::Renew).await;
        reply.map(|_| ()).map_err(|error| error.code())
    }

    async fn release(&self, nonce: LeaseNonce, place: Option<u64>) {
        let reply = self.call(nonce, LeaseAction::Release { place }).await;
        assert_eq!(reply, Ok(LeaseReply::Released));
    }

    /// A commit on the newest version.
    async fn request(&self, lease: Option<LeaseNonce>) -> CommitRequest {
        let base = self.fixture.begin().await;
        CommitRequest {
            lease,
            ..self.fixture.write(&base, &[(1, filled(7))])
        }
    }

    async fn send(&self, request: &CommitRequest) -> Result<CommitReply, Code> {
        let reply = self.fixture.commit(request).await;
        reply.map_err(|error| error.code())
    }

    async fn commit(&self, lease: Option<LeaseNonce>) -> Result<CommitReply, Code> {
        let request = self.request(lease).await;
        self.send(&request).await
    }
}

#[tokio::test]
async fn a_free_lease_is_granted_with_the_newest_version() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    let head = leases.acquire(ANNA, None).await.unwrap();
    assert_eq!(head, leases.begun.version);
    let made = leases.commit(Some(ANNA)).await.unwrap().version;
    assert_eq!(leases.acquire(BERT, None).await, Ok(made));
}

#[tokio::test]
async fn the_commit_gives_the_lease_back() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.acquire(ANNA, None).await.unwrap();
    leases.commit(Some(ANNA)).await.unwrap();
    assert_eq!(leases.commit(Some(ANNA)).await, Err(Code::Locked));
    assert_eq!(leases.renew(ANNA).await, Err(Code::Locked));
    leases.acquire(BERT, None).await.unwrap();
}

#[tokio::test]
async fn a_repeated_commit_is_answered_though_the_lease_is_gone() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.acquire(ANNA, None).await.unwrap();
    let mut request = leases.request(Some(ANNA)).await;
    let first = leases.send(&request).await.unwrap();
    leases.acquire(BERT, None).await.unwrap();
    request.retry = true;
    let again = leases.send(&request).await.unwrap();
    assert_eq!(first.version, again.version);
}

#[tokio::test]
async fn in_exclusive_mode_a_commit_without_a_lease_is_refused_whether_or_not_one_lives() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    assert_eq!(leases.commit(None).await, Err(Code::Locked));
    leases.acquire(ANNA, None).await.unwrap();
    assert_eq!(leases.commit(None).await, Err(Code::Locked));
    leases.clock.advance(TTL);
    assert_eq!(leases.commit(None).await, Err(Code::Locked));
}

#[tokio::test]
async fn a_commit_with_anothers_lease_is_refused() {
    let leases = Leases::new(Concurrency::Optimistic).await;
    leases.acquire(ANNA, None).await.unwrap();
    assert_eq!(leases.commit(Some(BERT)).await, Err(Code::Locked));
}

#[tokio::test]
async fn an_optimistic_commit_waits_for_the_lease_and_takes_it_away_when_its_time_is_over() {
    let leases = Leases::new(Concurrency::Optimistic).await;
    leases.commit(None).await.unwrap();
    leases.acquire(ANNA, None).await.unwrap();
    let late = leases.request(Some(ANNA)).await;
    assert_eq!(leases.commit(None).await, Err(Code::Locked));
    leases.clock.advance(TTL - Duration::from_micros(1));
    assert_eq!(leases.commit(None).await, Err(Code::Locked));
    leases.clock.advance(Duration::from_micros(1));
    leases.commit(None).await.unwrap();
    assert_eq!(leases.send(&late).await, Err(Code::Locked));
    assert_eq!(leases.renew(ANNA).await, Err(Code::Locked));
}

#[tokio::test]
async fn a_lease_whose_time_is_over_is_still_its_holders_if_nobody_else_came() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.acquire(ANNA, None).await.unwrap();
    leases.clock.advance(TTL * 10);
    leases.renew(ANNA).await.unwrap();
    leases.acquire(BERT, None).await.unwrap_err();
    leases.clock.advance(TTL * 10);
    leases.commit(Some(ANNA)).await.unwrap();
}

#[tokio::test]
async fn the_late_holder_fails_once_another_was_granted_the_lease() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.acquire(ANNA, None).await.unwrap();
    let late = leases.request(Some(ANNA)).await;
    leases.clock.advance(TTL);
    leases.acquire(BERT, None).await.unwrap();
    assert_eq!(leases.send(&late).await, Err(Code::Locked));
    assert_eq!(leases.renew(ANNA).await, Err(Code::Locked));
    leases.commit(Some(BERT)).await.unwrap();
}

#[tokio::test]
async fn renewing_keeps_others_out_for_another_term() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.acquire(ANNA, None).await.unwrap();
    for _ in 0..3 {
        leases.clock.advance(TTL - Duration::from_millis(1));
        leases.renew(ANNA).await.unwrap();
        leases.acquire(BERT, None).await.unwrap_err();
    }
    leases.clock.advance(TTL);
    leases.acquire(BERT, None).await.unwrap();
}

#[tokio::test]
async fn who_asks_again_is_granted_again() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.acquire(ANNA, None).await.unwrap();
    leases.clock.advance(TTL / 2);
    leases.acquire(ANNA, None).await.unwrap();
    leases.clock.advance(TTL / 2);
    leases.acquire(BERT, None).await.unwrap_err();
}

#[tokio::test]
async fn places_are_served_in_the_order_in_which_they_were_taken() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.acquire(ANNA, None).await.unwrap();
    let bert = leases.acquire(BERT, None).await.unwrap_err();
    let cleo = leases.acquire(CLEO, None).await.unwrap_err();
    leases.release(ANNA, None).await;
    assert_eq!(leases.acquire(CLEO, Some(cleo)).await, Err(cleo));
    leases.acquire(ANNA, None).await.unwrap_err();
    leases.acquire(BERT, Some(bert)).await.unwrap();
    assert_eq!(leases.acquire(CLEO, Some(cleo)).await, Err(cleo));
    leases.release(BERT, None).await;
    leases.acquire(CLEO, Some(cleo)).await.unwrap();
}

#[tokio::test]
async fn a_place_that_was_never_asked_for_again_goes_soon() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.acquire(ANNA, None).await.unwrap();
    leases.acquire(BERT, None).await.unwrap_err();
    let cleo = leases.acquire(CLEO, None).await.unwrap_err();
    leases.release(ANNA, None).await;
    leases.acquire(CLEO, Some(cleo)).await.unwrap_err();
    leases.clock.advance(PLACE_TTL / 4);
    leases.acquire(CLEO, Some(cleo)).await.unwrap();
    // It was passed over for good.
    leases.release(CLEO, None).await;
    leases.acquire(ANNA, None).await.unwrap();
}

#[tokio::test]
async fn a_place_is_kept_by_asking_again_and_abandoned_by_no_longer_asking() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.acquire(ANNA, None).await.unwrap();
    let bert = leases.acquire(BERT, None).await.unwrap_err();
    for _ in 0..20 {
        leases.clock.advance(PLACE_TTL / 5);
        leases.renew(ANNA).await.unwrap();
        leases.acquire(BERT, Some(bert)).await.unwrap_err();
    }
    leases.release(ANNA, None).await;
    let cleo = leases.acquire(CLEO, None).await.unwrap_err();
    leases.clock.advance(PLACE_TTL);
    leases.acquire(CLEO, Some(cleo)).await.unwrap();
    // Who comes back has the old place again, which nobody else took.
    leases.acquire(BERT, Some(bert)).await.unwrap_err();
}

#[tokio::test]
async fn a_place_that_is_given_up_keeps_nobody_waiting() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.acquire(ANNA, None).await.unwrap();
    let bert = leases.acquire(BERT, None).await.unwrap_err();
    leases.release(BERT, Some(bert)).await;
    leases.release(ANNA, None).await;
    leases.acquire(CLEO, None).await.unwrap();
}

#[tokio::test]
async fn who_holds_nothing_gives_nothing_back() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.acquire(ANNA, None).await.unwrap();
    leases.release(BERT, None).await;
    leases.acquire(CLEO, None).await.unwrap_err();
    leases.commit(Some(ANNA)).await.unwrap();
}

#[tokio::test]
async fn a_restart_extends_a_lease_by_no_more_than_its_term() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    leases.clock.advance(TTL * 3);
    leases.acquire(ANNA, None).await.unwrap();
    leases.clock.advance(TTL - Duration::from_millis(1));
    leases.engine.restart();
    leases.clock.advance(TTL - Duration::from_millis(1));
    let place = leases.acquire(BERT, None).await.unwrap_err();
    leases.clock.advance(Duration::from_millis(1));
    leases.acquire(BERT, Some(place)).await.unwrap();
}

#[tokio::test]
async fn a_commit_under_way_when_the_lease_is_granted_is_not_made() {
    let leases = Leases::new(Concurrency::Optimistic).await;
    let under_way = leases.request(None).await;
    leases.acquire(ANNA, None).await.unwrap();
    assert_eq!(leases.send(&under_way).await, Err(Code::Locked));
    assert_eq!(leases.fixture.begin().await.version, leases.begun.version);
}

#[tokio::test]
async fn a_lease_needs_a_nonce_and_the_namespace_it_began_on() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    let acquire = LeaseAction::Acquire { place: None };
    let zeros = LeaseNonce::from_bytes([0; 16]);
    leases.call(zeros, acquire).await.unwrap_err();
    let (store, key) = (&leases.fixture.store, &leases.fixture.key);
    store.delete_namespace(key).await.unwrap();
    store.create_namespace(key).await.unwrap();
    let refusal = leases.call(ANNA, acquire).await.unwrap_err();
    assert_eq!(refusal.code(), Code::NamespaceChanged);
}

#[tokio::test]
async fn a_deleted_namespace_leaves_no_lease_behind() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    let before = leases.engine.clone();
    leases.acquire(ANNA, None).await.unwrap();
    leases.acquire(BERT, None).await.unwrap_err();
    let (store, key) = (&leases.fixture.store, &leases.fixture.key);
    store.delete_namespace(key).await.unwrap();
    while store.collect_expired().await.unwrap().more {}
    use mvstore::kv::{Engine, Freshness, Isolation, KeyRange, RangeOptions};
    let options = RangeOptions {
        limit: 10,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let leases = KeyRange::prefix(b"mvstore-test\0ml");
    let left = before.begin(Freshness::Strict);
    assert!(left.get_range(&leases, options).await.unwrap().is_empty());
}

/// A commit would be refused under a namespace lock, which nobody who holds a lease expects.
#[tokio::test]
async fn while_a_namespace_lock_is_held_no_lease_is_granted() {
    let leases = Leases::new(Concurrency::Exclusive).await;
    let (store, key) = (&leases.fixture.store, &leases.fixture.key);
    store.acquire_lock(key, "operator", None).await.unwrap();
    let acquire = LeaseAction::Acquire { place: None };
    let refusal = leases.call(ANNA, acquire).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Locked);
    let mode = ReleaseMode::Commit;
    store.release_lock(key, "operator", mode).await.unwrap();
    leases.acquire(ANNA, None).await.unwrap();
}

/// A large commit writes the guard too, and so does the worker that folds its layer.
#[tokio::test]
async fn a_large_commit_gives_the_lease_back_and_folding_leaves_the_next_one_alone() {
    let knobs = Knobs {
        layer_bytes: Some(0),
        fold_pages: Some(1),
    };
    let leases = Leases::with_knobs(Concurrency::Exclusive, knobs).await;
    leases.acquire(ANNA, None).await.unwrap();
    let f = &leases.fixture;
    let base = f.begin().await;
    let pages = [(1, filled(1)), (2, filled(2))];
    let staged = f.stage(&base, None, &pages).await.unwrap();
    let request = CommitRequest {
        lease: Some(ANNA),
        stage: Some(StageRef {
            stage: staged.stage,
            count: staged.count,
            sum: staged.sum,
        }),
        ..f.write(&base, &[(0, page_one(3, 1))])
    };
    let made = leases.send(&request).await.unwrap().version;
    assert_eq!(leases.renew(ANNA).await, Err(Code::Locked));
    assert_eq!(leases.acquire(BERT, None).await, Ok(made));
    while f.store.fold_layers().await.unwrap().more {}
    leases.acquire(CLEO, None).await.unwrap_err();
    leases.commit(Some(BERT)).await.unwrap();
    assert_eq!(f.content(made, 2).await, Some(filled(2)));
}
