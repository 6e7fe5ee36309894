//! What the store takes from its surroundings besides the engine: the time and random bytes.
//! Behind small traits, so that a seeded run replays.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall-clock time. The store uses it for labels and expiry only, never to order commits.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May step in either direction.
    fn unix_millis(&self) -> u64;
}

/// Random bytes nobody can guess.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the buffer.
    ///
    /// # Errors
    /// If the system has no randomness to give.
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_millis(&self) -> u64 {
        // A clock set before 1970 reads as 1970; in 584 million years it stands still.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        getrandom::fill(buffer).map_err(io::Error::other)
    }
}
