//! What all processes of a mixture know together, to be compared with what is found.
//!
//! It is nobody's memory in the simulated world: a process that was killed is known here by what it
//! said before it sent its COMMIT.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::contents::Database;

/// What became of a transaction, as far as its process ever knew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not heard of since its COMMIT was sent.
    Unknown,
    /// Nothing of it may ever be seen.
    Aborted,
    /// It made this version.
    Committed(String),
}

/// What a transaction appended, and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Appended {
    /// Lists and elements in order.
    pub(crate) elements: Vec<(u64, u64)>,
    pub(crate) fate: Fate,
}

/// What somebody read of a database.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    /// Who and what, for messages.
    pub by: String,
    /// The database.
    pub database: Database,
    /// The version that was read.
    pub version: String,
    /// Some or all of its lists, without what the reader itself had appended and not committed.
    pub lists: BTreeMap<u64, Vec<u64>>,
}

/// A database became what it was before.
#[derive(Debug, Clone)]
pub(crate) struct Restored {
    pub(crate) database: Database,
    /// The version that this made; `None`: it is not known whether and when.
    pub(crate) version: Option<String>,
    /// What it was restored to.
    pub(crate) to: String,
}

/// Everything that is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) transactions: Vec<Appended>,
    pub(crate) observations: Vec<Observation>,
    pub(crate) restored: Vec<Restored>,
    /// Versions that were made, and may be read for ever unless they were forgotten.
    pub(crate) versions: BTreeSet<(Database, String)>,
    /// The largest version below which history was to be forgotten.
    pub(crate) forgotten: BTreeMap<Database, String>,
    /// What must never happen and did.
    pub(crate) violations: Vec<String>,
    pub(crate) next_element: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Known>);

/// A transaction in the ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry(usize);

impl Ledger {
    /// Never held while anything waits.
    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An element that nobody else appends.
    pub(crate) fn element(&self) -> u64 {
        let known = &mut *self.known();
        known.next_element += 1;
        known.next_element
    }

    /// A COMMIT is about to be sent.
    pub(crate) fn sends(&self, elements: Vec<(u64, u64)>) -> Entry {
        let transactions = &mut self.known().transactions;
        transactions.push(Appended {
            elements,
            fate: Fate::Unknown,
        });
        Entry(transactions.len() - 1)
    }

    /// It was answered.
    pub(crate) fn ended(&self, entry: Entry, fate: Fate) {
        self.known().transactions[entry.0].fate = fate;
    }

    /// A version of a database was made.
    pub(crate) fn made(&self, database: Database, version: &str) {
        self.known().versions.insert((database, version.to_owned()));
    }

    /// Somebody has read something.
    pub(crate) fn observed(&self, observation: Observation) {
        self.known().observations.push(observation);
    }

    /// Something happened that must not.
    pub(crate) fn violated(&self, text: String) {
        self.known().violations.push(text);
    }
}

impl Known {
    /// Whether a version must still be readable.
    pub(crate) fn keeps(&self, database: Database, version: &str) -> bool {
        let forgotten = self.forgotten.get(&database);
        forgotten.is_none_or(|forgotten| version > forgotten.as_str())
    }
}
