//! Super-journals: how SQLite ends a transaction over several databases in one moment.
//!
//! SQLite writes the names of the members' journals into one file, sends each member
//! `SQLITE_FCNTL_SYNC` with that file's name, and deletes the file: that is the commit. Since the
//! file is named after the main database, it is ours whenever that is, and then lives here, in
//! memory. A member that is ours notes itself at its SYNC, and all of them commit together, in one
//! request to the store, when the file is deleted: a failure anywhere before leaves nothing behind,
//! and there is no moment at which some have committed and others not.
//!
//! Rollback deletes the file as well, with another flag, as soon as the first member has played
//! its journal back; the other members would then find their journals orphaned and skip them. So
//! the file outlives that and goes when the connection has no writer of ours left. That holds for the
//! super-journal of an ordinary main database too: SQLite looks for the members' journals before it
//! deletes the file, and ours are private.
//!
//! Lock order: the registry's lock is held for look-ups only, never across a call into SQLite, the
//! host or the store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::Journal;

/// An SQLite connection, by its address.
pub(crate) type Connection = usize;
/// An open database of ours, by the address of its handle.
pub(crate) type Member = usize;

/// A journal's bytes, shared by the handles that have it open.
pub(crate) type SharedJournal = Arc<Mutex<Journal>>;

/// The super-journals of a process, and who writes.
#[derive(Default)]
pub(crate) struct SuperJournals {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: HashMap<String, SuperJournal>,
    writers: HashMap<Connection, HashSet<Member>>,
    /// Super-journals that are ordinary files, of transactions with a member of ours.
    foreign: HashMap<String, Foreign>,
}

struct Foreign {
    connection: Connection,
    /// Its clean-up was asked for, and put off.
    unwanted: bool,
}

struct SuperJournal {
    content: SharedJournal,
    /// Known from the first SYNC on.
    connection: Option<Connection>,
    /// In the order of their SYNCs.
    prepared: Vec<Member>,
}

/// What became of a member's SYNC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// It commits when the super-journal is deleted.
    Prepared,
    /// There is no such super-journal here: it is an ordinary file.
    NotOurs,
}

impl SuperJournals {
    /// A panic under this lock leaves a map that is still a map.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a database begins to write. Returns whether it is the connection's only writer.
    pub(crate) fn writer_started(&self, connection: Connection, member: Member) -> bool {
        let mut state = self.state();
        let writers = state.writers.entry(connection).or_default();
        writers.insert(member);
        writers.len() == 1
    }

    /// Notes that a database no longer writes; the last one takes the super-journal with it.
    /// Returns the ordinary files whose deletion was put off until now.
    pub(crate) fn writer_ended(&self, connection: Connection, member: Member) -> Vec<String> {
        let mut state = self.state();
        let Some(writers) = state.writers.get_mut(&connection) else {
            return Vec::new();
        };
        writers.remove(&member);
        if !writers.is_empty() {
            return Vec::new();
        }
        state.writers.remove(&connection);
        state
            .files
            .retain(|_, file| file.connection != Some(connection));
        let ended = state
            .foreign
            .extract_if(|_, foreign| foreign.connection == connection);
        ended
            .filter_map(|(name, foreign)| foreign.unwanted.then_some(name))
            .collect()
    }

    /// Whether the deletion of an ordinary file has to wait for a playback of ours.
    pub(crate) fn put_off(&self, name: &str, commits: bool) -> bool {
        let mut state = self.state();
        if commits {
            state.foreign.remove(name);
        }
        match state.foreign.get_mut(name) {
            Some(foreign) => {
                foreign.unwanted = true;
                true
            }
            None => false,
        }
    }

    /// The bytes of a super-journal, if it exists.
    pub(crate) fn open(&self, name: &str) -> Option<SharedJournal> {
        let state = self.state();
        state.files.get(name).map(|file| Arc::clone(&file.content))
    }

