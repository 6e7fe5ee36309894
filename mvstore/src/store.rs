//! The store: what the HTTP server and tests call. Thin; each method is one call into
//! `namespace`, `page` or `history`.
//!
//! Every method may be called concurrently and by several processes on one engine. Dropping the
//! future of a method that writes leaves it done or not done, never half done.

mod answers;
mod open;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use mvsqlite_protocol::admin::{ListedNamespace, NamespaceStat};
use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, CommitReply, CommitRequest, Concurrency, GroupCommitReply,
    GroupCommitRequest, GroupSettleRequest, LeaseReply, LeaseRequest, Limits, ReadRequest,
    ResolveReply, ResolveRequest, SettleReply, SettleRequest, StageReply, StageRequest,
};
use mvsqlite_protocol::{Incarnation, NamespaceId, NamespaceKey, PageImage, Version};

pub use answers::{
    Collected, Folded, LockAcquired, LockReleased, NamespaceUsage, ReleaseMode, TimeBracket,
    TimePoint, Truncated,
};

pub(crate) use open::context_for;

use crate::context::Context;
use crate::environment::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::error::StoreError;
use crate::fsck::{self, FsckOptions};
use crate::history::{self, TimeRecorder};
use crate::kv::Engine;
use crate::namespace::{self, Forked};
use crate::page;
use crate::v1::Original;

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
    /// Most memory for pages that were read lately, in bytes; 0 keeps none.
    pub page_cache_bytes: u64,
    /// How long a write lease lives after it was granted or renewed; at least 50 ms.
    pub lease_ttl: Duration,
    /// How long a place in the queue for a write lease is kept after it was last asked for; at least
    /// 10 ms. SQLite's busy handler asks again after 100 ms at the latest.
    pub lease_place_ttl: Duration,
    /// How long a page that protocol v1 uploaded waits for a commit, from its last upload or commit on.
    pub fresh_page_ttl: Duration,
    /// Thresholds.
    pub knobs: Knobs,
}

/// Thresholds that tests and measurements set; `None` is what the engine's limits make of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Knobs {
    /// A commit makes a layer of its staged pages if, as page versions, they would cost a
    /// transaction more bytes than this (some 200 for each page).
    pub layer_bytes: Option<u64>,
    /// Most pages that one step of folding looks at; at least 1.
    pub fold_pages: Option<usize>,
}

impl StoreOptions {
    /// The shortest [`Self::idempotency_ttl`], and its default.
    pub const MIN_IDEMPOTENCY_TTL: Duration = Duration::from_secs(3600);
    /// The default of [`Self::stage_ttl`].
    pub const DEFAULT_STAGE_TTL: Duration = Duration::from_secs(3600);
    /// The default of [`Self::page_cache_bytes`].
    pub const DEFAULT_PAGE_CACHE_BYTES: u64 = 64 << 20;
    /// The default of [`Self::lease_ttl`]: for how long a dead holder keeps others waiting.
    pub const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(5);
    /// The default of [`Self::lease_place_ttl`].
    pub const DEFAULT_LEASE_PLACE_TTL: Duration = Duration::from_secs(1);
    /// The default of [`Self::fresh_page_ttl`].
    pub const DEFAULT_FRESH_PAGE_TTL: Duration = Duration::from_secs(3600);

    /// The machine's clock and randomness, default times to live.
    pub fn new(metadata_prefix: impl Into<String>, raw_data_prefix: impl Into<String>) -> Self {
        Self {
            metadata_prefix: metadata_prefix.into(),
            raw_data_prefix: raw_data_prefix.into(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            idempotency_ttl: Self::MIN_IDEMPOTENCY_TTL,
            stage_ttl: Self::DEFAULT_STAGE_TTL,
            page_cache_bytes: Self::DEFAULT_PAGE_CACHE_BYTES,
            lease_ttl: Self::DEFAULT_LEASE_TTL,
            lease_place_ttl: Self::DEFAULT_LEASE_PLACE_TTL,
            fresh_page_ttl: Self::DEFAULT_FRESH_PAGE_TTL,
            knobs: Knobs::default(),
        }
    }
}

/// The store.
pub struct Store {
    context: Context,
    time: TimeRecorder,
}

impl Store {
    /// Opens the store on an engine, and makes it there if there is none.
    ///
    /// # Errors
    /// [`StoreError::BadOptions`]; [`StoreError::UnknownFormat`] if a newer build wrote there;
    /// [`StoreError::VersionsWentBack`]; whatever the engine reports.
    pub async fn open(engine: Arc<dyn Engine>, options: StoreOptions) -> Result<Self, StoreError> {
        Ok(Self {
            context: open::open(engine, options).await?,
            time: TimeRecorder::default(),
        })
    }

