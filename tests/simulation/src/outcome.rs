//! What a run came to.

use std::fmt;

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Two runs of one seed have the same.
    pub trace_hash: u64,
    /// How many times something ran.
    pub steps: u64,
    /// What was wrong, if anything.
    pub failure: Option<Failure>,
    /// What happened how often.
    pub statistics: Statistics,
}

/// What was wrong with a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Nobody could go on.
    #[error("deadlock while {0}")]
    Deadlock(&'static str),
    /// It did not come to its end within its limits of steps or simulated time.
    #[error("too many {1} while {0}")]
    TooLong(&'static str, &'static str),
    /// Code of a client or a store panicked.
    #[error("{0}")]
    Panicked(String),
    /// A check after the run failed.
    #[error("{0}")]
    Check(String),
}

/// What happened how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Transactions that committed.
    pub committed: u64,
    /// Transactions that did not.
    pub aborted: u64,
    /// Transactions of which their process does not know.
    pub unknown: u64,
    /// Requests that clients sent.
    pub requests: u64,
}

impl Statistics {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.unknown += other.unknown;
        self.requests += other.requests;
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} committed, {} aborted, {} unknown, {} requests",
            self.committed, self.aborted, self.unknown, self.requests
        )
    }
}
