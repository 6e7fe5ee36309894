//! Clocks: that of an engine's process, a seam, so that tests and simulation make transactions too
//! old at will; and that of an engine's content, by which leases end.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A time of the clock that belongs to an engine's content: the same one for all processes that share
/// it. It measures how long ago something was and says nothing about the time of day.
///
/// It may stand still while nobody looks, and it may jump forward when a cluster recovers. Whatever
/// ends by it must be safe to end too early, or too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineTime {
    /// Which run of the clock this is. Times of different runs cannot be compared.
    pub run: u64,
    /// Microseconds since the run began.
    pub micros: u64,
}

/// A duration as an engine's clock counts it; in 584,000 years it stands still.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A monotonic clock. It measures ages within one process and says nothing about the time of day.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time since an origin of the clock's own choice; never less than it was before.
    fn now(&self) -> Duration;
}

/// The operating system's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    origin: Instant,
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that stands still until it is told to advance.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanoseconds: AtomicU64,
}

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::SeqCst))
    }
}
