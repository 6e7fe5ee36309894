//! One open database, as SQLite's pager sees a file.

mod code;
mod error;
mod lock;

use std::sync::Arc;

use mvsqlite_protocol::{DatabaseName, Version};

pub use code::SqliteCode;
pub use error::{Cause, Error, Operation};
pub use lock::LockLevel;

use crate::environment::Environment;

/// How a database is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Writing is refused. A past version is read-only whatever stands here.
    pub read_only: bool,
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
    env: Arc<Environment>,
    name: DatabaseName,
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
        let _ = options;
        Ok(Self { env, name })
    }

    fn not_yet<T>(&self) -> Result<T, Error> {
        let cause = Cause::Misuse("not there yet");
        Err(Error::new(Operation::Open, &self.name, None, cause))
    }

    /// The name it was opened by.
    pub fn name(&self) -> &DatabaseName {
        &self.name
    }

    /// Whether this is a past version: `SQLITE_IOCAP_IMMUTABLE`, opened read-only.
    pub fn is_immutable(&self) -> bool {
        self.name.moment.is_some()
    }

    /// Whether SQLite shall be told that it was opened read-only.
    pub fn is_read_only(&self) -> bool {
        self.is_immutable()
    }

    /// The connection this file belongs to (`SQLITE_FCNTL_PDB`).
    pub fn set_connection(&mut self, connection: ConnectionId) {
        let _ = connection;
    }

    /// The page size that a new database shall get, in bytes: what `xSectorSize` answers.
    pub fn default_page_size(&self) -> u32 {
        self.env.config().page_size
    }

    /// The page size of the database, in bytes; `None` while it is empty.
    pub fn page_size(&self) -> Option<u32> {
        None
    }

    /// `xRead`: any offset and length, under any lock or none. What lies beyond the end of the
    /// file reads as zeros.
    ///
    /// # Errors
    /// If pages could not be fetched.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<Read, Error> {
        let _ = (offset, buffer);
        self.not_yet()
    }

    /// `xWrite`: whole pages, into this transaction's private write set.
    ///
    /// # Errors
    /// If the write cannot be part of any commit: a past version, another page size, too much.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let _ = (offset, data);
        self.not_yet()
    }

    /// `xTruncate`. Cannot fail after the commit point.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn truncate(&mut self, size: u64) -> Result<(), Error> {
        let _ = size;
        self.not_yet()
    }

    /// `xFileSize`, in bytes.
    ///
    /// # Errors
    /// If no snapshot is held and none could be taken.
    pub fn size(&mut self) -> Result<u64, Error> {
        self.not_yet()
    }

    /// `xLock`. From no lock to [`LockLevel::Shared`] takes a snapshot, one request; the higher
    /// levels are granted without one.
    ///
    /// # Errors
    /// If no snapshot could be taken, or it cannot be written on.
    pub fn lock(&mut self, level: LockLevel) -> Result<(), Error> {
        let _ = level;
        self.not_yet()
    }

    /// `xUnlock`. To [`LockLevel::Shared`] ends the write transaction, discarding what was not
    /// committed; to [`LockLevel::None`] ends the snapshot. Never fails.
    pub fn unlock(&mut self, level: LockLevel) {
        let _ = level;
    }

    /// `SQLITE_FCNTL_SYNC`: the commit point, if this is a commit and not the end of a rollback.
    /// `super_journal` is its name if the transaction has one.
    ///
    /// # Errors
    /// If nothing was committed ([`SqliteCode::BusySnapshot`] for a conflict), or if that is not
    /// known ([`SqliteCode::IoErrCommitAtomic`]). The write transaction is doomed then: SQLite's
    /// playback is accepted and ignored.
    pub fn sync(&mut self, super_journal: Option<&str>) -> Result<(), Error> {
        let _ = super_journal;
        self.not_yet()
    }

    /// `SQLITE_FCNTL_COMMIT_PHASETWO`.
    pub fn commit_phase_two(&mut self) {}

    /// `SQLITE_FCNTL_OVERWRITE`: a VACUUM is about to write the whole file.
    ///
    /// # Errors
    /// If it is to change the page size.
    pub fn overwrite(&mut self) -> Result<(), Error> {
        self.not_yet()
    }

    /// `SQLITE_FCNTL_PRAGMA`.
    pub fn pragma(&mut self, name: &str, value: Option<&str>) -> Pragma {
        let _ = (name, value);
        Pragma::NotOurs
    }

    /// The newest version this database was seen at: that of the last snapshot taken or commit
    /// made by this handle. `None` before the first.
    pub fn last_known_version(&self) -> Option<Version> {
        None
    }

    /// The version the database had at a time, in seconds since the Unix epoch; 0 is now. `None`
    /// if nothing had been committed then.
    ///
    /// # Errors
    /// If the time is in the future, or no answer came.
    pub fn time_to_version(&self, unix_seconds: i64) -> Result<Option<Version>, Error> {
        let _ = unix_seconds;
        self.not_yet()
    }
}
