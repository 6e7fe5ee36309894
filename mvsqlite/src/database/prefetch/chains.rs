//! Overflow chains: rows too large for a page go on in a list of pages, each naming the next.
//!
//! The leaf says how long a chain is and where it begins. Where it goes on is known only page by
//! page, but SQLite lays chains out in a row when the file grows: so the pages behind are guessed,
//! the more of them the better that went.

use mvsqlite_protocol::PageIndex;

use super::btree::{BtreePage, next_overflow};

/// How many pages are guessed at first.
const FIRST_TRUST: u32 = 4;
const MOST_TRUST: u32 = 64;

/// The chains of one handle.
pub(super) struct Chains {
    /// The page of a chain that will be read next, and how many are left, this one included.
    expected: Option<(PageIndex, u32)>,
    /// How many pages in a row a chain is taken for.
    trust: u32,
    /// The cell whose chain was read last, in which leaf.
    last: Option<(PageIndex, usize)>,
}

impl Default for Chains {
    fn default() -> Self {
        Self {
            expected: None,
            trust: FIRST_TRUST,
            last: None,
        }
    }
}

impl Chains {
    /// A page that is no child of a known interior page is missing. `leaf`: the last one read. Which
    /// pages to ask for with it; at most `most`.
    pub(super) fn missing(
        &mut self,
        index: PageIndex,
        leaf: Option<(PageIndex, &[u8])>,
        usable: usize,
        most: usize,
    ) -> Vec<PageIndex> {
        let mut heads = Vec::new();
        if self.expected.is_none_or(|(expected, _)| expected != index) {
            let Some((left, later)) = self.find_head(index, leaf, usable, most) else {
                return Vec::new();
            };
            self.expected = Some((index, left));
            heads = later;
        }
        let left = self.expected.map_or(1, |(_, left)| left);
        let row = left.min(self.trust).saturating_sub(1);
        let row = (1..=row).filter_map(|behind| index.checked_add(behind));
        let mut pages: Vec<PageIndex> = row.chain(heads).collect();
        pages.truncate(most);
        pages
    }

    /// A page is read.
    pub(super) fn read(&mut self, index: PageIndex, content: &[u8]) {
        let Some((_, left)) = self.expected.filter(|(expected, _)| *expected == index) else {
            return;
        };
        let next = next_overflow(content).filter(|_| left > 1);
        if left > 1 {
            let in_a_row = next == index.checked_add(1);
            self.trust = match in_a_row {
                true => (self.trust * 2).min(MOST_TRUST),
                false => 1,
            };
        }
        self.expected = next.map(|next| (next, left - 1));
    }

    /// The chain that begins at a page: its length, and where the chains of the cells behind begin
    /// if the last chain belonged to the cell before.
    fn find_head(
        &mut self,
        index: PageIndex,
        leaf: Option<(PageIndex, &[u8])>,
        usable: usize,
        most: usize,
    ) -> Option<(u32, Vec<PageIndex>)> {
        let (leaf, content) = leaf?;
        let page = BtreePage::parse(leaf, content)?;
        let mut heads = (0..page.cells()).filter_map(|cell| {
            let overflow = page.overflow(cell, usable)?;
            Some((cell, overflow))
        });
        let (cell, chain) = heads.find(|(_, chain)| chain.first == index)?;
        let previous = self.last.replace((leaf, cell));
        let in_order = previous.is_some_and(|(of, before)| of == leaf && before < cell);
        let later = heads.filter(|_| in_order).map(|(_, chain)| chain.first);
        Some((chain.pages, later.take(most).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain page that names this index as its successor.
    fn chain_page(next: PageIndex) -> Vec<u8> {
        let mut page = vec![0; 64];
        page[..4].copy_from_slice(&(next + 1).to_be_bytes());
        page
    }

    fn expecting(index: PageIndex, left: u32) -> Chains {
        Chains {
            expected: Some((index, left)),
            ..Chains::default()
        }
    }

    #[test]
    fn a_chain_in_a_row_is_trusted_more_and_more_up_to_its_end() {
        let mut chains = expecting(10, 20);
        assert_eq!(chains.missing(10, None, 512, 100), [11, 12, 13]);
        chains.read(10, &chain_page(11));
        chains.read(11, &chain_page(12));
        assert_eq!(chains.missing(12, None, 512, 100).len(), 15);
        assert_eq!(chains.missing(12, None, 512, 100).last(), Some(&27));
        assert_eq!(chains.missing(12, None, 512, 5).len(), 5);
    }

    #[test]
    fn a_scattered_chain_is_asked_for_page_by_page() {
        let mut chains = expecting(10, 9);
        chains.read(10, &chain_page(700));
        assert!(chains.missing(700, None, 512, 100).is_empty());
        assert!(chains.missing(11, None, 512, 100).is_empty());
    }

    #[test]
    fn hostile_pages_end_the_guess() {
        let mut chains = expecting(u32::MAX, 9);
        assert!(chains.missing(u32::MAX, None, 512, 100).is_empty());
        chains.read(u32::MAX, &[]);
        assert_eq!(chains.expected, None);
    }
}
