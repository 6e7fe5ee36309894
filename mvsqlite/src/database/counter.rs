//! The change counter that SQLite is served, by which it decides whether its cache is still good.
//!
//! Invariants: the counter served at a SHARED differs from any that SQLite may remember for other
//! content; it stays the same as long as SQLite's cache is good, so that `PRAGMA data_version`
//! stands still for readers and stepwise backups end; within a transaction it is constant.

use mvsqlite_planted::{Bug, active};

/// The change counter of one handle.
#[derive(Debug)]
pub(super) struct ChangeCounter {
    /// The largest value that SQLite was served or wrote.
    largest: u32,
    /// What SQLite holds now: the last served, or the last written by a successful COMMIT since.
    held: u32,
    /// SQLite's cache must go at the next SHARED.
    stale: bool,
    /// A new value was put up for SQLite that it has not read yet.
    unseen: bool,
}

impl ChangeCounter {
    pub(super) fn new() -> Self {
        Self {
            largest: 0,
            held: 0,
            stale: true,
            unseen: true,
        }
    }

    /// What to serve in page 1.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// SQLite's cache must go at the next SHARED: after a failure, after a rollback, and after
    /// this handle wrote (commits by others may lie below its own).
    pub(super) fn spoil(&mut self) {
        self.stale = true;
    }

    /// A snapshot was taken; `other_version` if it is another one than the last.
    pub(super) fn begin(&mut self, empty: bool, other_version: bool) {
        if self.stale || other_version {
            self.largest = self.largest.wrapping_add(1);
            self.stale = false;
            self.unseen = true;
        }
        // Of an empty database SQLite reads no counter: it takes it for zero.
        self.held = if empty { 0 } else { self.largest };
    }

    /// SQLite read the counter. True the first time after it changed: from here on nothing that
    /// SQLite read before is in its cache.
    pub(super) fn seen(&mut self) -> bool {
        std::mem::take(&mut self.unseen)
    }

    /// SQLite wrote this counter into page 1, whatever becomes of it.
    pub(super) fn written(&mut self, counter: u32) {
        self.largest = self.largest.max(counter);
    }

    /// A COMMIT that wrote this counter succeeded.
    pub(super) fn committed(&mut self, counter: u32) {
        self.held = counter;
        // Others may have committed just before, what SQLite has in its cache.
        self.stale = !active(Bug::CounterKept);
        // What SQLite wrote it need not read: reading it again drops nothing from its cache.
        self.unseen = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_stands_still_for_a_connection_that_only_reads() {
        let mut counter = ChangeCounter::new();
        counter.begin(false, true);
        let first = counter.held();
        assert!(counter.seen());
        counter.begin(false, false);
        assert_eq!(counter.held(), first);
        assert!(!counter.seen());
        counter.begin(false, true);
        assert!(counter.held() > first);
        assert!(counter.seen());
    }

    #[test]
    fn after_a_failure_no_value_comes_back_that_sqlite_wrote() {
        let mut counter = ChangeCounter::new();
        counter.begin(false, true);
        let written = counter.held() + 1;
        counter.written(written);
        counter.spoil();
        counter.begin(false, false);
        assert!(counter.held() > written);
    }

    #[test]
    fn after_an_own_commit_what_was_written_is_held_and_then_replaced() {
        let mut counter = ChangeCounter::new();
        counter.begin(false, true);
        let written = counter.held() + 1;
        counter.written(written);
        counter.committed(written);
        assert_eq!(counter.held(), written);
        counter.begin(false, false);
        assert!(counter.held() > written);
    }

    /// The first commit of an empty database left a value that SQLite was to read, though SQLite
    /// held what it had written: reading page 1 again in the same transaction emptied the read set.
    #[test]
    fn what_sqlite_wrote_itself_is_no_change_that_it_has_yet_to_see() {
        let mut counter = ChangeCounter::new();
        counter.begin(true, true);
        counter.written(1);
        counter.committed(1);
        assert!(!counter.seen());
    }

    #[test]
    fn an_empty_database_has_the_counter_zero() {
        let mut counter = ChangeCounter::new();
        counter.begin(true, true);
        assert_eq!(counter.held(), 0);
        counter.begin(false, true);
        assert!(counter.held() > 0);
    }
}
