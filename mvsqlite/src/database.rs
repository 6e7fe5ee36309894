//! One open database, as SQLite's pager sees a file.
//!
//! A transaction reads one snapshot, taken at SHARED, and writes into a private set of pages that
//! is committed in one request at `SQLITE_FCNTL_SYNC`. Conflicts come out there, and nothing fails
//! afterwards.
//!
//! Invariants:
//! - every page SQLite may have in its cache is in the read set, from the last change of the
//!   served change counter on;
//! - the counter served at SHARED differs from what SQLite remembers whenever its cache may hold
//!   anything but the snapshot;
//! - plain `SQLITE_BUSY` is never an answer but to RESERVED, where SQLite's busy handler waits for
//!   the write lease: at COMMIT SQLite would keep the dead transaction open;
//! - what is not stored is never reported as committed: where a commit and the end of a rollback
//!   cannot be told apart, writing fails before.
//!
//! A transaction over several databases of one connection shows one moment of all of them, and
//! commits in all or none.

mod cache;
mod code;
mod commit_group;
mod committing;
mod connection;
mod counter;
mod disk_cache;
mod error;
mod exclusive;
mod fetching;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod group;
mod lease;
mod lock;
mod locking;
mod page1;
mod pinning;
mod pragma;
mod prefetch;
mod read_set;
mod reading;
mod recent;
mod remote;
mod snapshot;
mod upload;
mod write_set;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mvsqlite_protocol::v2::Concurrency;
use mvsqlite_protocol::{DatabaseName, Moment, PageIndex, PageSet, ReadVersion, Version};

pub(crate) use cache::PageCache;
pub use code::SqliteCode;
pub use commit_group::{
    CommitGroupError, begin_commit_group, commit_commit_group, rollback_commit_group,
};
pub(crate) use connection::{Connections, FileId};
pub(crate) use disk_cache::DiskCache;
pub use error::{Cause, Error, Operation};
pub(crate) use lease::Claim;
pub use lease::sleep_for_lease;
pub use lock::LockLevel;
pub use pinning::PinError;
pub use prefetch::PrefetchMetrics;
pub(crate) use prefetch::fetcher::Fetcher;
pub(crate) use recent::RecentSnapshots;

use cache::Identity;
use counter::ChangeCounter;
use prefetch::Prefetch;
use read_set::ReadSet;
use remote::Remote;
use snapshot::Snapshot;
use write_set::WriteSet;

use crate::environment::Environment;

/// How a database is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Writing is refused. A past version is read-only whatever stands here.
    pub read_only: bool,
    /// The page size that a new database shall get, in bytes, if not
    /// [`Config::page_size`](crate::Config::page_size).
    pub page_size: Option<u32>,
}

/// How much of what was asked for a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// All of it.
    Full,
    /// The file ends after this many bytes of it; the rest of the buffer is zeros. For SQLite:
    /// `SQLITE_IOERR_SHORT_READ`.
    Short(usize),
}

/// Which SQLite connection a database belongs to: any number that differs between connections,
/// such as the address of its `sqlite3` object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub usize);

/// What becomes of a pragma.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pragma {
    /// SQLite shall do what it does by itself.
    NotOurs,
    /// It is done; this is its result, `None` for none.
    Answer(Option<String>),
    /// It fails with this message.
    Refused(String),
}