    /// The limits on what one call may carry, as `begin` gives them; the HTTP server bounds bodies by
    /// them.
    pub fn limits(&self) -> Limits {
        self.context.limits
    }

    /// The store's incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.context.incarnation
    }

    /// One line about the engine.
    pub fn describe(&self) -> String {
        self.context.engine.describe()
    }

    /// Whether the store can commit at all; the error says why not.
    ///
    /// # Errors
    /// Whatever keeps the engine from committing; after [`StoreError::StorageFull`] it can still be
    /// read.
    pub async fn check(&self) -> Result<(), StoreError> {
        Ok(self.context.engine.check().await?)
    }

    /// Checks the whole store while it is used; see [`crate::fsck`].
    ///
    /// # Errors
    /// Those of [`fsck::check_with`](crate::fsck::check_with).
    pub async fn fsck(
        &self,
        sqlite: bool,
        bytes_per_second: Option<u64>,
        tell: impl FnMut(fsck::Event) -> ControlFlow<()> + Send,
    ) -> Result<fsck::Counts, fsck::FsckError> {
        let StoreOptions {
            metadata_prefix,
            raw_data_prefix,
            ..
        } = &self.context.options;
        let options = FsckOptions {
            sqlite,
            bytes_per_second,
            ..FsckOptions::new(metadata_prefix, raw_data_prefix)
        };
        fsck::check_with(Arc::clone(&self.context.engine), options, tell).await
    }

    /// Makes an empty namespace and returns its id.
    ///
    /// # Errors
    /// [`StoreError::NamespaceExists`].
    pub async fn create_namespace(&self, key: &NamespaceKey) -> Result<NamespaceId, StoreError> {
        self.create_namespace_as(key, Concurrency::default()).await
    }

    /// Makes an empty namespace whose writers keep out of each other's way like this.
    ///
    /// # Errors
    /// [`StoreError::NamespaceExists`].
    pub async fn create_namespace_as(
        &self,
        key: &NamespaceKey,
        mode: Concurrency,
    ) -> Result<NamespaceId, StoreError> {
        namespace::create(&self.context, key, mode).await
    }

    /// Makes a namespace that begins as another one, named by its id, was at one of its versions; in
    /// constant time. A base that is deleted stays readable for its forks.
    ///
    /// # Errors
    /// [`StoreError::NamespaceExists`]; [`StoreError::NamespaceNotFound`] for the base, by its id;
    /// [`StoreError::VersionUnknown`] for a version that is no commit of it,
    /// [`StoreError::SnapshotTooOld`] for one that is no longer kept; [`StoreError::TooLarge`] for
    /// the ninth fork of a fork of a fork.
    pub async fn fork_namespace(
        &self,
        key: &NamespaceKey,
        base: NamespaceId,
        at: Version,
    ) -> Result<NamespaceId, StoreError> {
        self.fork_namespace_as(key, base, at, Concurrency::default())
            .await
    }

    /// The same, with how writers of the fork keep out of each other's way.
    ///
    /// # Errors
    /// As [`Self::fork_namespace`].
    pub async fn fork_namespace_as(
        &self,
        key: &NamespaceKey,
        base: NamespaceId,
        at: Version,
        mode: Concurrency,
    ) -> Result<NamespaceId, StoreError> {
        namespace::fork(&self.context, key, base, at, mode).await
    }

    /// Makes a namespace what it was at one of its versions, in constant time. That is a new version,
    /// which is returned, so nothing is lost: restoring the version before it undoes it. Transactions
    /// under way conflict.
    ///
    /// # Errors
    /// [`StoreError::VersionUnknown`] for a version that is no commit of the namespace;
    /// [`StoreError::SnapshotTooOld`]; [`StoreError::Unavailable`] while earlier large changes are
    /// not worked off.
    pub async fn restore_namespace(
        &self,
        key: &NamespaceKey,
        at: Version,
    ) -> Result<Version, StoreError> {
        history::restore(&self.context, key, at).await
    }

