//! How often and for how long a call is tried.
//!
//! Each attempt lasts at most the timeout. There is always a second attempt, on another server if
//! there is one, since the first may have met a dead connection or a server that hangs; further
//! ones begin only within the timeout. So whatever happens an operation is over after twice the
//! timeout, and a commit after four times: committing, then settling what became of it.

use std::time::Duration;

use super::DataPlane;
use super::error::CallError;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The attempts of one operation.
pub(super) struct Attempts<'a> {
    plane: &'a DataPlane,
    started: Duration,
    count: u32,
    server: usize,
}

impl<'a> Attempts<'a> {
    pub(super) fn start(plane: &'a DataPlane) -> Self {
        Self {
            plane,
            started: plane.system.now(),
            count: 1,
            server: plane.preferred(),
        }
    }

    /// The server to try now.
    pub(super) fn server(&self) -> usize {
        self.server
    }

    /// Remembers that this server answered: the next operation begins with it.
    pub(super) fn answered(&self) {
        self.plane.prefer(self.server);
    }

    /// Waits and moves on to the next server. False: the time is up.
    pub(super) fn again(&mut self) -> bool {
        let servers = self.plane.transport.servers().len();
        // Each server gets its first try without waiting.
        let round = (self.count as usize) / servers.max(1);
        let pause = match round {
            0 => Duration::ZERO,
            round => self.jittered(round),
        };
        if self.count > 1 && self.elapsed() + pause >= self.plane.timeout {
            return false;
        }
        if !pause.is_zero() {
            self.plane.system.sleep(pause);
        }
        self.count += 1;
        self.server = (self.server + 1) % servers.max(1);
        true
    }

    /// What to report when the time is up.
    pub(super) fn unreachable(&self, reason: String) -> CallError {
        let server = self.plane.transport.servers().get(self.server);
        CallError::Unreachable {
            server: server.cloned().unwrap_or_default(),
            attempts: self.count,
            seconds: self.elapsed().as_secs(),
            reason,
        }
    }

    fn elapsed(&self) -> Duration {
        self.plane.system.now().saturating_sub(self.started)
    }

    /// Between half and all of a pause that doubles with each round, so that clients that failed
    /// together do not come back together.
    fn jittered(&self, round: usize) -> Duration {
        let doublings = u32::try_from(round - 1).unwrap_or(u32::MAX).min(6);
        let full = (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE);
        let mut random = [0; 2];
        // Without randomness the pause is the full one.
        let part = match self.plane.system.fill_random(&mut random) {
            Ok(()) => f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX),
            Err(_) => 1.0,
        };
        full.mul_f64(0.5 + part / 2.0)
    }
}
