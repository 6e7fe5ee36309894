//! How long a large transaction takes in the store: staging, the commit itself, reading a page through
//! the layer, folding; over the embedded engine, without HTTP.
//!
//! `cargo run --release -p mvstore --example large_commit -- DIRECTORY [MEGABYTES]`

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mvsqlite_protocol::v2::{BeginReply, BeginRequest, ReadRequest};
use mvsqlite_protocol::v2::{CommitRequest, StageRef, StageRequest};
use mvsqlite_protocol::{IdempotencyKey, NamespaceKey, PageData, PageIndex, PageSet, Version};
use mvstore::kv::embedded::{EmbeddedEngine, EmbeddedOptions};
use mvstore::store::{Store, StoreOptions};

const PAGE_BYTES: usize = 8192;
const READS: u32 = 300;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("which directory?")?;
    let megabytes: u32 = arguments.next().map_or(Ok(100), |number| number.parse())?;
    let engine = EmbeddedEngine::open(directory, EmbeddedOptions::default())?;
    let store = Store::open(Arc::new(engine), StoreOptions::new("bench", "b")).await?;
    let key: NamespaceKey = format!("large/{}", std::process::id()).parse()?;
    store.create_namespace(&key).await?;
    let pages = megabytes * ((1 << 20) / PAGE_BYTES as u32);

    // Twice, so that the second one finds older versions below it.
    for byte in 1..=2 {
        let base = store.begin(&key, BeginRequest::default()).await?;
        let begun = Instant::now();
        let stage = stage(&store, &key, &base, pages, byte).await?;
        let staged = begun.elapsed();
        let rate = f64::from(megabytes) / staged.as_secs_f64();
        println!(
            "staged {megabytes} MB in {:.2} s, {rate:.0} MB/s",
            staged.as_secs_f64()
        );

        let request = commit(&base, stage, byte, pages);
        let begun = Instant::now();
        let version = store.commit(&key, request).await?.version;
        println!("committed in {:.2} ms", millis(begun.elapsed()));

        read(&store, &key, &base, version, pages, "through the layer").await?;
        let begun = Instant::now();
        while store.fold_layers().await?.more {}
        let folded = begun.elapsed();
        let rate = f64::from(pages) / folded.as_secs_f64();
        println!("folded in {:.2} s, {rate:.0} pages/s", folded.as_secs_f64());
        read(&store, &key, &base, version, pages, "after folding").await?;
    }
    Ok(())
}

async fn stage(
    store: &Store,
    key: &NamespaceKey,
    base: &BeginReply,
    pages: u32,
    byte: u8,
) -> Outcome<StageRef> {
    let batch = base.limits.stage_batch_bytes as usize / PAGE_BYTES;
    let indexes: Vec<PageIndex> = (1..pages).collect();
    let mut stage: Option<StageRef> = None;
    for batch in indexes.chunks(batch) {
        let pages = batch.iter().map(|index| page(*index, byte));
        let request = StageRequest {
            namespace: base.namespace,
            read_version: base.read_version,
            stage: stage.map(|stage| stage.stage),
            pages: pages.collect(),
            unstage: PageSet::new(),
            incarnation: None,
        };
        let reply = store.stage(key, request).await?;
        stage = Some(StageRef {
            stage: reply.stage,
            count: reply.count,
            sum: reply.sum,
        });
    }
    Ok(stage.ok_or("nothing to stage")?)
}

fn page(index: PageIndex, byte: u8) -> PageData {
    let mut data = vec![byte; PAGE_BYTES];
    data[..4].copy_from_slice(&index.to_be_bytes());
    PageData {
        index,
        data: data.into(),
    }
}

fn commit(base: &BeginReply, stage: StageRef, byte: u8, pages: u32) -> CommitRequest {
    let mut first = vec![0; PAGE_BYTES];
    first[..16].copy_from_slice(b"SQLite format 3\0");
    first[16..18].copy_from_slice(&(PAGE_BYTES as u16).to_be_bytes());
    first[28..32].copy_from_slice(&pages.to_be_bytes());
    first[200] = byte;
    CommitRequest {
        namespace: base.namespace,
        base: base.version,
        read_version: base.read_version,
        key: IdempotencyKey::from_bytes([byte; 16]),
        retry: false,
        read: PageSet::new(),
        pages: vec![PageData {
            index: 0,
            data: first.into(),
        }],
        stage: Some(stage),
        incarnation: None,
        lease: None,
    }
}

/// Median of single pages all over the database.
async fn read(
    store: &Store,
    key: &NamespaceKey,
    base: &BeginReply,
    version: Version,
    pages: u32,
    when: &str,
) -> Outcome<()> {
    let mut times = Vec::new();
    for round in 0..READS {
        let request = ReadRequest {
            namespace: base.namespace,
            version,
            read_version: base.read_version,
            pages: [1 + round.wrapping_mul(2_654_435_761) % (pages - 1)]
                .into_iter()
                .collect(),
            incarnation: None,
            stage: None,
        };
        let begun = Instant::now();
        store.read(key, request).await?;
        times.push(begun.elapsed());
    }
    times.sort();
    println!("one page {when}: {:.3} ms", millis(times[times.len() / 2]));
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
