//! The result codes of SQLite that this crate answers with.

/// A result code of SQLite, extended where SQLite has an extended one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum SqliteCode {
    /// `SQLITE_ERROR`: what was asked is not possible here.
    Error = 1,
    /// `SQLITE_BUSY`: another writer has the lease; the busy handler may wait for it.
    Busy = 5,
    /// `SQLITE_READONLY`.
    ReadOnly = 8,
    /// `SQLITE_FULL`: the transaction or the store is too large.
    Full = 13,
    /// `SQLITE_CORRUPT`.
    Corrupt = 11,
    /// `SQLITE_CANTOPEN`.
    CantOpen = 14,
    /// `SQLITE_NOTADB`.
    NotADatabase = 26,
    /// `SQLITE_IOERR_READ`.
    IoErrRead = 10 | 1 << 8,
    /// `SQLITE_IOERR_WRITE`.
    IoErrWrite = 10 | 3 << 8,
    /// `SQLITE_IOERR_FSYNC`: COMMIT failed and nothing was committed.
    IoErrFsync = 10 | 4 << 8,
    /// `SQLITE_IOERR_LOCK`: no snapshot could be taken.
    IoErrLock = 10 | 15 << 8,
    /// `SQLITE_IOERR_COMMIT_ATOMIC`: COMMIT failed and **may have been committed** all the same.
    /// This code means nothing else here.
    IoErrCommitAtomic = 10 | 30 << 8,
    /// `SQLITE_BUSY_SNAPSHOT`: a conflict; roll back and run the transaction again.
    BusySnapshot = 5 | 2 << 8,
    /// `SQLITE_READONLY_DBMOVED`: the namespace is no longer the one that was opened.
    ReadOnlyDbMoved = 8 | 4 << 8,
}

impl SqliteCode {
    /// The number as SQLite's header has it.
    pub fn number(self) -> i32 {
        self as i32
    }
}
