//! What the operating system tells us: time, randomness, which process this is.
//!
//! A seam, so that a simulation can drive the real logic with its own clock and seed.

use std::time::{Duration, Instant};

/// Clock, randomness and process id.
pub trait System: Send + Sync {
    /// Monotonic time since some fixed moment.
    fn now(&self) -> Duration;

    /// Waits.
    fn sleep(&self, duration: Duration);

    /// Fills the buffer with unpredictable bytes, different ones in a forked child too.
    ///
    /// # Errors
    /// If the system has no randomness to give.
    fn fill_random(&self, buffer: &mut [u8]) -> Result<(), RandomError>;

    /// The id of the calling process: another one after `fork`.
    fn process_id(&self) -> u32;
}

/// The system has no randomness to give.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no random bytes from the operating system: {0}")]
pub struct RandomError(pub String);

/// The real thing.
#[derive(Debug)]
pub struct Os {
    start: Instant,
}

impl Os {
    /// Starts the clock.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for Os {
    fn default() -> Self {
        Self::new()
    }
}

impl System for Os {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        // The system call itself, without a generator in this process: a forked child cannot draw
        // the same idempotency key as its parent.
        getrandom::fill(buffer).map_err(|error| RandomError(error.to_string()))
    }

    fn process_id(&self) -> u32 {
        std::process::id()
    }
}
