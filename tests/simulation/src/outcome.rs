//! What a run came to.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Transactions that committed.
    pub committed: u64,
    /// Transactions that did not.
    pub aborted: u64,
    /// Transactions of which their process does not know.
    pub unknown: u64,
    /// Requests that clients sent.
    pub requests: u64,
    /// Requests and replies that got lost.
    pub lost: u64,
    /// Requests that arrived twice.
    pub duplicated: u64,
    /// Clients and stores that were cut off from each other.
    pub partitions: u64,
    /// Stores that were killed or ended by themselves.
    pub kills: u64,
    /// Those of them that ended at a named point.
    pub points: BTreeMap<String, u64>,
    /// Crashes of an embedded engine.
    pub crashes: u64,
    /// Commits on their way that such crashes have taken.
    pub commits_lost_unsynced: u64,
    /// Steps of a store's clock.
    pub clock_steps: u64,
    /// Times of a full disk.
    pub disk_full: u64,
    /// Client processes that were killed.
    pub clients_killed: u64,
    /// Client processes that stood still for a while.
    pub clients_paused: u64,
}

impl Statistics {
    /// Its counters by their names.
    fn counters(&mut self) -> [(&'static str, &mut u64); 14] {
        [
            ("committed", &mut self.committed),
            ("aborted", &mut self.aborted),
            ("unknown", &mut self.unknown),
            ("requests", &mut self.requests),
            ("messages lost", &mut self.lost),
            ("requests duplicated", &mut self.duplicated),
            ("partitions", &mut self.partitions),
            ("stores killed", &mut self.kills),
            ("engine crashes", &mut self.crashes),
            ("unsynced commits lost", &mut self.commits_lost_unsynced),
            ("clock steps", &mut self.clock_steps),
            ("full disks", &mut self.disk_full),
            ("clients killed", &mut self.clients_killed),
            ("clients paused", &mut self.clients_paused),
        ]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        for ((_, sum), (_, more)) in self.counters().into_iter().zip(other.counters()) {
            *sum += *more;
        }
        for (point, times) in other.points {
            *self.points.entry(point).or_default() += times;
        }
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counted = self.clone();
        let counters = counted
            .counters()
            .map(|(name, count)| format!("{count} {name}"));
        f.write_str(&counters.join(", "))?;
        if !self.points.is_empty() {
            let points = self
                .points
                .iter()
                .map(|(point, times)| format!("{point} {times}"));
            write!(f, "; at points: {}", points.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}