/// One open database: one per `xOpen` of a main database file.
///
/// Used by one thread at a time, as SQLite uses its files. The calls are those of SQLite's
/// `sqlite3_io_methods`, in the order SQLite makes them; dropping it is `xClose`.
pub struct DatabaseFile {
    remote: Remote,
    name: DatabaseName,
    options: OpenOptions,
    id: FileId,
    identity: Identity,
    connection: Option<ConnectionId>,
    level: LockLevel,
    /// For a past version: what is read for ever.
    pinned: Option<Snapshot>,
    /// For a version that it was told to stay at: what is read until it is told otherwise.
    held: Option<Snapshot>,
    /// How old a snapshot may be that a transaction begins at.
    staleness: Duration,
    /// From opening until the first lock: the header that SQLite looks at comes from here.
    opening: Option<Snapshot>,
    /// Between SHARED and NONE.
    transaction: Option<Transaction>,
    counter: ChangeCounter,
    /// Pages read since SQLite last dropped its cache.
    read_set: ReadSet,
    prefetch: Prefetch,
    last_known: Option<Version>,
    /// To the write lease, from the first time that one is asked for.
    claim: Option<Arc<Claim>>,
    /// The connection whose transaction this database takes part in now.
    joined: Option<ConnectionId>,
    /// A moment of its connection that is too old to be written on.
    overtaken_at: Option<ReadVersion>,
    /// Its last commit was kept back by a commit group, which will say its version here.
    in_group: Option<Arc<OnceLock<Version>>>,
    /// What `PRAGMA page_size` last asked for.
    asked_page_size: Option<u32>,
    last_error: Option<String>,
}

/// What lies between SHARED and NONE.
struct Transaction {
    /// The process that began it.
    process: u32,
    snapshot: Snapshot,
    mode: Concurrency,
    phase: Phase,
    /// Committed in this transaction, which another statement keeps open.
    own: Option<OwnPages>,
    /// Nothing can be written on this snapshot any more.
    stale: bool,
    /// It is committed as far as SQLite knows, and kept back by a commit group.
    kept_back: bool,
}

/// How far a write transaction is.
enum Phase {
    /// There is none.
    Reading,
    /// From RESERVED on.
    Writing(WriteSet),
    /// It failed. SQLite's playback is accepted and ignored.
    Doomed {
        reason: String,
        /// That of the newest page 1 written since it failed: still tells commit from rollback.
        change_counter: Option<u32>,
    },
    /// Its commit is made.
    Committed,
    /// SQLite has finished its commit as well: the lock goes next.
    Finished,
}

/// Pages of an own commit over the snapshot it was based on.
struct OwnPages {
    /// As SQLite wrote them, as far as they are in memory.
    pages: BTreeMap<PageIndex, Arc<[u8]>>,
    /// The others: the commit's version has them.
    stored: PageSet,
    /// The commit's version; what it holds is the commit's if nobody committed in between.
    snapshot: Snapshot,
}

impl DatabaseFile {
    /// Opens a database: checks that it exists, and pins its version if the name has a moment.
    ///
    /// # Errors
    /// If there is no such namespace or version, or no answer.
    pub fn open(
        env: Arc<Environment>,
        name: DatabaseName,
        options: OpenOptions,
    ) -> Result<Self, Error> {
        let id = env.next_file_id();
        let staleness = env.config().read_staleness;
        let env = match &env.config().lock_owner {
            Some(owner) => pinning::coming_as(&env, Some(owner)),
            None => env,
        };
        let remote = Remote {
            env,
            key: name.namespace.clone(),
        };
        let taken = match name.moment {
            Some(moment) => remote.resolve(moment),
            None => remote.begin(None, None).map(|begun| begun.snapshot),
        };
        let snapshot = taken.map_err(|cause| Error::new(Operation::Open, &name, None, cause))?;
        let identity = snapshot.identity;
        let mut counter = ChangeCounter::new();
        let is_past = name.moment.is_some();
        let prefetch = Prefetch::new(remote.env.config().prefetch_depth);
        if is_past {
            counter.begin(snapshot.content.is_none(), true);
        }
        Ok(Self {
            remote,
            options,
            id,
            identity,
            connection: None,
            level: LockLevel::None,
            last_known: is_past.then_some(snapshot.version),
            pinned: is_past.then(|| snapshot.clone()),
            opening: (!is_past).then_some(snapshot),
            held: None,
            staleness,
            name,
            transaction: None,
            counter,
            read_set: ReadSet::default(),
            prefetch,
            claim: None,
            joined: None,
            overtaken_at: None,
            in_group: None,
            asked_page_size: None,
            last_error: None,
        })
    }

    /// The name it was opened by.
    pub fn name(&self) -> &DatabaseName {
        &self.name
    }

    /// Whether this is a past version: `SQLITE_IOCAP_IMMUTABLE`, opened read-only.
    pub fn is_immutable(&self) -> bool {
        self.pinned.is_some()
    }

