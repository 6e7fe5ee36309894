//! Notices that rows are looked up in a table in the order of an index, and says which leaves of the
//! table come next.
//!
//! An index leaf that was read holds the rowids in its order; the table's interior pages say which
//! leaf each lies in. Two look-ups that lie next to each other in the index begin it: a single one
//! costs nothing but remembering the leaf.

use std::collections::VecDeque;
use std::sync::Arc;

use mvsqlite_protocol::PageIndex;

use super::btree::{BtreePage, Kind};
use super::trees::{AtHand, Direction, Next, Place, Trees};
use super::{larger_batch, worth_asking};

/// Rows between two look-ups that still count as neighbours: SQLite has some leaves in its cache.
const SKIP: usize = 16;
/// Leaves of tables that may be missing unforeseen before one starts afresh.
const STRAYS: u32 = 4;
/// Rows looked at for one batch: neighbours in the index may lie in few leaves.
const MOST_ROWS: usize = 4096;

/// The look-ups of one handle.
#[derive(Default)]
pub(super) struct Hops {
    /// The index leaf that was read last.
    leaf: Option<(PageIndex, Arc<[u8]>)>,
    /// The table's leaf that was read last since.
    last: Option<Place>,
    /// What is going on.
    hop: Option<Hop>,
}

/// Rows of a table looked up in the order of an index.
struct Hop {
    table: PageIndex,
    direction: Direction,
    /// The index leaf in which the rows to ask for next stand, its rowids in the direction, and how
    /// many of them are done.
    leaf: PageIndex,
    rowids: Vec<i64>,
    done: usize,
    /// Leaves of the table asked for and not read yet, in the order they will be.
    asked: VecDeque<PageIndex>,
    /// The leaf that is being read.
    current: PageIndex,
    batch: usize,
    strays: u32,
    resting: bool,
}

impl Hops {
    /// An index leaf is read.
    pub(super) fn index_leaf(&mut self, index: PageIndex, content: &Arc<[u8]>, usable: usize) {
        self.leaf = Some((index, Arc::clone(content)));
        self.last = None;
        let Some(hop) = &mut self.hop else {
            return;
        };
        if hop.leaf != index && hop.asked.is_empty() {
            hop.rowids = rowids(content, index, hop.direction, usable);
            (hop.leaf, hop.done) = (index, 0);
        }
    }

    /// Whether this leaf of a table is one of those asked for.
    pub(super) fn foresaw(&self, index: PageIndex) -> bool {
        let hop = self.hop.as_ref();
        hop.is_some_and(|hop| hop.current == index || hop.asked.contains(&index))
    }

    /// A table's leaf is read. Which pages to ask for, in the order they will be wanted; at most
    /// `most`.
    pub(super) fn table_leaf(
        &mut self,
        index: PageIndex,
        place: Place,
        missing: bool,
        reach: &mut Reach<'_>,
    ) -> Vec<PageIndex> {
        if let Some(hop) = &mut self.hop {
            if hop.reaches(index, missing) {
                return hop.plan(missing, reach);
            }
            if hop.strays < STRAYS {
                return Vec::new();
            }
            self.hop = None;
        }
        let Some(last) = self.last.replace(place).filter(|last| *last != place) else {
            return Vec::new();
        };
        if !missing {
            return Vec::new();
        }
        self.hop = self.begin(last, place, index, reach);
        match &mut self.hop {
            Some(hop) => hop.plan(missing, reach),
            None => Vec::new(),
        }
    }

    /// All that the last answer asked for was there.
    pub(super) fn rest(&mut self) {
        if let Some(hop) = &mut self.hop {
            hop.resting = true;
        }
    }

