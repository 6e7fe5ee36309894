//! Judges histories of transactions: were they serializable, were their snapshots the ones
//! promised, was nothing lost?
//!
//! The ideas are those of Elle (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from
//! Experimental Observations", VLDB 2020): write what can be read back as a trace of who wrote, infer
//! from it which transaction must come before which, and look for cycles. Where a store tells its
//! versions, they are a second, independent witness: the order they claim must explain every read.
//!
//! What is looked at, in this order:
//!
//! 1. each transaction by itself: it reads its own writes, and twice the same (`observation`);
//! 2. each read by itself: nothing invented, nothing of an aborted transaction, no half of one
//!    (`lists`, `registers`);
//! 3. dependencies (ww, wr, rw), the order of processes, and, for [`Model::StrictSerializable`], of
//!    time: no cycle (`cycles`);
//! 4. versions: unique, never going back (`versions`);
//! 5. the state at each version, which is what must have been read there (`snapshots`).
//!
//! Transactions of unknown outcome count as committed once somebody has seen something of them,
//! and then wholly. The reads of transactions that were aborted are judged as if they had only
//! read: here snapshots are promised to everybody.
//!
//! Invariants: pure (no clock, no input or output, no randomness); no recursion, so no history is too
//! long for the stack. A history refused is wrong. A history of lists accepted is right; of
//! registers the order of writes is not always known, see [`Report::unordered_registers`].
//!
//! Deliberately not here: predicates (a range read is recorded as the reads of its keys, those that
//! were empty included), other objects than lists and registers, and any weaker model.
//!
//! `check-history FILE...` judges files; their format is told in `src/json_lines.rs`.

use std::fmt;

use observation::Observation;

pub use history::{History, Operation, Outcome, TransactionRecord};
pub use json_lines::BadLine;
pub use versions::VersionLog;
pub use violation::{Anomaly, Extra, Violation};

mod cycles;
mod graph;
mod history;
mod json_lines;
mod lists;
mod observation;
mod registers;
mod snapshots;
mod time;
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
    /// Those that were committed, or of unknown outcome and seen by others.
    pub effective: usize,
    /// Those that were aborted, or of unknown outcome and never seen: only their reads count.
    pub without_effect: usize,
    /// Lists and registers that transactions had found in some state.
    pub reads: usize,
    /// Dependencies among transactions.
    pub dependencies: usize,
    /// Reads compared with the state at a version; a read of a transaction that committed counts
    /// twice, at its snapshot and before its commit. 0: no versions are known.
    pub reads_at_versions: usize,
    /// Registers whose values could not all be ordered: violations there may have been missed.
    pub unordered_registers: Vec<u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} transactions ({} with effect), {} reads, {} dependencies, {} reads at versions",
            self.transactions,
            self.effective,
            self.reads,
            self.dependencies,
            self.reads_at_versions
        )?;
        match self.unordered_registers.len() {
            0 => Ok(()),
            some => write!(f, "; of {some} registers the order is not wholly known"),
        }
    }
}

/// Judges a history.
///
/// Takes time and memory in proportion to the history, but for sorting: 100,000 transactions take
/// seconds. Telling the smallest cycle of a refused history takes some seconds more.
///
/// # Errors
///
/// The first violation found, as small as it can be told.
pub fn check(history: &History, model: Model) -> Result<Report, Violation> {
    let last_look = observation::last_look(history);
    let mut observations = observation::observe(history, last_look.as_ref())?;
    if model == Model::SnapshotRead {
        snapshots::require_versions(&observations)?;
    }
    let lists = lists::infer(&mut observations)?;
    let registers = registers::infer(model, &mut observations)?;
    let lists = lists.complete(&observations)?;
    let mut graph = graph::Graph::new(observations.len());
    lists.add_edges(&observations, &mut graph);
    registers.add_edges(&mut graph);
    time::add_edges(model, &observations, &mut graph);
    cycles::refuse_cycles(&graph, &observations)?;
    let staleness = match model {
        Model::StrictSerializable => 0,
        Model::Serializable | Model::SnapshotRead => u64::MAX,
    };
    versions::check_history(history, staleness)?;
    let reads_at_versions = snapshots::replay(&observations, &lists, &registers)?;
    let effective = observations.iter().filter(|o| o.effective && !o.last_look);
    let effective = effective.count();
    Ok(Report {
        transactions: history.transactions.len(),
        effective,
        without_effect: history.transactions.len() - effective,
        reads: observations.iter().map(Observation::reads).sum(),
        dependencies: graph.edges.edge_count(),
        reads_at_versions,
        unordered_registers: registers.unordered(),
    })
}
