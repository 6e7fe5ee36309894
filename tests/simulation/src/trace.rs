//! What happened in a run, step by step: always as a hash, and as text for whoever wants to read it.

use std::fmt;
use std::time::Duration;

/// The record of a run.
///
/// Two runs of one seed have the same hash, or something outside the seed has decided something.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: Hash,
    prints: bool,
}

/// FNV-1a over 64 bits: enough to tell runs apart, and the same everywhere.
#[derive(Debug)]
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}

impl Trace {
    pub(crate) fn new(prints: bool) -> Self {
        Self {
            hash: Hash::default(),
            prints,
        }
    }

    /// Something ran.
    pub(crate) fn step(&mut self, now: Duration, number: u64, what: &impl fmt::Display) {
        self.hash.add(&now.as_nanos().to_le_bytes());
        self.line(now, number, what);
    }

    /// Something worth knowing happened within a step.
    pub(crate) fn line(&mut self, now: Duration, number: u64, what: &impl fmt::Display) {
        // A hash takes whatever is written.
        let _ = fmt::Write::write_fmt(&mut self.hash, format_args!("{what}"));
        if self.prints {
            println!("{number:>8} {:>12.6} {what}", now.as_secs_f64());
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.0
    }
}