    /// Whether SQLite shall be told that it was opened read-only.
    pub fn is_read_only(&self) -> bool {
        self.is_immutable() || self.options.read_only
    }

    /// The connection this file belongs to (`SQLITE_FCNTL_PDB`).
    pub fn set_connection(&mut self, connection: ConnectionId) {
        if self.connection.is_some_and(|before| before != connection) {
            self.leave_connection();
        }
        self.connection = Some(connection);
    }

    /// The page size that a new database shall get, in bytes: what `xSectorSize` answers.
    pub fn default_page_size(&self) -> u32 {
        self.page_size()
            .or(self.options.page_size)
            .unwrap_or_else(|| self.remote.env.config().page_size)
    }

    /// The page size of the database, in bytes; `None` while it is empty.
    pub fn page_size(&self) -> Option<u32> {
        match &self.transaction {
            Some(transaction) => transaction.page_size(),
            None => {
                let snapshot = self.pinned.as_ref().or(self.held.as_ref());
                let snapshot = snapshot.or(self.opening.as_ref());
                snapshot.and_then(Snapshot::page_size)
            }
        }
    }

    /// The newest version this database was seen at: that of the last snapshot taken or commit
    /// made by this handle. `None` before the first.
    pub fn last_known_version(&self) -> Option<Version> {
        let in_group = self.in_group.as_ref().and_then(|group| group.get());
        in_group.copied().or(self.last_known)
    }

    /// The version the database had at a time, in seconds since the Unix epoch; 0 is now. `None`
    /// if nothing had been committed then.
    ///
    /// # Errors
    /// If the time is in the future, or no answer came.
    pub fn time_to_version(&self, unix_seconds: i64) -> Result<Option<Version>, Error> {
        let error = |cause| Error::new(Operation::Read, &self.name, None, cause);
        let snapshot = match u64::try_from(unix_seconds) {
            Ok(0) => {
                let begun = self.remote.begin(Some(self.identity), None);
                begun.map(|begun| begun.snapshot)
            }
            Ok(seconds) => {
                let moment = Moment::UnixMillis(seconds.saturating_mul(1000));
                self.remote.resolve_version(moment).map(|found| found.0)
            }
            Err(_) => return Ok(None),
        };
        let snapshot = snapshot.map_err(error)?;
        let first = snapshot.identity.namespace.as_version();
        Ok((snapshot.version != first).then_some(snapshot.version))
    }

    /// How the prefetch of this database did since it was opened.
    pub fn prefetch_metrics(&self) -> PrefetchMetrics {
        self.prefetch.metrics()
    }

    /// The version that a read would be made at, as far as that is known.
    fn current_version(&self) -> Option<Version> {
        let transaction = self.transaction.as_ref();
        let current = transaction.map(|transaction| match &transaction.own {
            Some(own) => own.snapshot.version,
            None => transaction.snapshot.version,
        });
        current.or(self.last_known)
    }

    /// Makes the error of a failed operation, and remembers its text.
    fn fail(&mut self, operation: Operation, cause: Cause) -> Error {
        let version = self.transaction.as_ref().map(|t| t.snapshot.version);
        let error = Error::new(operation, &self.name, version, cause);
        self.last_error = Some(error.to_string());
        error
    }

    fn check_writable(&self) -> Result<(), Cause> {
        match (self.is_immutable(), self.options.read_only) {
            (true, _) => Err(Cause::Immutable),
            (false, true) => Err(Cause::ReadOnly),
            (false, false) if self.held.is_some() => Err(Cause::Pinned),
            (false, false) => Ok(()),
        }
    }

    /// A transaction belongs to the process that began it.
    fn check_process(&self) -> Result<(), Cause> {
        match &self.transaction {
            Some(transaction) if transaction.process != self.remote.env.process_id() => {
                Err(Cause::Forked)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for DatabaseFile {
    fn drop(&mut self) {
        self.give_up_lease();
        self.leave_transaction();
        self.leave_connection();
        self.remote.save_at_close(self.identity);
    }
}
