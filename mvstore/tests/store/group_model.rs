//! Clients that read and write several namespaces at once, on an engine that interleaves them and
//! fails at random, with requests that arrive twice and late. Afterwards a plain model runs through
//! the commits that were acknowledged, in version order.
//!
//! What is checked:
//! - no commit went through that read, in whichever namespace, what was changed before it;
//! - what began as of one moment shows one moment;
//! - a commit is in all of its namespaces, at its version, or in none;
//! - whatever settled a commit was right.
//!
//! A failure prints its seed; `MVSTORE_TEST_SEED` replays it alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::env;
use std::rc::Rc;
use std::sync::Arc;

use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, GroupCommitReply, GroupCommitRequest, GroupMember, GroupName,
    GroupSettleRequest, ReadRequest, SettleReply,
};
use mvsqlite_protocol::{Code, IdempotencyKey, PageIndex, ReadVersion, Version};
use mvstore::environment::Entropy;
use mvstore::error::StoreError;
use mvstore::kv::faults::{Fault, SeededFaults};
use mvstore::kv::memory::MemoryEngine;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::interleave::Interleaved;
use crate::support::{Fixture, Random, expect_sound, key, page};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const PAGES: u64 = 6;
const CLIENTS: u64 = 5;
const TRANSACTIONS: u64 = 20;
const SEEDS: u64 = 20;

/// A page of a namespace.
type Place = (usize, PageIndex);
/// What pages hold; one that was never written holds 0.
type Values = BTreeMap<Place, u64>;

/// A commit that its client was told of.
struct Committed {
    version: Version,
    observed: Values,
    written: Values,
}

/// What a transaction read, and as of when.
struct Observed {
    moment: ReadVersion,
    values: Values,
}

struct World {
    fixture: Fixture,
    committed: RefCell<Vec<Committed>>,
    observed: RefCell<Vec<Observed>>,
}

struct Client {
    world: Rc<World>,
    random: Random,
    number: u64,
    writes: u64,
}

impl Client {
    async fn transact(&mut self) {
        let mut bases: BTreeMap<usize, BeginReply> = BTreeMap::new();
        let mut observed = Values::new();
        let mut moment = None;
        for _ in 0..2 + self.random.below(4) {
            let namespace = self.random.below(NAMES.len() as u64) as usize;
            let base = match bases.get(&namespace) {
                Some(base) => base.clone(),
                None => self.begin(namespace, moment).await,
            };
            moment = moment.or(Some(base.read_version));
            let index = 1 + self.random.below(PAGES) as PageIndex;
            let value = self.read(namespace, &base, index).await;
            observed.insert((namespace, index), value);
            bases.insert(namespace, base);
        }
        self.world.observed.borrow_mut().push(Observed {
            moment: moment.unwrap(),
            values: observed.clone(),
        });
        let written = self.change(&bases);
        if written.is_empty() {
            return;
        }
        let request = self.request(&bases, &observed, &written);
        if let Some(version) = self.send(request).await {
            self.world.committed.borrow_mut().push(Committed {
                version,
                observed,
                written,
            });
        }
    }

    async fn begin(&self, namespace: usize, moment: Option<ReadVersion>) -> BeginReply {
        let request = BeginRequest {
            as_of: moment,
            ..BeginRequest::default()
        };
        let store = &self.world.fixture.store;
        store.begin(&key(NAMES[namespace]), request).await.unwrap()
    }

    async fn read(&self, namespace: usize, base: &BeginReply, index: PageIndex) -> u64 {
        let request = ReadRequest {
            namespace: base.namespace,
            version: base.version,
            read_version: base.read_version,
            pages: [index].into_iter().collect(),
            incarnation: None,
            stage: None,
        };
        let store = &self.world.fixture.store;
        let mut images = store.read(&key(NAMES[namespace]), request).await.unwrap();
        let data = images.remove(0).data;
        data.map_or(0, |data| u64::from_be_bytes(data[..8].try_into().unwrap()))
    }

    /// Some pages of some of the namespaces that were read.
    fn change(&mut self, bases: &BTreeMap<usize, BeginReply>) -> Values {
        let mut written = Values::new();
        for namespace in bases.keys() {
            for _ in 0..self.random.below(3) {
                self.writes += 1;
                let index = 1 + self.random.below(PAGES) as PageIndex;
                let value = (self.number + 1) << 32 | self.writes;
                written.insert((*namespace, index), value);
            }
        }
        written
    }

