//! Histories written by hand.

use mvsqlite_checker::{History, Operation, Outcome, TransactionRecord};

pub(crate) fn append(key: u64, element: u64) -> Operation {
    Operation::Append { key, element }
}

pub(crate) fn list(key: u64, elements: &[u64]) -> Operation {
    let elements = elements.to_vec();
    Operation::ReadList { key, elements }
}

pub(crate) fn write(key: u64, value: u64) -> Operation {
    Operation::Write { key, value }
}

pub(crate) fn read(key: u64, value: impl Into<Option<u64>>) -> Operation {
    let value = value.into();
    Operation::Read { key, value }
}

/// A committed transaction of a process of its own, concurrent with all others.
pub(crate) fn transaction(operations: impl Into<Vec<Operation>>) -> TransactionRecord {
    TransactionRecord {
        process: 0,
        index: 0,
        begun: 0,
        ended: Some(1_000),
        outcome: Outcome::Committed,
        operations: operations.into(),
        read_at: None,
        committed_at: None,
    }
}

pub(crate) trait Change: Sized {
    fn of(self, process: u32) -> Self;
    fn at_times(self, begun: u64, ended: u64) -> Self;
    fn ended_as(self, outcome: Outcome) -> Self;
    fn read_at(self, version: u64) -> Self;
    fn committed_at(self, version: u64) -> Self;
}

pub(crate) fn version(version: u64) -> String {
    format!("{version:020x}")
}

impl Change for TransactionRecord {
    fn of(self, process: u32) -> Self {
        Self { process, ..self }
    }

    fn at_times(self, begun: u64, ended: u64) -> Self {
        let ended = Some(ended);
        Self {
            begun,
            ended,
            ..self
        }
    }

    fn ended_as(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }

    fn read_at(self, at: u64) -> Self {
        let read_at = Some(version(at));
        Self { read_at, ..self }
    }

    fn committed_at(self, at: u64) -> Self {
        let committed_at = Some(version(at));
        Self {
            committed_at,
            ..self
        }
    }
}

/// A history of these; whoever names no process gets one.
pub(crate) fn history(transactions: impl IntoIterator<Item = TransactionRecord>) -> History {
    let numbered = transactions.into_iter().zip(0..);
    let placed = numbered.map(|(record, index)| TransactionRecord {
        index,
        process: match record.process {
            0 => 1_000 + u32::try_from(index).unwrap(),
            named => named,
        },
        ..record
    });
    History {
        transactions: placed.collect(),
        ..History::default()
    }
}