    /// Makes an empty one; the old one of that name, if any, is forgotten.
    pub(crate) fn create(&self, name: &str, journal: Journal) -> SharedJournal {
        let content = Arc::new(Mutex::new(journal));
        let file = SuperJournal {
            content: Arc::clone(&content),
            connection: None,
            prepared: Vec::new(),
        };
        self.state().files.insert(name.to_owned(), file);
        content
    }

    /// A member's SYNC under this super-journal.
    pub(crate) fn join(&self, name: &str, connection: Connection, member: Member) -> Joined {
        let mut state = self.state();
        let Some(file) = state.files.get_mut(name) else {
            let foreign = Foreign {
                connection,
                unwanted: false,
            };
            state.foreign.insert(name.to_owned(), foreign);
            return Joined::NotOurs;
        };
        file.connection = Some(connection);
        if !file.prepared.contains(&member) {
            file.prepared.push(member);
        }
        Joined::Prepared
    }

    /// Deletion as commit: the members that are to be committed now, each once. The file stays for
    /// the playback that follows if that fails.
    pub(crate) fn decide(&self, name: &str) -> Vec<Member> {
        let mut state = self.state();
        let file = state.files.get_mut(name);
        file.map_or_else(Vec::new, |file| std::mem::take(&mut file.prepared))
    }

    /// Deletion as clean-up. A file that a transaction still refers to stays.
    pub(crate) fn forget(&self, name: &str) {
        let mut state = self.state();
        if state
            .files
            .get(name)
            .is_some_and(|file| file.connection.is_none())
        {
            state.files.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journals() -> SuperJournals {
        let journals = SuperJournals::default();
        journals.create("a-mj", Journal::new(1000));
        journals
    }

    #[test]
    fn all_members_are_committed_by_the_deletion_each_once() {
        let journals = journals();
        assert!(journals.writer_started(1, 10));
        assert!(!journals.writer_started(1, 11));
        assert_eq!(journals.join("a-mj", 1, 10), Joined::Prepared);
        assert_eq!(journals.join("a-mj", 1, 11), Joined::Prepared);
        assert_eq!(journals.join("a-mj", 1, 10), Joined::Prepared);
        assert_eq!(journals.join("b-mj", 1, 11), Joined::NotOurs);
        assert_eq!(journals.decide("a-mj"), [10, 11]);
        assert!(journals.decide("a-mj").is_empty());
    }

    #[test]
    fn a_super_journal_outlives_the_clean_up_of_its_first_member() {
        let journals = journals();
        journals.writer_started(1, 10);
        journals.writer_started(1, 11);
        journals.join("a-mj", 1, 10);
        journals.forget("a-mj");
        journals.writer_ended(1, 10);
        assert!(journals.open("a-mj").is_some());
        journals.writer_ended(1, 11);
        assert!(journals.open("a-mj").is_none());
    }

    /// The first member, an ordinary main database, played its journal back and deleted the
    /// super-journal; SQLite then skipped the playback of ours, and statements went on to read from
    /// its cache what had failed.
    #[test]
    fn an_ordinary_super_journal_waits_for_the_playback_of_ours() {
        let journals = SuperJournals::default();
        journals.writer_started(1, 10);
        assert_eq!(journals.join("main-mj", 1, 10), Joined::NotOurs);
        assert!(journals.put_off("main-mj", false));
        assert!(!journals.put_off("other-mj", false));
        assert_eq!(journals.writer_ended(1, 10), ["main-mj"]);
        assert!(!journals.put_off("main-mj", false));
    }

    #[test]
    fn the_deletion_of_an_ordinary_super_journal_that_commits_is_never_put_off() {
        let journals = SuperJournals::default();
        journals.writer_started(1, 10);
        journals.join("main-mj", 1, 10);
        assert!(!journals.put_off("main-mj", true));
        assert!(journals.writer_ended(1, 10).is_empty());
    }

    #[test]
    fn a_super_journal_that_no_member_reached_goes_at_once() {
        let journals = journals();
        journals.forget("a-mj");
        assert!(journals.open("a-mj").is_none());
    }
}