    fn request(
        &self,
        bases: &BTreeMap<usize, BeginReply>,
        observed: &Values,
        written: &Values,
    ) -> GroupCommitRequest {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).unwrap();
        let members = bases.iter().map(|(namespace, base)| {
            let of = |((at, index), value): (&Place, &u64)| {
                (at == namespace).then_some((*index, *value))
            };
            let content = |(index, value): (PageIndex, u64)| {
                page(index, &[value.to_be_bytes().as_slice(), &[0; 504]].concat())
            };
            GroupMember {
                ns: key(NAMES[*namespace]),
                namespace: base.namespace,
                base: base.version,
                read: observed
                    .iter()
                    .filter_map(of)
                    .map(|(index, _)| index)
                    .collect(),
                pages: written.iter().filter_map(of).map(content).collect(),
                stage: None,
                lease: None,
            }
        });
        let mut members: Vec<_> = members.collect();
        let turns = self.random.below(members.len() as u64) as usize;
        members.rotate_left(turns);
        let newest = bases.values().map(|base| base.read_version).max();
        GroupCommitRequest {
            key: IdempotencyKey::from_bytes(bytes),
            retry: false,
            incarnation: None,
            read_version: newest.unwrap(),
            members,
        }
    }

    /// Sends a commit over a bad network until its outcome is definite.
    async fn send(&self, request: GroupCommitRequest) -> Option<Version> {
        let first = self.deliver(&request);
        let lost = self.random.below(10);
        if lost > 3 {
            let outcome = first.await.unwrap();
            return self.definite(&request, outcome).await;
        }
        // No reply in time. The first sending goes on, wherever it is.
        let mut again = request.clone();
        again.retry = true;
        let outcome = if lost > 0 {
            self.deliver(&again).await.unwrap()
        } else {
            Err(StoreError::OutcomeUnknown {
                key: request.key,
                reason: "no reply".to_owned(),
            })
        };
        let definite = self.definite(&again, outcome).await;
        let late = first.await.unwrap();
        match (&late, &definite) {
            (Ok(late), Some(version)) => assert_eq!(late.version, *version),
            (Ok(late), None) => panic!("{} happened after it was said never to", late.version),
            _ => (),
        }
        definite
    }

    fn deliver(
        &self,
        request: &GroupCommitRequest,
    ) -> JoinHandle<Result<GroupCommitReply, StoreError>> {
        let (world, request) = (Rc::clone(&self.world), request.clone());
        spawn_local(async move { world.fixture.store.commit_group(request).await })
    }

    async fn definite(
        &self,
        request: &GroupCommitRequest,
        outcome: Result<GroupCommitReply, StoreError>,
    ) -> Option<Version> {
        match outcome {
            Ok(reply) => return Some(reply.version),
            Err(error) if error.code() != Code::OutcomeUnknown => {
                let expected = [Code::Conflict, Code::Aborted, Code::Unavailable];
                assert!(expected.contains(&error.code()), "{error}");
                return None;
            }
            Err(_) => (),
        }
        let members = request.members.iter().map(|member| GroupName {
            ns: member.ns.clone(),
            namespace: member.namespace,
        });
        let settle = GroupSettleRequest {
            key: request.key,
            members: members.collect(),
        };
        loop {
            let store = &self.world.fixture.store;
            match store.settle_group(settle.clone()).await {
                Ok(SettleReply::Committed { version, .. }) => return Some(version),
                Ok(SettleReply::Aborted) => return None,
                Err(error) => assert_eq!(error.code(), Code::OutcomeUnknown),
            }
        }
    }
}

/// Every transaction that was acknowledged reads what the ones before it wrote.
fn check(committed: &[Committed], observed: &[Observed]) -> Values {
    let mut model = Values::new();
    let mut history = Vec::new();
    for commit in committed {
        expect(&model, &commit.observed, commit.version);
        model.extend(&commit.written);
        history.push((commit.version, model.clone()));
    }
    let empty = Values::new();
    for observed in observed {
        let seen = history.iter().rev();
        let state = seen
            .into_iter()
            .find(|(version, _)| observed.moment.sees(*version))
            .map_or(&empty, |(_, state)| state);
        expect(state, &observed.values, observed.moment);
    }
    model
}

fn expect(model: &Values, observed: &Values, at: impl std::fmt::Debug) {
    for (place, value) in observed {
        let now = model.get(place).copied().unwrap_or(0);
        assert_eq!(now, *value, "page {place:?} at {at:?}");
    }
}

async fn run(seed: u64) {
    let random = Arc::new(Random::new(seed));
    let engine = Interleaved::new(Arc::new(MemoryEngine::new()), random);
    let fixture = Fixture::over(Arc::new(engine), seed).await;
    for name in NAMES {
        fixture.store.create_namespace(&key(name)).await.unwrap();
    }
    let faults = [
        Fault::Conflict,
        Fault::UnknownCommitted,
        Fault::UnknownNotCommitted,
        Fault::TooOld,
        Fault::Unavailable,
    ];
    fixture
        .engine
        .set_plan(SeededFaults::new(seed, 150, faults));
    let world = Rc::new(World {
        fixture,
        committed: RefCell::default(),
        observed: RefCell::default(),
    });
    let clients = LocalSet::new();
    for number in 0..CLIENTS {
        let mut client = Client {
            world: Rc::clone(&world),
            random: Random::new(seed ^ (number + 1) << 40),
            number,
            writes: 0,
        };
        clients.spawn_local(async move {
            for _ in 0..TRANSACTIONS {
                client.transact().await;
            }
        });
    }
    clients.await;
    world.fixture.faults([]);
    expect_sound(Arc::new(world.fixture.engine.clone())).await;
    let mut committed = world.committed.take();
    committed.sort_by_key(|commit| commit.version);
    let model = check(&committed, &world.observed.take());
    let reader = Client {
        world: Rc::clone(&world),
        random: Random::new(0),
        number: 0,
        writes: 0,
    };
    for (namespace, name) in NAMES.iter().enumerate() {
        let base = reader.begin(namespace, None).await;
        let of_it = |commit: &&Committed| commit.written.keys().any(|(at, _)| *at == namespace);
        let last = committed
            .iter()
            .rev()
            .find(of_it)
            .map(|commit| commit.version);
        assert_eq!(
            base.version,
            last.unwrap_or(base.namespace.as_version()),
            "{name}"
        );
        for index in 1..=PAGES as PageIndex {
            let value = reader.read(namespace, &base, index).await;
            assert_eq!(value, model.get(&(namespace, index)).copied().unwrap_or(0));
        }
    }
}

#[test]
fn transactions_over_several_namespaces_agree_with_a_plain_model() {
    let only = env::var("MVSTORE_TEST_SEED").ok();
    let only = only.and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        eprintln!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(run(seed));
    }
}