    /// Gives a namespace another key. Transactions under way keep neither the old nor the new one:
    /// their next call is refused.
    ///
    /// # Errors
    /// [`StoreError::NamespaceExists`] if the new key is taken, which is judged first;
    /// [`StoreError::NamespaceNotFound`].
    pub async fn rename_namespace(
        &self,
        old: &NamespaceKey,
        new: &NamespaceKey,
    ) -> Result<(), StoreError> {
        namespace::rename(&self.context, old, new).await
    }

    /// Deletes a namespace: gone for all callers at once, its bytes by [`Self::collect_expired`], once
    /// no fork reads through it any more.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotFound`].
    pub async fn delete_namespace(&self, key: &NamespaceKey) -> Result<(), StoreError> {
        namespace::delete(&self.context, key, Forked::Hide).await
    }

    /// The same, unless it has forks.
    ///
    /// # Errors
    /// [`StoreError::HasForks`]; [`StoreError::NamespaceNotFound`].
    pub async fn delete_namespace_without_forks(
        &self,
        key: &NamespaceKey,
    ) -> Result<(), StoreError> {
        namespace::delete(&self.context, key, Forked::Refuse).await
    }

    /// Namespaces whose key has the prefix and lies behind `after`, at most `limit`, in byte order.
    ///
    /// # Errors
    /// Whatever keeps the engine from reading.
    pub async fn list_namespaces(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ListedNamespace>, StoreError> {
        namespace::list(&self.context, prefix, after, limit).await
    }

    /// What is known about a namespace.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotFound`].
    pub async fn stat_namespace(&self, key: &NamespaceKey) -> Result<NamespaceStat, StoreError> {
        namespace::stat(&self.context, key).await
    }

    /// What a namespace occupies.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotFound`].
    pub async fn usage(&self, key: &NamespaceKey) -> Result<NamespaceUsage, StoreError> {
        namespace::usage(&self.context, key).await
    }

    /// Takes a snapshot of the newest version. Strict: it holds every commit acknowledged before
    /// the call, by any server.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotFound`].
    pub async fn begin(
        &self,
        key: &NamespaceKey,
        request: BeginRequest,
    ) -> Result<BeginReply, StoreError> {
        page::begin(&self.context, key, None, request).await
    }

    /// As [`Self::begin`], for one who says that it owns the namespace's lock.
    ///
    /// # Errors
    /// Those of [`Self::begin`]; [`StoreError::LockNotHeld`] if that is not so.
    pub async fn begin_as(
        &self,
        lock_owner: Option<&str>,
        key: &NamespaceKey,
        request: BeginRequest,
    ) -> Result<BeginReply, StoreError> {
        page::begin(&self.context, key, lock_owner, request).await
    }

    /// Finds the version that a moment is.
    ///
    /// # Errors
    /// [`StoreError::VersionUnknown`] and [`StoreError::MomentUnknown`] for moments that have not
    /// come yet or lie before the namespace; [`StoreError::SnapshotTooOld`].
    pub async fn resolve(
        &self,
        key: &NamespaceKey,
        request: ResolveRequest,
    ) -> Result<ResolveReply, StoreError> {
        history::resolve(&self.context, key, request).await
    }

    /// Reads pages at a version, in ascending order; at least one, and no more once the byte budget
    /// is used up.
    ///
    /// # Errors
    /// [`StoreError::VersionUnknown`], [`StoreError::SnapshotTooOld`],
    /// [`StoreError::NamespaceChanged`]; [`StoreError::Corrupt`] if a page does not have its checksum.
    pub async fn read(
        &self,
        key: &NamespaceKey,
        request: ReadRequest,
    ) -> Result<Vec<PageImage>, StoreError> {
        self.expect_incarnation(key, request.namespace, request.incarnation)?;
        page::read(&self.context, key, request).await
    }

    /// Adds pages to a stage or takes some out; makes the stage if none is named. May be repeated.
    ///
    /// # Errors
    /// [`StoreError::StageInvalid`], [`StoreError::TooLarge`], [`StoreError::BadPages`].
    pub async fn stage(
        &self,
        key: &NamespaceKey,
        request: StageRequest,
    ) -> Result<StageReply, StoreError> {
        self.expect_incarnation(key, request.namespace, request.incarnation)?;
        page::stage(&self.context, key, request).await
    }

    /// Commits a transaction: all or nothing, at one version.
    ///
    /// # Guarantees
    /// A reply means that the commit is durable and visible. A refusal other than
    /// [`StoreError::OutcomeUnknown`] means that it did not happen and, for this sending and all
    /// earlier ones, never will.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] and whatever is wrong with the request.
    pub async fn commit(
        &self,
        key: &NamespaceKey,
        request: CommitRequest,
    ) -> Result<CommitReply, StoreError> {
        self.commit_as(None, key, request).await
    }

    /// As [`Self::commit`], for one who says that it owns the namespace's lock.
    ///
    /// # Errors
    /// Those of [`Self::commit`]; [`StoreError::LockNotHeld`] if that is not so.
    pub async fn commit_as(
        &self,
        lock_owner: Option<String>,
        key: &NamespaceKey,
        request: CommitRequest,
    ) -> Result<CommitReply, StoreError> {
        self.expect_incarnation(key, request.namespace, request.incarnation)?;
        page::commit(&self.context, key, lock_owner, request).await
    }

    /// Commits a transaction over several namespaces: all of it or nothing, at one version.
    /// Namespaces without a page or stage were only read: nobody may have changed what was read
    /// there, and they get no new version.
    ///
    /// # Guarantees
    /// Those of [`Self::commit`], over all of the namespaces.
    ///
    /// # Errors
    /// Those of [`Self::commit`] for each namespace; [`StoreError::BadGroup`] for none of them, more
    /// than [`MAX_GROUP`](mvsqlite_protocol::v2::MAX_GROUP), one twice, or none that is written.
    pub async fn commit_group(
        &self,
        request: GroupCommitRequest,
    ) -> Result<GroupCommitReply, StoreError> {
        self.commit_group_as(None, request).await
    }

    /// As [`Self::commit_group`], for one who says that it owns the locks of all namespaces.
    ///
    /// # Errors
    /// Those of [`Self::commit_group`]; [`StoreError::LockNotHeld`] if that is not so.
    pub async fn commit_group_as(
        &self,
        lock_owner: Option<String>,
        request: GroupCommitRequest,
    ) -> Result<GroupCommitReply, StoreError> {
        for member in &request.members {
            self.expect_incarnation(&member.ns, member.namespace, request.incarnation)?;
        }
        page::commit_group(&self.context, lock_owner, request).await
    }

    /// Makes a commit's outcome definite: it happened, or it never will.
    ///
    /// # Errors
    /// [`StoreError::OutcomeUnknown`] while the engine is out of reach;
    /// [`StoreError::NamespaceNotFound`] if the namespace was deleted since.
    pub async fn settle(
        &self,
        key: &NamespaceKey,
        request: SettleRequest,
    ) -> Result<SettleReply, StoreError> {
        page::settle(&self.context, key, request).await
    }

    /// Makes the outcome of a commit over several namespaces definite. They have to be those that
    /// the commit named, in any order.
    ///
    /// # Errors
    /// Those of [`Self::settle`], where the namespace that was deleted since is the one of the
    /// smallest id; [`StoreError::BadGroup`].
    pub async fn settle_group(
        &self,
        request: GroupSettleRequest,
    ) -> Result<SettleReply, StoreError> {
        page::settle_group(&self.context, request).await
    }

    /// Takes, keeps or gives back a namespace's write lease. Never waits; may be repeated.
    ///
    /// # Guarantees
    /// While a lease lives nobody commits without it, and once another was granted its former holder
    /// never commits with it, however late. Places in the queue are served in their order; one that
    /// nobody asks for any more is passed over.
    ///
    /// # Errors
    /// [`StoreError::Locked`] for a renewal by one who holds it no longer;
    /// [`StoreError::NamespaceChanged`].
    pub async fn lease(
        &self,
        key: &NamespaceKey,
        request: LeaseRequest,
    ) -> Result<LeaseReply, StoreError> {
        self.expect_incarnation(key, request.namespace, request.incarnation)?;
        namespace::lease(&self.context, key, &request).await
    }

    /// Says how writers of a namespace keep out of each other's way. Holds for every commit that
    /// begins afterwards; one under way may still be made by the old rule.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotFound`].
    pub async fn set_concurrency(
        &self,
        key: &NamespaceKey,
        mode: Concurrency,
    ) -> Result<(), StoreError> {
        namespace::set_concurrency(&self.context, key, mode).await
    }

    /// The store as protocol v1 sees it.
    pub fn original(&self) -> Original<'_> {
        Original::new(&self.context)
    }

