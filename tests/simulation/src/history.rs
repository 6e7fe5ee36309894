//! What the processes of a run did and saw.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use mvsqlite_checker::{History, Operation, Outcome, TransactionRecord};

use crate::process::Process;

/// Notes the transactions of one process.
///
/// What a process observes after it was killed counts no more: the end of its transaction is not noted.
pub struct Recorder {
    process: Process,
    log: Arc<Log>,
}

/// The transactions of all processes.
#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<TransactionRecord>>);

/// A transaction under way. Dropped without [`Recording::end`], it was never answered.
pub struct Recording<'a> {
    recorder: &'a Recorder,
    record: TransactionRecord,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<TransactionRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn history(&self) -> History {
        let mut transactions = self.lock().clone();
        transactions.sort_by_key(|record| record.begun);
        History {
            transactions,
            ..History::default()
        }
    }
}

impl Recorder {
    pub(crate) fn new(process: &Process, log: &Arc<Log>) -> Self {
        Self {
            process: process.clone(),
            log: Arc::clone(log),
        }
    }

    /// A transaction begins.
    pub fn begin(&self) -> Recording<'_> {
        let begun = self.process.world().scheduler.tick();
        Recording {
            recorder: self,
            record: TransactionRecord {
                process: self.process.id(),
                index: begun,
                begun,
                ended: None,
                outcome: Outcome::Unknown,
                operations: Vec::new(),
                read_at: None,
                committed_at: None,
            },
        }
    }
}

impl Recording<'_> {
    /// It did or saw this. What it wrote counts even if it was killed meanwhile: its commit may have
    /// been on its way.
    pub fn observe(&mut self, operation: Operation) {
        let writes = matches!(
            operation,
            Operation::Append { .. } | Operation::Write { .. }
        );
        if writes || self.recorder.process.alive() {
            self.record.operations.push(operation);
        }
    }

    /// Puts a line about it into the trace.
    pub fn note(&self, text: impl Display) {
        let index = self.record.index;
        let process = &self.recorder.process;
        process.note(format_args!("transaction #{index}: {text}"));
    }

    /// The version that it reads, as sortable text.
    pub fn read_at(&mut self, version: impl ToString) {
        self.record.read_at = Some(version.to_string());
    }

    /// It has ended. `committed_at`: the version it made, as sortable text.
    pub fn end(mut self, outcome: Outcome, committed_at: Option<String>) {
        if self.recorder.process.alive() {
            self.record.ended = Some(self.recorder.process.world().scheduler.tick());
            self.record.outcome = outcome;
            self.record.committed_at = committed_at;
        }
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        let (index, outcome) = (self.record.index, &self.record.outcome);
        self.recorder
            .process
            .note(format_args!("transaction #{index}: {outcome:?}"));
        let world = self.recorder.process.world();
        let mut statistics = world.statistics();
        match (self.record.ended, &self.record.outcome) {
            (Some(_), Outcome::Committed) => statistics.committed += 1,
            (Some(_), Outcome::Aborted) => statistics.aborted += 1,
            _ => statistics.unknown += 1,
        }
        self.recorder.log.lock().push(self.record.clone());
    }
}
