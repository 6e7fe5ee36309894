//! The pages that SQLite may have in its cache: what a commit relies on.
//!
//! Behind a lock because another database of the same connection may commit: what was read here
//! belongs to its transaction as well, and has to be checked with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mvsqlite_protocol::{PageIndex, PageRun, PageSet};

/// Most runs of a read set that are sent; servers take twice as many, over all members of a commit.
const MOST_RUNS: usize = 1 << 18;

/// A read set that other databases of the connection can look at. Clones are the same set.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadSet(Arc<Mutex<PageSet>>);

impl ReadSet {
    fn pages(&self) -> MutexGuard<'_, PageSet> {
        // A panic under this lock leaves a set that is still a set.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, page: PageIndex) {
        self.pages().insert(page);
    }

    pub(super) fn extend(&self, pages: &PageSet) {
        self.pages().extend(pages);
    }

    pub(super) fn clear(&self) {
        *self.pages() = PageSet::new();
    }

    /// What to send, as one of so many sets in a request.
    pub(super) fn to_send(&self, sets: usize) -> PageSet {
        bounded(&self.pages(), MOST_RUNS / sets.max(1))
    }
}

/// A read set of at most this many runs: the smallest gaps are closed until they suffice. A page too
/// many can cost a false conflict, never hide one.
fn bounded(read_set: &PageSet, most: usize) -> PageSet {
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
