//! What a worker (`python/worker.py`) was told about each of its transactions, and whether the
//! store agrees.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Copied;

/// A worker's journal: a file that the worker appends to, read again at each question.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
    worker: u32,
}

/// Numbers of transactions, by what is known about them.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// Committed, for certain.
    pub acknowledged: BTreeSet<i64>,
    /// Committed or not.
    pub unknown: BTreeSet<i64>,
    /// Not committed, for certain: for a conflict.
    pub conflicts: BTreeSet<i64>,
    /// Not committed, for certain: for another reason.
    pub refused: BTreeSet<i64>,
}

impl Journal {
    /// The journal of worker number `worker` at `path`; it need not be there yet.
    pub fn new(path: PathBuf, worker: u32) -> Self {
        Self { path, worker }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the worker that writes it.
    pub fn worker(&self) -> u32 {
        self.worker
    }

    /// What it says. The number after the last one counts as unknown: a worker that was killed did
    /// not live to write down what it did last.
    pub fn told(&self) -> Told {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let mut told = Told::default();
        let mut next = 0;
        for line in text.split_inclusive('\n') {
            let Some((kind, number)) = line.strip_suffix('\n').and_then(parse) else {
                // A last line that `kill -9` cut off.
                continue;
            };
            next = next.max(number + 1);
            // A later line about the same number knows more.
            told.unknown.remove(&number);
            told.of_kind(kind).insert(number);
        }
        told.unknown.insert(next);
        told
    }

    /// Compares what it says with the numbers that the store has of this worker.
    ///
    /// # Panics
    /// If something acknowledged is missing, or something is there that was refused or never
    /// reported.
    pub fn judge(&self, stored: &BTreeSet<i64>) {
        let (told, name) = (self.told(), self.path.display());
        let lost: Vec<_> = told.acknowledged.difference(stored).collect();
        assert!(lost.is_empty(), "{name}: acknowledged and lost: {lost:?}");
        let refused = told.conflicts.union(&told.refused).copied().collect();
        let undead: Vec<_> = stored.intersection(&refused).collect();
        assert!(
            undead.is_empty(),
            "{name}: refused and yet there: {undead:?}"
        );
        let known = told.acknowledged.union(&told.unknown).copied().collect();
        let invented: Vec<_> = stored.difference(&known).collect();
        assert!(
            invented.is_empty(),
            "{name}: there and never reported: {invented:?}"
        );
    }
}

/// Judges journals by tables with columns `worker` and `number` into which every transaction put a
/// row each.
///
/// # Panics
/// If a transaction is in one of them and not in another, if a journal and the tables disagree, or
/// if there are rows of a worker without a journal.
pub fn judge_all<'a>(journals: impl Iterator<Item = &'a Journal>, tables: &[(&Copied, &str)]) {
    let mut stored = tables.iter().map(|(copy, table)| copy.numbers(table));
    let mut first = stored.next().expect("there is a table");
    for (other, (_, table)) in stored.zip(&tables[1..]) {
        assert_eq!(
            first, other,
            "half a transaction: {} and {table}",
            tables[0].1
        );
    }
    for journal in journals {
        journal.judge(&first.remove(&journal.worker).unwrap_or_default());
    }
    assert!(
        first.is_empty(),
        "rows of workers that never were: {first:?}"
    );
}

impl Told {
    fn of_kind(&mut self, kind: &str) -> &mut BTreeSet<i64> {
        match kind {
            "A" => &mut self.acknowledged,
            "C" => &mut self.conflicts,
            "R" => &mut self.refused,
            _ => &mut self.unknown,
        }
    }
}

fn parse(line: &str) -> Option<(&str, i64)> {
    let (kind, number) = line.split_once(' ')?;
    Some((kind, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(text: &str) -> (tempfile::TempDir, Journal) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        fs::write(&path, text).unwrap();
        (directory, Journal::new(path, 1))
    }

    #[test]
    fn acknowledged_must_be_there_and_unknown_may_be() {
        let (_directory, journal) = journal("I 0\nI 1\nA 0\nU 2\nC 3\nR 4\nA");
        for stored in [vec![0], vec![0, 1], vec![0, 2], vec![0, 1, 2, 5]] {
            journal.judge(&stored.into_iter().collect());
        }
    }

    #[test]
    #[should_panic(expected = "acknowledged and lost: [1]")]
    fn what_is_lost_is_told() {
        journal("A 0\nA 1\n").1.judge(&BTreeSet::from([0]));
    }

    #[test]
    #[should_panic(expected = "refused and yet there: [1]")]
    fn what_was_refused_and_is_there_is_told() {
        let (_directory, journal) = journal("A 0\nC 1\n");
        journal.judge(&BTreeSet::from([0, 1]));
    }

    #[test]
    #[should_panic(expected = "there and never reported: [9]")]
    fn what_nobody_wrote_is_told() {
        let (_directory, journal) = journal("A 0\n");
        journal.judge(&BTreeSet::from([0, 9]));
    }
}
