//! What the databases of ours on one SQLite connection know of each other. Those that hold a lock at
//! the same time belong to one transaction:
//!
//! - they show one moment: each begins as of the read version at which the first of them began;
//! - while all of them hold write leases nothing that they show can change, so what they show is the
//!   present too, and the next one begins there: it could not be written otherwise;
//! - a commit of some of them relies on what was read from the others, and has it checked.
//!
//! Not part of it: past versions, which need no check, and databases of other stores, which cannot be
//! compared.

use std::collections::HashMap;

use mvsqlite_protocol::{Incarnation, NamespaceKey, ReadVersion, Version};

use super::cache::Identity;
use super::read_set::ReadSet;
use super::{ConnectionId, DatabaseFile};

/// A database file of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(pub(crate) u64);

/// A database that holds a lock.
#[derive(Debug, Clone)]
pub(super) struct Participant {
    pub(super) key: NamespaceKey,
    pub(super) identity: Identity,
    /// The version it reads.
    pub(super) base: Version,
    /// The largest read version the server gave for it.
    pub(super) read_version: ReadVersion,
    pub(super) read: ReadSet,
    /// An own commit that lies over the base.
    pub(super) own: Option<Version>,
    /// The own commit belongs to a COMMIT that SQLite has not finished yet.
    pub(super) committing: bool,
    /// It holds the write lease: nobody else changes what it shows.
    pub(super) frozen: bool,
}

/// The databases of a process that hold a lock, by connection.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    by_id: HashMap<ConnectionId, Members>,
    /// The newest version that each open database of a connection was seen at in a transaction that
    /// is over, and whose version that is.
    seen: HashMap<ConnectionId, HashMap<FileId, (Incarnation, Version)>>,
}

#[derive(Debug)]
struct Members {
    /// Where the first of them began, or the last that found all others frozen.
    moment: ReadVersion,
    files: HashMap<FileId, Participant>,
}

impl Members {
    fn are_frozen(&self) -> bool {
        self.files.values().all(|participant| participant.frozen)
    }
}

impl Connections {
    /// The moment that a database of the connection shall show, if others hold a lock already.
    fn moment(&self, connection: ConnectionId) -> Option<ReadVersion> {
        let members = self.by_id.get(&connection)?;
        (!members.are_frozen()).then_some(members.moment)
    }

    fn join(&mut self, connection: ConnectionId, file: FileId, participant: Participant) {
        let members = self.by_id.entry(connection).or_insert_with(|| Members {
            moment: participant.read_version,
            files: HashMap::new(),
        });
        if members.are_frozen() {
            members.moment = participant.read_version;
        }
        members.files.insert(file, participant);
    }

    fn leave(&mut self, connection: ConnectionId, file: FileId) {
        if let Some(members) = self.by_id.get_mut(&connection) {
            if let Some(left) = members.files.remove(&file) {
                let version = left.own.map_or(left.base, |own| own.max(left.base));
                let of_connection = self.seen.entry(connection).or_default();
                of_connection.insert(file, (left.identity.incarnation, version));
            }
            if members.files.is_empty() {
                self.by_id.remove(&connection);
            }
        }
    }

    /// The newest version of this store that a database of the connection was seen at.
    fn seen(&self, connection: ConnectionId, store: Incarnation) -> Option<Version> {
        let seen = self.seen.get(&connection)?.values();
        let of_store = seen.filter(|(of, _)| *of == store);
        of_store.map(|(_, version)| *version).max()
    }

    /// A database is closed, or belongs to another connection.
    fn forget(&mut self, connection: ConnectionId, file: FileId) {
        if let Some(seen) = self.seen.get_mut(&connection) {
            seen.remove(&file);
            if seen.is_empty() {
                self.seen.remove(&connection);
            }
        }
    }

    fn get_mut(&mut self, connection: ConnectionId, file: FileId) -> Option<&mut Participant> {
        self.by_id.get_mut(&connection)?.files.get_mut(&file)
    }

    /// The connection's other databases whose reads a commit of these relies on, in the order in
    /// which they were opened.
    pub(super) fn others(&self, connection: ConnectionId, files: &[FileId]) -> Vec<Participant> {
        let Some(members) = self.by_id.get(&connection) else {
            return Vec::new();
        };
        let others = members.files.iter();
        // Where SQLite commits one database after the other, what an earlier one read was checked
        // at its own commit.
        let mut others: Vec<_> = others
            .filter(|(file, participant)| !files.contains(file) && !participant.committing)
            .collect();
        others.sort_unstable_by_key(|(file, _)| **file);
        others.into_iter().map(|(_, other)| other.clone()).collect()
    }
}

