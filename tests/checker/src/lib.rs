//! Judges histories of transactions.

pub use history::{History, Operation, Outcome, TransactionRecord};
pub use json_lines::BadLine;
pub use versions::VersionLog;
pub use violation::{Anomaly, Extra, Violation};

mod history;
mod json_lines;
mod versions;
mod violation;

/// What a history must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Model {
    /// Some order of the transactions, the order of each process's own kept, explains every read.
    Serializable,
    /// Some order does in which each transaction comes after all that were answered before it
    /// began.
    StrictSerializable,
    /// As [`Self::Serializable`], and every transaction that read has the version of its snapshot:
    /// it saw exactly the commits up to it, however old it was.
    SnapshotRead,
}

/// What was judged: figures that show that there was something to judge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Transactions in the history.
    pub transactions: usize,
}

/// Judges a history.
///
/// # Errors
///
/// The first violation found, as small as it can be told.
pub fn check(history: &History, model: Model) -> Result<Report, Violation> {
    let staleness = match model {
        Model::StrictSerializable => 0,
        Model::Serializable | Model::SnapshotRead => u64::MAX,
    };
    versions::check_history(history, staleness)?;
    Ok(Report {
        transactions: history.transactions.len(),
    })
}
