//! What was observed: transactions, their operations, when, and at which versions.
//!
//! A history says only what its recorder really saw. Of a transaction that failed in the middle it
//! holds the operations up to there; of writes that a savepoint undid it holds nothing, nor any read
//! made of them before they were undone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a transaction ended, as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// COMMIT was acknowledged.
    Committed,
    /// It was rolled back or refused: nothing of it may ever be seen.
    Aborted,
    /// No answer, or one that says that nobody knows: it may have been committed, or may be yet.
    Unknown,
}

/// One step of a transaction.
///
/// Elements of one list, and values of one register, are unique over the whole history: a read must
/// tell which write it saw. Lists and registers are two spaces of keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `element` was added at the end of list `key`.
    Append {
        /// The list.
        key: u64,
        /// Never appended to this list by anybody else.
        element: u64,
    },
    /// The whole of list `key`, first element first. Lists begin empty.
    ReadList {
        /// The list.
        key: u64,
        /// What it held, with what this transaction itself appended before.
        elements: Vec<u64>,
    },
    /// Register `key` was set to `value`.
    Write {
        /// The register.
        key: u64,
        /// Never written to this register by anybody else.
        value: u64,
    },
    /// What register `key` held; `None`: what it began with.
    Read {
        /// The register.
        key: u64,
        /// What it held, be it written by this transaction itself.
        value: Option<u64>,
    },
}

/// One attempt at one transaction. Who tries again records another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionRecord {
    /// Who ran it. A process runs one transaction after another; what is concurrent, such as two
    /// connections of one program, counts as two processes.
    pub process: u32,
    /// Its place among the transactions of its process: unique there, increasing, gaps allowed.
    pub index: u64,
    /// Taken before its first step, by a clock common to all processes that never goes back. Any
    /// unit. Times that are equal say nothing about what came first.
    pub begun: u64,
    /// Taken after it was answered; `None`: it never was.
    pub ended: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// Its steps, in program order.
    pub operations: Vec<Operation>,
    /// The version of its snapshot, in text that sorts as versions do and is of one length; `None`:
    /// not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<String>,
    /// The version its commit made, likewise; `None`: it made none, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<String>,
}

impl TransactionRecord {
    /// Whether it appended or wrote anything.
    pub fn writes(&self) -> bool {
        self.operations.iter().any(|operation| {
            matches!(
                operation,
                Operation::Append { .. } | Operation::Write { .. }
            )
        })
    }
}

/// Everything that was observed in one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In any order.
    pub transactions: Vec<TransactionRecord>,
    /// The lists as they were read after every transaction had ended, those with outcome
    /// [`Outcome::Unknown`] included; empty: nobody looked. If any list is there, one that is not
    /// was found empty.
    pub final_lists: BTreeMap<u64, Vec<u64>>,
}
