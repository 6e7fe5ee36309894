//! What a run has done, for its last lines.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::Told;

/// Figures of a run.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    /// Rounds of faults and checks.
    pub rounds: u32,
    /// Stores that were begun with nothing in them.
    pub lives: u32,
    /// Faults by kind.
    pub faults: BTreeMap<String, u32>,
    /// Transactions acknowledged; all were there.
    pub acknowledged: usize,
    /// Transactions whose outcome was not told, those of clients that were killed included.
    pub unknown: usize,
    /// Transactions that met a conflict; none was there.
    pub conflicts: usize,
    /// Transactions refused for another reason; none was there.
    pub refused: usize,
    /// Histories that the checker judged.
    pub histories: u32,
    /// Transactions in them.
    pub judged: usize,
    /// Copies that an ordinary SQLite found whole.
    pub copies: u32,
    /// Directories that `mvstore fsck` found clean.
    pub fscks: u32,
    /// Starts of the store.
    pub starts: u32,
    /// The longest time from a start to being ready.
    pub slowest_start: Duration,
    /// The store's largest resident memory between rounds, in bytes.
    pub most_memory: u64,
    /// The store's most open files between rounds.
    pub most_files: usize,
}

impl Figures {
    /// Counts a fault.
    pub(super) fn fault(&mut self, kind: &str) {
        *self.faults.entry(kind.to_owned()).or_default() += 1;
    }

    /// Counts a start of the store.
    pub(super) fn started(&mut self, took: Duration) {
        self.starts += 1;
        self.slowest_start = self.slowest_start.max(took);
    }

    /// Counts what a worker was told.
    pub(super) fn told(&mut self, told: &Told, was_killed: bool) {
        self.acknowledged += told.acknowledged.len();
        self.conflicts += told.conflicts.len();
        self.refused += told.refused.len();
        // One is always in doubt; it never was if the worker ended by itself.
        self.unknown += told.unknown.len() - usize::from(!was_killed);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, lives, .. } = self;
        writeln!(f, "{rounds} rounds on {lives} stores, each begun empty")?;
        let faults = self.faults.iter();
        let faults: Vec<_> = faults.map(|(kind, n)| format!("{n} {kind}")).collect();
        writeln!(f, "faults: {}", faults.join(", "))?;
        writeln!(
            f,
            "transactions: {} acknowledged, {} unknown, {} conflicts, {} refused",
            self.acknowledged, self.unknown, self.conflicts, self.refused
        )?;
        writeln!(
            f,
            "checked: {} histories of {} transactions, {} copies, {} by fsck",
            self.histories, self.judged, self.copies, self.fscks
        )?;
        write!(
            f,
            "the store: started {} times, ready after {:.2} s at most; up to {} MB and {} files",
            self.starts,
            self.slowest_start.as_secs_f64(),
            self.most_memory / 1_000_000,
            self.most_files
        )
    }
}
