//! The conflict window: what recent commits wrote, and whether a transaction may commit after them.
//!
//! Invariants:
//! - Commits are recorded in version order, each as soon as it is accepted, so a check also sees
//!   commits that still wait for their fsync. One that is recorded and then fails only causes false
//!   conflicts, which are always safe.
//! - Every commit above [`ConflictWindow::floor`] is in the window. A read version below the floor
//!   cannot be judged any more and is too old.
//!
//! The window is a log and not an index by key, because a check then costs only what was written
//! since the transaction's read version, and the store's transactions read and commit within
//! milliseconds. An index would cost a search per range read, at up to 2,000 ranges a commit.
//!
//! It does no locking: whoever owns it decides the order of commits.

use std::collections::VecDeque;
use std::time::Duration;

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::ReadVersion;

use super::{KeyRange, KvError};

/// How far back a window reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// A commit is kept at least this long, unless the bytes run out.
    pub age: Duration,
    /// Most bytes of keys kept; the oldest commits go first.
    pub bytes: usize,
}

/// What one commit wrote.
#[derive(Debug)]
struct Written {
    version: u64,
    at: Duration,
    bytes: usize,
    ranges: Vec<KeyRange>,
}

/// The recent commits of an engine. See the module's documentation.
#[derive(Debug)]
pub struct ConflictWindow {
    limits: WindowLimits,
    floor: ReadVersion,
    bytes: usize,
    commits: VecDeque<Written>,
}

impl ConflictWindow {
    /// An empty window. Transactions that read below `floor` are too old.
    pub fn new(floor: ReadVersion, limits: WindowLimits) -> Self {
        Self {
            limits,
            floor,
            bytes: 0,
            commits: VecDeque::new(),
        }
    }

    /// The lowest read version that can still be judged.
    pub fn floor(&self) -> ReadVersion {
        self.floor
    }

    /// Whether a transaction that read `reads` at `read_version` may commit now.
    ///
    /// # Errors
    ///
    /// [`KvError::TooOld`] below the floor; [`KvError::Conflict`] if a commit above the read
    /// version wrote into one of the ranges.
    pub fn check(&self, read_version: ReadVersion, reads: &ReadSet) -> Result<(), KvError> {
        if reads.ranges.is_empty() {
            return Ok(());
        }
        if read_version < self.floor {
            return Err(KvError::TooOld);
        }
        // From the first commit that was not read.
        let unread = read_version.0 + u64::from(active(Bug::WindowOffByOne));
        let since = self
            .commits
            .partition_point(|commit| commit.version <= unread);
        let conflict = self
            .commits
            .range(since..)
            .flat_map(|commit| &commit.ranges)
            .any(|written| reads.meets(written));
        if conflict {
            Err(KvError::Conflict)
        } else {
            Ok(())
        }
    }

    /// Adds a commit, whose version is above all before, and lets go of what is out of the limits
    /// at the time `now`.
    pub fn record(&mut self, version: u64, now: Duration, ranges: Vec<KeyRange>) {
        let bytes = ranges
            .iter()
            .map(|range| size_of::<KeyRange>() + range.begin.len() + range.end.len())
            .sum::<usize>()
            + size_of::<Written>();
        self.bytes += bytes;
        self.commits.push_back(Written {
            version,
            at: now,
            bytes,
            ranges,
        });
        self.prune(now);
    }

    /// Lets go of commits older than the limits at the time `now`.
    pub fn prune(&mut self, now: Duration) {
        while let Some(oldest) = self.commits.front() {
            let outlived = now.saturating_sub(oldest.at) > self.limits.age;
            if !outlived && self.bytes <= self.limits.bytes {
                break;
            }
            self.floor = self.floor.max(ReadVersion(oldest.version));
            self.bytes -= oldest.bytes;
            self.commits.pop_front();
        }
    }
}

/// The ranges a transaction must not have been overtaken in: sorted, disjoint, none empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadSet {
    ranges: Vec<KeyRange>,
}

