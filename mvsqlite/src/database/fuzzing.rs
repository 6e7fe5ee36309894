//! What fuzzing asks of page 1 and of read sets.

use mvsqlite_protocol::{PageIndex, PageRun, PageSet};

use super::{page1, read_set};

pub use super::cache::fuzzing::page_cache;
pub use super::disk_cache::fuzzing::disk_cache;
pub use super::prefetch::fuzzing::prefetch;

/// Page 1 on its way to SQLite and back: what was served and is written back unchanged is no change,
/// whatever the counters; nothing but the fields that are ours differs.
///
/// The first four bytes are the counter served.
pub fn page_one(bytes: &[u8]) {
    let (counter, page) = bytes.split_at(bytes.len().min(4));
    let counter = counter.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
    let served = page1::served(page, counter);
    assert_eq!(served.len(), page.len());
    if !page1::is_sqlite(page) {
        return assert_eq!(served, page);
    }
    let differ = |one: &[u8], other: &[u8], ours: fn(usize) -> bool| {
        let differs = |at: &usize| one[*at] != other[*at];
        (0..one.len()).filter(differs).all(ours)
    };
    assert!(differ(
        &served,
        page,
        |at| matches!(at, 18..20 | 24..28 | 92..96)
    ));
    assert_eq!(page1::change_counter(&served), counter);
    assert_eq!(page1::page_count(&served), page1::page_count(page));
    assert!(!served[18..20].contains(&2));

    let stored = page1::stored(page, None);
    assert!(differ(&stored, page, |at| matches!(at, 24..28 | 92..100)));
    let back = page1::stored(&page1::served(&stored, counter), Some(&stored));
    assert_eq!(back, stored);
    assert!(page1::is_unchanged(&back, &stored) && page1::is_unchanged(&stored, page));
    // Any other byte is a change.
    let mut changed = back;
    let at = counter as usize % changed.len();
    changed[at] ^= 0x10;
    assert_eq!(
        page1::is_unchanged(&page1::stored(&changed, None), &stored),
        matches!(at, 24..28 | 92..100)
    );
    let usable = (page.len()).saturating_sub(page1::reserved(page));
    assert!(usable <= page.len());
}

/// A read set made small enough to be sent: no page is lost, however few runs are left.
pub fn read_set(bytes: &[u8]) {
    let (most, bytes) = bytes.split_at(bytes.len().min(1));
    let most = most.first().map_or(0, |most| usize::from(*most));
    let mut runs = Vec::new();
    let mut end = 0u32;
    for run in bytes.chunks_exact(4) {
        let gap = PageIndex::from(run[0]) << (run[1] % 25);
        let count = (PageIndex::from(run[2]) << (run[3] % 20)) + 1;
        let first = end.saturating_add(gap);
        let Some(behind) = first.checked_add(count) else {
            break;
        };
        runs.push(PageRun { first, count });
        end = behind;
    }
    let Ok(set) = PageSet::try_from(runs) else {
        return;
    };
    let small = read_set::bounded(&set, most);
    assert!(small.runs().len() <= most.max(1) || set.runs().len() <= 1);
    for run in set.runs() {
        let holds = |wider: &&PageRun| wider.first <= run.first && run.end() <= wider.end();
        assert!(
            small.runs().iter().any(|wider| holds(&wider)),
            "a page was lost"
        );
    }
    if set.runs().len() <= most {
        assert_eq!(small, set);
    }
}