impl DatabaseFile {
    /// Where to begin, if the transaction has begun already on another database. SQLite gives up
    /// the locks of a connection together, so those that are held belong to one transaction, or to
    /// statements that are still open.
    ///
    /// Never before what this handle has seen: whoever has read or written something finds it again.
    pub(super) fn moment(&self) -> Option<ReadVersion> {
        let connection = self.connection?;
        let shared = self.remote.env.shared();
        let moment = shared.lock_connections().moment(connection)?;
        let seen = self.last_known.is_none_or(|seen| moment.sees(seen));
        (seen && self.overtaken_at != Some(moment)).then_some(moment)
    }

    /// Under a lease this database cannot be written on a snapshot of the connection's moment, since
    /// others have committed here. Waiting would not help: its next snapshot is the newest one, as
    /// that of an attached database is in SQLite's own WAL mode. COMMIT checks what was read anyway.
    pub(super) fn leave_moment(&mut self) {
        let shared = self.remote.env.shared();
        self.overtaken_at = self
            .connection
            .and_then(|connection| shared.lock_connections().moment(connection));
    }

    /// The newest version that any database of the connection was seen at. A transaction must not
    /// begin before it: the next database to join would have to be shown at another moment.
    pub(super) fn seen_by_connection(&self) -> Option<Version> {
        let connection = self.connection?;
        let shared = self.remote.env.shared();
        let connections = shared.lock_connections();
        connections.seen(connection, self.identity.incarnation)
    }

    /// It is no longer one of the connection's databases. A transaction that it takes part in goes on.
    pub(super) fn leave_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            let shared = self.remote.env.shared();
            shared.lock_connections().forget(connection, self.id);
        }
    }

    /// Joins the connection's transaction: a snapshot was taken.
    pub(super) fn join_transaction(&mut self) {
        let (Some(connection), Some(transaction)) = (self.connection, &self.transaction) else {
            return;
        };
        let snapshot = &transaction.snapshot;
        let participant = Participant {
            key: self.remote.key.clone(),
            identity: snapshot.identity,
            base: snapshot.version,
            read_version: snapshot.read_version,
            read: self.read_set.clone(),
            own: None,
            committing: false,
            frozen: false,
        };
        let shared = self.remote.env.shared();
        let mut connections = shared.lock_connections();
        connections.join(connection, self.id, participant);
        self.joined = Some(connection);
    }

    /// Leaves it: the snapshot is given up.
    pub(super) fn leave_transaction(&mut self) {
        if let Some(connection) = self.joined.take() {
            let shared = self.remote.env.shared();
            shared.lock_connections().leave(connection, self.id);
        }
    }

    /// Lets the others know what has changed.
    pub(super) fn update_participant(&self, change: impl FnOnce(&mut Participant)) {
        let Some(connection) = self.joined else {
            return;
        };
        let shared = self.remote.env.shared();
        let mut connections = shared.lock_connections();
        if let Some(participant) = connections.get_mut(connection, self.id) {
            change(participant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvsqlite_protocol::NamespaceId;

    const CONNECTION: ConnectionId = ConnectionId(1);

    fn participant(read_version: u64) -> Participant {
        Participant {
            key: "db".parse().unwrap(),
            identity: Identity {
                incarnation: Incarnation::from_bytes([1; 8]),
                namespace: NamespaceId::from_bytes([1; 10]),
            },
            base: Version::new(read_version, 0),
            read_version: ReadVersion(read_version),
            read: ReadSet::default(),
            own: None,
            committing: false,
            frozen: false,
        }
    }

    #[test]
    fn the_moment_is_that_of_the_first_until_the_last_has_left() {
        let mut connections = Connections::default();
        assert_eq!(connections.moment(CONNECTION), None);
        connections.join(CONNECTION, FileId(1), participant(5));
        connections.join(CONNECTION, FileId(2), participant(7));
        connections.leave(CONNECTION, FileId(1));
        assert_eq!(connections.moment(CONNECTION), Some(ReadVersion(5)));
        assert_eq!(connections.moment(ConnectionId(2)), None);
        connections.leave(CONNECTION, FileId(2));
        assert_eq!(connections.moment(CONNECTION), None);
    }

    #[test]
    fn while_all_that_have_begun_are_frozen_the_next_begins_at_present() {
        let mut connections = Connections::default();
        connections.join(CONNECTION, FileId(1), participant(5));
        connections.get_mut(CONNECTION, FileId(1)).unwrap().frozen = true;
        assert_eq!(connections.moment(CONNECTION), None);
        connections.join(CONNECTION, FileId(2), participant(9));
        assert_eq!(connections.moment(CONNECTION), Some(ReadVersion(9)));
    }

    #[test]
    fn others_are_those_that_do_not_commit_themselves() {
        let mut connections = Connections::default();
        for file in 1..=4 {
            connections.join(CONNECTION, FileId(file), participant(file));
        }
        connections
            .get_mut(CONNECTION, FileId(3))
            .unwrap()
            .committing = true;
        let others = connections.others(CONNECTION, &[FileId(1)]);
        let bases: Vec<_> = others.iter().map(|other| other.base.commit()).collect();
        assert_eq!(bases, [2, 4]);
    }
}
