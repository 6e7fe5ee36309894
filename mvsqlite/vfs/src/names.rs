//! Which of the names that SQLite hands to a VFS are ours.
//!
//! SQLite asks by name alone: for a database, for the journals it would have beside it, for
//! super-journals named after the main database. So the names of journals are taken apart here.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mvsqlite::{Config, ConfigError, Environment};
use mvsqlite_protocol::DatabaseName;

use crate::failure::Failure;
use crate::ffi::code;

/// What a file name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A database of ours.
    Database,
    /// The rollback journal or the WAL that a database of ours would have.
    Journal,
    /// A super-journal of transactions whose main database is ours.
    SuperJournal,
    /// Something for the default VFS.
    Foreign,
}

/// What the environment says about names, whether or not it is fit for use.
pub(crate) enum Names {
    /// Databases can be opened.
    Ready(ArcSwap<Environment>),
    /// The configuration is wrong: databases of ours cannot be opened. `None`: not even which names
    /// are ours is known, so all of them are.
    Broken(ConfigError, Option<Box<Config>>),
}

impl Names {
    /// The database behind a name of ours and what to open it with; `None` for a foreign name.
    pub(crate) fn database(
        &self,
        name: &str,
    ) -> Option<Result<(Arc<Environment>, DatabaseName), Failure>> {
        match self {
            Self::Ready(environment) => {
                Some(environment.load_full().locate(name)?.map_err(|error| {
                    let message = format!("cannot open '{name}' as an mvSQLite namespace: {error}");
                    Failure::new(code::CANTOPEN, message)
                }))
            }
            Self::Broken(error, _) => self.takes(name).then(|| Err(misconfigured(error))),
        }
    }

    /// Whether a database by this name is ours.
    pub(crate) fn takes(&self, name: &str) -> bool {
        match self {
            Self::Ready(environment) => environment.load().config().takes(name),
            Self::Broken(_, Some(config)) => config.takes(name),
            Self::Broken(_, None) => true,
        }
    }

    /// Whether every name of a database is ours, rather than those in the map only.
    pub(crate) fn takes_all(&self) -> bool {
        match self {
            Self::Ready(environment) => !environment.load().config().only_mapped,
            Self::Broken(_, config) => config.as_ref().is_none_or(|config| !config.only_mapped),
        }
    }

    /// How much of a journal stays in memory, in bytes.
    pub(crate) fn journal_bytes(&self) -> usize {
        let bytes = match self {
            Self::Ready(environment) => environment.load().config().journal_bytes,
            // No journal is ever opened.
            Self::Broken(..) => 0,
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// What a name stands for.
    pub(crate) fn role(&self, name: &str) -> Role {
        let journal = name
            .strip_suffix("-journal")
            .or_else(|| name.strip_suffix("-wal"));
        if journal.is_some_and(|database| self.takes(database)) {
            Role::Journal
        } else if self.is_super_journal(name) {
            Role::SuperJournal
        } else if self.takes(name) {
            Role::Database
        } else {
            Role::Foreign
        }
    }

    /// Whether a name is that of a super-journal of ours: `DATABASE-mjHHHHHH9HH`.
    pub(crate) fn is_super_journal(&self, name: &str) -> bool {
        super_journal_of(name).is_some_and(|database| self.takes(database))
    }
}

/// The main database after which a super-journal is named.
fn super_journal_of(name: &str) -> Option<&str> {
    let (database, digits) = name.rsplit_once("-mj")?;
    let digits = digits.as_bytes();
    let shaped = digits.len() == 9 && digits[6] == b'9' && digits.iter().all(u8::is_ascii_hexdigit);
    shaped.then_some(database)
}

fn misconfigured(error: &ConfigError) -> Failure {
    Failure::new(
        code::CANTOPEN,
        format!("mvSQLite is misconfigured, no database can be opened: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_journal_is_known_by_the_shape_that_sqlite_gives_it() {
        assert_eq!(
            super_journal_of("/data/a.db-mj0A1B2C9FF"),
            Some("/data/a.db")
        );
        for name in [
            "a-mj",
            "a-mj0A1B2C8FF",
            "a-mj0A1B2C9F",
            "a-mj0A1B2G9FF",
            "a-journal",
        ] {
            assert_eq!(super_journal_of(name), None, "{name}");
        }
    }
}
