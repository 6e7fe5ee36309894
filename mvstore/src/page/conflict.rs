//! When a commit conflicts with another: the rules, without a store.

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::{PageIndex, PageRun, PageSet, v2::PAGE_1};

use crate::layout::{ChangeEntry, PageOneClass, Pages};

/// Most ranges of pages that a commit asks the engine to watch.
pub(crate) const MAX_RANGES: usize = 2000;

/// What a commit relies on in a namespace: it must not go through if another one changed it since
/// the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Footprint {
    /// Everything: no other commit may have happened at all.
    Whole,
    /// Some pages.
    Pages {
        /// Which, page 1 left out.
        pages: PageSet,
        /// What the commit does to page 1; `None` if it does not rely on page 1.
        page_one: Option<PageOneClass>,
    },
}

/// What two commits collide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collision {
    /// This page.
    Page(PageIndex),
    /// Some page: the other commit changed too many to list them.
    Unknown,
}

impl Footprint {
    /// Whether a commit above the base changed what this one relies on.
    ///
    /// Page 1 by its class: a schema change collides with everybody behind it, two allocations with
    /// each other, an update in place with neither.
    pub(crate) fn collides_with(&self, other: &ChangeEntry) -> Option<Collision> {
        let Self::Pages { pages, page_one } = self else {
            return Some(Collision::Unknown);
        };
        if pages.runs().is_empty() && page_one.is_none() {
            // Blind writes win, but not over a restore: what they were based on is undone. A large
            // commit that changed the schema looks the same, and then the conflict is a false one.
            let may_be_restore =
                other.pages == Pages::Everything && other.page_one == PageOneClass::Schema;
            return may_be_restore.then_some(Collision::Unknown);
        }
        let others = match &other.pages {
            Pages::Everything => return Some(Collision::Unknown),
            Pages::Listed(pages) => pages,
        };
        let collides = page_one.is_some_and(|mine| match other.page_one {
            PageOneClass::Untouched => false,
            PageOneClass::Schema => true,
            // Two that allocate would take the same page.
            PageOneClass::Allocation if active(Bug::AllocationUnchecked) => false,
            PageOneClass::Allocation => mine != PageOneClass::Untouched,
        });
        if collides {
            return Some(Collision::Page(PAGE_1));
        }
        first_common(pages, others).map(Collision::Page)
    }
}

/// The lowest page in both, in time that grows with the smaller set only by the logarithm of the
/// larger one. A read set of hundreds of thousands of pages meets thousands of small commits here.
fn first_common(a: &PageSet, b: &PageSet) -> Option<PageIndex> {
    let (small, large) = if a.runs().len() <= b.runs().len() {
        (a.runs(), b.runs())
    } else {
        (b.runs(), a.runs())
    };
    small.iter().find_map(|run| {
        let at = large.partition_point(|other| other.end() <= u64::from(run.first));
        let other = large.get(at)?;
        (u64::from(other.first) < run.end()).then(|| other.first.max(run.first))
    })
}

