//! What fuzzing asks of the rules about pages, against slow and obvious models.

use std::collections::BTreeMap;

use bytes::Bytes;
use mvsqlite_protocol::{NamespaceId, PageIndex, PageSet, Version};

use super::conflict::{Collision, Footprint, merge_to};
use super::page_cache::PageCache;
use super::page_one::{Header, classify};
use super::view::Found;
use crate::layout::{ChangeEntry, PageOneClass, Pages};

/// Page 1: its header, and how a change of it is classified, against a look at each byte.
///
/// The first half of the bytes is page 1 before, the second half after.
pub fn page_one(bytes: &[u8]) {
    let (old, new) = bytes.split_at(bytes.len() / 2);
    header(new);
    assert_eq!(classify(Some(old), new), class_by_bytes(old, new));
    assert_eq!(classify(Some(new), new), class_by_bytes(new, new));
    assert_eq!(classify(None, new), PageOneClass::Schema);
}

fn header(page: &[u8]) {
    let size = |page: &[u8]| u32::from(page[16]) * 256 + u32::from(page[17]);
    match Header::parse(page) {
        Ok(None) => assert!(!is_database(page)),
        Ok(Some(header)) => {
            assert!(is_database(page));
            let sizes = [512, 1024, 2048, 4096, 8192, 16_384, 32_768];
            assert!(sizes.contains(&header.page_size) && header.page_size == size(page));
            assert_eq!(header.page_count.to_be_bytes(), page[28..32]);
        }
        Err(_) => assert!(is_database(page)),
    }
}

fn is_database(page: &[u8]) -> bool {
    page.len() >= 100 && &page[..16] == b"SQLite format 3\0"
}

fn class_by_bytes(old: &[u8], new: &[u8]) -> PageOneClass {
    if old.len() != new.len() || !is_database(old) || !is_database(new) {
        return PageOneClass::Schema;
    }
    let changed = (0..old.len()).filter(|at| old[*at] != new[*at]);
    let class = changed.map(|at| match at {
        24..28 | 92..100 => PageOneClass::Untouched,
        28..40 => PageOneClass::Allocation,
        _ => PageOneClass::Schema,
    });
    class.max().unwrap_or(PageOneClass::Untouched)
}

/// Ranges to watch: no page of a read set is lost when its runs are joined to a number of ranges,
/// and a collision is found exactly if there is one.
pub fn read_set(bytes: &[u8]) {
    let (head, pages) = bytes.split_at(bytes.len().min(2));
    let limit = head.first().map_or(1, |limit| usize::from(*limit));
    let (mine, others) = pages.split_at(pages.len() / 2);
    let mine = scattered(mine);
    let ranges = merge_to(&mine, limit);
    assert!(ranges.len() <= limit.max(1) || ranges.len() <= mine.runs().len().min(1));
    let covered = |page| ranges.iter().any(|range| range.contains(page));
    assert!(mine.iter().all(covered), "a page was lost");
    assert!(
        ranges
            .windows(2)
            .all(|pair| pair[0].end() < u64::from(pair[1].first))
    );
    if limit >= mine.runs().len() {
        assert_eq!(ranges, mine.runs());
    }

    let others = scattered(others);
    let common = mine.iter().find(|page| others.contains(*page));
    let entry = ChangeEntry {
        pages: Pages::Listed(others),
        page_one: PageOneClass::Untouched,
        millis: 0,
        sum: None,
    };
    let footprint = Footprint::Pages {
        pages: mine,
        page_one: Some(PageOneClass::Schema),
    };
    assert_eq!(footprint.collides_with(&entry), common.map(Collision::Page));
}

/// Each byte says how far from the last page the next one is, each fourth time farther.
fn scattered(bytes: &[u8]) -> PageSet {
    let mut page: PageIndex = 0;
    let mut pages = PageSet::new();
    for byte in bytes {
        let step = PageIndex::from(byte >> 2) << (8 * PageIndex::from(byte & 3));
        page = page.wrapping_add(step) % (PageIndex::MAX - 1);
        pages.insert(page);
    }
    pages
}

const PAGES: PageIndex = 8;

/// One namespace with all its history: what each page is at each version, by the number of the
/// commit.
#[derive(Default)]
struct History {
    commits: u64,
    /// For each page the commits that changed it.
    changed: [Vec<u64>; PAGES as usize],
}

impl History {
    /// The commit that wrote a page as it is at a version; 0: it was there from the beginning.
    fn from(&self, page: PageIndex, at: u64) -> u64 {
        let written = self.changed[page as usize].iter().rev();
        written.copied().find(|commit| *commit <= at).unwrap_or(0)
    }

    /// The pages changed in (from, to].
    fn between(&self, from: u64, to: u64) -> PageSet {
        let changed = |page: &PageIndex| self.from(*page, to) > from;
        (0..PAGES).filter(changed).collect()
    }

    fn found(&self, page: PageIndex, at: u64) -> Found {
        let from = self.from(page, at);
        Found {
            index: page,
            from: version(from),
            content: (from % 5 != 4).then(|| Bytes::from(vec![page as u8, from as u8])),
        }
    }
}

fn version(commit: u64) -> Version {
    Version::new(commit + 1, 0)
}

/// The page cache of the server against all of history: whatever it gives is what the page is at
/// that version, in whatever order commits, reads and catching up come.
pub fn page_cache(bytes: &[u8]) {
    let (budget, steps) = bytes.split_first().unwrap_or((&0, &[]));
    let cache = PageCache::new(u64::from(*budget) * 16);
    let mut histories: BTreeMap<u8, History> = BTreeMap::new();
    for step in steps.chunks_exact(3) {
        let (what, pages, back) = (step[0] >> 1, step[1], step[2]);
        let history = histories.entry(step[0] & 1).or_default();
        let id = NamespaceId::from_bytes([step[0] & 1; 10]);
        let at = history.commits.saturating_sub(u64::from(back));
        let set: PageSet = (0..PAGES).filter(|page| pages & 1 << page != 0).collect();
        match what % 6 {
            0 => {
                history.commits += 1;
                for page in set.iter() {
                    history.changed[page as usize].push(history.commits);
                }
            }
            1 => {
                let read: Vec<Found> = set.iter().map(|page| history.found(page, at)).collect();
                cache.insert(id, version(at), &read);
            }
            2 => given(history, at, &cache.find(id, version(at), &set)),
            3 => catch_up(&cache, id, history, at, pages & 1 == 0),
            4 => set.iter().for_each(|page| cache.asked_for(id, page)),
            _ => given(history, at, &cache.cold_start(id, version(at), 1 << 10)),
        }
    }
}

fn catch_up(cache: &PageCache, id: NamespaceId, history: &History, at: u64, listed: bool) {
    let Some(from) = cache.behind(id, version(at)) else {
        return;
    };
    let known = from.commit() - 1;
    // A superset is as good as what was changed.
    let changed = history.between(known, at);
    cache.advance(id, from, version(at), listed.then_some(&changed));
}

fn given(history: &History, at: u64, found: &[Found]) {
    for page in found {
        let expected = history.found(page.index, at);
        assert_eq!(
            (page.from, &page.content),
            (expected.from, &expected.content)
        );
    }
    assert!(found.is_sorted_by_key(|page| page.index));
}
