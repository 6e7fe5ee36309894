//! A lock that belongs to a process: a child that is forked while a thread of its parent holds it
//! takes it over, where an ordinary one would be held for ever by a thread that the child does not
//! have.
//!
//! For what is done once and takes moments: waiting is sleeping.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The process whose thread holds the lock; 0 for none.
pub(crate) struct ProcessLock(AtomicU32);

/// The lock, held until this is dropped.
pub(crate) struct Held<'a> {
    lock: &'a ProcessLock,
    process: u32,
}

/// Between two looks at a lock that is held.
const PAUSE: Duration = Duration::from_millis(1);

impl ProcessLock {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub(crate) fn lock(&self) -> Held<'_> {
        self.lock_for(std::process::id())
    }

    fn lock_for(&self, process: u32) -> Held<'_> {
        loop {
            let holder = self.0.load(Ordering::Relaxed);
            // Another process's memory is never ours but by a fork: its thread did not come along.
            let free = holder != process;
            if free
                && self
                    .0
                    .compare_exchange(holder, process, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return Held {
                    lock: self,
                    process,
                };
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A thread that forks under the lock gives it back in both processes, each its own.
        let _ = self
            .lock
            .0
            .compare_exchange(self.process, 0, Ordering::Release, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn one_thread_of_a_process_holds_it_at_a_time() {
        let lock = ProcessLock::new();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let _held = lock.lock();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    /// A child forked during the very first open hung for ever.
    #[test]
    fn a_forked_child_takes_over_what_its_parent_held() {
        let lock = ProcessLock::new();
        let _parents = lock.lock_for(1);
        let childs = lock.lock_for(2);
        drop(childs);
        drop(lock.lock_for(2));
    }
}