    /// The recorded points around a time in Unix seconds; 0 is now.
    ///
    /// # Errors
    /// Whatever keeps the engine from reading.
    pub async fn time_to_version(&self, unix_seconds: u64) -> Result<TimeBracket, StoreError> {
        history::time_to_version(&self.context, unix_seconds).await
    }

    /// Versions of another incarnation mean nothing here: a store that came back from a backup has
    /// lost commits that its clients may have seen.
    fn expect_incarnation(
        &self,
        key: &NamespaceKey,
        expected: NamespaceId,
        incarnation: Option<Incarnation>,
    ) -> Result<(), StoreError> {
        match incarnation {
            Some(incarnation) if incarnation != self.context.incarnation => {
                Err(StoreError::NamespaceChanged {
                    key: key.to_string(),
                    expected,
                })
            }
            _ => Ok(()),
        }
    }

    /// Locks a namespace for an owner, at a version or at its head: from then on only the owner
    /// commits, and all others see that version. May be repeated.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotFound`].
    pub async fn acquire_lock(
        &self,
        key: &NamespaceKey,
        owner: &str,
        version: Option<Version>,
    ) -> Result<LockAcquired, StoreError> {
        namespace::acquire_lock(&self.context, key, owner, version).await
    }

    /// Ends a namespace lock. With [`ReleaseMode::Rollback`] a new version shows what the locked one
    /// showed; it takes the same time whatever was written, and what was written stays readable at
    /// its versions. One that was cut short is done by asking again.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotFound`]; [`StoreError::Unavailable`] when a rollback has to wait.
    pub async fn release_lock(
        &self,
        key: &NamespaceKey,
        owner: &str,
        mode: ReleaseMode,
    ) -> Result<LockReleased, StoreError> {
        namespace::release_lock(&self.context, key, owner, mode).await
    }

