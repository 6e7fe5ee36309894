//! The versions a store gave out, against the order in which things happened.
//!
//! Per namespace, whatever was read or written:
//!
//! 1. No two commits have one version, and a commit's lies above its snapshot's.
//! 2. A process never goes back: each snapshot lies at or above, and each commit above, every
//!    version the process was told before it began.
//! 3. Nor does time: a commit lies above every version that anybody had been told when it began; a
//!    snapshot at or above them, less the staleness that is allowed.
//!
//! Cost: sorting, so `n log n` in what was logged.

use std::collections::{BTreeMap, HashMap};

use crate::history::{History, Outcome, TransactionRecord};
use crate::violation::{Anomaly, Violation};

/// Collects what versions transactions were told, and judges them.
///
/// [`crate::check`] does this for histories by itself. A log is for those that keep track of
/// versions only, or of several namespaces.
#[derive(Debug, Clone, Default)]
pub struct VersionLog {
    staleness: u64,
    namespaces: BTreeMap<String, Vec<TransactionRecord>>,
}

impl VersionLog {
    /// An empty log. A snapshot may be older than what was known `staleness` ticks (of the clock in
    /// `begun` and `ended`) before it was taken; 0: it must be the newest, `u64::MAX`: any will do
    /// that is not older than what its own process knew.
    pub fn new(staleness: u64) -> Self {
        Self {
            staleness,
            namespaces: BTreeMap::new(),
        }
    }

    /// Logs a transaction of `namespace`. Of one that spans several, the record is given to each.
    pub fn record(&mut self, namespace: &str, record: &TransactionRecord) {
        // What was read and written is of no interest here.
        let record = TransactionRecord {
            operations: Vec::new(),
            read_at: record.read_at.clone(),
            committed_at: record.committed_at.clone(),
            ..*record
        };
        let namespace = self.namespaces.entry(namespace.to_owned()).or_default();
        namespace.push(record);
    }

    /// How many transactions with a version were logged.
    pub fn len(&self) -> usize {
        let records = self.namespaces.values().flatten();
        records.filter(|record| has_version(record)).count()
    }

    /// Whether there is nothing to judge.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Judges everything logged so far.
    ///
    /// # Errors
    ///
    /// The first violation, with the namespace in its text.
    pub fn check(&self) -> Result<(), Violation> {
        for (namespace, records) in &self.namespaces {
            let records: Vec<_> = records.iter().collect();
            check_versions(&records, self.staleness).map_err(|mut violation| {
                let step = format!("in namespace {namespace}:");
                violation.steps.insert(0, step);
                violation
            })?;
        }
        Ok(())
    }
}

pub(crate) fn check_history(history: &History, staleness: u64) -> Result<(), Violation> {
    let records: Vec<_> = history.transactions.iter().collect();
    check_versions(&records, staleness)
}

fn has_version(record: &TransactionRecord) -> bool {
    record.read_at.is_some() || record.committed_at.is_some()
}

/// The newest version a transaction tells its process, if it was answered.
fn told(record: &TransactionRecord) -> Option<&str> {
    let newest = record
        .committed_at
        .as_deref()
        .max(record.read_at.as_deref());
    newest.filter(|_| record.outcome != Outcome::Unknown)
}

fn check_versions(records: &[&TransactionRecord], staleness: u64) -> Result<(), Violation> {
    let records: Vec<_> = records.iter().copied().filter(|r| has_version(r)).collect();
    check_lengths(&records)?;
    check_commits(&records)?;
    check_processes(&records)?;
    check_time(&records, staleness)
}

/// Texts of different lengths would not sort as versions do.
fn check_lengths(records: &[&TransactionRecord]) -> Result<(), Violation> {
    let mut length = None;
    for record in records {
        for version in record.read_at.iter().chain(&record.committed_at) {
            if *length.get_or_insert(version.len()) != version.len() {
                let step = format!("T1 has version {version}, whose length is not that of others");
                return Err(Violation::malformed(step, &[record]));
            }
        }
    }
    Ok(())
}

fn check_commits(records: &[&TransactionRecord]) -> Result<(), Violation> {
    let mut commits = HashMap::new();
    for record in records {
        let Some(version) = &record.committed_at else {
            continue;
        };
        if record.outcome == Outcome::Aborted {
            let step = "T1 was aborted, and has the version of a commit";
            return Err(Violation::malformed(step, &[record]));
        }
        if record.read_at.as_ref().is_some_and(|at| at >= version) {
            let step = format!("T1 was committed as {version}, which is not above its snapshot");
            return Err(Violation::new(Anomaly::VersionOrder, step, &[record]));
        }
        if let Some(other) = commits.insert(version, *record) {
            let step = format!("T1 and T2 were both committed as {version}");
            return Err(Violation::new(
                Anomaly::VersionOrder,
                step,
                &[other, record],
            ));
        }
    }
    Ok(())
}

/// `record` began when `known` had been told to `whom`, by `teller`.
fn check_against(
    record: &TransactionRecord,
    teller: &TransactionRecord,
    snapshots_too: bool,
    whom: &str,
) -> Result<(), Violation> {
    let Some(known) = told(teller) else {
        return Ok(());
    };
    let below = |version: &String| version.as_str() < known;
    let not_above = |version: &String| version.as_str() <= known;
    let step = if snapshots_too && record.read_at.as_ref().is_some_and(below) {
        format!("T1 had told {whom} of {known} when T2 began, whose snapshot is older")
    } else if record.committed_at.as_ref().is_some_and(not_above) {
        format!("T1 had told {whom} of {known} when T2 began, whose commit is not above")
    } else {
        return Ok(());
    };
    let both = [teller, record];
    Err(Violation::new(Anomaly::VersionOrder, step, &both))
}

fn check_processes(records: &[&TransactionRecord]) -> Result<(), Violation> {
    let mut in_order = records.to_vec();
    in_order.sort_by_key(|record| (record.process, record.index));
    let mut newest: Option<&TransactionRecord> = None;
    for record in in_order {
        let teller = newest.filter(|teller| teller.process == record.process);
        if let Some(teller) = teller {
            check_against(record, teller, true, "the process")?;
        }
        if teller.is_none_or(|teller| told(record) > told(teller)) {
            newest = Some(record);
        }
    }
    Ok(())
}

fn check_time(records: &[&TransactionRecord], staleness: u64) -> Result<(), Violation> {
    check_time_of(records, 0, false)?;
    check_time_of(records, staleness, true)
}

/// Whoever begins must know what others had been told more than `slack` ticks before.
fn check_time_of(
    records: &[&TransactionRecord],
    slack: u64,
    snapshots_too: bool,
) -> Result<(), Violation> {
    let mut tellers: Vec<_> = records.iter().filter(|r| r.ended.is_some()).collect();
    tellers.sort_by_key(|teller| teller.ended);
    let mut tellers = tellers.into_iter().peekable();
    let mut in_order = records.to_vec();
    in_order.sort_by_key(|record| record.begun);
    let mut newest: Option<&TransactionRecord> = None;
    for record in in_order {
        let before = |teller: &&&&TransactionRecord| {
            let ended = teller.ended.and_then(|ended| ended.checked_add(slack));
            ended.is_some_and(|ended| ended < record.begun)
        };
        while let Some(teller) = tellers.next_if(|teller| before(&teller)) {
            if newest.is_none_or(|newest| told(teller) > told(newest)) {
                newest = Some(teller);
            }
        }
        if let Some(teller) = newest {
            check_against(record, teller, snapshots_too, "somebody")?;
        }
    }
    Ok(())
}
