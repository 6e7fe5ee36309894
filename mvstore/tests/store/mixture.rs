//! Everything that the store does, in one run against a plain model: commits of one namespace and of
//! several, inline, staged and by protocol v1, with and without leases and locks, sent twice; restores,
//! rollbacks, forks and deletions; by way of two servers with caches of their own, on an engine that
//! fails at random. Meanwhile, interleaved with all of it, history is truncated, layers are folded, and
//! time passes for what expires.
//!
//! The commits come one after the other, so the model knows every version exactly. What is checked:
//! - a page at a version is what it is in the model, whichever server is asked;
//! - a commit that is acknowledged happened once, and one that is refused never;
//! - pages that a `begin` does not name as changed did not change;
//! - a lock's outsiders see its snapshot, and a rollback brings that back;
//! - in the end the counters say what is there, and no staged page is left that nobody refers to;
//! - nothing is wrong with the store by `mvstore fsck`, before what is left to do is done
//!   and after, nor ever meanwhile.
//!
//! A failure prints its seed; `MVSTORE_TEST_SEED` replays it alone.

mod driver;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::env;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use mvsqlite_protocol::v2::ReadRequest;
use mvsqlite_protocol::{Code, NamespaceId, NamespaceKey, PageIndex, Version};
use mvstore::error::StoreError;
use mvstore::kv::faults::{Fault, SeededFaults};
use mvstore::kv::memory::{MemoryEngine, MemoryOptions};
use mvstore::kv::{Engine, Freshness, Isolation, KeyRange, Limits, RangeOptions};
use mvstore::store::{Knobs, Store, StoreOptions};
use tokio::task::{LocalSet, spawn_local, yield_now};

use self::driver::Driver;
use crate::fsck::busy::expect_sound_in_use;
use crate::interleave::Interleaved;
use crate::support::{Fixture, PAGE_SIZE, Random, expect_sound, options};

const SEEDS: u64 = 8;
const STEPS: u64 = 60;
/// Databases are smaller.
const PAGES: u32 = 170;
/// So small that some hundred pages are too many for one transaction.
const LIMITS: Limits = Limits {
    transaction_bytes: 140_000,
    ..Limits::FOUNDATIONDB
};

/// A database at one version: its page count, and a byte for each page that exists.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    count: u32,
    pages: BTreeMap<PageIndex, u8>,
}

impl State {
    fn differing(&self, other: &Self) -> Vec<PageIndex> {
        let differs = |index: &PageIndex| self.pages.get(index) != other.pages.get(index);
        (0..PAGES).filter(differs).collect()
    }
}

#[derive(Clone)]
struct Namespace {
    key: NamespaceKey,
    id: NamespaceId,
    /// Every version, ascending; those below `cut` may be gone.
    versions: Vec<(Version, State)>,
    /// The highest version that a truncation was asked for.
    cut: Version,
}

impl Namespace {
    fn new(key: NamespaceKey, id: NamespaceId, state: State) -> Self {
        Self {
            key,
            id,
            versions: vec![(id.as_version(), state)],
            cut: Version::ZERO,
        }
    }

    fn last(&self) -> &(Version, State) {
        self.versions.last().unwrap()
    }
}

struct World {
    f: Fixture,
    servers: [Arc<Store>; 2],
    namespaces: RefCell<Vec<Namespace>>,
    is_over: Cell<bool>,
}

fn is_too_old(error: &StoreError) -> bool {
    matches!(error.code(), Code::SnapshotTooOld | Code::VersionUnknown)
}

type Pages = Vec<(PageIndex, Option<u8>)>;

async fn read(
    store: &Store,
    ns: &Namespace,
    version: Version,
    pages: &[PageIndex],
) -> Result<Pages, StoreError> {
    let request = ReadRequest {
        namespace: ns.id,
        version,
        read_version: Default::default(),
        pages: pages.iter().copied().collect(),
        incarnation: None,
        stage: None,
    };
    let images = store.read(&ns.key, request).await?;
    let pages = images.iter().map(|image| {
        assert!(image.from <= version);
        let byte = image.data.as_ref().map(|data| data[PAGE_SIZE - 1]);
        (image.index, byte)
    });
    Ok(pages.collect())
}

fn expect(
    found: Result<Pages, StoreError>,
    pages: &[PageIndex],
    state: &State,
    is_kept: impl FnOnce() -> bool,
    ns: &Namespace,
    version: Version,
) {
    match found {
        Ok(found) => {
            let expected = pages.iter().map(|at| (*at, state.pages.get(at).copied()));
            assert_eq!(
                found,
                expected.collect::<Pages>(),
                "{} at {version}",
                ns.key
            );
        }
        Err(error) => assert!(is_too_old(&error) && !is_kept(), "{error}"),
    }
}

/// Folds, truncates and collects, whatever else happens.
async fn keep_house(world: Rc<World>, random: Random) {
    while !world.is_over.get() {
        for _ in 0..random.below(400) {
            yield_now().await;
        }
        let store = &world.servers[random.below(2) as usize];
        match random.below(3) {
            0 => drop(store.fold_layers().await),
            1 => drop(store.collect_expired().await),
            _ => truncate(&world, store, &random).await,
        }
    }
}

/// Checks the store, whatever else happens.
async fn check(world: Rc<World>, random: Random) {
    while !world.is_over.get() {
        let engine = Arc::new(world.f.engine.clone());
        expect_sound_in_use(engine, random.next()).await;
    }
}

