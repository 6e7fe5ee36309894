//! What a child does on the lossy disk: check that everything certain is there and nothing by
//! halves, then commit until the power fails or its rounds are over.
//!
//! Commit `n` of a writer sets its head to `n` and to the commit's version, writes page `n`, and
//! removes page `n - KEPT`: so versions churn, and a commit by halves shows.

use std::path::Path;
use std::sync::Arc;

use mvsqlite_protocol::Version;
use mvstore::kv::embedded::{EmbeddedEngine, EmbeddedOptions};
use mvstore::kv::{Engine, Freshness, Isolation, KeyRange, KvError, RangeOptions};

use super::disk::Draws;
use super::ledger::{Known, Ledger, WRITERS};

/// Pages a writer keeps.
const KEPT: u64 = 6;

/// How much a child does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Commits of each writer.
    pub(crate) commits: u64,
    /// Largest page.
    pub(crate) page_bytes: u64,
    /// See [`EmbeddedOptions::memtable_bytes`].
    pub(crate) memtable_bytes: u64,
}

/// Opens, checks, commits, closes. Whatever is wrong is in the ledger.
pub(crate) async fn run(directory: &Path, ledger_path: &Path, load: Load) -> Result<(), String> {
    let known = Known::read(ledger_path);
    let ledger = Arc::new(Ledger::append_to(ledger_path));
    let options = EmbeddedOptions {
        memtable_bytes: load.memtable_bytes,
        cache_bytes: 8 << 20,
        ..EmbeddedOptions::default()
    };
    let engine = EmbeddedEngine::open(directory, options).map_err(|error| error.to_string())?;
    let engine = Arc::new(engine);
    let shared: Arc<dyn Engine> = engine.clone();
    let mut heads = [0; WRITERS];
    for (writer, head) in heads.iter_mut().enumerate() {
        *head = match check(&shared, writer, &known, &ledger).await {
            // The power may fail while it reads; if not, this is the test's end.
            Err(Wrong::Read(error)) => return Err(format!("writer {writer}: {error}")),
            Err(Wrong::Content(violation)) => {
                ledger.violation(&violation);
                return Err(violation);
            }
            Ok(head) => head,
        };
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (engine, ledger) = (shared.clone(), ledger.clone());
            tokio::spawn(write(
                engine,
                ledger,
                writer,
                heads[writer],
                known.version,
                load,
            ))
        })
        .collect();
    for writer in writers {
        writer.await.map_err(|panic| panic.to_string())?;
    }
    drop(shared);
    engine.close();
    Ok(())
}

/// What a check found.
enum Wrong {
    Read(KvError),
    Content(String),
}

impl From<KvError> for Wrong {
    fn from(error: KvError) -> Self {
        Self::Read(error)
    }
}

fn head_key(writer: usize) -> Vec<u8> {
    format!("head/{writer}").into_bytes()
}

fn page_key(writer: usize, commit: u64) -> Vec<u8> {
    format!("page/{writer}/{commit:012}").into_bytes()
}

/// A page that no other commit writes.
fn page(writer: usize, commit: u64, most: u64) -> Vec<u8> {
    let mut draws = Draws(commit.wrapping_mul(1_000_003) + writer as u64);
    let len = 1 + draws.below(most) as usize;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&draws.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Compares what is there with what must be; returns the writer's last commit.
async fn check(
    engine: &Arc<dyn Engine>,
    writer: usize,
    known: &Known,
    ledger: &Ledger,
) -> Result<u64, Wrong> {
    let wrong = |what: String| Err(Wrong::Content(what));
    let transaction = engine.begin(Freshness::Strict);
    let head = transaction
        .get(&head_key(writer), Isolation::Snapshot)
        .await?;
    let (head, version) = match &head {
        None => (0, 0),
        Some(value) => {
            let (commit, stamp) = value.split_at(8);
            let stamp = Version::from_slice(stamp).expect("ten bytes");
            (
                u64::from_le_bytes(commit.try_into().expect("eight")),
                stamp.commit(),
            )
        }
    };
    let (certain, tried) = (known.certain[writer], known.tried[writer]);
    if head < certain || head > tried {
        return wrong(format!(
            "writer {writer} is at commit {head}; {certain} is certain and {tried} was tried"
        ));
    }
    let reading = transaction.read_version().await?;
    if reading.0 < known.version {
        return wrong(format!("reads are at {reading:?}, below {}", known.version));
    }
    let options = RangeOptions {
        limit: usize::MAX,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let range = KeyRange::prefix(format!("page/{writer}/").as_bytes());
    let pages = transaction.get_range(&range, options).await?;
    let expected = (head.saturating_sub(KEPT) + 1..=head).map(|commit| page_key(writer, commit));
    if !pages.iter().map(|(key, _)| key.to_vec()).eq(expected) {
        let found: Vec<_> = pages.iter().map(|(key, _)| key.clone()).collect();
        return wrong(format!(
            "writer {writer} at commit {head} has the pages {found:?}"
        ));
    }
    for (commit, (_, value)) in (head.saturating_sub(KEPT) + 1..).zip(&pages) {
        // The size of pages is part of their content; any round's will do.
        if !super::PAGE_BYTES
            .iter()
            .any(|most| page(writer, commit, *most) == value[..])
        {
            return wrong(format!(
                "page {commit} of writer {writer} is not what was written"
            ));
        }
    }
    if head > 0 {
        ledger.found(writer, head, version);
    }
    Ok(head)
}

async fn write(
    engine: Arc<dyn Engine>,
    ledger: Arc<Ledger>,
    writer: usize,
    head: u64,
    before: u64,
    load: Load,
) {
    for commit in head + 1..=head + load.commits {
        ledger.tries(writer, commit);
        let mut transaction = engine.begin(Freshness::Strict);
        let mut stamped = commit.to_le_bytes().to_vec();
        stamped.extend([0; Version::LEN]);
        transaction.set_versionstamped_value(&head_key(writer), &stamped, 8);
        transaction.set(
            &page_key(writer, commit),
            &page(writer, commit, load.page_bytes),
        );
        if commit > KEPT {
            transaction.clear(&page_key(writer, commit - KEPT));
        }
        match transaction.commit().await {
            Ok(version) if version.commit() <= before => {
                ledger.violation(&format!("version {version} is not above {before}"));
                return;
            }
            Ok(version) => ledger.acknowledged(writer, commit, version.commit()),
            Err(error) => {
                let name = format!("{error:?}");
                let end = name
                    .find(|c: char| !c.is_alphanumeric())
                    .unwrap_or(name.len());
                ledger.refused(&name[..end]);
                return;
            }
        }
    }
}
