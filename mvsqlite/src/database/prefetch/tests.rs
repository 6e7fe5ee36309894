//! Whatever pages say, guessing ends and stays within bounds.

use super::*;
use proptest::prelude::*;

const PAGES: u32 = 24;
const SIZE: usize = 512;

/// A page that may be of a b-tree, with references to any pages, its own parent and itself too.
fn page() -> impl Strategy<Value = Arc<[u8]>> {
    let kind = prop::sample::select(vec![2u8, 5, 5, 10, 13, 13, 0]);
    let cells = prop::collection::vec((0..=PAGES + 1, any::<[u8; 12]>()), 0..12);
    (kind, cells, 0..=PAGES + 1).prop_map(|(kind, cells, last)| {
        let mut page = vec![0; SIZE];
        let interior = kind == 2 || kind == 5;
        page[0] = kind;
        page[3..5].copy_from_slice(&(cells.len() as u16).to_be_bytes());
        page[8..12].copy_from_slice(&last.to_be_bytes());
        let pointers = if interior { 12 } else { 8 };
        for (number, (child, bytes)) in cells.iter().enumerate() {
            let at = SIZE - 20 * (number + 1);
            let pointer = pointers + 2 * number;
            page[pointer..pointer + 2].copy_from_slice(&(at as u16).to_be_bytes());
            let body = if interior { at + 4 } else { at };
            if interior {
                page[at..at + 4].copy_from_slice(&child.to_be_bytes());
            }
            page[body..body + 12].copy_from_slice(bytes);
        }
        Arc::from(page)
    })
}

proptest! {
    #[test]
    fn whatever_pages_say_guessing_ends_and_asks_for_no_more_than_allowed(
        pages in prop::collection::vec(page(), PAGES as usize),
        reads in prop::collection::vec((1..PAGES, any::<bool>()), 0..200),
        cached in any::<u32>(),
        most in 1u32..100,
        depth in prop::option::of(0u32..50),
    ) {
        let mut prefetch = Prefetch::new(depth);
        let content = |index: PageIndex| pages.get(index as usize).cloned();
        let at_hand = |index: PageIndex| {
            content(index).filter(|_| index < 32 && cached & 1 << index != 0)
        };
        let allowed = (most - 1).min(depth.unwrap_or(u32::MAX)) as usize;
        for (index, missing) in reads {
            let reading = Reading { index, usable: SIZE, most, at_hand: &at_hand };
            if missing {
                prop_assert!(prefetch.missing(&reading).len() <= allowed);
            }
            let guessed = prefetch.read(&reading, &content(index).unwrap());
            prop_assert!(guessed.len() <= allowed);
        }
        prop_assert!(prefetch.metrics().predictions_hit <= prefetch.metrics().page_reads);
    }
}

#[test]
fn predictions_are_counted_and_so_is_what_came_true() {
    let mut prefetch = Prefetch::new(None);
    let at_hand = |_| None;
    let page: Arc<[u8]> = Arc::from([0; SIZE]);
    prefetch.asked([4, 5, 6]);
    for index in [5, 5, 9] {
        let reading = Reading {
            index,
            usable: SIZE,
            most: 10,
            at_hand: &at_hand,
        };
        prefetch.read(&reading, &page);
    }
    let expected = PrefetchMetrics {
        page_reads: 3,
        cache_misses: 0,
        predictions_made: 3,
        predictions_hit: 1,
    };
    assert_eq!(prefetch.metrics(), expected);
}
