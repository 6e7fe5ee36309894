//! Measures the embedded engine on the disk it is pointed at:
//! `cargo run --release -p mvstore --example kv_bench -- DIRECTORY [churn]`
//!
//! Prints the bare disk (append 8 KiB, fdatasync) before and after, commits of one 8 KiB page by 1,
//! 4, 16 and 64 committers at once, and single reads. With `churn`: the space taken while page
//! versions are written and old ones removed, over and over.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mvstore::kv::embedded::{EmbeddedEngine, EmbeddedOptions};
use mvstore::kv::{Engine, Freshness, Isolation, KvError};

const PAGE: usize = 8192;
const SECONDS: u64 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let home = arguments
        .first()
        .ok_or("usage: kv_bench DIRECTORY [churn]")?;
    std::fs::create_dir_all(home)?;
    let home = tempfile::tempdir_in(home)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()?;
    let engine = EmbeddedEngine::open(home.path().join("store"), EmbeddedOptions::default())?;
    let engine = Arc::new(engine);
    if arguments.get(1).is_some_and(|mode| mode == "churn") {
        runtime.block_on(churn(engine.clone()))?;
    } else {
        bare(home.path())?;
        for committers in [1, 4, 16, 64] {
            runtime.block_on(commits(engine.clone(), committers))?;
        }
        runtime.block_on(gets(engine.clone()))?;
        bare(home.path())?;
    }
    engine.close();
    Ok(())
}

/// Incompressible, and different for each number.
fn page(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(PAGE);
    while bytes.len() < PAGE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| {
        times
            .get(times.len() * part / 1000)
            .copied()
            .unwrap_or_default()
    };
    format!("p50 {:?}, p99 {:?}, p99.9 {:?}", at(500), at(990), at(999))
}

fn bare(home: &Path) -> Result<(), Box<dyn Error>> {
    let mut file = File::create(home.join("bare"))?;
    let begin = Instant::now();
    let mut times = Vec::new();
    while begin.elapsed().as_secs() < SECONDS {
        let page = page(times.len() as u64);
        let start = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    let rate = times.len() as u64 / SECONDS;
    println!("bare append + fdatasync: {rate}/s, {}", percentiles(times));
    Ok(())
}

async fn commits(engine: Arc<EmbeddedEngine>, committers: u64) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..committers)
        .map(|committer| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begin.elapsed().as_secs() < SECONDS {
                    let number = times.len() as u64;
                    let page = page(number);
                    let start = Instant::now();
                    let mut transaction = engine.begin(Freshness::Strict);
                    let head = format!("head/{committers}/{committer}");
                    transaction
                        .get(head.as_bytes(), Isolation::Serializable)
                        .await?;
                    transaction.set(head.as_bytes(), &number.to_be_bytes());
                    let key = format!("page/{committers}/{committer}/{number:08}");
                    transaction.set(key.as_bytes(), &page);
                    transaction.commit().await?;
                    times.push(start.elapsed());
                }
                Ok::<_, KvError>(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let rate = times.len() as u64 / SECONDS;
    println!(
        "{committers} committers: {rate} commits/s, {}",
        percentiles(times)
    );
    Ok(())
}

async fn gets(engine: Arc<EmbeddedEngine>) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::new();
    for number in 0..20_000u64 {
        let key = format!("page/1/0/{:08}", number.wrapping_mul(7919) % 1_000);
        let start = Instant::now();
        let transaction = engine.begin(Freshness::Strict);
        transaction.get(key.as_bytes(), Isolation::Snapshot).await?;
        times.push(start.elapsed());
    }
    println!("one get: {}", percentiles(times));
    Ok(())
}

async fn churn(engine: Arc<EmbeddedEngine>) -> Result<(), Box<dyn Error>> {
    const PAGES: u64 = 20_000;
    const ROUNDS: u64 = 30;
    const BATCH: u64 = 64;
    let key = |page: u64, version: u64| format!("p/{page:08}/{version:016}");
    let mut versions = vec![0u64; PAGES as usize];
    let live = (PAGES * PAGE as u64) as f64;
    for round in 0..=ROUNDS {
        // The first round writes every page, each later one three in ten.
        let begin = Instant::now();
        let chosen: Vec<u64> = (0..PAGES)
            .filter(|number| {
                round == 0 || (number.wrapping_mul(2_654_435_761) + round * 7) % 10 < 3
            })
            .collect();
        for batch in chosen.chunks(BATCH as usize) {
            let mut transaction = engine.begin(Freshness::Strict);
            for number in batch {
                let version = &mut versions[*number as usize];
                if round > 0 {
                    transaction.clear(key(*number, *version).as_bytes());
                }
                *version = round + 1;
                let content = page(number ^ (round << 32));
                transaction.set(key(*number, *version).as_bytes(), &content);
            }
            transaction.commit().await?;
        }
        let bytes = engine.physical_bytes().unwrap_or_default() as f64;
        println!(
            "round {round}: {:.2} x live, {:.0} MB, {:.1} s",
            bytes / live,
            bytes / 1e6,
            begin.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