    /// Whether the rows of two leaves of a table stand next to each other in the index leaf.
    fn begin(
        &self,
        first: Place,
        second: Place,
        current: PageIndex,
        reach: &mut Reach<'_>,
    ) -> Option<Hop> {
        let (leaf, content) = self.leaf.as_ref()?;
        let mut rowids = rowids(content, *leaf, Direction::Forward, reach.usable);
        let (first, of_second) = (reach.trees.rowids(first)?, reach.trees.rowids(second)?);
        let within = |range: (i64, i64), rowid: i64| range.0 < rowid && rowid <= range.1;
        let places = |range| {
            let rows = rowids.iter().enumerate();
            rows.filter(move |(_, rowid)| within(range, **rowid))
                .map(|(at, _)| at)
        };
        let seconds: Vec<usize> = places(of_second).collect();
        let nearest = |at: usize| {
            let second = seconds.partition_point(|second| *second < at);
            let near = [second.checked_sub(1), Some(second)];
            let near = near.into_iter().flatten().filter_map(|n| seconds.get(n));
            near.map(move |second| (second.abs_diff(at), at, *second))
                .min()
        };
        let (distance, from, to) = places(first).filter_map(nearest).min()?;
        if distance > SKIP {
            return None;
        }
        let (direction, done) = match to > from {
            true => (Direction::Forward, to + 1),
            false => {
                rowids.reverse();
                (Direction::Backward, rowids.len() - to)
            }
        };
        Some(Hop {
            table: reach.trees.root(second.parent),
            direction,
            leaf: *leaf,
            rowids,
            done,
            asked: VecDeque::new(),
            current,
            batch: 0,
            strays: 0,
            resting: false,
        })
    }
}

/// What planning works with.
pub(super) struct Reach<'a> {
    pub(super) trees: &'a mut Trees,
    pub(super) at_hand: AtHand<'a>,
    /// Bytes of a page that SQLite uses.
    pub(super) usable: usize,
    /// Most pages to ask for at once.
    pub(super) most: usize,
}

impl Hop {
    /// Whether the leaf that is read belongs to the look-ups.
    fn reaches(&mut self, index: PageIndex, missing: bool) -> bool {
        if index == self.current {
            return true;
        }
        let reaches = match self.asked.iter().position(|asked| *asked == index) {
            Some(at) => {
                self.asked.drain(..=at);
                self.strays = 0;
                true
            }
            None => {
                self.strays += u32::from(missing);
                // Nothing could be foreseen: some page in between was missing.
                missing && self.asked.is_empty() && self.strays < STRAYS
            }
        };
        if reaches {
            self.current = index;
        }
        reaches
    }

    fn plan(&mut self, missing: bool, reach: &mut Reach<'_>) -> Vec<PageIndex> {
        if !worth_asking(&mut self.resting, missing, self.asked.len(), self.batch) {
            return Vec::new();
        }
        let batch = larger_batch(self.batch, reach.most);
        let mut pages = Vec::with_capacity(batch);
        for _ in 0..MOST_ROWS {
            if pages.len() >= batch {
                break;
            }
            let Some(rowid) = self.rowids.get(self.done).copied() else {
                match self.next_leaf(reach) {
                    Some(missing) => pages.extend(missing),
                    None => continue,
                }
                break;
            };
            match reach.trees.leaf_of(self.table, rowid, reach.at_hand) {
                Next::Page(_, leaf) if self.asked.contains(&leaf) || self.current == leaf => {}
                Next::Page(_, leaf) => {
                    self.asked.push_back(leaf);
                    pages.push(leaf);
                }
                Next::Needs(interior) => {
                    pages.push(interior);
                    break;
                }
                Next::End => {}
            }
            self.done += 1;
        }
        self.batch = batch;
        pages
    }

    /// Goes on in the next index leaf: `None` if that was possible, otherwise what is missing for
    /// it.
    fn next_leaf(&mut self, reach: &mut Reach<'_>) -> Option<Option<PageIndex>> {
        let Some(place) = reach.trees.place(self.leaf) else {
            return Some(None);
        };
        let next = match reach.trees.next(place, self.direction, reach.at_hand) {
            Next::Page(_, next) => next,
            Next::Needs(interior) => return Some(Some(interior)),
            Next::End => return Some(None),
        };
        let Some(content) = (reach.at_hand)(next) else {
            return Some(Some(next));
        };
        self.rowids = rowids(&content, next, self.direction, reach.usable);
        (self.leaf, self.done) = (next, 0);
        // A leaf that is none ends it: there would be no end to siblings without rows.
        self.rowids.is_empty().then_some(None)
    }
}

/// The rowids of an index leaf in a direction, as far as its cells tell.
fn rowids(content: &[u8], index: PageIndex, direction: Direction, usable: usize) -> Vec<i64> {
    let Some(page) = BtreePage::parse(index, content).filter(|p| p.kind == Kind::LeafIndex) else {
        return Vec::new();
    };
    let cells = 0..page.cells();
    let rowids = cells.filter_map(|cell| page.indexed_rowid(cell, usable));
    let mut rowids: Vec<i64> = rowids.collect();
    if direction == Direction::Backward {
        rowids.reverse();
    }
    rowids
}
