//! What every part of the store works with: the engine, the keys, the limits, and how often a
//! transaction is run again.

use std::fmt::Display;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use mvsqlite_protocol::v2::Limits;
use mvsqlite_protocol::{Incarnation, NamespaceId, Version};
use tokio::sync::Semaphore;

use crate::error::StoreError;
use crate::kv::{Engine, Freshness, Isolation, KvError, Transaction};
use crate::layout::{CatalogEntry, Guard, Keyspace, Malformed, decode_version};
use crate::page::{PageCache, PageOneCache, StageTurns};
use crate::store::StoreOptions;
use crate::v1::Slots;

/// An opened store's parts.
pub(crate) struct Context {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) keys: Keyspace,
    pub(crate) options: StoreOptions,
    pub(crate) incarnation: Incarnation,
    pub(crate) limits: Limits,
    pub(crate) bounds: Bounds,
    pub(crate) page_one: PageOneCache,
    /// Commits of protocol v1 that gather many pages.
    pub(crate) v1_slots: Slots,
    pub(crate) page_cache: PageCache,
    /// One permit for each large commit under way.
    pub(crate) large_commits: Arc<Semaphore>,
    /// Batches of one stage, one after the other.
    pub(crate) stage_turns: StageTurns,
}

/// How large things are written, by what the engine's transactions take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Most bytes of a changelog chunk.
    pub changelog_chunk_bytes: usize,
    /// Most chunks of a changelog entry.
    pub changelog_chunks: u16,
    /// Most ranges of pages that a commit asks the engine to watch.
    pub watched_ranges: usize,
    /// What a page version costs a transaction besides its content, in bytes.
    pub page_cost: u64,
    /// Most page versions that one transaction writes.
    pub transaction_pages: u64,
    /// A commit whose staged pages would cost a transaction more bytes makes a layer of them.
    pub layer_bytes: u64,
    /// Most pages that one step of folding looks at.
    pub fold_pages: usize,
    /// Most of them that are read at once with their content.
    pub fold_chunk: u32,
    /// Bytes of content read after which a step of folding is large enough.
    pub fold_bytes: u64,
}

/// Why an attempt at a transaction came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine said so; another attempt may fare better.
    Engine(KvError),
    /// The store's own rules said so.
    Refused(StoreError),
}

impl From<KvError> for Failure {
    fn from(error: KvError) -> Self {
        Self::Engine(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

/// Names the place of bytes that do not decode.
pub(crate) fn corrupt_in(place: impl Display) -> impl FnOnce(Malformed) -> StoreError {
    move |malformed| StoreError::Corrupt {
        reason: format!("{malformed}, in {place}"),
    }
}

/// How often a transaction may still be run again. Only for transactions that may be done twice.
#[derive(Debug)]
pub(crate) struct Reruns(u32);

impl Reruns {
    /// Each conflict means that another transaction got through, so the store as a whole moves on;
    /// a transaction that loses this often is told to try later.
    pub(crate) const MOST: u32 = 20;

    pub(crate) fn new() -> Self {
        Self(Self::MOST)
    }

    /// Whether to run again after this failure: `Ok` if so.
    pub(crate) fn after(&mut self, failure: Failure) -> Result<(), StoreError> {
        match failure {
            Failure::Engine(
                KvError::Conflict | KvError::TooOld | KvError::MaybeCommitted { .. },
            ) if self.0 > 0 => {
                self.0 -= 1;
                Ok(())
            }
            Failure::Engine(error) => Err(error.into()),
            Failure::Refused(error) => Err(error),
        }
    }
}

/// Runs a transaction that may be done twice until it is done or refused.
pub(crate) async fn rerun<T, F>(attempt: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut reruns = Reruns::new();
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(failure) => reruns.after(failure)?,
        }
    }
}

/// Reads of one transaction under way at once.
const CONCURRENCY: usize = 64;

/// Runs reads of one transaction side by side; their results in order.
///
/// The futures come as a list: the compiler cannot see that a stream over a mapping closure may be
/// sent between threads.
pub(crate) async fn side_by_side<T>(
    reads: Vec<impl Future<Output = Result<T, Failure>>>,
) -> Result<Vec<T>, Failure> {
    let reads = stream::iter(reads).buffered(CONCURRENCY);
    reads.try_collect().await
}

impl Context {
    /// Starts a transaction.
    pub(crate) fn begin(&self, freshness: Freshness) -> Box<dyn Transaction> {
        self.engine.begin(freshness)
    }

    /// Now, in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> u64 {
        self.options.clock.unix_millis()
    }

    /// Random bytes.
    pub(crate) fn random<const N: usize>(&self) -> Result<[u8; N], StoreError> {
        let mut bytes = [0; N];
        let filled = self.options.entropy.fill(&mut bytes);
        filled.map_err(|error| StoreError::Unavailable {
            reason: format!("the system gives no random numbers: {error}"),
        })?;
        Ok(bytes)
    }

    /// The catalog's entry of a key.
    pub(crate) async fn catalog_entry(
        &self,
        txn: &dyn Transaction,
        key: &str,
        isolation: Isolation,
    ) -> Result<Option<CatalogEntry>, Failure> {
        let value = txn.get(&self.keys.name(key), isolation).await?;
        let entry = value.map(|value| CatalogEntry::decode(&value)).transpose();
        Ok(entry.map_err(corrupt_in(format_args!("the entry of '{key}'")))?)
    }

    /// The guard of a namespace.
    pub(crate) async fn guard(
        &self,
        txn: &dyn Transaction,
        id: NamespaceId,
        isolation: Isolation,
    ) -> Result<Option<Guard>, Failure> {
        let value = txn.get(&self.keys.guard(id), isolation).await?;
        let guard = value.map(|value| Guard::decode(&value)).transpose();
        Ok(guard.map_err(corrupt_in(format_args!("namespace {id}")))?)
    }

    /// The version of a namespace's last commit, or its id. Always a snapshot read: as a
    /// serializable one it would make all commits of the namespace collide.
    pub(crate) async fn head(
        &self,
        txn: &dyn Transaction,
        id: NamespaceId,
    ) -> Result<Version, Failure> {
        let value = txn.get(&self.keys.head(id), Isolation::Snapshot).await?;
        let head = value.map(|value| decode_version(&value)).transpose();
        let head = head.map_err(corrupt_in(format_args!("the head of namespace {id}")))?;
        Ok(head.unwrap_or(id.as_version()))
    }
}
