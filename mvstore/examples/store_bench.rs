//! How long the store's own calls take, without HTTP, over the embedded engine and in memory.
//!
//! `cargo run --release -p mvstore --example store_bench -- DIRECTORY [ROUNDS]`
//!
//! "engine" is the floor: one key of a page's size committed by the engine itself.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mvsqlite_protocol::v2::{BeginReply, BeginRequest, CommitRequest, KnownState, ReadRequest};
use mvsqlite_protocol::{IdempotencyKey, NamespaceKey, PageData, PageIndex, PageSet};
use mvstore::kv::embedded::{EmbeddedEngine, EmbeddedOptions};
use mvstore::kv::memory::MemoryEngine;
use mvstore::kv::{Engine, Freshness};
use mvstore::store::{Store, StoreOptions};

const PAGE_BYTES: usize = 8192;
const PAGES: u32 = 1024;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("which directory?")?;
    let rounds = arguments.next().map_or(Ok(2000), |rounds| rounds.parse())?;
    let embedded = EmbeddedEngine::open(directory, EmbeddedOptions::default())?;
    bench("embedded", Arc::new(embedded), rounds).await?;
    bench("memory", Arc::new(MemoryEngine::new()), rounds).await
}

async fn bench(name: &str, engine: Arc<dyn Engine>, rounds: u32) -> Outcome<()> {
    println!("{name}: median and 99th percentile of {rounds}, microseconds");
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        let mut txn = engine.begin(Freshness::Strict);
        txn.set(b"bench", &[7; PAGE_BYTES]);
        txn.commit().await?;
        times.push(begun.elapsed());
    }
    report("engine", &mut times);

    let store = Store::open(engine, StoreOptions::new("bench", "b")).await?;
    let key: NamespaceKey = format!("bench/{}", std::process::id()).parse()?;
    store.create_namespace(&key).await?;
    fill(&store, &key).await?;
    let mut base = begin(&store, &key, None).await?;
    let (mut begins, mut commits, mut reads, mut runs) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let begun = Instant::now();
        let known = KnownState {
            incarnation: base.incarnation,
            namespace: base.namespace,
            version: base.version,
            own: Vec::new(),
        };
        base = begin(&store, &key, Some(known)).await?;
        begins.push(begun.elapsed());

        let index = 1 + round.wrapping_mul(2_654_435_761) % (PAGES - 1);
        reads.push(read(&store, &key, &base, index, 1).await?);
        runs.push(read(&store, &key, &base, index.min(PAGES - 32), 32).await?);

        let request = commit(&base, u64::from(round), vec![page(index)]);
        let begun = Instant::now();
        store.commit(&key, request).await?;
        commits.push(begun.elapsed());
    }
    report("begin", &mut begins);
    report("read 1 page", &mut reads);
    report("read 32 neighbours", &mut runs);
    report("commit 1 page", &mut commits);
    Ok(())
}

async fn begin(
    store: &Store,
    key: &NamespaceKey,
    known: Option<KnownState>,
) -> Outcome<BeginReply> {
    let request = BeginRequest {
        known,
        want_pages: false,
        as_of: None,
    };
    Ok(store.begin(key, request).await?)
}

async fn read(
    store: &Store,
    key: &NamespaceKey,
    base: &BeginReply,
    first: PageIndex,
    count: u32,
) -> Outcome<Duration> {
    let request = ReadRequest {
        namespace: base.namespace,
        version: base.version,
        read_version: base.read_version,
        pages: (first..first + count).collect(),
        incarnation: None,
        stage: None,
    };
    let begun = Instant::now();
    store.read(key, request).await?;
    Ok(begun.elapsed())
}

fn page(index: PageIndex) -> PageData {
    PageData {
        index,
        data: vec![7; PAGE_BYTES].into(),
    }
}

fn commit(base: &BeginReply, number: u64, pages: Vec<PageData>) -> CommitRequest {
    let mut key = [1; 16];
    key[8..].copy_from_slice(&number.to_be_bytes());
    CommitRequest {
        namespace: base.namespace,
        base: base.version,
        read_version: base.read_version,
        key: IdempotencyKey::from_bytes(key),
        retry: false,
        read: (0..8).collect::<PageSet>(),
        pages,
        stage: None,
        incarnation: None,
        lease: None,
    }
}

/// A database of pages behind a header.
async fn fill(store: &Store, key: &NamespaceKey) -> Outcome<()> {
    let mut first = page(0);
    first.data[..16].copy_from_slice(b"SQLite format 3\0");
    first.data[16..18].copy_from_slice(&(PAGE_BYTES as u16).to_be_bytes());
    first.data[28..32].copy_from_slice(&PAGES.to_be_bytes());
    let base = begin(store, key, None).await?;
    let pages = std::iter::once(first).chain((1..PAGES).map(page));
    store
        .commit(key, commit(&base, u64::MAX, pages.collect()))
        .await?;
    Ok(())
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    println!("  {what:<20} {:>9.1} {:>9.1}", at(50), at(99));
}
