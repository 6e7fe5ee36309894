//! Written pages that are in memory only, in the order in which they were last written.
//!
//! The pages that have not been written for the longest time are uploaded first: SQLite writes the
//! interior pages of a tree again and again, and uploading them each time would be in vain.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeBounds;
use std::sync::Arc;

use mvsqlite_protocol::PageIndex;
use mvsqlite_protocol::v2::PAGE_1;

/// Written pages whose newest content is nowhere else for certain.
#[derive(Debug, Default)]
pub(in crate::database) struct HeldPages {
    pages: BTreeMap<PageIndex, Held>,
    /// Those that may be taken, by the number of their last writing. Never page 1.
    waiting: BTreeMap<Writing, PageIndex>,
    /// Pages of which an upload is under way, perhaps of an older content.
    in_flight: HashSet<PageIndex>,
    next: Writing,
}

/// Numbers the writings of pages.
pub(super) type Writing = u64;

#[derive(Debug)]
struct Held {
    /// Shared with the upload that is under way with it.
    content: Arc<[u8]>,
    written: Writing,
}

/// A page that was taken for an upload.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) index: PageIndex,
    pub(super) content: Arc<[u8]>,
    pub(super) written: Writing,
}

impl HeldPages {
    pub(in crate::database) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(in crate::database) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(in crate::database) fn contains(&self, index: PageIndex) -> bool {
        self.pages.contains_key(&index)
    }

    pub(in crate::database) fn get(&self, index: PageIndex) -> Option<&Arc<[u8]>> {
        self.pages.get(&index).map(|held| &held.content)
    }

    /// Ascending.
    pub(in crate::database) fn range(
        &self,
        range: impl RangeBounds<PageIndex>,
    ) -> impl Iterator<Item = (PageIndex, &Arc<[u8]>)> {
        let pages = self.pages.range(range);
        pages.map(|(index, held)| (*index, &held.content))
    }

    /// How many pages are under no upload, page 1 aside.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The pages that are under no upload, page 1 aside, the longest unwritten first.
    pub(super) fn waiting_pages(&self) -> impl Iterator<Item = PageIndex> {
        self.waiting.values().copied()
    }

    /// Takes what SQLite writes.
    pub(in crate::database) fn write(&mut self, index: PageIndex, data: &[u8]) {
        let written = self.next;
        self.next += 1;
        match self.pages.get_mut(&index) {
            Some(held) => {
                match Arc::get_mut(&mut held.content) {
                    Some(content) if content.len() == data.len() => content.copy_from_slice(data),
                    _ => held.content = Arc::from(data),
                }
                self.waiting.remove(&held.written);
                held.written = written;
            }
            None => {
                let content = Arc::from(data);
                self.pages.insert(index, Held { content, written });
            }
        }
        if index != PAGE_1 && !self.in_flight.contains(&index) {
            self.waiting.insert(written, index);
        }
    }

    /// Forgets the pages from this one on.
    pub(in crate::database) fn cut_off(&mut self, first: PageIndex) {
        for held in self.pages.split_off(&first).values() {
            self.waiting.remove(&held.written);
        }
    }

    /// Takes at most so many waiting pages that are wanted, the longest unwritten first.
    pub(super) fn take(
        &mut self,
        most: usize,
        mut wanted: impl FnMut(PageIndex) -> bool,
    ) -> Vec<Taken> {
        let order = self.waiting_pages();
        let chosen: Vec<PageIndex> = order.filter(|index| wanted(*index)).take(most).collect();
        let mut taken = Vec::with_capacity(chosen.len());
        for index in chosen {
            if let Some(held) = self.pages.get(&index) {
                self.in_flight.insert(index);
                self.waiting.remove(&held.written);
                taken.push(Taken {
                    index,
                    content: Arc::clone(&held.content),
                    written: held.written,
                });
            }
        }
        // Neighbours side by side: the store writes and reads by index.
        taken.sort_unstable_by_key(|page| page.index);
        taken
    }

    /// An upload of this page has ended well. Gives up the page and returns its content if that is
    /// still the newest.
    pub(super) fn uploaded(&mut self, index: PageIndex, written: Writing) -> Uploaded {
        self.in_flight.remove(&index);
        let Some(held) = self.pages.get(&index) else {
            return Uploaded::CutOff;
        };
        if held.written != written {
            self.waiting.insert(held.written, index);
            return Uploaded::Outdated;
        }
        match self.pages.remove(&index) {
            Some(held) => Uploaded::Newest(held.content),
            None => Uploaded::CutOff,
        }
    }
}

/// What became of a page while it was uploaded.
#[derive(Debug)]
pub(super) enum Uploaded {
    /// Nothing: it is held no longer.
    Newest(Arc<[u8]>),
    /// It was written again.
    Outdated,
    /// It was cut off, and not written since.
    CutOff,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexes(taken: &[Taken]) -> Vec<PageIndex> {
        taken.iter().map(|page| page.index).collect()
    }

    fn held(pages: &[PageIndex]) -> HeldPages {
        let mut held = HeldPages::default();
        pages.iter().for_each(|page| held.write(*page, &[1; 4]));
        held
    }

    #[test]
    fn pages_written_again_are_taken_last_and_page_1_never() {
        let mut held = held(&[0, 5, 1, 9, 5, 0]);
        assert_eq!(indexes(&held.take(2, |_| true)), [1, 9]);
        assert_eq!(indexes(&held.take(2, |_| true)), [5]);
        assert_eq!(held.waiting(), 0);
        assert_eq!(held.len(), 4);
    }

    #[test]
    fn a_page_under_way_is_not_taken_again_before_it_has_arrived() {
        let mut held = held(&[7]);
        let first = held.take(9, |_| true).remove(0);
        held.write(7, &[2; 4]);
        assert!(held.take(9, |_| true).is_empty());
        assert_eq!(first.content[..], [1; 4]);
        assert!(matches!(
            held.uploaded(7, first.written),
            Uploaded::Outdated
        ));
        let second = held.take(9, |_| true).remove(0);
        let Uploaded::Newest(content) = held.uploaded(7, second.written) else {
            panic!("it was not written again");
        };
        assert_eq!(content[..], [2; 4]);
        assert!(held.is_empty());
    }

    #[test]
    fn a_page_cut_off_while_under_way_does_not_come_back() {
        let mut held = held(&[7, 8]);
        let taken = held.take(9, |_| true);
        held.cut_off(7);
        held.write(8, &[3; 4]);
        assert!(matches!(
            held.uploaded(7, taken[0].written),
            Uploaded::CutOff
        ));
        assert!(matches!(
            held.uploaded(8, taken[1].written),
            Uploaded::Outdated
        ));
        assert_eq!(indexes(&held.take(9, |_| true)), [8]);
    }
}
