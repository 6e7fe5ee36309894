//! Protocol v1 over the store: the original's tester in miniature.
//!
//! Clients read, upload, commit and abandon on one namespace, at the newest version or an earlier one,
//! with and without read sets, while history is truncated, uploaded pages expire, the engine
//! interleaves everything and fails at random. What they saw is judged afterwards by a plain model run
//! through the commits in version order:
//! - each read, by version or by hash, found what was there;
//! - no commit went through whose read set, or whole namespace, had changed since its snapshot;
//! - what a commit or a stat tells as changed is exactly that;
//! - a commit sent again after an unknown outcome happened once;
//! - an uploaded page was not missing before its time.
//!
//! A failure prints its seed; `MVSTORE_TEST_SEED` replays it alone.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use mvsqlite_protocol::v1::{
    CommitBody, CommitNamespace, CommitNamespaceInit, PageHash, WrittenPage,
};
use mvsqlite_protocol::{IdempotencyKey, Version};
use mvstore::environment::{Clock, Entropy};
use mvstore::error::StoreError;
use mvstore::kv::faults::{Fault, SeededFaults};
use mvstore::kv::memory::MemoryEngine;
use mvstore::v1::{CommitError, CommitRules, ReadItem, StatRequest};
use tokio::task::LocalSet;

use crate::interleave::Interleaved;
use crate::support::{Fixture, Random, expect_sound};

const CLIENTS: u64 = 4;
const STEPS: u64 = 200;
const SEEDS: u64 = 12;
const PAGES: u64 = 24;
/// For how long an uploaded page must be there.
const TTL_MILLIS: u64 = 3_600_000;
const RULES: CommitRules = CommitRules {
    whole_from_pages: 12,
    most_read: 14,
};

/// A read that found something, or nothing.
struct Seen {
    at: Version,
    page: u32,
    found: Option<(Version, Vec<u8>)>,
}

/// A commit that happened.
struct Done {
    version: Version,
    base: Version,
    /// `None`: the whole namespace counted.
    judged: Option<BTreeSet<u32>>,
    pages: BTreeMap<u32, Vec<u8>>,
    told: Option<Vec<u32>>,
}

/// What all clients share.
struct World {
    fixture: Fixture,
    id: Version,
    seen: RefCell<Vec<Seen>>,
    done: RefCell<Vec<Done>>,
    /// (from, to, what a stat told as changed in between).
    intervals: RefCell<Vec<(Version, Version, Vec<u32>)>>,
    /// Nothing below is kept.
    truncated: RefCell<Version>,
    /// Snapshots in use, by client.
    in_use: RefCell<BTreeMap<u64, Version>>,
    refused: RefCell<u64>,
}

struct Client {
    world: Rc<World>,
    random: Random,
    number: u64,
    transaction: Option<Transaction>,
    known: Option<Version>,
}

struct Transaction {
    base: Version,
    reads: Option<BTreeSet<u32>>,
    /// Content and when it was uploaded.
    written: BTreeMap<u32, (Vec<u8>, PageHash, u64)>,
}

/// The store's answer, asked until the engine is in reach.
macro_rules! patiently {
    ($call:expr) => {
        loop {
            match $call.await {
                Err(StoreError::Unavailable { .. }) => (),
                answer => break answer,
            }
        }
    };
}

impl Client {
    async fn step(&mut self) {
        if self.transaction.is_none() {
            self.begin().await;
        }
        match self.random.below(11) {
            0..6 => self.read().await,
            6..8 => self.write().await,
            8 => self.commit().await,
            9 => self.end(),
            _ => tokio::task::yield_now().await,
        }
    }

    fn end(&mut self) {
        self.transaction = None;
        self.world.in_use.borrow_mut().remove(&self.number);
    }

    async fn begin(&mut self) {
        let world = Rc::clone(&self.world);
        // Before anything is asked: truncation keeps away from what may be chosen.
        let oldest = *world.truncated.borrow();
        world.in_use.borrow_mut().insert(self.number, oldest);
        let request = StatRequest {
            from: self.known,
            lock_owner: None,
        };
        let fixture = &world.fixture;
        let original = fixture.store.original();
        let stat = patiently!(original.stat(&fixture.key, &request))
            .unwrap()
            .unwrap();
        if let (Some(from), Some(interval)) = (self.known, stat.interval) {
            let told = (from, stat.version, interval);
            world.intervals.borrow_mut().push(told);
        }
        self.known = Some(stat.version);
        let mut base = stat.version;
        if self.random.chance(50) {
            let done = world.done.borrow();
            let kept = done
                .iter()
                .map(|done| done.version)
                .filter(|v| *v >= oldest);
            let kept: Vec<_> = kept.collect();
            if !kept.is_empty() {
                base = kept[self.random.below(kept.len() as u64) as usize];
            }
        }
        world.in_use.borrow_mut().insert(self.number, base);
        self.transaction = Some(Transaction {
            base,
            reads: self.random.chance(50).then(BTreeSet::new),
            written: BTreeMap::new(),
        });
    }

