//! Everything at once: clients with caches on one database, an engine that interleaves them and
//! fails at random, requests that arrive twice and late. Afterwards a plain model is run through the
//! commits that were acknowledged, in version order, and must agree with the store at each version.
//!
//! What is checked:
//! - no commit went through whose reads, from the client's cache or from the store, were stale;
//! - each version's pages are the model's, and no version exists that nobody was told of;
//! - begin is strict; what it and commits tell as changed lets a cache live on;
//! - a commit sent twice happened at most once, and whatever settled it was right;
//! - usage is exact;
//! - folding, which goes on all the time and fails as often as anything, changes nothing of this.
//!
//! A failure prints its seed; `MVSTORE_TEST_SEED` replays it alone.

mod check;
mod client;

use std::cell::{Cell, RefCell};
use std::env;
use std::rc::Rc;
use std::sync::Arc;

use mvsqlite_protocol::Version;
use mvstore::kv::Limits;
use mvstore::kv::faults::{Fault, SeededFaults};
use mvstore::kv::memory::{MemoryEngine, MemoryOptions};
use mvstore::store::{Knobs, StoreOptions};
use tokio::task::{LocalSet, yield_now};

use self::check::check;
use self::client::{Client, Committed};
use crate::interleave::Interleaved;
use crate::support::{Fixture, Random, expect_sound, filled, page_one};

const CLIENTS: u64 = 5;
const TRANSACTIONS: u64 = 25;
const SEEDS: u64 = 25;
const FIRST_PAGES: u32 = 12;

/// What all clients share.
struct World {
    fixture: Fixture,
    committed: RefCell<Vec<Committed>>,
    /// The newest version that any client was told of.
    acknowledged: Cell<Version>,
    seed: u64,
}

async fn run(seed: u64, limits: Limits, knobs: Knobs) {
    let memory = MemoryEngine::with_options(MemoryOptions {
        limits,
        ..MemoryOptions::default()
    });
    let engine = Interleaved::new(Arc::new(memory), Arc::new(Random::new(seed)));
    let set = |options: &mut StoreOptions| options.knobs = knobs;
    let fixture = Fixture::with_options(Arc::new(engine), seed, set).await;
    let mut pages: Vec<_> = (1..FIRST_PAGES).map(|page| (page, filled(1))).collect();
    pages.push((0, page_one(FIRST_PAGES, 1)));
    let first = fixture.put(&pages).await.version;
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
        acknowledged: Cell::new(first),
        seed,
    });
    let clients = LocalSet::new();
    for number in 0..CLIENTS {
        let mut client = Client::new(&world, seed, number);
        clients.spawn_local(async move {
            for _ in 0..TRANSACTIONS {
                client.transact().await;
            }
        });
    }
    let folding = Rc::clone(&world);
    clients.spawn_local(async move {
        let random = Random::new(seed ^ 0xf01d);
        while Rc::strong_count(&folding) > 2 {
            // Failures are the engine's, and what is not folded now is folded some other time.
            let _ = folding.fixture.store.fold_layers().await;
            for _ in 0..random.below(200) {
                yield_now().await;
            }
        }
    });
    clients.await;
    world.fixture.faults([]);
    expect_sound(Arc::new(world.fixture.engine.clone())).await;
    check(&world, first, &pages).await;
}

fn run_seeds(limits: Limits) {
    run_seeds_with(limits, Knobs::default(), SEEDS);
}

fn run_seeds_with(limits: Limits, knobs: Knobs, seeds: u64) {
    let only = env::var("MVSTORE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..seeds, |seed: u64| seed..seed + 1);
    for seed in seeds {
        eprintln!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(run(seed, limits, knobs));
    }
}

#[test]
fn the_store_agrees_with_a_plain_model_on_large_transactions() {
    run_seeds(Limits::EMBEDDED);
}

#[test]
fn the_store_agrees_with_a_plain_model_under_foundationdbs_limits() {
    run_seeds(Limits::FOUNDATIONDB);
}

/// The least that the store accepts: a twentieth of the ranges that are watched elsewhere.
#[test]
fn the_store_agrees_with_a_plain_model_under_the_smallest_limits() {
    run_seeds(Limits {
        value_bytes: 32_777,
        transaction_bytes: 4 * 32_777,
        ..Limits::FOUNDATIONDB
    });
}

/// Every staged page and every page cut off makes a layer, and folding takes many steps for each.
#[test]
fn the_store_agrees_with_a_plain_model_when_every_commit_is_a_large_one() {
    let knobs = Knobs {
        layer_bytes: Some(0),
        fold_pages: Some(2),
    };
    run_seeds_with(Limits::EMBEDDED, knobs, SEEDS / 2);
}

/// Some commits make layers and others do not.
#[test]
fn the_store_agrees_with_a_plain_model_when_some_commits_are_large_ones() {
    let knobs = Knobs {
        layer_bytes: Some(600),
        fold_pages: Some(1),
    };
    run_seeds_with(Limits::FOUNDATIONDB, knobs, SEEDS / 2);
}
