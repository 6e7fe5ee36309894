//! The interior pages that were seen: which page is whose child, and what comes next to it.
//!
//! What is known may be of an older version than what is read: the answers are guesses. Interior
//! pages refer to each other in any way at all when they are not what they seem, so every walk
//! here is bounded.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use mvsqlite_protocol::PageIndex;

use super::btree::{BtreePage, Kind};

/// Children remembered at once, a megabyte or two; beyond that one starts afresh.
const MOST_CHILDREN: usize = 1 << 16;
/// Bytes of the interior pages remembered at once: where keys are long a page has few children.
const MOST_BYTES: usize = 8 << 20;
/// SQLite's trees are no deeper than this.
const MOST_LEVELS: u32 = 20;

/// Gives pages that are at hand, without asking anybody for them.
pub(super) type AtHand<'a> = &'a dyn Fn(PageIndex) -> Option<Arc<[u8]>>;

/// A child of an interior page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) parent: PageIndex,
    pub(super) number: usize,
}

/// Which way the leaves of a tree are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// What comes next to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// This page.
    Page(Place, PageIndex),
    /// To know, one must have this interior page.
    Needs(PageIndex),
    /// Nothing, as far as is known.
    End,
}

/// Spreads page numbers, which nobody chooses to do harm here: a guess is at stake.
#[derive(Default)]
struct PageHasher(u64);

impl Hasher for PageHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, page: u32) {
        let mixed = (self.0 ^ u64::from(page)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

type PageMap<V> = HashMap<PageIndex, V, BuildHasherDefault<PageHasher>>;

/// See the module.
#[derive(Default)]
pub(super) struct Trees {
    interiors: PageMap<Arc<[u8]>>,
    places: PageMap<Place>,
    /// Of all interior pages remembered.
    bytes: usize,
}

impl Trees {
    /// Looks at a page that was read: an interior one is remembered. Whether it is one.
    pub(super) fn learn(&mut self, index: PageIndex, content: &Arc<[u8]>) -> bool {
        let Some(page) = BtreePage::parse(index, content).filter(BtreePage::is_interior) else {
            return false;
        };
        if let Some(known) = self.interiors.get(&index)
            && Arc::ptr_eq(known, content)
        {
            return true;
        }
        let children = self.places.len() + page.cells();
        if children >= MOST_CHILDREN || self.bytes + content.len() > MOST_BYTES {
            *self = Self::default();
        }
        self.places.reserve(page.cells() + 1);
        for number in 0..=page.cells() {
            if let Some(child) = page.child(number) {
                let place = Place {
                    parent: index,
                    number,
                };
                self.places.insert(child, place);
            }
        }
        let old = self.interiors.insert(index, Arc::clone(content));
        self.bytes = self.bytes + content.len() - old.map_or(0, |old| old.len());
        true
    }

    fn interior(&self, index: PageIndex) -> Option<BtreePage<'_>> {
        BtreePage::parse(index, self.interiors.get(&index)?)
    }

    /// Where a page hangs.
    pub(super) fn place(&self, page: PageIndex) -> Option<Place> {
        let place = *self.places.get(&page)?;
        let child = self.interior(place.parent)?.child(place.number);
        (child == Some(page)).then_some(place)
    }

    /// The top of the tree that a page belongs to.
    pub(super) fn root(&self, page: PageIndex) -> PageIndex {
        let mut top = page;
        for _ in 0..MOST_LEVELS {
            match self.place(top) {
                Some(place) => top = place.parent,
                None => break,
            }
        }
        top
    }

    /// Whether a place is a table's rather than an index's.
    pub(super) fn is_table(&self, place: Place) -> bool {
        let kind = self.interior(place.parent).map(|page| page.kind);
        kind == Some(Kind::InteriorTable)
    }

    /// The rowids a table's child may hold: above the first, up to the second.
    pub(super) fn rowids(&self, place: Place) -> Option<(i64, i64)> {
        let page = self.interior(place.parent)?;
        let before = place.number.checked_sub(1);
        let low = before.and_then(|number| page.rowid(number));
        let high = page.rowid(place.number);
        Some((low.unwrap_or(i64::MIN), high.unwrap_or(i64::MAX)))
    }

    /// The child next to this one, on the same level of the tree.
    pub(super) fn next(&mut self, place: Place, direction: Direction, at_hand: AtHand<'_>) -> Next {
        self.next_within(place, direction, at_hand, MOST_LEVELS)
    }

    fn next_within(
        &mut self,
        place: Place,
        direction: Direction,
        at_hand: AtHand<'_>,
        levels: u32,
    ) -> Next {
        let Some(page) = self.interior(place.parent) else {
            return Next::End;
        };
        let number = match direction {
            Direction::Forward => place.number.checked_add(1).filter(|n| *n <= page.cells()),
            Direction::Backward => place.number.checked_sub(1),
        };
        if let Some(number) = number {
            let next = Place { number, ..place };
            return match page.child(number) {
                Some(child) => Next::Page(next, child),
                None => Next::End,
            };
        }
        let Some(above) = self.place(place.parent).filter(|_| levels > 0) else {
            return Next::End;
        };
        let aunt = match self.next_within(above, direction, at_hand, levels - 1) {
            Next::Page(_, aunt) => aunt,
            other => return other,
        };
        let Some(content) = self.at_hand(aunt, at_hand) else {
            return Next::Needs(aunt);
        };
        if !self.learn(aunt, &content) {
            return Next::End;
        }
        let Some(page) = self.interior(aunt) else {
            return Next::End;
        };
        let number = match direction {
            Direction::Forward => 0,
            Direction::Backward => page.cells(),
        };
        let next = Place {
            parent: aunt,
            number,
        };
        match page.child(number) {
            Some(child) => Next::Page(next, child),
            None => Next::End,
        }
    }

    /// The leaf of a table that holds a rowid.
    pub(super) fn leaf_of(&mut self, root: PageIndex, rowid: i64, at_hand: AtHand<'_>) -> Next {
        let mut at = root;
        let mut below = None;
        for _ in 0..MOST_LEVELS {
            let Some(content) = self.at_hand(at, at_hand) else {
                // A page that is not at hand is a leaf if its siblings are, and else interior. Either
                // way it is the page to ask for.
                return match below {
                    Some(place) => Next::Page(place, at),
                    None => Next::Needs(at),
                };
            };
            if !self.learn(at, &content) {
                return below.map_or(Next::End, |place| Next::Page(place, at));
            }
            let Some(page) = self.interior(at).filter(|p| p.kind == Kind::InteriorTable) else {
                return Next::End;
            };
            let Some(number) = page.child_of_rowid(rowid) else {
                return Next::End;
            };
            let Some(child) = page.child(number) else {
                return Next::End;
            };
            below = Some(Place { parent: at, number });
            at = child;
        }
        Next::End
    }

    fn at_hand(&self, page: PageIndex, at_hand: AtHand<'_>) -> Option<Arc<[u8]>> {
        let known = self.interiors.get(&page).cloned();
        known.or_else(|| at_hand(page))
    }
}

#[cfg(test)]
mod tests;
