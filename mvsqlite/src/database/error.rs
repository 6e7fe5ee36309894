//! What can go wrong with a database, and the one place where it becomes a result code of SQLite.

use std::fmt;

use mvsqlite_protocol::{Code, DatabaseName, PageIndex, Problem, Version};

use super::code::SqliteCode;
use crate::client::CallError;

/// A failed operation: what was tried, on which database at which version, why it failed and what
/// to do. Its text is meant for SQLite's error log.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    operation: Operation,
    database: DatabaseName,
    version: Option<Version>,
    cause: Cause,
}

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Opening the database.
    Open,
    /// Taking a snapshot.
    Begin,
    /// Becoming a writer.
    Reserve,
    /// Reading pages.
    Read,
    /// Writing pages.
    Write,
    /// Committing.
    Commit,
}

/// Why it failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The data plane did not answer, refused, or answered nonsense.
    #[error("{0}")]
    Call(#[from] CallError),
    /// Another transaction changed what this one read.
    #[error("another transaction changed {} that this one read{}; roll back and run it again",
        Pages(*.page), By(*.version))]
    Conflict {
        /// A page that was read here and changed there, zero-based.
        page: Option<PageIndex>,
        /// The version that changed it.
        version: Option<Version>,
    },
    /// The snapshot cannot be written on any more, because of a commit of this connection that
    /// others overtook or a conflict it had, and an open statement keeps it.
    #[error(
        "others have committed since this connection's snapshot was taken, and a statement that is still open keeps it; reset or finish all statements, then run the transaction again"
    )]
    StaleSnapshot,
    /// The commit was sent and its outcome is not known.
    #[error(
        "the commit was sent, but the store did not say what became of it ({0}): it MAY have been committed; read the data before running the transaction again"
    )]
    OutcomeUnknown(CallError),
    /// The commit was settled as not made.
    #[error(
        "the store did not answer the commit in time ({0}); nothing was committed, run the transaction again"
    )]
    NotCommitted(CallError),
    /// Nothing of this transaction can be committed any more since an earlier failure.
    #[error("the transaction failed before ({0}); roll it back")]
    Doomed(String),
    /// The namespace was deleted and made anew, or the store restored, since it was opened.
    #[error(
        "the namespace is not the one that was opened: it was deleted, renamed or restored since; close the database and open it again"
    )]
    Replaced,
    /// A past version cannot be written.
    #[error("a past version cannot be written; open the name without its '@...' to write")]
    Immutable,
    /// It was told to stay at a version.
    #[error("it stays at a version (mv_pin_version); SELECT mv_unpin_version(...) first")]
    Pinned,
    /// The database was opened for reading.
    #[error("it was opened read-only")]
    ReadOnly,
    /// Another writer has the namespace's lease.
    #[error(
        "another writer is at work; set a busy timeout to wait for it, or run the transaction again"
    )]
    LeaseBusy,
    /// The lease is there, but others wrote since the transaction began to read.
    #[error(
        "others have committed since this transaction began to read; roll back and run it again, and begin it with BEGIN IMMEDIATE if it is going to write"
    )]
    Overtaken,
    /// The connection never gives up its locks.
    #[error(
        "the connection is in exclusive locking mode, which is not supported; set PRAGMA locking_mode=NORMAL"
    )]
    ExclusiveLocking,
    /// A page of this size cannot be stored.
    #[error(
        "a page size of {0} bytes is not supported, only 512 to 32768; set PRAGMA page_size before the first table is made"
    )]
    PageSizeUnsupported(u32),
    /// The page size of a database does not change.
    #[error(
        "the page size cannot change from {from} to {to} bytes; create another namespace, and with PRAGMA page_size={to} in force VACUUM INTO it makes a copy that has it"
    )]
    PageSizeChange {
        /// The size it has, in bytes.
        from: u32,
        /// The size that was asked for, in bytes.
        to: u32,
    },
    /// What is stored, or to be stored, does not begin with SQLite's header.
    #[error("page 1 does not begin with SQLite's header")]
    NotADatabase,
    /// The transaction is too large.
    #[error("the transaction writes more than {limit} {unit}; split it into smaller ones")]
    TooLarge {
        /// The most that a transaction may write.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The store does not have what was uploaded.
    #[error(
        "page {} of this transaction is not in the store as it was uploaded; roll the transaction back and run it again", u64::from(*.page) + 1
    )]
    StageDiffers {
        /// Zero-based.
        page: PageIndex,
    },
    /// The databases of a transaction lie in different stores.
    #[error(
        "the transaction writes databases of different stores, which cannot be committed together, so none is; write one per transaction"
    )]
    SeveralStores,
    /// A namespace is written through two handles, to be committed together.
    #[error(
        "the transaction writes the namespace through two names, or the commit group through two connections, so nothing is committed; use one of them"
    )]
    AttachedTwice,
    /// COMMITs of this thread are kept back.
    #[error(
        "a commit group with commits in it is open on this thread; end it with mv_commit_group_commit or mv_commit_group_rollback first"
    )]
    CommitGroupPending,
    /// The process was forked while the transaction was open.
    #[error(
        "the process was forked inside this transaction, which belongs to the parent; begin a new one in the child"
    )]
    Forked,
    /// A call that SQLite does not make at this point.
    #[error("{0}")]
    Misuse(&'static str),
    /// No random bytes for an idempotency key.
    #[error(transparent)]
    Random(#[from] crate::system::RandomError),
}

struct Pages(Option<PageIndex>);

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(index) => write!(f, "page {}", u64::from(index) + 1),
            None => f.write_str("a page"),
        }
    }
}

