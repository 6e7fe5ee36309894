//! A transaction as others see it: what it found there, and what it left.
//!
//! Taking a record apart also checks it by itself: a transaction reads what it has itself written,
//! and whatever it reads twice it reads the same.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::history::{History, Operation, Outcome, TransactionRecord};
use crate::violation::{Anomaly, List, Value, Violation};

/// The process that reads the lists in the end.
const FINAL_PROCESS: u32 = u32::MAX;

/// A transaction without its inner steps.
#[derive(Debug)]
pub(crate) struct Observation<'h> {
    pub(crate) record: &'h TransactionRecord,
    /// Lists as it found them.
    pub(crate) list_reads: BTreeMap<u64, &'h [u64]>,
    /// What it appended to each list, in order.
    pub(crate) appends: BTreeMap<u64, Vec<u64>>,
    /// Registers as it found them.
    pub(crate) register_reads: BTreeMap<u64, Option<u64>>,
    /// What it wrote to each register, in order; only the last stays.
    pub(crate) writes: BTreeMap<u64, Vec<u64>>,
    /// Whether its writes count: it was committed, or somebody has seen them. Of any other only
    /// the reads do.
    pub(crate) effective: bool,
    /// Whether it is the look at the lists after the end.
    pub(crate) last_look: bool,
}

impl Observation<'_> {
    /// Whether what it did had happened before its client's next step. What was not answered may
    /// happen later.
    pub(crate) fn settled(&self) -> bool {
        self.record.outcome != Outcome::Unknown
    }

    /// How many lists and registers it found in some state.
    pub(crate) fn reads(&self) -> usize {
        self.list_reads.len() + self.register_reads.len()
    }

    /// The version of its commit, if that is known.
    pub(crate) fn committed_at(&self) -> Option<&str> {
        let version = self.record.committed_at.as_deref();
        version.filter(|_| self.effective)
    }
}

/// The transaction that reads the lists after the end, if somebody did.
pub(crate) fn last_look(history: &History) -> Option<TransactionRecord> {
    if history.final_lists.is_empty() {
        return None;
    }
    let mut lists = history.final_lists.clone();
    for operation in history.transactions.iter().flat_map(|r| &r.operations) {
        if let Operation::Append { key, .. } | Operation::ReadList { key, .. } = operation {
            lists.entry(*key).or_default();
        }
    }
    let read = |(key, elements)| Operation::ReadList { key, elements };
    let times = history.transactions.iter();
    let last = times.map(|record| record.ended.unwrap_or(record.begun));
    Some(TransactionRecord {
        process: FINAL_PROCESS,
        index: 0,
        begun: last.max().unwrap_or(0).saturating_add(1),
        ended: None,
        outcome: Outcome::Committed,
        operations: lists.into_iter().map(read).collect(),
        read_at: None,
        committed_at: None,
    })
}

/// Takes all records apart. The last of them is the last look, if there was one.
pub(crate) fn observe<'h>(
    history: &'h History,
    last_look: Option<&'h TransactionRecord>,
) -> Result<Vec<Observation<'h>>, Violation> {
    let records = history.transactions.iter().chain(last_look);
    let mut observations = records.map(take_apart).collect::<Result<Vec<_>, _>>()?;
    check_places(&history.transactions)?;
    if last_look.is_some()
        && let Some(last) = observations.last_mut()
    {
        last.last_look = true;
    }
    Ok(observations)
}

fn check_places(records: &[TransactionRecord]) -> Result<(), Violation> {
    let mut places = BTreeMap::new();
    for record in records {
        if record.ended.is_some_and(|ended| ended < record.begun) {
            return Err(Violation::malformed("T1 ended before it began", &[record]));
        }
        let place = (record.process, record.index);
        if let Some(other) = places.insert(place, record) {
            let step = "T1 and T2 have the same place in their process";
            return Err(Violation::malformed(step, &[other, record]));
        }
    }
    Ok(())
}

fn take_apart(record: &TransactionRecord) -> Result<Observation<'_>, Violation> {
    let mut seen = Observation {
        record,
        list_reads: BTreeMap::new(),
        appends: BTreeMap::new(),
        register_reads: BTreeMap::new(),
        writes: BTreeMap::new(),
        effective: record.outcome == Outcome::Committed
            || (record.outcome == Outcome::Unknown && record.committed_at.is_some()),
        last_look: false,
    };
    for operation in &record.operations {
        match operation {
            Operation::Append { key, element } => {
                seen.appends.entry(*key).or_default().push(*element);
            }
            Operation::ReadList { key, elements } => read_list(&mut seen, *key, elements)?,
            Operation::Write { key, value } => seen.writes.entry(*key).or_default().push(*value),
            Operation::Read { key, value } => read_register(&mut seen, *key, *value)?,
        }
    }
    Ok(seen)
}

fn read_list<'h>(
    seen: &mut Observation<'h>,
    key: u64,
    elements: &'h [u64],
) -> Result<(), Violation> {
    let internal = |step| Err(Violation::new(Anomaly::Internal, step, &[seen.record]));
    let own = seen.appends.get(&key).map_or(&[][..], Vec::as_slice);
    let read = List(elements);
    let Some(found) = elements.strip_suffix(own) else {
        let own = List(own);
        return internal(format!(
            "T1 read list {key} as {read}, which does not end with the {own} it had appended"
        ));
    };
    match seen.list_reads.entry(key) {
        Entry::Vacant(vacant) => {
            vacant.insert(found);
        }
        Entry::Occupied(before) if *before.get() != found => {
            let before = List(before.get());
            return internal(format!(
                "T1 read list {key} as {read}, after it had found it as {before}"
            ));
        }
        Entry::Occupied(_) => {}
    }
    Ok(())
}

fn read_register(
    seen: &mut Observation<'_>,
    key: u64,
    value: Option<u64>,
) -> Result<(), Violation> {
    let own = seen.writes.get(&key).and_then(|values| values.last());
    let expected = match own {
        Some(own) => Some(*own),
        None => *seen.register_reads.entry(key).or_insert(value),
    };
    if value == expected {
        return Ok(());
    }
    let (value, expected) = (Value(value), Value(expected));
    let verb = if own.is_some() {
        "written"
    } else {
        "found it as"
    };
    let step = format!("T1 read register {key} as {value}, after it had {verb} {expected}");
    Err(Violation::new(Anomaly::Internal, step, &[seen.record]))
}
