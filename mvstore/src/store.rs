//! The store: what the HTTP server and tests call. Thin; each method is one call into
//! `namespace`, `page` or `history`.
//!
//! Every method may be called concurrently and by several processes on one engine. Dropping the
//! future of a method that writes leaves it done or not done, never half done.

use std::sync::Arc;
use std::time::Duration;

use mvsqlite_protocol::admin::{ListedNamespace, NamespaceStat};
use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, CommitReply, CommitRequest, Limits, ReadRequest, ResolveReply,
    ResolveRequest, SettleReply, SettleRequest, StageReply, StageRequest,
};
use mvsqlite_protocol::{NamespaceId, NamespaceKey, PageImage, Version};
use serde::Serialize;

use crate::environment::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::error::StoreError;
use crate::kv::Engine;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Before every key of the catalog and other metadata. No NUL character.
    pub metadata_prefix: String,
    /// Before every key that holds pages. No NUL character; may equal the other one.
    pub raw_data_prefix: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// How long a commit's outcome is remembered under its idempotency key; at least an hour.
    pub idempotency_ttl: Duration,
    /// How long a stage lives after its last batch.
    pub stage_ttl: Duration,
}

impl StoreOptions {
    /// The shortest [`Self::idempotency_ttl`], and its default.
    pub const MIN_IDEMPOTENCY_TTL: Duration = Duration::from_secs(3600);
    /// The default of [`Self::stage_ttl`].
    pub const DEFAULT_STAGE_TTL: Duration = Duration::from_secs(3600);

    /// The machine's clock and randomness, default times to live.
    pub fn new(metadata_prefix: impl Into<String>, raw_data_prefix: impl Into<String>) -> Self {
        Self {
            metadata_prefix: metadata_prefix.into(),
            raw_data_prefix: raw_data_prefix.into(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            idempotency_ttl: Self::MIN_IDEMPOTENCY_TTL,
            stage_ttl: Self::DEFAULT_STAGE_TTL,
        }
    }
}

/// The store.
pub struct Store {
    engine: Arc<dyn Engine>,
    options: StoreOptions,
}

/// A version and the time that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TimePoint {
    /// The version, store-wide.
    pub version: Version,
    /// Seconds since the Unix epoch.
    pub time: u64,
}

/// The recorded points around a time. As JSON it is the reply of the original's `/time2version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TimeBracket {
    /// The newest record before the time.
    pub after: Option<TimePoint>,
    /// The oldest record at or behind it.
    pub not_after: Option<TimePoint>,
}

/// What one pass of [`Store::collect_expired`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Idempotency keys forgotten.
    pub idempotency_keys: u64,
    /// Stages closed because nobody added to them for [`StoreOptions::stage_ttl`].
    pub stages_closed: u64,
    /// Closed stages whose pages were removed.
    pub stages_removed: u64,
    /// Deleted namespaces whose last key was removed.
    pub namespaces_removed: u64,
    /// Work is left: call again without waiting.
    pub more: bool,
}

fn unfinished<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable {
        reason: "this part of the store is not there yet".to_owned(),
    })
}

impl Store {
    /// Opens the store on an engine, and makes it there if there is none.
    ///
    /// # Errors
    /// [`StoreError::BadOptions`]; [`StoreError::UnknownFormat`] if a newer build wrote there;
    /// [`StoreError::VersionsWentBack`]; whatever the engine reports.
    pub async fn open(engine: Arc<dyn Engine>, options: StoreOptions) -> Result<Self, StoreError> {
        engine.check().await?;
        Ok(Self { engine, options })
    }

    /// The limits on what one call may carry, as `begin` gives them; the HTTP server bounds bodies by
    /// them.
    pub fn limits(&self) -> Limits {
        let _ = &self.options;
        Limits {
            inline_bytes: 4 << 20,
            stage_batch_bytes: 4 << 20,
            commit_pages: 50_000,
            read_pages: 1024,
            read_bytes: 4 << 20,
        }
    }

    /// One line about the engine.
    pub fn describe(&self) -> String {
        self.engine.describe()
    }

    /// Whether the store can commit at all; the error says why not.
    pub async fn check(&self) -> Result<(), StoreError> {
        Ok(self.engine.check().await?)
    }

    /// Makes an empty namespace.
    pub async fn create_namespace(&self, _key: &NamespaceKey) -> Result<NamespaceId, StoreError> {
        unfinished()
    }

    /// Gives a namespace another key. Whether the new key is free is judged first.
    pub async fn rename_namespace(
        &self,
        _old: &NamespaceKey,
        _new: &NamespaceKey,
    ) -> Result<(), StoreError> {
        unfinished()
    }

    /// Deletes a namespace: gone for all callers at once, its bytes by [`Self::collect_expired`].
    pub async fn delete_namespace(&self, _key: &NamespaceKey) -> Result<(), StoreError> {
        unfinished()
    }

    /// Namespaces whose key has the prefix and lies behind `after`, at most `limit`, in byte order.
    pub async fn list_namespaces(
        &self,
        _prefix: &str,
        _after: Option<&str>,
        _limit: usize,
    ) -> Result<Vec<ListedNamespace>, StoreError> {
        unfinished()
    }

    /// What is known about a namespace.
    pub async fn stat_namespace(&self, _key: &NamespaceKey) -> Result<NamespaceStat, StoreError> {
        unfinished()
    }

    /// Takes a snapshot of the newest version. Strict.
    pub async fn begin(
        &self,
        _key: &NamespaceKey,
        _request: BeginRequest,
    ) -> Result<BeginReply, StoreError> {
        unfinished()
    }

    /// Finds the version that a moment is.
    pub async fn resolve(
        &self,
        _key: &NamespaceKey,
        _request: ResolveRequest,
    ) -> Result<ResolveReply, StoreError> {
        unfinished()
    }

    /// Reads pages at a version, in ascending order; may stop early once the byte budget is used.
    pub async fn read(
        &self,
        _key: &NamespaceKey,
        _request: ReadRequest,
    ) -> Result<Vec<PageImage>, StoreError> {
        unfinished()
    }

    /// Adds pages to a stage, or makes one.
    pub async fn stage(
        &self,
        _key: &NamespaceKey,
        _request: StageRequest,
    ) -> Result<StageReply, StoreError> {
        unfinished()
    }

    /// Commits a transaction: all or nothing, at one version.
    pub async fn commit(
        &self,
        _key: &NamespaceKey,
        _request: CommitRequest,
    ) -> Result<CommitReply, StoreError> {
        unfinished()
    }

    /// Makes a commit's outcome definite.
    pub async fn settle(
        &self,
        _key: &NamespaceKey,
        _request: SettleRequest,
    ) -> Result<SettleReply, StoreError> {
        unfinished()
    }

    /// The recorded points around a time in Unix seconds; 0 is now.
    pub async fn time_to_version(&self, _unix_seconds: u64) -> Result<TimeBracket, StoreError> {
        unfinished()
    }

    /// Notes which version belongs to the present time. To be called every five seconds.
    pub async fn record_time(&self) -> Result<(), StoreError> {
        unfinished()
    }

    /// One bounded pass over what has expired: idempotency keys, stages, deleted namespaces.
    pub async fn collect_expired(&self) -> Result<Collected, StoreError> {
        unfinished()
    }
}