struct By(Option<Version>);

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |v| write!(f, " (in version {v})"))
    }
}

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.operation {
            Operation::Open => "cannot open",
            Operation::Begin => "cannot take a snapshot of",
            Operation::Reserve => "cannot write to",
            Operation::Read => "cannot read",
            Operation::Write => "cannot write",
            Operation::Commit => "cannot commit",
        };
        write!(
            f,
            "{doing} mvSQLite namespace '{}'",
            self.database.namespace
        )?;
        if let Some(version) = self.version {
            write!(f, " at version {version}")?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl std::error::Error for Details {}

impl Error {
    pub(crate) fn new(
        operation: Operation,
        database: &DatabaseName,
        version: Option<Version>,
        cause: Cause,
    ) -> Self {
        Self(Box::new(Details {
            operation,
            database: database.clone(),
            version,
            cause,
        }))
    }

    /// What was being done.
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// Why it failed.
    pub fn cause(&self) -> &Cause {
        &self.0.cause
    }

    /// The result code for SQLite: the one place where failures are mapped.
    pub fn sqlite_code(&self) -> SqliteCode {
        match &self.0.cause {
            Cause::Call(call) => self.code_of_call(call),
            Cause::Conflict { .. } | Cause::StaleSnapshot | Cause::Overtaken => {
                SqliteCode::BusySnapshot
            }
            Cause::LeaseBusy => SqliteCode::Busy,
            Cause::CommitGroupPending if self.0.operation == Operation::Begin => SqliteCode::Busy,
            Cause::OutcomeUnknown(_) => SqliteCode::IoErrCommitAtomic,
            Cause::NotCommitted(_) => SqliteCode::IoErrFsync,
            Cause::Replaced => SqliteCode::ReadOnlyDbMoved,
            Cause::Immutable | Cause::Pinned | Cause::ReadOnly => SqliteCode::ReadOnly,
            Cause::PageSizeUnsupported(_)
            | Cause::PageSizeChange { .. }
            | Cause::SeveralStores
            | Cause::AttachedTwice => SqliteCode::Error,
            Cause::NotADatabase => SqliteCode::NotADatabase,
            Cause::TooLarge { .. } => SqliteCode::Full,
            // Not `SQLITE_ERROR`: after an I/O error SQLite drops its cache, which may hold what was
            // not committed.
            Cause::ExclusiveLocking
            | Cause::CommitGroupPending
            | Cause::Doomed(_)
            | Cause::Forked
            | Cause::StageDiffers { .. }
            | Cause::Misuse(_)
            | Cause::Random(_) => self.io_error(),
        }
    }

    fn code_of_call(&self, call: &CallError) -> SqliteCode {
        match call {
            CallError::Unreachable { .. } | CallError::BadReply(_) => self.io_error(),
            CallError::Refused(problem) => self.code_of_problem(problem),
        }
    }

    fn code_of_problem(&self, problem: &Problem) -> SqliteCode {
        match problem.code {
            Code::Conflict => SqliteCode::BusySnapshot,
            Code::NamespaceChanged => SqliteCode::ReadOnlyDbMoved,
            Code::NamespaceNotFound | Code::VersionUnknown => match self.0.operation {
                Operation::Open => SqliteCode::CantOpen,
                _ => SqliteCode::ReadOnlyDbMoved,
            },
            // At COMMIT a snapshot that can no longer be checked is as good as a conflict: nothing
            // was written, and a new snapshot cures it. And a transaction over several databases
            // may have begun too long ago to be joined.
            Code::SnapshotTooOld
                if matches!(self.0.operation, Operation::Begin | Operation::Commit) =>
            {
                SqliteCode::BusySnapshot
            }
            // Before anything is written it can be waited for. At COMMIT nothing was committed, because
            // another holds the lease or this transaction lost it, and running it again cures that.
            Code::Locked => match self.0.operation {
                Operation::Reserve => SqliteCode::Busy,
                _ => SqliteCode::BusySnapshot,
            },
            Code::TooLarge | Code::StorageFull => SqliteCode::Full,
            Code::ReadOnly => SqliteCode::ReadOnly,
            Code::BadPages => SqliteCode::NotADatabase,
            Code::Corrupt => SqliteCode::Corrupt,
            _ => self.io_error(),
        }
    }

    /// The I/O error that belongs to the operation.
    fn io_error(&self) -> SqliteCode {
        match self.0.operation {
            Operation::Open => SqliteCode::CantOpen,
            Operation::Begin | Operation::Reserve => SqliteCode::IoErrLock,
            Operation::Read => SqliteCode::IoErrRead,
            Operation::Write => SqliteCode::IoErrWrite,
            Operation::Commit => SqliteCode::IoErrFsync,
        }
    }
}
