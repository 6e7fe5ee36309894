//! What calls of the store answer, where no protocol has a message for it.

use mvsqlite_protocol::Version;
use serde::Serialize;

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

/// What one pass of [`super::Store::collect_expired`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Idempotency keys forgotten.
    pub idempotency_keys: u64,
    /// Pages of protocol v1 forgotten that no commit named for [`super::StoreOptions::fresh_page_ttl`].
    pub waiting_pages: u64,
    /// Stages closed because nobody added to them for [`super::StoreOptions::stage_ttl`].
    pub stages_closed: u64,
    /// Closed stages whose pages were removed.
    pub stages_removed: u64,
    /// Deleted namespaces whose last key was removed.
    pub namespaces_removed: u64,
    /// Work is left: call again without waiting.
    pub more: bool,
}

/// What one pass of [`super::Store::fold_layers`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Folded {
    /// Layers that went.
    pub layers: u64,
    /// Work is left: call again without waiting.
    pub more: bool,
}

/// What a namespace occupies, exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NamespaceUsage {
    /// Versions of pages, those included that say a page ceased to exist.
    pub page_versions: u64,
    /// Bytes of page content in them.
    pub page_bytes: u64,
    /// Pages uploaded that no commit refers to yet.
    pub staged_pages: u64,
    /// Bytes of page content in them.
    pub staged_bytes: u64,
}

/// What became of an attempt to take a namespace lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockAcquired {
    /// It is the owner's, or was before.
    Acquired,
    /// It is another's.
    Held {
        /// Whose.
        owner: String,
    },
    /// The owner's name is empty, longer than 256 bytes, or has control characters.
    InvalidOwner,
    /// The version cannot be locked.
    Refused {
        /// Why not.
        reason: String,
    },
}

/// What happens to what was written under a namespace lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseMode {
    /// It stays.
    Commit,
    /// It is undone.
    Rollback,
}

/// What became of an attempt to give a namespace lock back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockReleased {
    /// There is no lock any more.
    Released,
    /// The caller does not hold it.
    NotHeld {
        /// Who does, if anybody.
        owner: Option<String>,
    },
    /// The owner's name is empty.
    InvalidOwner,
    /// What was written cannot be kept: it is being rolled back.
    RollingBack,
    /// It cannot be rolled back.
    Refused {
        /// Why not.
        reason: String,
    },
    /// The lock vanished or changed hands during the rollback.
    Gone,
}

/// What [`super::Store::truncate_namespace`] did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated {
    /// The oldest version that can be read: a commit, or the namespace's id.
    pub horizon: Version,
    /// Page versions removed.
    pub page_versions: u64,
    /// Everything was done that there was to do; otherwise the caller left before.
    pub is_complete: bool,
}
