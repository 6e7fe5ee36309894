//! What a history is found guilty of, and how that is told.

use std::fmt;

use crate::history::{Operation, Outcome, TransactionRecord};

/// What is wrong. G0 to G2 are Adya's names ("Weak Consistency", MIT 1999), as Elle uses them.
///
/// A cycle is named after its dependencies: all between data, or some between a process's own
/// transactions (`-process`), or some because one was answered before the other began
/// (`-realtime`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Anomaly {
    /// The record contradicts itself: a fault of who recorded it, not of what was observed.
    MalformedHistory,
    /// A transaction did not read what it had itself written, or read a thing twice and differently.
    Internal,
    /// G1a: something of a transaction that was rolled back or refused was read.
    AbortedRead,
    /// G1b: a part of a transaction was read without the rest.
    IntermediateRead,
    /// Something was read that nobody wrote.
    NeverWritten,
    /// An element stands in a list twice.
    DuplicateElement,
    /// Two reads of a list, neither of which is the beginning of the other.
    IncompatibleOrder,
    /// What was appended by a committed transaction is gone.
    LostAppend,
    /// G0: a cycle of writes that follow one another.
    WriteCycle(Extra),
    /// G1c: a cycle of writes that follow one another and reads of what was written.
    CircularInformationFlow(Extra),
    /// G-single: a cycle in which one transaction did not see what another wrote (read skew, lost
    /// update).
    SingleAntiDependency(Extra),
    /// G2-item: a cycle in which several transactions did not see what others wrote (write skew).
    AntiDependencyCycle(Extra),
    /// A read does not equal what the commits up to its version had left.
    NotTheSnapshot,
    /// A transaction was committed although something it had read was changed before its version.
    StaleCommit,
    /// Versions contradict the order in which things happened, or one another.
    VersionOrder,
}

/// What a cycle needed besides the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extra {
    /// Nothing.
    None,
    /// The order of a process's own transactions.
    Process,
    /// That one transaction was answered before another began.
    RealTime,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, extra) = match self {
            Self::MalformedHistory => ("malformed history", Extra::None),
            Self::Internal => ("internal", Extra::None),
            Self::AbortedRead => ("G1a", Extra::None),
            Self::IntermediateRead => ("G1b", Extra::None),
            Self::NeverWritten => ("never written", Extra::None),
            Self::DuplicateElement => ("duplicate element", Extra::None),
            Self::IncompatibleOrder => ("incompatible order", Extra::None),
            Self::LostAppend => ("lost append", Extra::None),
            Self::WriteCycle(extra) => ("G0", *extra),
            Self::CircularInformationFlow(extra) => ("G1c", *extra),
            Self::SingleAntiDependency(extra) => ("G-single", *extra),
            Self::AntiDependencyCycle(extra) => ("G2-item", *extra),
            Self::NotTheSnapshot => ("not the snapshot", Extra::None),
            Self::StaleCommit => ("stale commit", Extra::None),
            Self::VersionOrder => ("version order", Extra::None),
        };
        f.write_str(match extra {
            Extra::None => name,
            Extra::Process => return write!(f, "{name}-process"),
            Extra::RealTime => return write!(f, "{name}-realtime"),
        })
    }
}

/// Why a history is not what its model allows. Its text is made to be read by a human: the anomaly,
/// what happened step by step, and the transactions that take part, the fewest that show it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", tell(self))]
#[non_exhaustive]
pub struct Violation {
    /// What is wrong.
    pub anomaly: Anomaly,
    /// What happened, one sentence each; transactions are called T1, T2, ... in the order of
    /// `transactions`. Of a cycle: its edges.
    pub steps: Vec<String>,
    /// The transactions that take part.
    pub transactions: Vec<TransactionRecord>,
}

impl Violation {
    pub(crate) fn new(
        anomaly: Anomaly,
        step: impl Into<String>,
        transactions: &[&TransactionRecord],
    ) -> Self {
        Self {
            anomaly,
            steps: vec![step.into()],
            transactions: transactions.iter().copied().cloned().collect(),
        }
    }

    pub(crate) fn malformed(step: impl Into<String>, transactions: &[&TransactionRecord]) -> Self {
        Self::new(Anomaly::MalformedHistory, step, transactions)
    }
}

/// Lists longer than this are told by their ends.
const TOLD_ELEMENTS: usize = 12;

/// Transactions of more operations than this are told by their beginning.
const TOLD_OPERATIONS: usize = 40;

fn tell(violation: &Violation) -> String {
    let mut text = violation.anomaly.to_string();
    for step in &violation.steps {
        text.push_str("\n  ");
        text.push_str(step);
    }
    for (number, record) in violation.transactions.iter().enumerate() {
        text.push_str(&format!("\n  T{} is {}", number + 1, Told(record)));
    }
    text
}

/// A transaction in words.
struct Told<'a>(&'a TransactionRecord);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        write!(f, "process {} #{}, ", record.process, record.index)?;
        f.write_str(match record.outcome {
            Outcome::Committed => "committed",
            Outcome::Aborted => "aborted",
            Outcome::Unknown => "of unknown outcome",
        })?;
        if let Some(version) = &record.committed_at {
            write!(f, " as {version}")?;
        }
        if let Some(version) = &record.read_at {
            write!(f, ", read at {version}")?;
        }
        write!(f, ", from {} to ", record.begun)?;
        match record.ended {
            Some(ended) => write!(f, "{ended}:")?,
            None => f.write_str("no answer:")?,
        }
        for (number, operation) in record.operations.iter().enumerate() {
            if number == TOLD_OPERATIONS {
                let more = record.operations.len() - number;
                return write!(f, "; and {more} more");
            }
            f.write_str(if number == 0 { " " } else { "; " })?;
            match operation {
                Operation::Append { key, element } => write!(f, "append {element} to list {key}"),
                Operation::ReadList { key, elements } => {
                    write!(f, "read list {key} as {}", List(elements))
                }
                Operation::Write { key, value } => write!(f, "write {value} to register {key}"),
                Operation::Read { key, value } => {
                    write!(f, "read register {key} as {}", Value(*value))
                }
            }?;
        }
        Ok(())
    }
}

/// A list, a long one by its ends.
pub(crate) struct List<'a>(pub(crate) &'a [u64]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(elements) = self;
        if elements.len() <= TOLD_ELEMENTS {
            return write!(f, "{elements:?}");
        }
        let half = TOLD_ELEMENTS / 2;
        write!(f, "[")?;
        for element in &elements[..half] {
            write!(f, "{element}, ")?;
        }
        write!(f, "({} more)", elements.len() - 2 * half)?;
        for element in &elements[elements.len() - half..] {
            write!(f, ", {element}")?;
        }
        write!(f, "]")
    }
}

/// A register's value.
pub(crate) struct Value(pub(crate) Option<u64>);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("what it began with"),
        }
    }
}
