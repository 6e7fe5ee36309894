//! What an error of SQLite means for a transaction: the one place where result codes are judged.

use rusqlite::ffi;

/// Why a statement or a transaction came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Another transaction was in the way; nothing was committed.
    #[error("a conflict")]
    Conflict,
    /// The store was out of reach, full or busy; nothing was committed.
    #[error("{0}")]
    Failed(String),
    /// The commit was sent, and nobody knows what became of it.
    #[error("the outcome is unknown")]
    Unknown,
    /// This must never happen.
    #[error("{0}")]
    Violation(String),
}

/// SQLite's `SQLITE_IOERR_COMMIT_ATOMIC`: means "may have been committed", and nothing else.
const OUTCOME_UNKNOWN: i32 = ffi::SQLITE_IOERR | 30 << 8;

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let rusqlite::Error::SqliteFailure(failure, message) = &error else {
            return Self::Violation(format!("not an error of SQLite: {error}"));
        };
        let message = message.as_deref().unwrap_or_default();
        let text = format!("{message} ({})", failure.extended_code);
        match failure.extended_code & 0xff {
            _ if failure.extended_code == OUTCOME_UNKNOWN => Self::Unknown,
            ffi::SQLITE_BUSY | ffi::SQLITE_SCHEMA => Self::Conflict,
            ffi::SQLITE_IOERR | ffi::SQLITE_FULL | ffi::SQLITE_CANTOPEN => Self::Failed(text),
            // A table is used by an open statement of the same connection.
            ffi::SQLITE_LOCKED => Self::Failed(text),
            _ => Self::Violation(text),
        }
    }
}