    /// Forgets the history of a namespace below the newest commit at or below `before`, or below
    /// what holds it back (a lock, a fork), whichever is lowest. Without `apply` it is only counted
    /// what would go.
    ///
    /// `progress` is called after each step with the page versions removed so far; when it answers
    /// [`ControlFlow::Break`], the work stops. What was removed until then stays so, and the next
    /// truncation goes on from there. After an unknown outcome of the engine a step's versions may be
    /// missing in that number (never in the usage counters).
    ///
    /// # Guarantees
    /// Reads at the new horizon and above it see what they saw. Reads below it are refused from the
    /// first step on.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotFound`]; [`StoreError::Unavailable`] while another truncation of the
    /// namespace runs. A truncation that was cut short by the end of its process keeps the next one
    /// waiting for half a minute.
    pub async fn truncate_namespace(
        &self,
        key: &NamespaceKey,
        before: Version,
        apply: bool,
        progress: impl FnMut(u64) -> ControlFlow<()> + Send,
    ) -> Result<Truncated, StoreError> {
        history::truncate(&self.context, key, before, apply, progress).await
    }

    /// Removes content of a namespace that nothing refers to: stages, and pages that
    /// protocol v1 uploaded, whose time is up. It goes by
    /// itself, sooner or later; this is for those who want it now. Without `apply` it is only counted.
    ///
    /// `progress` is called with the pages removed so far, as in [`Self::truncate_namespace`]. Returns
    /// whether the work came to its end.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotFound`].
    pub async fn delete_unreferenced(
        &self,
        key: &NamespaceKey,
        apply: bool,
        progress: impl FnMut(u64) -> ControlFlow<()> + Send,
    ) -> Result<bool, StoreError> {
        history::delete_unreferenced(&self.context, key, apply, progress).await
    }

    /// The time by the store's clock, in seconds since the Unix epoch.
    pub fn unix_seconds(&self) -> u64 {
        self.context.now() / 1000
    }

    /// Notes which version belongs to the present time. To be called every five seconds; on an
    /// engine where nothing happened since the last call it does nothing.
    ///
    /// # Errors
    /// Whatever keeps the engine from committing.
    pub async fn record_time(&self) -> Result<(), StoreError> {
        self.time.record(&self.context).await
    }

    /// One bounded pass over the layers that large commits and restores have made: writes them out as
    /// page versions, the oldest first, without changing anything that can be read. May be stopped at
    /// any point and called by several servers.
    ///
    /// # Errors
    /// Whatever keeps the engine from committing; what was folded before stays so.
    pub async fn fold_layers(&self) -> Result<Folded, StoreError> {
        page::fold_layers(&self.context).await
    }

    /// One bounded pass over what has expired: idempotency keys, stages, deleted namespaces.
    ///
    /// # Errors
    /// Whatever keeps the engine from committing; what was collected before stays so.
    pub async fn collect_expired(&self) -> Result<Collected, StoreError> {
        history::collect_expired(&self.context).await
    }
}
