//! Many writers of one namespace, interleaved by seed, some of them slow: never two holders whose
//! commits interleave, and no update is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mvsqlite_protocol::v2::{CommitRequest, Concurrency, LeaseAction, LeaseReply, LeaseRequest};
use mvsqlite_protocol::{Code, LeaseNonce, NamespaceId, PageSet};
use mvstore::environment::Entropy;
use mvstore::kv::clock::ManualClock;
use mvstore::kv::faults::{Fault, SeededFaults};
use mvstore::kv::memory::{MemoryEngine, MemoryOptions};
use proptest::prelude::*;
use tokio::task::{LocalSet, yield_now};

use super::TTL;
use crate::interleave::Interleaved;
use crate::support::{Fixture, PAGE_SIZE, Random};

/// The page with the number that every writer adds one to.
const COUNTER: u32 = 1;

struct World {
    f: Fixture,
    clock: Arc<ManualClock>,
    random: Arc<Random>,
    namespace: NamespaceId,
    /// Commits that were acknowledged.
    done: AtomicU64,
    /// Commits of those who were slow and lost their lease.
    lost: AtomicU64,
}

impl World {
    async fn new(seed: u64, mode: Concurrency) -> Self {
        let clock = Arc::new(ManualClock::default());
        let memory = MemoryEngine::with_options(MemoryOptions {
            clock: clock.clone(),
            ..MemoryOptions::default()
        });
        let random = Arc::new(Random::new(seed));
        let engine = Interleaved::new(Arc::new(memory), random.clone());
        let f = Fixture::over(Arc::new(engine), seed).await;
        f.put(&[(COUNTER, number(0))]).await;
        f.store.set_concurrency(&f.key, mode).await.unwrap();
        let namespace = f.begin().await.namespace;
        Self {
            f,
            clock,
            random,
            namespace,
            done: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    async fn lease(&self, nonce: LeaseNonce, action: LeaseAction) -> LeaseReply {
        let request = LeaseRequest {
            namespace: self.namespace,
            incarnation: None,
            nonce,
            action,
        };
        loop {
            match self.f.store.lease(&self.f.key, request.clone()).await {
                Ok(reply) => return reply,
                // Too many others at the same moment, or a fault.
                Err(refusal) => assert_eq!(refusal.code(), Code::Unavailable, "{refusal}"),
            }
        }
    }

    /// Waits for the lease as SQLite's busy handler does. Now and then it is given up or forgotten.
    async fn acquire(&self) -> (LeaseNonce, LeaseReply) {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).unwrap();
        let nonce = LeaseNonce::from_bytes(bytes);
        let mut place = None;
        loop {
            let reply = self.lease(nonce, LeaseAction::Acquire { place }).await;
            let LeaseReply::Busy { place: kept, .. } = reply else {
                return (nonce, reply);
            };
            place = Some(kept);
            self.clock.advance(Duration::from_millis(40));
            for _ in 0..self.random.below(5) {
                yield_now().await;
            }
        }
    }

    /// Reads the number under the lease and writes the next one.
    async fn add_one(&self) {
        let (nonce, granted) = self.acquire().await;
        let LeaseReply::Granted { head, .. } = granted else {
            panic!("{granted:?}");
        };
        let base = self.f.begin().await;
        let current = self.f.content(base.version, COUNTER).await.unwrap();
        let slow = self.random.chance(10);
        match self.random.below(10) {
            0 => {
                self.lease(nonce, LeaseAction::Release { place: None })
                    .await;
                return;
            }
            // A crash: nothing is given back.
            1 => return,
            _ if slow => {
                self.clock.advance(TTL);
                for _ in 0..20 {
                    yield_now().await;
                }
            }
            _ => {}
        }
        let request = CommitRequest {
            lease: Some(nonce),
            read: PageSet::from_iter([COUNTER]),
            ..self
                .f
                .write(&base, &[(COUNTER, number(value(&current) + 1))])
        };
        match self.f.commit(&request).await {
            Ok(_) => {
                // Nobody committed between the grant and this.
                assert_eq!(base.version, head);
                self.done.fetch_add(1, Ordering::SeqCst);
            }
            Err(refusal) => {
                // Only others' time takes a lease away: somebody was slow or had crashed.
                assert_eq!(refusal.code(), Code::Locked, "{refusal}");
                self.lost.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// As one who knows of no lease.
    async fn add_one_without_lease(&self) {
        let base = self.f.begin().await;
        let current = self.f.content(base.version, COUNTER).await.unwrap();
        let request = CommitRequest {
            read: PageSet::from_iter([COUNTER]),
            ..self
                .f
                .write(&base, &[(COUNTER, number(value(&current) + 1))])
        };
        match self.f.commit(&request).await {
            Ok(_) => {
                self.done.fetch_add(1, Ordering::SeqCst);
            }
            Err(refusal) => assert!(matches!(refusal.code(), Code::Conflict | Code::Locked)),
        }
    }
}

fn number(value: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE];
    page[..8].copy_from_slice(&value.to_be_bytes());
    page
}

fn value(page: &[u8]) -> u64 {
    u64::from_be_bytes(page[..8].try_into().unwrap())
}

async fn run(seed: u64, mode: Concurrency, faults: bool) -> (u64, u64) {
    let world = Arc::new(World::new(seed, mode).await);
    if faults {
        let kinds = [
            Fault::Conflict,
            Fault::UnknownCommitted,
            Fault::UnknownNotCommitted,
        ];
        world.f.engine.set_plan(SeededFaults::new(seed, 50, kinds));
    }
    let local = LocalSet::new();
    for writer in 0..4 {
        let world = world.clone();
        local.spawn_local(async move {
            for _ in 0..6 {
                match mode == Concurrency::Optimistic && writer == 0 {
                    true => world.add_one_without_lease().await,
                    false => world.add_one().await,
                }
            }
        });
    }
    local.await;
    world.f.faults([]);
    let head = world.f.begin().await;
    let stored = world.f.content(head.version, COUNTER).await.unwrap();
    let done = world.done.load(Ordering::SeqCst);
    assert_eq!(value(&stored), done, "an update was lost");
    (done, world.lost.load(Ordering::SeqCst))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn writers_under_a_lease_come_one_after_another(seed in any::<u64>(), faults in any::<bool>()) {
        let (done, _) = block_on(run(seed, Concurrency::Exclusive, faults));
        prop_assert!(done > 0);
    }

    #[test]
    fn beside_optimistic_writers_too(seed in any::<u64>(), faults in any::<bool>()) {
        block_on(run(seed, Concurrency::Optimistic, faults));
    }
}

/// The runs above would prove little if nobody ever came too late.
#[test]
fn among_some_runs_there_are_late_holders() {
    let lost: u64 = (0..20)
        .map(|seed| block_on(run(seed, Concurrency::Exclusive, false)).1)
        .sum();
    assert!(lost > 0);
}
