//! The pages that SQLite may have in its cache: what a commit relies on.
//!
//! Behind a lock because another database of the same connection may commit: what was read here
//! belongs to its transaction as well, and has to be checked with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mvsqlite_protocol::{PageIndex, PageRun, PageSet};

/// Most runs of a read set that are sent; servers take twice as many, over all members of a commit.
const MOST_RUNS: usize = 1 << 18;

/// Fewest pages that are added to the runs at once.
const FEWEST_ADDED: usize = 1024;

/// A read set that other databases of the connection can look at. Clones are the same set.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadSet(Arc<Mutex<Pages>>);

/// Pages, most of them as runs. A page in the middle of many runs would move them all, so pages that
/// come in no order wait until there are many.
#[derive(Debug, Default)]
struct Pages {
    runs: PageSet,
    waiting: Vec<PageIndex>,
}

impl Pages {
    fn insert(&mut self, page: PageIndex) {
        if self.waiting.last() == Some(&page) {
            return;
        }
        self.waiting.push(page);
        if self.waiting.len() >= FEWEST_ADDED.max(self.runs.runs().len() / 4) {
            self.settle();
        }
    }

    /// All pages as runs.
    fn settle(&mut self) -> &PageSet {
        if !self.waiting.is_empty() {
            self.runs.extend(&self.waiting.drain(..).collect());
        }
        &self.runs
    }
}

impl ReadSet {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        // A panic under this lock leaves a set that is still a set.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, page: PageIndex) {
        self.pages().insert(page);
    }

    pub(super) fn extend(&self, pages: &PageSet) {
        self.pages().runs.extend(pages);
    }

    pub(super) fn clear(&self) {
        let mut pages = self.pages();
        pages.runs = PageSet::new();
        pages.waiting.clear();
    }

    /// What to send, as one of so many sets in a request.
    pub(super) fn to_send(&self, sets: usize) -> PageSet {
        bounded(self.pages().settle(), MOST_RUNS / sets.max(1))
    }
}

/// A read set of at most this many runs: the smallest gaps are closed until they suffice. A page too
/// many can cost a false conflict, never hide one.
pub(super) fn bounded(read_set: &PageSet, most: usize) -> PageSet {
    let mut runs = read_set.runs().to_vec();
    let mut gap: u64 = 1;
    while runs.len() > most.max(1) {
        let mut wider: Vec<PageRun> = Vec::with_capacity(runs.len());
        for run in runs {
            match wider.last_mut() {
                Some(last) if u64::from(run.first) - last.end() <= gap => {
                    last.count = run.first - last.first + run.count;
                }
                _ => wider.push(run),
            }
        }
        runs = wider;
        gap *= 2;
    }
    // Runs of a set, joined, are valid runs.
    PageSet::try_from(runs).unwrap_or_else(|_| read_set.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pages_read_in_any_order_and_again_are_all_in_it_once() {
        let read_set = ReadSet::default();
        let scattered = |n: u32| n.wrapping_mul(2_654_435_761) % 50_000;
        for n in 0..20_000 {
            read_set.insert(scattered(n));
            read_set.insert(scattered(n / 2));
        }
        read_set.extend(&[60_000, 60_001].into_iter().collect());
        let expected: PageSet = (0..20_000).map(scattered).chain([60_000, 60_001]).collect();
        assert_eq!(read_set.to_send(1), expected);
        assert!(read_set.pages().waiting.capacity() < 20_000);
        read_set.insert(1);
        read_set.clear();
        assert!(read_set.to_send(1).is_empty());
    }

    proptest! {
        #[test]
        fn a_bounded_read_set_holds_every_page_and_no_more_runs_than_allowed(
            pages in prop::collection::vec(0u32..500, 0..100),
            most in 1usize..20,
        ) {
            let read_set: PageSet = pages.iter().copied().collect();
            let bounded = bounded(&read_set, most);
            prop_assert!(bounded.runs().len() <= most);
            prop_assert!(pages.iter().all(|page| bounded.contains(*page)));
            if read_set.runs().len() <= most {
                prop_assert_eq!(bounded, read_set);
            }
        }
    }
}