    fn page(&self) -> u32 {
        self.random.below(PAGES) as u32
    }

    async fn read(&mut self) {
        let pages: Vec<u32> = (0..=self.random.below(6)).map(|_| self.page()).collect();
        let transaction = self.transaction.as_mut().unwrap();
        if let Some(reads) = &mut transaction.reads {
            reads.extend(&pages);
        }
        let item = |page: &u32| match transaction.written.get(page) {
            Some((_, hash, _)) => ReadItem::Content { hash: *hash },
            None => ReadItem::At {
                index: *page,
                version: transaction.base,
            },
        };
        let items: Vec<_> = pages.iter().map(item).collect();
        let fixture = &self.world.fixture;
        let original = fixture.store.original();
        let found = patiently!(original.read(&fixture.key, &items)).unwrap();
        assert_eq!(found.len(), items.len());
        for (page, found) in pages.into_iter().zip(found) {
            match transaction.written.get(&page) {
                Some((content, _, uploaded)) => match found {
                    Some(found) => assert_eq!(found.content, content),
                    None => assert!(fixture.clock.unix_millis() >= uploaded + TTL_MILLIS),
                },
                None => self.world.seen.borrow_mut().push(Seen {
                    at: transaction.base,
                    page,
                    found: found.map(|page| (page.from.unwrap(), page.content.to_vec())),
                }),
            }
        }
    }

    async fn write(&mut self) {
        let mut pages = BTreeMap::new();
        for _ in 0..=self.random.below(6) {
            // Few contents: the same one is uploaded and expires for several.
            let content = vec![self.random.below(40) as u8 + 1; 100];
            pages.insert(self.page(), content);
        }
        let contents: Vec<&[u8]> = pages.values().map(Vec::as_slice).collect();
        let fixture = &self.world.fixture;
        let now = fixture.clock.unix_millis();
        let original = fixture.store.original();
        let hashes = patiently!(original.upload(&fixture.key, &contents)).unwrap();
        let written = &mut self.transaction.as_mut().unwrap().written;
        for ((page, content), hash) in pages.into_iter().zip(hashes) {
            written.insert(page, (content, hash, now));
        }
    }

    async fn commit(&mut self) {
        let transaction = self.transaction.take().unwrap();
        let world = Rc::clone(&self.world);
        let mut key = [0; 16];
        self.random.fill(&mut key).unwrap();
        let inline = self.random.chance(30);
        let page = |(index, (content, hash, _)): (&u32, &'_ (Vec<u8>, PageHash, u64))| {
            (*index, *hash, inline.then(|| content.clone()))
        };
        let pages: Vec<_> = transaction.written.iter().map(page).collect();
        let version = transaction.base.to_string();
        let reads = transaction.reads.as_ref();
        let init = CommitNamespaceInit {
            ns_key: world.fixture.key.as_str(),
            ns_key_hashproof: None,
            version: &version,
            metadata: None,
            num_pages: pages.len() as u32,
            read_set: reads.map(|reads| reads.iter().copied().collect()),
        };
        let written = pages.iter().map(|(index, hash, data)| WrittenPage {
            index: *index,
            hash: *hash,
            data: data.as_deref(),
        });
        let mut body = CommitBody {
            key: IdempotencyKey::from_bytes(key),
            retry: false,
            lock_owner: None,
            namespaces: vec![CommitNamespace {
                init,
                pages: written.collect(),
            }],
        };
        let oldest_upload = transaction.written.values().map(|(_, _, at)| *at).min();
        let outcome = loop {
            match world.fixture.store.original().commit(RULES, &body).await {
                Err(CommitError::Store(
                    StoreError::Unavailable { .. } | StoreError::OutcomeUnknown { .. },
                )) => body.retry = true,
                answer => break answer,
            }
        };
        let committed = match outcome {
            Ok(committed) => committed,
            Err(CommitError::BadReference) => {
                let uploaded = oldest_upload.unwrap();
                assert!(!inline && world.fixture.clock.unix_millis() >= uploaded + TTL_MILLIS);
                return self.end();
            }
            Err(CommitError::Store(StoreError::Conflict { .. } | StoreError::Aborted { .. })) => {
                *world.refused.borrow_mut() += 1;
                return self.end();
            }
            Err(other) => panic!("{other}"),
        };
        let by_pages = transaction.written.len() < RULES.whole_from_pages
            && reads.is_some_and(|reads| reads.len() <= RULES.most_read);
        world.done.borrow_mut().push(Done {
            version: committed.version,
            base: transaction.base,
            judged: transaction.reads.filter(|_| by_pages),
            pages: transaction
                .written
                .into_iter()
                .map(|(index, (content, _, _))| (index, content))
                .collect(),
            told: committed.changelog.get(world.fixture.key.as_str()).cloned(),
        });
        self.end();
    }
}

