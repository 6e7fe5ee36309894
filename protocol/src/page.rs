//! Pages: their indexes, sets, images and checksums.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::ByteBuf;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::version::Version;

/// Zero-based page index: SQLite's page number minus one.
pub type PageIndex = u32;

/// The smallest page SQLite knows, in bytes.
pub const MIN_PAGE_SIZE: u32 = 512;
/// The largest page that is served, in bytes. SQLite's 65,536 is refused: the original's clients
/// and frames stop here.
pub const MAX_PAGE_SIZE: u32 = 32_768;

/// The most pages of one message: 32 MiB of the smallest ones, twice what any call takes.
pub const MAX_PAGES: usize = 1 << 16;
/// The most runs of a page set of one message: twice what any call takes.
pub const MAX_RUNS: usize = 1 << 20;

/// Neighbouring pages: `first .. first + count`. On the wire an array of two integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(PageIndex, u32)", into = "(PageIndex, u32)")]
pub struct PageRun {
    /// The lowest index of the run.
    pub first: PageIndex,
    /// How many pages; never zero in a well-formed message.
    pub count: u32,
}

impl From<(PageIndex, u32)> for PageRun {
    fn from((first, count): (PageIndex, u32)) -> Self {
        Self { first, count }
    }
}

impl From<PageRun> for (PageIndex, u32) {
    fn from(run: PageRun) -> Self {
        (run.first, run.count)
    }
}

impl PageRun {
    /// One past the last index, as a `u64` because it may be 2^32.
    pub fn end(&self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }

    /// Whether the run holds this page.
    pub fn contains(&self, index: PageIndex) -> bool {
        index >= self.first && u64::from(index) < self.end()
    }
}

/// A set of pages as sorted, disjoint, non-adjacent runs.
///
/// Guarantee: two equal sets have equal runs. Decoding sorts and merges whatever arrives and
/// refuses runs that are empty or reach beyond the last page index, and more than [`MAX_RUNS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "AtMost<PageRun, MAX_RUNS>", into = "Vec<PageRun>")]
pub struct PageSet {
    runs: Vec<PageRun>,
}

/// A run that is empty or reaches beyond page index 2^32 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the page run of {count} pages from {first} is empty or reaches beyond the last page index"
)]
pub struct BadRun {
    first: PageIndex,
    count: u32,
}

impl PageSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its runs, ascending.
    pub fn runs(&self) -> &[PageRun] {
        &self.runs
    }

    /// Whether it holds no page.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many pages it holds.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }

    /// Whether it holds this page. Binary search over the runs.
    pub fn contains(&self, index: PageIndex) -> bool {
        let after = self.runs.partition_point(|run| run.first <= index);
        after > 0 && self.runs[after - 1].contains(index)
    }

    /// Adds a page. Constant time when pages come in ascending order.
    pub fn insert(&mut self, index: PageIndex) {
        let after = self.runs.partition_point(|run| run.first <= index);
        if after > 0 && self.runs[after - 1].contains(index) {
            return;
        }
        let joins_left = after > 0 && self.runs[after - 1].end() == u64::from(index);
        let joins_right = self
            .runs
            .get(after)
            .is_some_and(|run| u64::from(run.first) == u64::from(index) + 1);
        match (joins_left, joins_right) {
            (true, true) => {
                let right = self.runs.remove(after);
                self.runs[after - 1].count += right.count + 1;
            }
            (true, false) => self.runs[after - 1].count += 1,
            (false, true) => {
                self.runs[after].first = index;
                self.runs[after].count += 1;
            }
            (false, false) => self.runs.insert(
                after,
                PageRun {
                    first: index,
                    count: 1,
                },
            ),
        }
    }

    /// Every page, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PageIndex> + '_ {
        self.runs
            .iter()
            .flat_map(|run| (0..run.count).map(move |offset| run.first + offset))
    }

    /// The lowest page that is in both sets.
    pub fn first_common(&self, other: &PageSet) -> Option<PageIndex> {
        let (mut a, mut b) = (self.runs.iter().peekable(), other.runs.iter().peekable());
        while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
            let start = left.first.max(right.first);
            if u64::from(start) < left.end().min(right.end()) {
                return Some(start);
            }
            if left.end() <= right.end() {
                a.next()
            } else {
                b.next()
            };
        }
        None
    }

    /// Adds every page of `other`.
    pub fn extend(&mut self, other: &PageSet) {
        let mut runs = std::mem::take(&mut self.runs);
        runs.extend_from_slice(&other.runs);
        self.runs = merged(runs);
    }
}

/// Sorts runs and joins those that touch or overlap.
fn merged(mut runs: Vec<PageRun>) -> Vec<PageRun> {
    runs.sort_unstable();
    let mut out: Vec<PageRun> = Vec::with_capacity(runs.len());
    for run in runs {
        match out.last_mut() {
            Some(last) if u64::from(run.first) <= last.end() => {
                let end = last.end().max(run.end());
                // Both runs end at or below 2^32, and `first` is inside: the difference fits,
                // except for the one run that holds every page, which saturates by one page and
                // is refused at decoding.
                last.count = u32::try_from(end - u64::from(last.first)).unwrap_or(u32::MAX);
            }
            _ => out.push(run),
        }
    }
    out
}

