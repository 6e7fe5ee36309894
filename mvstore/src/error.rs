//! Why the store refused or failed, and the one place where that becomes a protocol code.

use mvsqlite_protocol::{Code, IdempotencyKey, NamespaceId, PageIndex, Problem, StageId, Version};

use crate::kv::KvError;

/// Why the store refused or failed. Unless a variant says otherwise, nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No namespace has this key.
    #[error("there is no namespace '{key}'")]
    NamespaceNotFound {
        /// The key.
        key: String,
    },
    /// The key names another namespace than the one the caller began on.
    #[error(
        "'{key}' is no longer the namespace {expected}: it was renamed, or deleted and made anew"
    )]
    NamespaceChanged {
        /// The key.
        key: String,
        /// The id the caller began on.
        expected: NamespaceId,
    },
    /// The key is taken.
    #[error("a namespace '{key}' exists already")]
    NamespaceExists {
        /// The key.
        key: String,
    },
    /// Another transaction changed what this one read.
    #[error("{}", describe_conflict(*.page, *.version))]
    Conflict {
        /// A page that was read here and changed there, where one is known.
        page: Option<PageIndex>,
        /// The version that changed it, where it is known.
        version: Option<Version>,
    },
    /// The commit had been settled as aborted.
    #[error("the commit {key} was settled as aborted before it arrived")]
    Aborted {
        /// Its idempotency key.
        key: IdempotencyKey,
    },
    /// The idempotency key belongs to a different commit.
    #[error("the idempotency key {key} was used for a different commit")]
    KeyReused {
        /// The key.
        key: IdempotencyKey,
    },
    /// The namespaces of a commit do not make one.
    #[error("{reason}")]
    BadGroup {
        /// What is wrong.
        reason: String,
    },
    /// The version names no commit of the namespace, or lies above everything committed.
    #[error("the namespace '{key}' has no version {version}")]
    VersionUnknown {
        /// The namespace's key.
        key: String,
        /// The version.
        version: Version,
    },
    /// A time that has not come yet, or at which the namespace did not exist.
    #[error("the namespace '{key}' has no state at {unix_millis} ms: {reason}")]
    MomentUnknown {
        /// The namespace's key.
        key: String,
        /// Milliseconds since the Unix epoch.
        unix_millis: u64,
        /// Why not.
        reason: &'static str,
    },
    /// The version is no longer kept.
    #[error("version {version} is no longer kept; the oldest one is {horizon}")]
    SnapshotTooOld {
        /// The version.
        version: Version,
        /// The oldest version that can be read.
        horizon: Version,
    },
    /// The stage cannot be used.
    #[error("the stage {stage} cannot be used: {reason}")]
    StageInvalid {
        /// The stage.
        stage: StageId,
        /// Why not.
        reason: String,
    },
    /// More than a call may carry, or than one transaction of the engine takes.
    #[error("{what}: {amount}, but the limit is {limit}")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// How much it is.
        amount: u64,
        /// The limit.
        limit: u64,
    },
    /// The pages are not what this namespace can hold.
    #[error("{reason}")]
    BadPages {
        /// What is wrong.
        reason: String,
        /// The way out.
        hint: &'static str,
    },
    /// The namespace is another's to write: it holds the write lease or the lock, or the caller has
    /// lost its own, or brought none where one is needed.
    #[error("the namespace '{key}' cannot be written: {reason}")]
    Locked {
        /// The namespace's key.
        key: String,
        /// Who or what is in the way.
        reason: &'static str,
    },
    /// Other namespaces are forks of this one.
    #[error("the namespace '{key}' has forks")]
    HasForks {
        /// The namespace's key.
        key: String,
    },
    /// The caller names itself the owner of a namespace lock that it does not hold, or that is being
    /// rolled back.
    #[error("the lock of the namespace '{key}' is not this caller's to write under")]
    LockNotHeld {
        /// The namespace's key.
        key: String,
    },
    /// It is not known whether the commit happened.
    #[error("it is not known whether the commit {key} happened: {reason}")]
    OutcomeUnknown {
        /// Its idempotency key.
        key: IdempotencyKey,
        /// What went wrong.
        reason: String,
    },
    /// The engine's versions lie below those of the data.
    #[error("the engine is at version {read_version}, below the data's {version}")]
    VersionsWentBack {
        /// The engine's read version.
        read_version: u64,
        /// The commit version the data has reached.
        version: u64,
    },
    /// The stored data is of a format this build does not know.
    #[error("{what} is of format generation {found}; this build knows generations up to {known}")]
    UnknownFormat {
        /// What: the store, or a namespace.
        what: String,
        /// The generation needed.
        found: u16,
        /// The newest one this build knows.
        known: u16,
    },
    /// The options the store was opened with make no sense.
    #[error("{reason}")]
    BadOptions {
        /// What is wrong.
        reason: String,
    },
    /// Out of reach, or too busy. Try again.
    #[error("{reason}")]
    Unavailable {
        /// What is wrong.
        reason: String,
    },
    /// The disk is full.
    #[error("the store's disk is full: {reason}")]
    StorageFull {
        /// What the engine said.
        reason: String,
    },
    /// Stored bytes are not what was written.
    #[error("stored data is corrupt: {reason}")]
    Corrupt {
        /// What was found, where.
        reason: String,
    },
    /// The server itself is at fault.
    #[error("internal error: {reason}")]
    Internal {
        /// What went wrong.
        reason: String,
    },
}