impl ReadSet {
    /// Sorts and merges.
    pub fn new(mut ranges: Vec<KeyRange>) -> Self {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_unstable_by(|a, b| a.begin.cmp(&b.begin));
        ranges.dedup_by(|next, kept| {
            let touches = next.begin <= kept.end;
            if touches && next.end > kept.end {
                kept.end = std::mem::take(&mut next.end);
            }
            touches
        });
        Self { ranges }
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> &[KeyRange] {
        &self.ranges
    }

    /// Whether some key is in both.
    fn meets(&self, other: &KeyRange) -> bool {
        let candidate = self
            .ranges
            .partition_point(|range| range.end <= other.begin);
        !other.is_empty()
            && self
                .ranges
                .get(candidate)
                .is_some_and(|range| range.begin < other.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FOREVER: WindowLimits = WindowLimits {
        age: Duration::MAX,
        bytes: usize::MAX,
    };

    fn reads(ranges: &[(&str, &str)]) -> ReadSet {
        ReadSet::new(ranges.iter().map(|(b, e)| KeyRange::new(*b, *e)).collect())
    }

    #[test]
    fn a_write_above_the_read_version_conflicts_and_one_at_it_does_not() {
        let mut window = ConflictWindow::new(ReadVersion(0), FOREVER);
        window.record(5, Duration::ZERO, vec![KeyRange::single(b"k")]);
        let read = ReadSet::new(vec![KeyRange::single(b"k")]);
        assert_eq!(window.check(ReadVersion(4), &read), Err(KvError::Conflict));
        assert_eq!(window.check(ReadVersion(5), &read), Ok(()));
    }

    #[test]
    fn ranges_are_half_open_on_both_sides() {
        let mut window = ConflictWindow::new(ReadVersion(0), FOREVER);
        window.record(1, Duration::ZERO, vec![KeyRange::new("c", "e")]);
        for (read, expected) in [
            (("a", "c"), Ok(())),
            (("e", "z"), Ok(())),
            (("a", "c\0"), Err(KvError::Conflict)),
            (("d", "d\0"), Err(KvError::Conflict)),
        ] {
            assert_eq!(window.check(ReadVersion(0), &reads(&[read])), expected);
        }
    }

    #[test]
    fn what_is_older_than_the_window_is_too_old_even_if_it_would_not_conflict() {
        let limits = WindowLimits {
            age: Duration::from_secs(5),
            bytes: usize::MAX,
        };
        let mut window = ConflictWindow::new(ReadVersion(0), limits);
        window.record(1, Duration::from_secs(0), vec![KeyRange::single(b"a")]);
        window.record(2, Duration::from_secs(4), vec![KeyRange::single(b"b")]);
        window.prune(Duration::from_secs(6));
        let elsewhere = reads(&[("x", "y")]);
        assert_eq!(
            window.check(ReadVersion(0), &elsewhere),
            Err(KvError::TooOld)
        );
        assert_eq!(window.check(ReadVersion(1), &elsewhere), Ok(()));
        assert_eq!(
            window.check(ReadVersion(1), &ReadSet::new(vec![KeyRange::single(b"b")])),
            Err(KvError::Conflict)
        );
    }

    #[test]
    fn the_bytes_kept_are_bounded() {
        let limits = WindowLimits {
            age: Duration::MAX,
            bytes: 10_000,
        };
        let mut window = ConflictWindow::new(ReadVersion(0), limits);
        for version in 1..1_000 {
            window.record(version, Duration::ZERO, vec![KeyRange::single(&[7; 100])]);
            assert!(window.bytes <= limits.bytes);
        }
        assert!(window.floor() > ReadVersion(900));
    }

    #[test]
    fn a_transaction_that_read_nothing_is_never_refused() {
        let window = ConflictWindow::new(ReadVersion(9), FOREVER);
        assert_eq!(window.check(ReadVersion(0), &ReadSet::default()), Ok(()));
    }

    proptest! {
        #[test]
        fn a_read_set_meets_a_range_exactly_if_one_of_its_parts_does(
            parts in prop::collection::vec((0u8..40, 0u8..40), 0..12),
            other in (0u8..40, 0u8..40),
        ) {
            let range = |(begin, end): (u8, u8)| KeyRange::new([begin], [end]);
            let set = ReadSet::new(parts.iter().copied().map(range).collect());
            let inside = |key: u8, (begin, end): (u8, u8)| begin <= key && key < end;
            let expected = (0..40).any(|key| {
                inside(key, other) && parts.iter().any(|part| inside(key, *part))
            });
            prop_assert_eq!(set.meets(&range(other)), expected);
        }
    }
}