/// Joins neighbouring runs, closing the smallest gaps first, until at most `limit` (or one) are left. The
/// result covers every page of the set; the pages in between that it covers too may cost a second
/// look, never a miss.
pub(crate) fn merge_to(pages: &PageSet, limit: usize) -> Vec<PageRun> {
    let runs = pages.runs();
    let limit = limit.max(1);
    if runs.len() <= limit {
        return runs.to_vec();
    }
    let gap = |at: &usize| u64::from(runs[at + 1].first) - runs[*at].end();
    let mut gaps: Vec<usize> = (0..runs.len() - 1).collect();
    let to_close = runs.len() - limit;
    // Among equal gaps the lower ones are closed, so that the outcome is the same each time.
    gaps.select_nth_unstable_by_key(to_close - 1, |at| (gap(at), *at));
    let mut closed = vec![false; runs.len()];
    gaps[..to_close].iter().for_each(|at| closed[at + 1] = true);

    let mut merged: Vec<PageRun> = Vec::with_capacity(limit);
    for (run, closed) in runs.iter().zip(closed) {
        match merged.last_mut().filter(|_| closed) {
            // A page set ends below 2^32, so the length of any stretch of it fits.
            Some(last) => last.count = (run.first - last.first) + run.count,
            None => merged.push(*run),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(pages: &[u32], page_one: PageOneClass) -> ChangeEntry {
        ChangeEntry {
            pages: Pages::Listed(pages.iter().copied().collect()),
            page_one,
            millis: 0,
            sum: None,
        }
    }

    #[test]
    fn page_1_collides_by_its_class() {
        use PageOneClass::{Allocation, Schema, Untouched};
        let table = [
            (Untouched, Untouched, false),
            (Untouched, Allocation, false),
            (Untouched, Schema, true),
            (Allocation, Untouched, false),
            (Allocation, Allocation, true),
            (Allocation, Schema, true),
            (Schema, Untouched, false),
            (Schema, Allocation, true),
            (Schema, Schema, true),
        ];
        for (mine, other, collides) in table {
            let footprint = Footprint::Pages {
                pages: [3].into_iter().collect(),
                page_one: Some(mine),
            };
            let found = footprint.collides_with(&entry(&[0, 5], other));
            assert_eq!(found.is_some(), collides, "{mine:?} after {other:?}");
        }
    }

    #[test]
    fn a_commit_that_changed_everything_collides_with_everything() {
        let footprint = |page_one| Footprint::Pages {
            pages: PageSet::new(),
            page_one,
        };
        let reader = footprint(Some(PageOneClass::Untouched));
        let mut other = entry(&[], PageOneClass::Untouched);
        assert_eq!(reader.collides_with(&other), None);
        other.pages = Pages::Everything;
        assert_eq!(reader.collides_with(&other), Some(Collision::Unknown));
        let blind = footprint(None);
        assert_eq!(blind.collides_with(&other), None, "it relies on nothing");
    }

    #[test]
    fn who_does_not_rely_on_page_1_does_not_collide_there() {
        let footprint = Footprint::Pages {
            pages: [3].into_iter().collect(),
            page_one: None,
        };
        assert_eq!(
            footprint.collides_with(&entry(&[0, 5], PageOneClass::Schema)),
            None
        );
        assert_eq!(
            footprint.collides_with(&entry(&[0, 3], PageOneClass::Schema)),
            Some(Collision::Page(3))
        );
    }

    #[test]
    fn who_relies_on_the_whole_namespace_collides_with_every_commit() {
        let empty = entry(&[], PageOneClass::Untouched);
        assert_eq!(
            Footprint::Whole.collides_with(&empty),
            Some(Collision::Unknown)
        );
    }

    proptest! {
        #[test]
        fn a_collision_is_found_exactly_where_sets_meet(
            mine in prop::collection::btree_set(1u32..300, 0..60),
            other in prop::collection::btree_set(1u32..300, 0..60),
        ) {
            let footprint = Footprint::Pages {
                pages: mine.iter().copied().collect(),
                page_one: Some(PageOneClass::Untouched),
            };
            let other_pages: Vec<u32> = other.iter().copied().collect();
            let found = footprint.collides_with(&entry(&other_pages, PageOneClass::Untouched));
            let common = |page| mine.contains(&page) && other.contains(&page);
            match found {
                None => prop_assert!(mine.is_disjoint(&other)),
                Some(Collision::Page(page)) => prop_assert!(common(page)),
                Some(Collision::Unknown) => prop_assert!(false),
            }
        }

        #[test]
        fn merged_ranges_are_few_and_cover_everything(
            pages in prop::collection::btree_set(0u32..2000, 0..300),
            limit in 1usize..50,
        ) {
            let set: PageSet = pages.iter().copied().collect();
            let merged = merge_to(&set, limit);
            prop_assert!(merged.len() <= limit);
            prop_assert!(pages.iter().all(|page| merged.iter().any(|run| run.contains(*page))));
            prop_assert!(merged.windows(2).all(|pair| pair[0].end() < u64::from(pair[1].first)));
            let (first, last) = (set.runs().first(), set.runs().last());
            prop_assert_eq!(merged.first().map(|run| run.first), first.map(|run| run.first));
            prop_assert_eq!(merged.last().map(PageRun::end), last.map(PageRun::end));
        }
    }

    #[test]
    fn the_smallest_gaps_are_closed_first() {
        let set: PageSet = [1, 3, 10, 12, 14, 40].into_iter().collect();
        let ranges: Vec<(u32, u64)> = merge_to(&set, 3)
            .iter()
            .map(|run| (run.first, run.end()))
            .collect();
        assert_eq!(ranges, [(1, 4), (10, 15), (40, 41)]);
    }
}
