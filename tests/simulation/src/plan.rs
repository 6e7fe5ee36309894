//! What a run is made of: how many stores, how slow everything is, and what goes wrong how often.

use std::ops::Range;
use std::time::Duration;

use mvstore::kv::Limits;

use crate::engine::EngineOptions;

/// How a world is made. The same seed and plan give the same run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many stores serve one engine.
    pub stores: u32,
    /// The engine.
    pub engine: EngineOptions,
    /// How long a message is on its way.
    pub latency: Range<Duration>,
    /// The longest that a run may take, in simulated time.
    pub most_time: Duration,
    /// The most that may happen in it.
    pub most_steps: u64,
    /// Whether each step is printed.
    pub prints: bool,
}

const fn micros(range: Range<u64>) -> Range<Duration> {
    Duration::from_micros(range.start)..Duration::from_micros(range.end)
}

impl Plan {
    /// Nothing goes wrong.
    pub fn calm() -> Self {
        Self {
            stores: 2,
            engine: EngineOptions {
                limits: Limits::FOUNDATIONDB,
                read: micros(20..300),
                fsync: micros(200..3_000),
            },
            latency: micros(50..1_500),
            most_time: Duration::from_secs(3600),
            most_steps: 2_000_000,
            prints: false,
        }
    }
}
