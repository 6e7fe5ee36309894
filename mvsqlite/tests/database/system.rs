//! A clock that moves when somebody sleeps, seeded randomness, and a process that can fork.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mvsqlite::system::{RandomError, System};

pub(crate) struct SimSystem {
    nanos: AtomicU64,
    random: AtomicU64,
    process: AtomicU32,
}

impl SimSystem {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            nanos: AtomicU64::new(0),
            random: AtomicU64::new(seed.wrapping_mul(2) | 1),
            process: AtomicU32::new(1),
        }
    }

    /// From here on everything happens in a child.
    pub(crate) fn fork(&self) {
        self.process.fetch_add(1, Ordering::Relaxed);
    }
}

impl System for SimSystem {
    fn now(&self) -> Duration {
        // Each look takes a microsecond: loops that wait for a time end.
        Duration::from_nanos(self.nanos.fetch_add(1000, Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap();
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        for byte in buffer {
            // A linear congruential generator with Knuth's constants.
            let step = |n: u64| {
                n.wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407)
            };
            let old = self
                .random
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(step(n)))
                .unwrap();
            *byte = (old >> 56) as u8;
        }
        Ok(())
    }

    fn process_id(&self) -> u32 {
        self.process.load(Ordering::Relaxed)
    }
}
