//! Looks for whole batches anywhere in bytes that may be made to look like many.
//!
//! What is behind a broken batch is content that anybody may have written, in the worst case a
//! beginning of a batch every few bytes, each followed by entries up to the end of the journal. What
//! comes behind an entry depends on nothing but where it begins, so what was once found out about
//! a place holds for all that lead there: each entry is looked at once.

use std::collections::HashMap;

use super::{Batch, Cursor, END, Head, TRAILER, checksum_of};

/// Where entries one behind the other lead.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// How many there are.
    entries: u32,
    /// Where the batch's end stands.
    end: usize,
}

/// The bytes, and what is known of them.
pub(super) struct Search<'a> {
    bytes: &'a [u8],
    /// Places from which entries lead to the end of a batch.
    ways: HashMap<usize, Way>,
    /// A bit for each place from which they do not.
    dead_ends: Vec<u64>,
}

impl<'a> Search<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            ways: HashMap::new(),
            dead_ends: vec![0; bytes.len() / 64 + 1],
        }
    }

    /// Whether a whole batch with entries begins somewhere from `first` on, of a sequence number that
    /// can be.
    pub(super) fn finds(&mut self, first: usize, can_be: impl Fn(u64) -> bool) -> bool {
        (first..self.bytes.len()).any(|at| {
            let head = Head::parse(&self.bytes[at..]);
            let head = head.filter(|head| head.count > 0 && can_be(head.sequence));
            head.is_some_and(|head| self.is_whole(at + Head::BYTES, head.count))
        })
    }

    /// Whether exactly so many entries and the end of a batch that fits them begin here.
    fn is_whole(&mut self, first: usize, count: u32) -> bool {
        match self.way(first) {
            Some(way) if way.entries == count => {
                let checksum = Batch::checksum_at(&self.bytes[way.end..]);
                checksum == Some(checksum_of(&self.bytes[first..way.end]))
            }
            _ => false,
        }
    }

    fn way(&mut self, first: usize) -> Option<Way> {
        let mut passed = Vec::new();
        let mut at = first;
        let known = loop {
            if let Some(way) = self.ways.get(&at) {
                break Some(*way);
            }
            if self.is_dead_end(at) {
                break None;
            }
            let mut rest = Cursor::new(self.bytes, at);
            if rest.entry().is_none() {
                let end = Batch::checksum_at(&self.bytes[at.min(self.bytes.len())..]);
                break end.map(|_| Way {
                    entries: 0,
                    end: at,
                });
            }
            passed.push(at);
            at = rest.at;
        };
        let Some(mut way) = known else {
            passed
                .iter()
                .for_each(|at| self.dead_ends[at / 64] |= 1 << (at % 64));
            return None;
        };
        for at in passed.into_iter().rev() {
            way.entries += 1;
            self.ways.insert(at, way);
        }
        Some(way)
    }

    fn is_dead_end(&self, at: usize) -> bool {
        let bits = self.dead_ends.get(at / 64);
        bits.is_none_or(|bits| bits >> (at % 64) & 1 != 0)
    }
}

impl Batch {
    /// The checksum in the end of a batch at the beginning of the bytes.
    pub(super) fn checksum_at(bytes: &[u8]) -> Option<u64> {
        let mut rest = Cursor::new(bytes, 0);
        if rest.byte()? != END {
            return None;
        }
        let checksum = rest.u64()?;
        (rest.take(TRAILER.len())? == TRAILER).then_some(checksum)
    }
}
