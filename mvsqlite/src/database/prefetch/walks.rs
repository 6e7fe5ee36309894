//! Notices that the leaves of a tree are read one after the other, and says which come next.
//!
//! A few walks are followed at once: a statement may read a table and its indexes. Up to two batches
//! of leaves are asked for ahead of what was read; each is twice as large as the one before.

use mvsqlite_protocol::PageIndex;

use super::trees::{AtHand, Direction, Next, Place, Trees};
use super::{larger_batch, worth_asking};

/// Walks followed at once.
const WALKS: usize = 6;
/// Leaves that a walk may skip: SQLite still has some in its own cache.
const SKIP: usize = 8;

/// Leaves read in order.
struct Walk {
    last: Place,
    /// Known from the second leaf on.
    direction: Option<Direction>,
    /// The size of the last batch, in pages.
    batch: usize,
    /// The farthest leaf that was asked for.
    edge: Place,
    /// Leaves between `last` and `edge`.
    ahead: usize,
    /// All of the last batch was there already: nothing is asked for until something is missing.
    resting: bool,
}

/// How a walk comes to its next leaf.
struct Step {
    leaves: usize,
    direction: Option<Direction>,
}

/// The walks of one handle.
#[derive(Default)]
pub(super) struct Walks {
    /// The most recent last.
    walks: Vec<Walk>,
}

impl Walks {
    /// A leaf is read. Which pages to ask for, in the order they will be wanted; at most `most`.
    pub(super) fn read(
        &mut self,
        place: Place,
        missing: bool,
        most: usize,
        trees: &mut Trees,
        at_hand: AtHand<'_>,
    ) -> Vec<PageIndex> {
        let mut steps = self.walks.iter().enumerate().rev();
        let followed = steps.find_map(|(at, walk)| {
            let step = walk.step_to(place, trees, at_hand)?;
            Some((at, step))
        });
        let Some((at, step)) = followed else {
            if self.walks.len() == WALKS {
                self.walks.remove(0);
            }
            self.walks.push(Walk::starting_at(place));
            return Vec::new();
        };
        // A walk stays the most recent one while it is followed.
        self.walks[at..].rotate_left(1);
        let Some(walk) = self.walks.last_mut() else {
            return Vec::new();
        };
        walk.take(step, place);
        walk.plan(missing, most, trees, at_hand)
    }

    /// All that the last answer asked for was there.
    pub(super) fn rest(&mut self) {
        if let Some(walk) = self.walks.last_mut() {
            walk.resting = true;
        }
    }
}

impl Walk {
    fn starting_at(place: Place) -> Self {
        Self {
            last: place,
            direction: None,
            batch: 0,
            edge: place,
            ahead: 0,
            resting: false,
        }
    }

    /// Whether the walk goes on at this place.
    fn step_to(&self, place: Place, trees: &mut Trees, at_hand: AtHand<'_>) -> Option<Step> {
        if place.parent == self.last.parent {
            let leaves = place.number.abs_diff(self.last.number);
            if leaves == 0 {
                let direction = self.direction;
                return Some(Step { leaves, direction });
            }
            let direction = match place.number > self.last.number {
                true => Direction::Forward,
                false => Direction::Backward,
            };
            let follows = match self.direction {
                None => leaves == 1,
                Some(known) => known == direction && leaves <= SKIP,
            };
            let direction = Some(direction);
            return follows.then_some(Step { leaves, direction });
        }
        let tried = match self.direction {
            Some(known) => &[known][..],
            None => &[Direction::Forward, Direction::Backward],
        };
        let crosses = |direction: &&Direction| {
            let next = trees.next(self.last, **direction, at_hand);
            matches!(next, Next::Page(next, _) if next == place)
        };
        let direction = tried.iter().find(crosses).copied();
        direction.map(|direction| Step {
            leaves: 1,
            direction: Some(direction),
        })
    }

    fn take(&mut self, step: Step, place: Place) {
        self.last = place;
        self.direction = step.direction;
        match self.ahead.checked_sub(step.leaves) {
            Some(ahead) => self.ahead = ahead,
            None => (self.ahead, self.edge) = (0, place),
        }
        if self.ahead == 0 {
            self.edge = place;
        }
    }

    fn plan(
        &mut self,
        missing: bool,
        most: usize,
        trees: &mut Trees,
        at_hand: AtHand<'_>,
    ) -> Vec<PageIndex> {
        let Some(direction) = self.direction else {
            return Vec::new();
        };
        if !worth_asking(&mut self.resting, missing, self.ahead, self.batch) {
            return Vec::new();
        }
        let batch = larger_batch(self.batch, most);
        let mut pages = Vec::with_capacity(batch);
        while pages.len() < batch {
            match trees.next(self.edge, direction, at_hand) {
                Next::Page(place, page) => {
                    self.edge = place;
                    self.ahead += 1;
                    pages.push(page);
                }
                Next::Needs(page) => {
                    pages.push(page);
                    break;
                }
                Next::End => break,
            }
        }
        self.batch = batch;
        pages
    }
}