/// Truncates below everything in use, and lets time pass.
async fn keep_house(world: Rc<World>, random: Random) {
    // One more holds the world: `run`.
    while Rc::strong_count(&world) > 2 {
        for _ in 0..60 {
            tokio::task::yield_now().await;
        }
        let fixture = &world.fixture;
        fixture.clock.advance(random.below(3_000_000));
        let _ = fixture.store.collect_expired().await;
        let oldest = world.in_use.borrow().values().min().copied();
        let done: Vec<_> = world
            .done
            .borrow()
            .iter()
            .map(|done| done.version)
            .collect();
        let below = done
            .into_iter()
            .filter(|version| oldest.is_none_or(|oldest| *version <= oldest));
        let Some(cut) = below.max().filter(|_| random.chance(50)) else {
            continue;
        };
        world
            .truncated
            .replace_with(|truncated| cut.max(*truncated));
        let go_on = |_| ControlFlow::Continue(());
        let _ = fixture
            .store
            .truncate_namespace(&fixture.key, cut, true, go_on)
            .await;
    }
}

async fn run(seed: u64) {
    let engine = Interleaved::new(Arc::new(MemoryEngine::new()), Arc::new(Random::new(seed)));
    let fixture = Fixture::over(Arc::new(engine), seed).await;
    let id = fixture.begin().await.version;
    let faults = [
        Fault::Conflict,
        Fault::UnknownCommitted,
        Fault::UnknownNotCommitted,
        Fault::TooOld,
        Fault::Unavailable,
    ];
    fixture
        .engine
        .set_plan(SeededFaults::new(seed, 100, faults));
    let world = Rc::new(World {
        fixture,
        id,
        seen: RefCell::default(),
        done: RefCell::default(),
        intervals: RefCell::default(),
        truncated: RefCell::new(id),
        in_use: RefCell::default(),
        refused: RefCell::default(),
    });
    let tasks = LocalSet::new();
    for number in 0..CLIENTS {
        let mut client = Client {
            world: Rc::clone(&world),
            random: Random::new(seed * 100 + number),
            number,
            transaction: None,
            known: None,
        };
        tasks.spawn_local(async move {
            for _ in 0..STEPS {
                client.step().await;
            }
            client.end();
        });
    }
    tasks.spawn_local(keep_house(Rc::clone(&world), Random::new(seed + 7)));
    tasks.await;
    world.fixture.faults([]);
    expect_sound(Arc::new(world.fixture.engine.clone())).await;
    check(&world);
}

/// Runs the model through what happened.
fn check(world: &World) {
    let mut done = world.done.take();
    done.sort_by_key(|done| done.version);
    assert!(
        done.windows(2)
            .all(|pair| pair[0].version < pair[1].version)
    );
    let changed = |from: Version, to: Version| -> BTreeSet<u32> {
        let between = done
            .iter()
            .filter(|done| done.version > from && done.version < to);
        between
            .flat_map(|done| done.pages.keys().copied())
            .collect()
    };
    for commit in &done {
        let others = changed(commit.base, commit.version);
        match &commit.judged {
            Some(read) => assert!(read.is_disjoint(&others), "a missed conflict"),
            None => assert!(
                !done
                    .iter()
                    .any(|d| d.version > commit.base && d.version < commit.version),
                "a missed conflict with the namespace"
            ),
        }
        if let Some(told) = &commit.told {
            assert_eq!(told.iter().copied().collect::<BTreeSet<_>>(), others);
        }
    }
    for (from, to, told) in world.intervals.take() {
        let mut expected = changed(from, to);
        if to > from {
            let last = done.iter().find(|done| done.version == to).unwrap();
            expected.extend(last.pages.keys());
        }
        assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), expected);
    }
    for seen in world.seen.take() {
        let writers = done.iter().filter(|done| done.version <= seen.at);
        let newest = writers
            .filter_map(|done| Some((done.version, done.pages.get(&seen.page)?.clone())))
            .next_back();
        assert_eq!(seen.found, newest, "page {} at {}", seen.page, seen.at);
    }
    assert!(
        done.len() > 5,
        "{} commits and {} refusals",
        done.len(),
        world.refused.borrow()
    );
    assert!(world.id < done[0].version);
}

#[test]
fn the_originals_tester_in_miniature_finds_nothing() {
    let only = env::var("MVSTORE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        eprintln!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(run(seed));
    }
}
