//! What fuzzing asks of guessing.

use std::sync::Arc;

use mvsqlite_protocol::PageIndex;

use super::btree::{BtreePage, next_overflow};
use super::{Prefetch, Reading};

/// The page size of the file that the bytes are.
const SIZE: usize = 256;
const PAGES: usize = 32;

/// A file of small pages that may say anything of each other, read in any order.
///
/// - guessing ends, and asks for no more than it is allowed to;
/// - what a b-tree page is asked, beyond its cells too, is answered from within the page.
///
/// First a byte each: how much may be guessed, and the number of reads; then the reads, two bytes
/// each; then the pages.
pub fn prefetch(bytes: &[u8]) {
    let (head, bytes) = bytes.split_at(bytes.len().min(4));
    let head = |at: usize| head.get(at).copied().unwrap_or(0);
    let (reads, file) = bytes.split_at(bytes.len().min(2 * usize::from(head(0))));
    let pages: Vec<Arc<[u8]>> = file.chunks(SIZE).take(PAGES).map(Arc::from).collect();
    for (index, page) in (0..).zip(&pages) {
        ask(index, page, SIZE - usize::from(head(3) & 0x3f));
    }
    let cached = u32::from(head(2)) * 0x0101_0101;
    let at_hand = |index: PageIndex| {
        let page = pages
            .get(index as usize)
            .filter(|_| cached >> (index % 32) & 1 != 0);
        page.cloned()
    };
    let depth = (head(1) & 1 == 0).then(|| u32::from(head(1) >> 4));
    let most = u32::from(head(1)) + 1;
    let allowed = (most - 1).min(depth.unwrap_or(u32::MAX)) as usize;
    let mut prefetch = Prefetch::new(depth);
    for read in reads.chunks_exact(2) {
        let index = PageIndex::from(read[0]) % PAGES as u32;
        let reading = Reading {
            index,
            usable: SIZE,
            most,
            at_hand: &at_hand,
        };
        if read[1] & 1 != 0 {
            let guessed = prefetch.missing(&reading);
            assert!(guessed.len() <= allowed, "{} of {allowed}", guessed.len());
            prefetch.asked(guessed);
        }
        if let Some(page) = pages.get(index as usize) {
            let guessed = prefetch.read(&reading, page);
            assert!(guessed.len() <= allowed, "{} of {allowed}", guessed.len());
        }
        if read[1] & 2 != 0 {
            prefetch.rest();
        }
    }
    let metrics = prefetch.metrics();
    assert!(metrics.predictions_hit <= metrics.page_reads.min(metrics.predictions_made));
}

/// All that a page can be asked.
fn ask(index: PageIndex, bytes: &[u8], usable: usize) {
    let _ = next_overflow(bytes);
    let Some(page) = BtreePage::parse(index, bytes) else {
        return;
    };
    assert!(2 * page.cells() <= bytes.len());
    for number in 0..=page.cells() + 1 {
        let child = page.child(number);
        assert!(child.is_none() || (page.is_interior() && number <= page.cells()));
        let rowid = page.rowid(number);
        assert!(rowid.is_none() || number < page.cells());
        let indexed = page.indexed_rowid(number, usable);
        assert!(indexed.is_none() || (!page.is_interior() && number < page.cells()));
        if let Some(chain) = page.overflow(number, usable) {
            assert!(chain.pages > 0);
        }
    }
    for rowid in [i64::MIN, -1, 0, 7, i64::MAX] {
        assert!(
            page.child_of_rowid(rowid)
                .is_none_or(|number| number <= page.cells())
        );
    }
}
