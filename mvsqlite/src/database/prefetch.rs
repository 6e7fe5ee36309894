//! Guesses which pages SQLite will want next, from the b-tree pages it has read.
//!
//! - **Walks**: leaves of a tree read in order, forward or backward; interior pages name the next.
//! - **Hops**: rows looked up in the order of an index; its leaf names their rowids.
//! - **Chains**: overflow pages.
//! - **Runs**: page numbers that grow, where no tree is known: backups and checks read so.
//!
//! A guess is never more than that: what is fetched on a guess goes into the page cache, does not
//! join the read set, and is served only if SQLite asks for it. So nothing here can be wrong in a way
//! that matters, whatever the bytes of a page say. Reading single rows guesses nothing.
//!
//! Nothing here does I/O.

mod btree;
mod chains;
pub(super) mod fetcher;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod hops;
mod read_ahead;
mod trees;
mod walks;

use std::collections::HashSet;
use std::sync::Arc;

use mvsqlite_protocol::PageIndex;

use btree::{BtreePage, Kind};
use chains::Chains;
use hops::{Hops, Reach};
use read_ahead::ReadAhead;
use trees::{AtHand, Trees};
use walks::Walks;

/// The first batch that is asked for, in pages, and the largest.
const FIRST_BATCH: usize = 4;
const LARGEST_BATCH: usize = 64;
/// Predictions remembered, so that it can be told which came true.
const MOST_PREDICTED: usize = 4096;

/// How the prefetch of one open database did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrefetchMetrics {
    /// Pages that SQLite read.
    pub page_reads: u64,
    /// Those of them that were not in the cache when SQLite asked.
    pub cache_misses: u64,
    /// Pages asked for before SQLite did.
    pub predictions_made: u64,
    /// Those of them that SQLite asked for afterwards.
    pub predictions_hit: u64,
}

/// The guesses of one handle.
pub(super) struct Prefetch {
    /// Most pages asked for on one guess; `None` is as many as pay, zero is none.
    depth: Option<u32>,
    trees: Trees,
    table_walks: Walks,
    index_walks: Walks,
    hops: Hops,
    chains: Chains,
    runs: ReadAhead,
    /// The leaf that was read last.
    leaf: Option<(PageIndex, Arc<[u8]>)>,
    predicted: HashSet<PageIndex>,
    metrics: PrefetchMetrics,
}

/// What a guess is made for.
pub(super) struct Reading<'a> {
    pub(super) index: PageIndex,
    /// Bytes of a page that SQLite uses.
    pub(super) usable: usize,
    /// Most pages that one request should carry.
    pub(super) most: u32,
    pub(super) at_hand: AtHand<'a>,
}

impl Prefetch {
    pub(super) fn new(depth: Option<u32>) -> Self {
        Self {
            depth,
            trees: Trees::default(),
            table_walks: Walks::default(),
            index_walks: Walks::default(),
            hops: Hops::default(),
            chains: Chains::default(),
            runs: ReadAhead::default(),
            leaf: None,
            predicted: HashSet::new(),
            metrics: PrefetchMetrics::default(),
        }
    }

    pub(super) fn metrics(&self) -> PrefetchMetrics {
        self.metrics
    }

    /// Most pages to ask for besides the one that is wanted.
    fn most(&self, reading: &Reading<'_>) -> usize {
        let room = reading.most.saturating_sub(1);
        self.depth.map_or(room, |depth| depth.min(room)) as usize
    }

    /// Looks at a page without taking it for a step of anything.
    pub(super) fn learn(&mut self, index: PageIndex, content: &Arc<[u8]>) {
        self.trees.learn(index, content);
    }

    /// A page is not in the cache. What to ask for with it, in the order it will be wanted.
    pub(super) fn missing(&mut self, reading: &Reading<'_>) -> Vec<PageIndex> {
        self.metrics.cache_misses += 1;
        let most = self.most(reading);
        if most == 0 {
            return Vec::new();
        }
        let index = reading.index;
        let window = u32::try_from(most + 1).unwrap_or(u32::MAX);
        let run = self.runs.window(index, window);
        let pages = match self.trees.place(index) {
            Some(_) => self.of_trees(reading, true, most),
            None => {
                let leaf = self.leaf.as_ref().map(|(leaf, page)| (*leaf, &**page));
                self.chains.missing(index, leaf, reading.usable, most)
            }
        };
        match pages.is_empty() {
            true => (1..run)
                .filter_map(|next| index.checked_add(next))
                .collect(),
            false => pages,
        }
    }

    /// SQLite reads a page. What to ask for while SQLite works on it.
    pub(super) fn read(&mut self, reading: &Reading<'_>, content: &Arc<[u8]>) -> Vec<PageIndex> {
        self.metrics.page_reads += 1;
        let index = reading.index;
        if self.predicted.remove(&index) {
            self.metrics.predictions_hit += 1;
        }
        let most = self.most(reading);
        if most == 0 {
            return Vec::new();
        }
        self.chains.read(index, content);
        let Some(page) = BtreePage::parse(index, content) else {
            return Vec::new();
        };
        match page.kind {
            Kind::InteriorIndex | Kind::InteriorTable => {
                self.trees.learn(index, content);
                return Vec::new();
            }
            Kind::LeafIndex => self.hops.index_leaf(index, content, reading.usable),
            Kind::LeafTable => {}
        }
        self.leaf = Some((index, Arc::clone(content)));
        self.of_trees(reading, false, most)
    }

    /// What the tree of a page suggests.
    fn of_trees(&mut self, reading: &Reading<'_>, missing: bool, most: usize) -> Vec<PageIndex> {
        let index = reading.index;
        let Some(place) = self.trees.place(index) else {
            return Vec::new();
        };
        let is_table = self.trees.is_table(place);
        let (trees, at_hand) = (&mut self.trees, reading.at_hand);
        if !is_table {
            return self.index_walks.read(place, missing, most, trees, at_hand);
        }
        if !self.hops.foresaw(index) {
            let pages = self.table_walks.read(place, missing, most, trees, at_hand);
            if !pages.is_empty() {
                return pages;
            }
        }
        let mut reach = Reach {
            trees,
            at_hand,
            usable: reading.usable,
            most,
        };
        self.hops.table_leaf(index, place, missing, &mut reach)
    }

    /// These pages are asked for on a guess.
    pub(super) fn asked(&mut self, pages: impl IntoIterator<Item = PageIndex>) {
        if self.predicted.len() > MOST_PREDICTED {
            self.predicted.clear();
        }
        for page in pages {
            self.predicted.insert(page);
            self.metrics.predictions_made += 1;
        }
    }

    /// All that was guessed last is in the cache: no use in guessing on before something is missing.
    pub(super) fn rest(&mut self) {
        self.table_walks.rest();
        self.index_walks.rest();
        self.hops.rest();
    }
}

/// The size of the next batch.
fn larger_batch(batch: usize, most: usize) -> usize {
    (batch * 2).clamp(FIRST_BATCH, LARGEST_BATCH).min(most)
}

/// Whether to ask for another batch, with `ahead` pages asked for and not read: two batches are ahead
/// at most. Whoever rests begins again when something is missing.
fn worth_asking(resting: &mut bool, missing: bool, ahead: usize, batch: usize) -> bool {
    *resting &= !missing;
    !*resting && ahead <= batch
}

#[cfg(test)]
mod tests;