impl TryFrom<Vec<PageRun>> for PageSet {
    type Error = BadRun;

    fn try_from(runs: Vec<PageRun>) -> Result<Self, BadRun> {
        // Index u32::MAX itself is not a page SQLite can have (its last page number is 2^32 - 2),
        // so no run needs to reach 2^32, and the count of merged runs always fits a u32.
        let bad = |run: &&PageRun| run.count == 0 || run.end() > u64::from(u32::MAX);
        match runs.iter().find(bad) {
            Some(run) => Err(BadRun {
                first: run.first,
                count: run.count,
            }),
            None => Ok(Self { runs: merged(runs) }),
        }
    }
}

impl TryFrom<AtMost<PageRun, MAX_RUNS>> for PageSet {
    type Error = BadRun;

    fn try_from(runs: AtMost<PageRun, MAX_RUNS>) -> Result<Self, BadRun> {
        runs.0.try_into()
    }
}

impl From<PageSet> for Vec<PageRun> {
    fn from(set: PageSet) -> Self {
        set.runs
    }
}

impl FromIterator<PageIndex> for PageSet {
    fn from_iter<I: IntoIterator<Item = PageIndex>>(pages: I) -> Self {
        let runs = pages
            .into_iter()
            .map(|first| PageRun { first, count: 1 })
            .collect();
        Self { runs: merged(runs) }
    }
}

/// A page that a client writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageData {
    /// Which page.
    pub index: PageIndex,
    /// Its whole content.
    pub data: ByteBuf,
}

/// A page as the server knows it at some version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageImage {
    /// Which page.
    pub index: PageIndex,
    /// The version this content is valid from (through the version that was asked for).
    pub from: Version,
    /// Its content; `None` when the page does not exist at that version.
    pub data: Option<ByteBuf>,
}

/// Decodes the pages of a message, of which there are at most [`MAX_PAGES`].
pub(crate) fn at_most_pages<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PageData>, D::Error> {
    AtMost::<PageData, MAX_PAGES>::deserialize(from).map(|pages| pages.0)
}

/// A sequence that is refused where it becomes too long, and not after it has been taken in: a few
/// bytes of a message can stand for an element that takes many more in memory.
struct AtMost<T, const MOST: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for AtMost<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(AtMostVisitor(PhantomData))
    }
}

struct AtMostVisitor<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for AtMostVisitor<T, MOST> {
    type Value = AtMost<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a sequence of at most {MOST} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        // What a sequence says of its length is a claim: no more than this is believed beforehand.
        const BELIEVED: usize = 1024;
        let claimed = from.size_hint().unwrap_or(0);
        let mut elements = Vec::with_capacity(claimed.min(BELIEVED));
        while let Some(element) = from.next_element()? {
            if claimed > MOST || elements.len() == MOST {
                let length = claimed.max(MOST + 1);
                return Err(A::Error::invalid_length(length, &self));
            }
            elements.push(element);
        }
        Ok(AtMost(elements))
    }
}

/// The checksum by which a stage's content is summed up: XXH3-64 of the page's bytes, seeded with
/// its index, so that two pages that swap places do not cancel out.
pub fn staged_sum(index: PageIndex, data: &[u8]) -> u64 {
    xxh3_64_with_seed(data, u64::from(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_page_set_behaves_like_a_set_of_indexes(
            left in prop::collection::vec(0u32..60, 0..40),
            right in prop::collection::vec(0u32..60, 0..40),
        ) {
            let model: BTreeSet<u32> = left.iter().copied().collect();
            let other: BTreeSet<u32> = right.iter().copied().collect();
            let mut set = PageSet::new();
            left.iter().for_each(|page| set.insert(*page));
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert_eq!(&left.iter().copied().collect::<PageSet>(), &set);
            (0..61).for_each(|page| assert_eq!(set.contains(page), model.contains(&page)));

            let second: PageSet = right.iter().copied().collect();
            prop_assert_eq!(set.first_common(&second), model.intersection(&other).next().copied());
            set.extend(&second);
            prop_assert_eq!(set, model.union(&other).copied().collect::<PageSet>());
        }
    }

    #[test]
    fn runs_that_are_empty_or_too_long_are_refused() {
        for (first, count) in [(5, 0), (u32::MAX, 1), (u32::MAX, u32::MAX)] {
            assert!(PageSet::try_from(vec![PageRun { first, count }]).is_err());
        }
        let all = PageRun {
            first: 0,
            count: u32::MAX,
        };
        let overlapping = vec![all, PageRun { first: 7, count: 3 }];
        assert_eq!(PageSet::try_from(overlapping).unwrap().runs(), [all]);
    }
}
