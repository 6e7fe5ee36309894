//! Which databases of ours a SQLite connection is writing, so that a transaction over two of them
//! is noticed before it loses its atomicity.

use std::collections::HashMap;

use super::ConnectionId;

/// A database file of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileId(pub(crate) u64);

/// How far a writer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    /// It holds RESERVED or more.
    Reserved,
    /// SQLite wrote pages.
    Wrote,
    /// It is committed, and SQLite has not unlocked it yet.
    Committed,
}

/// The writers of a process, by connection.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    by_connection: HashMap<ConnectionId, HashMap<FileId, (String, Progress)>>,
}

impl Writers {
    pub(super) fn set(
        &mut self,
        connection: ConnectionId,
        file: FileId,
        name: &str,
        progress: Progress,
    ) {
        let writers = self.by_connection.entry(connection).or_default();
        writers.insert(file, (name.to_owned(), progress));
    }

    pub(super) fn remove(&mut self, connection: ConnectionId, file: FileId) {
        if let Some(writers) = self.by_connection.get_mut(&connection) {
            writers.remove(&file);
            if writers.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
    }

    /// Another database that the same connection writes, the one furthest on: its name and how far
    /// it is.
    pub(super) fn other(&self, connection: ConnectionId, file: FileId) -> Option<(&str, Progress)> {
        let writers = self.by_connection.get(&connection)?;
        let others = writers.iter().filter(|(other, _)| **other != file);
        others
            .map(|(_, (name, progress))| (name.as_str(), *progress))
            .max_by_key(|(_, progress)| *progress)
    }
}