fn describe_conflict(page: Option<PageIndex>, version: Option<Version>) -> String {
    let what = match page {
        // People know SQLite's page numbers, which count from one.
        Some(index) => format!("page {}", u64::from(index) + 1),
        None => "pages".to_owned(),
    };
    let by = version.map_or_else(String::new, |version| format!(" at version {version}"));
    format!("another transaction changed {what} that this one read{by}")
}

impl From<KvError> for StoreError {
    /// For calls whose outcome is definite. A commit's [`KvError::MaybeCommitted`] is settled where
    /// it appears; one that reaches this place comes from a write that may safely be done again.
    fn from(error: KvError) -> Self {
        match error {
            KvError::Conflict | KvError::TooOld | KvError::MaybeCommitted { .. } => {
                Self::Unavailable {
                    reason: format!("the store is too busy: {error}"),
                }
            }
            KvError::TooLarge { what, bytes, limit } => Self::TooLarge {
                what,
                amount: bytes,
                limit,
            },
            KvError::StorageFull { reason } => Self::StorageFull { reason },
            KvError::Unavailable { reason } => Self::Unavailable { reason },
            KvError::Corrupt { reason } => Self::Corrupt { reason },
            other @ KvError::BadKey { .. } => Self::Internal {
                reason: other.to_string(),
            },
        }
    }
}

impl StoreError {
    /// The protocol's code for it.
    pub fn code(&self) -> Code {
        match self {
            Self::NamespaceNotFound { .. } => Code::NamespaceNotFound,
            Self::NamespaceChanged { .. } => Code::NamespaceChanged,
            Self::NamespaceExists { .. } => Code::NamespaceExists,
            Self::Conflict { .. } | Self::HasForks { .. } => Code::Conflict,
            Self::Aborted { .. } => Code::Aborted,
            Self::KeyReused { .. } => Code::KeyReused,
            Self::BadGroup { .. } => Code::Malformed,
            Self::VersionUnknown { .. } | Self::MomentUnknown { .. } => Code::VersionUnknown,
            Self::SnapshotTooOld { .. } => Code::SnapshotTooOld,
            Self::StageInvalid { .. } => Code::StageInvalid,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::BadPages { .. } => Code::BadPages,
            Self::Locked { .. } | Self::LockNotHeld { .. } => Code::Locked,
            Self::OutcomeUnknown { .. } => Code::OutcomeUnknown,
            Self::Unavailable { .. } | Self::VersionsWentBack { .. } => Code::Unavailable,
            Self::StorageFull { .. } => Code::StorageFull,
            Self::Corrupt { .. } => Code::Corrupt,
            Self::UnknownFormat { .. } | Self::BadOptions { .. } | Self::Internal { .. } => {
                Code::Internal
            }
        }
    }

    /// What to do about it.
    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NamespaceNotFound { .. } => {
                "create it with POST /api/create_namespace on the admin API, or check the name"
            }
            Self::NamespaceChanged { .. } | Self::SnapshotTooOld { .. } => {
                "begin a new transaction"
            }
            Self::NamespaceExists { .. } => "choose another key, or delete that namespace first",
            Self::Conflict { .. } | Self::Aborted { .. } => "run the transaction again",
            Self::BadGroup { .. } => "this is a fault of the client program: update it",
            Self::KeyReused { .. } => "draw a new random key for each commit",
            Self::VersionUnknown { .. } | Self::MomentUnknown { .. } => {
                "use a version that a commit returned, or a moment in the namespace's past"
            }
            Self::StageInvalid { .. } => "run the transaction again and stage its pages anew",
            Self::TooLarge { .. } => "split the transaction into smaller ones",
            Self::BadPages { hint, .. } => hint,
            Self::HasForks { .. } => "delete its forks first",
            Self::LockNotHeld { .. } => "take the lock again, or commit without naming an owner",
            Self::Locked { .. } => "run the transaction again when the other writer is done",
            Self::OutcomeUnknown { .. } => "settle the commit to learn what became of it",
            Self::VersionsWentBack { .. } => {
                "the cluster was restored or failed over: raise its version with 'fdbcli advanceversion'"
            }
            Self::UnknownFormat { .. } => "run a newer mvstore",
            Self::Unavailable { .. } => "try again",
            Self::StorageFull { .. } => "free space on the store's disk",
            Self::Corrupt { .. } => "restore from a backup, and check the disk",
            Self::BadOptions { .. } | Self::Internal { .. } => return None,
        })
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let mut problem = Problem::new(error.code(), error.to_string());
        problem.hint = error.hint().map(str::to_owned);
        if let StoreError::Conflict { page, version } = error {
            problem.page = page;
            problem.version = version;
        }
        problem
    }
}
