//! Waiting for a change that another thread makes.
//!
//! An event count (D. Reed, R. Kanodia: Synchronization with eventcounts and sequencers, 1979): what
//! changes lies behind a lock of its owner. Who waits for it looks at the epoch while holding that
//! lock, gives the lock up and waits for another epoch; who changes something advances the epoch
//! afterwards. So no change goes unnoticed, and nobody waits while holding a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often an event has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(pub u64);

/// Something that happens, again and again, and that threads wait for.
pub trait Event: Send + Sync {
    /// How often it has happened.
    fn epoch(&self) -> Epoch;

    /// Waits until it has happened again since `epoch`, for this long at most. False: it has not. May
    /// return true early.
    fn wait(&self, epoch: Epoch, timeout: Duration) -> bool;

    /// It happens; one of those that wait wakes up, at least.
    fn happen_for_one(&self);

    /// It happens; all that wait wake up.
    fn happen(&self);
}

/// An event of the process.
#[derive(Debug, Default)]
pub struct OsEvent {
    count: AtomicU64,
    /// Between a look at the count and the wait for its change.
    gate: Mutex<()>,
    changed: Condvar,
}

impl OsEvent {
    fn advance(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        // Whoever has seen the old count waits by now, or has not taken the gate yet.
        drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Event for OsEvent {
    fn epoch(&self) -> Epoch {
        Epoch(self.count.load(Ordering::Acquire))
    }

    fn wait(&self, epoch: Epoch, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        while self.epoch() == epoch {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => timeout,
            };
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(gate, left);
            gate = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn happen_for_one(&self) {
        self.advance();
        self.changed.notify_one();
    }

    fn happen(&self) {
        self.advance();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_has_looked_before_it_happened_does_not_wait_for_the_next_time() {
        let event = OsEvent::default();
        let before = event.epoch();
        assert!(!event.wait(before, Duration::ZERO));
        event.happen();
        assert!(event.wait(before, LONG));
        assert!(!event.wait(event.epoch(), Duration::ZERO));
    }

    #[test]
    fn no_change_behind_a_lock_goes_unnoticed() {
        let (event, left) = (Arc::new(OsEvent::default()), Arc::new(Mutex::new(1000)));
        let takers = (0..4).map(|_| {
            let (event, left) = (Arc::clone(&event), Arc::clone(&left));
            std::thread::spawn(move || {
                loop {
                    let epoch = {
                        let mut left = left.lock().unwrap();
                        match *left {
                            0 => return,
                            _ => *left -= 1,
                        }
                        event.happen();
                        event.epoch()
                    };
                    // Somebody else takes the next one, or nothing is left.
                    event.wait(epoch, Duration::from_millis(1));
                }
            })
        });
        let takers: Vec<_> = takers.collect();
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        assert_eq!(*left.lock().unwrap(), 0);
    }

    #[test]
    fn one_that_waits_is_woken() {
        let event = Arc::new(OsEvent::default());
        let epoch = event.epoch();
        let waits = Arc::clone(&event);
        let waiter = std::thread::spawn(move || waits.wait(epoch, LONG));
        event.happen_for_one();
        assert!(waiter.join().unwrap());
    }
}
