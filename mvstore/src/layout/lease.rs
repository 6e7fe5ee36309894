//! The write lease beside the guard: until when it is held, and until when places in the queue for
//! it are kept. Whose the lease is stands in the guard and nowhere else.

use std::time::Duration;

use super::{Fields, Malformed, Nonce};
use crate::kv::EngineTime;
use crate::kv::clock::micros;

/// A moment of the engine's clock ([`EngineTime`]) at which something ends:
///
/// ```text
/// 0   8   the clock's run
/// 8   8   microseconds of that run
/// 16  8   how long it was to last, in microseconds
/// ```
///
/// A deadline of another run is counted anew: it is as long as it was, from where this run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    run: u64,
    at_micros: u64,
    term_micros: u64,
}

impl Deadline {
    /// Bytes of an encoded deadline.
    pub(crate) const LEN: usize = 24;

    /// So long from now.
    pub(crate) fn after(now: EngineTime, term: Duration) -> Self {
        let term_micros = micros(term);
        Self {
            run: now.run,
            at_micros: now.micros.saturating_add(term_micros),
            term_micros,
        }
    }

    /// How long it is until then.
    pub(crate) fn remaining(&self, now: EngineTime) -> Duration {
        let at = match self.run == now.run {
            true => self.at_micros,
            false => self.term_micros,
        };
        let remaining = at.saturating_sub(now.micros);
        // More than there was at first: the clock went back. What ends by it may end early.
        Duration::from_micros(remaining).min(Duration::from_micros(self.term_micros))
    }

    /// Whether that moment is here or past. A clock that went back says nothing, so that counts as
    /// past too, rather than to wait until it has caught up.
    pub(crate) fn has_passed(&self, now: EngineTime) -> bool {
        let ahead = match self.run == now.run {
            true => self.at_micros,
            false => self.term_micros,
        };
        ahead <= now.micros || ahead - now.micros > self.term_micros
    }

    /// Whether more than half of the term is over.
    pub(crate) fn is_half_over(&self, now: EngineTime) -> bool {
        self.has_passed(now) || self.remaining(now) * 2 < Duration::from_micros(self.term_micros)
    }

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.run.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.at_micros.to_be_bytes());
        bytes[16..].copy_from_slice(&self.term_micros.to_be_bytes());
        bytes
    }

    /// Decodes the deadline of a place in the queue.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new("a place in the queue for a lease", bytes);
        let deadline = Self::take(&mut fields)?;
        fields.end()?;
        Ok(deadline)
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            run: fields.u64()?,
            at_micros: fields.u64()?,
            term_micros: fields.u64()?,
        })
    }
}

/// Until when a write lease is held:
///
/// ```text
/// 0  16   its nonce: tells it from a term that an earlier lease left behind
/// 16 24   the deadline
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseTerm {
    /// Whose term it is.
    pub nonce: Nonce,
    /// When it ends.
    pub ends: Deadline,
}

impl LeaseTerm {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.nonce.as_slice(), &self.ends.encode()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new("a lease's term", bytes);
        let nonce = fields.take()?;
        let ends = Deadline::take(&mut fields)?;
        fields.end()?;
        Ok(Self { nonce, ends })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_micros(500);

    fn at(run: u64, micros: u64) -> EngineTime {
        EngineTime { run, micros }
    }

    #[test]
    fn a_leases_term_is_40_bytes_as_documented() {
        let term = LeaseTerm {
            nonce: [0xaa; 16],
            ends: Deadline::after(at(0x0102, 0x0304), Duration::from_micros(0x0100)),
        };
        let mut golden = vec![0xaa; 16];
        golden.extend([0, 0, 0, 0, 0, 0, 1, 2]);
        golden.extend([0, 0, 0, 0, 0, 0, 4, 4]);
        golden.extend([0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(term.encode(), golden);
        assert_eq!(LeaseTerm::decode(&golden), Ok(term));
        assert_eq!(Deadline::decode(&golden[16..]), Ok(term.ends));
        LeaseTerm::decode(&golden[..39]).expect_err("cut short");
        Deadline::decode(&golden).expect_err("too long");
    }

    #[test]
    fn a_deadline_passes_at_its_moment() {
        let deadline = Deadline::after(at(1, 1000), TERM);
        assert!(!deadline.has_passed(at(1, 1499)));
        assert!(deadline.has_passed(at(1, 1500)));
        assert_eq!(deadline.remaining(at(1, 1499)), Duration::from_micros(1));
        assert!(!deadline.is_half_over(at(1, 1250)));
        assert!(deadline.is_half_over(at(1, 1251)));
    }

    #[test]
    fn another_run_of_the_clock_counts_the_whole_term_again() {
        let deadline = Deadline::after(at(1, 1_000_000), TERM);
        assert!(!deadline.has_passed(at(2, 0)));
        assert_eq!(deadline.remaining(at(2, 100)), Duration::from_micros(400));
        assert!(deadline.has_passed(at(2, 500)));
    }

    #[test]
    fn a_clock_that_went_back_keeps_nobody_waiting() {
        let deadline = Deadline::after(at(0, 1_000_000), TERM);
        assert!(deadline.has_passed(at(0, 1000)));
    }
}