async fn truncate(world: &World, store: &Store, random: &Random) {
    let (name, cut) = {
        let mut namespaces = world.namespaces.borrow_mut();
        let at = random.below(namespaces.len() as u64) as usize;
        let ns = &mut namespaces[at];
        // Never the newest, so that whoever has just begun can commit.
        let older = ns.versions.len().saturating_sub(2);
        if older == 0 {
            return;
        }
        let cut = ns.versions[random.below(older as u64) as usize].0;
        ns.cut = ns.cut.max(cut);
        (ns.key.clone(), cut)
    };
    let mut steps = random.below(12);
    let go_on = move |_| {
        // Some are cut short.
        steps = steps.saturating_sub(1);
        match steps {
            1 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    drop(store.truncate_namespace(&name, cut, true, go_on).await);
}

impl World {
    async fn new(seed: u64) -> Self {
        let memory = MemoryEngine::with_options(MemoryOptions {
            limits: LIMITS,
            ..MemoryOptions::default()
        });
        let random = Arc::new(Random::new(seed ^ 0x5eed));
        let engine = Interleaved::new(Arc::new(memory), random);
        let change = |options: &mut StoreOptions| {
            options.knobs = Knobs {
                layer_bytes: Some([0, 1500, 10_000][seed as usize % 3]),
                fold_pages: Some(1 + seed as usize % 7 * 5),
            };
            if seed.is_multiple_of(4) {
                options.page_cache_bytes = 20_000;
            }
        };
        let f = Fixture::with_options(Arc::new(engine), seed, change).await;
        let mut options = options(f.clock.clone(), f.random.clone());
        change(&mut options);
        let second = Store::open(Arc::new(f.engine.clone()), options).await;
        let id = f.begin().await.namespace;
        let first = Namespace::new(f.key.clone(), id, State::default());
        Self {
            servers: [f.store.clone(), Arc::new(second.unwrap())],
            namespaces: RefCell::new(vec![first]),
            is_over: Cell::new(false),
            f,
        }
    }

    /// Everything at every version, by way of both servers.
    async fn look_at_all(&self) {
        let pages: Vec<PageIndex> = (0..PAGES).collect();
        let namespaces = self.namespaces.borrow().clone();
        for ns in &namespaces {
            for (version, state) in &ns.versions {
                for store in &self.servers {
                    let found = read(store, ns, *version, &pages).await;
                    expect(found, &pages, state, || *version >= ns.cut, ns, *version);
                }
            }
        }
    }

    async fn clean_up(&self) {
        self.f.clock.advance(20_000_000);
        loop {
            let folded = self.f.store.fold_layers().await.unwrap();
            let collected = self.f.store.collect_expired().await.unwrap();
            if !folded.more && folded.layers == 0 && !collected.more {
                break;
            }
        }
    }

    /// What is counted is what is there, and each staged page belongs to one page version.
    async fn expect_usage(&self) {
        let namespaces = self.namespaces.borrow().clone();
        for ns in &namespaces {
            let mut prefix = b"m\0d".to_vec();
            prefix.extend_from_slice(ns.id.as_bytes());
            let (mut versions, mut bytes, mut references) = (0, 0, 0);
            for (_, value) in self.keys(&[&prefix[..], b"p"].concat()).await {
                versions += 1;
                bytes += match value[0] {
                    0 => value.len() as u64 - 9,
                    2 => PAGE_SIZE as u64,
                    _ => 0,
                };
                references += u64::from(value[0] == 2);
            }
            let staged = self.keys(&[&prefix[..], b"s"].concat()).await;
            let tag = prefix.len() + 1 + 16;
            let contents = staged.iter().filter(|(key, _)| key[tag] == b'p').count();
            assert_eq!(contents as u64, references, "{}", ns.key);
            assert!(
                staged.iter().all(|(key, _)| key[tag] != b'm'),
                "a sum was left"
            );
            let usage = self.f.store.usage(&ns.key).await.unwrap();
            let counted = (usage.page_versions, usage.page_bytes, usage.staged_pages);
            assert_eq!(counted, (versions, bytes, 0), "{}", ns.key);
        }
    }

    async fn keys(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let options = RangeOptions {
            limit: 100_000,
            reverse: false,
            isolation: Isolation::Snapshot,
        };
        let txn = self.f.engine.begin(Freshness::Strict);
        let pairs = txn.get_range(&KeyRange::prefix(prefix), options).await;
        let pairs = pairs.unwrap().into_iter();
        pairs
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }
}

async fn run(seed: u64) {
    let world = Rc::new(World::new(seed).await);
    let faults = [
        Fault::Conflict,
        Fault::UnknownCommitted,
        Fault::UnknownNotCommitted,
        Fault::TooOld,
    ];
    let plan = SeededFaults::new(seed, 60, faults);
    world.f.engine.set_plan(plan);
    let mut driver = Driver {
        world: Rc::clone(&world),
        random: Random::new(seed ^ 0xd1),
        made: 0,
        bytes: 0,
    };
    for number in 0..2 {
        spawn_local(keep_house(
            Rc::clone(&world),
            Random::new(seed ^ (0x40 + number)),
        ));
    }
    let checks = spawn_local(check(Rc::clone(&world), Random::new(seed ^ 0xf5c)));
    for _ in 0..STEPS {
        driver.step().await;
    }
    world.is_over.set(true);
    checks.await.unwrap();
    while Rc::strong_count(&world) > 2 {
        yield_now().await;
    }
    world.f.faults([]);
    world.look_at_all().await;
    let engine = Arc::new(world.f.engine.clone());
    expect_sound(engine.clone()).await;
    world.clean_up().await;
    world.look_at_all().await;
    world.expect_usage().await;
    expect_sound(engine).await;
}

#[test]
fn everything_at_once_agrees_with_a_plain_model() {
    let only = env::var("MVSTORE_TEST_SEED").ok();
    let only = only.and_then(|seed| seed.parse().ok());
    let seeds = env::var("MVSTORE_TEST_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    for seed in only.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        eprintln!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(LocalSet::new().run_until(run(seed)));
    }
}
