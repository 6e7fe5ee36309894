//! Which versions of a page no readable moment needs: the rules, without a store.

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::Version;

use super::holds::Holds;

/// A version of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageVersion {
    /// Its version.
    pub version: Version,
    /// It says that the page does not exist.
    pub is_absent: bool,
}

/// Judges the versions of one page at or below the horizon, oldest first.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    holds: &'a Holds,
    /// The last one that stays, of those judged so far.
    kept: Option<PageVersion>,
}

impl<'a> Judge<'a> {
    /// `kept`: what [`Self::kept`] said after the versions before.
    pub(super) fn new(holds: &'a Holds, kept: Option<PageVersion>) -> Self {
        Self { holds, kept }
    }

    /// The last one that stays, of those judged so far.
    pub(super) fn kept(&self) -> Option<PageVersion> {
        self.kept
    }

    /// Whether this version may go; `next` is the one after it, if it is not above the horizon.
    ///
    /// A version is needed if some anchor sees it: it is the newest one at or below that. An absent
    /// one is needed only while there is something below it that would be seen in its place.
    pub(super) fn may_go(&mut self, this: PageVersion, next: Option<Version>) -> bool {
        let anchors = &self.holds.anchors;
        let first = anchors.partition_point(|anchor| {
            // A version that an anchor stands at is seen from there.
            *anchor < this.version || (*anchor == this.version && active(Bug::SweepTooFar))
        });
        let seen = match (anchors.get(first), next) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(anchor), Some(next)) => *anchor < next,
        };
        let below = (self.kept).map_or(self.holds.has_base, |page| !page.is_absent);
        let may_go = !seen || (this.is_absent && !below);
        if !may_go {
            self.kept = Some(this);
        }
        may_go
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(number: u64) -> Version {
        Version::new(number, 0)
    }

    /// What a moment sees: the newest version at or below it. `None`: look below the namespace.
    fn seen(versions: &[PageVersion], at: Version) -> Option<PageVersion> {
        versions.iter().rfind(|page| page.version <= at).copied()
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Answer {
        Absent,
        Content(Version),
        Below,
    }

    fn judged(versions: &[PageVersion], holds: &Holds) -> Vec<PageVersion> {
        let mut judge = Judge::new(holds, None);
        let mut kept = Vec::new();
        for (at, this) in versions.iter().enumerate() {
            let next = versions.get(at + 1).map(|next| next.version);
            if !judge.may_go(*this, next) {
                kept.push(*this);
            }
        }
        kept
    }

    proptest! {
        #[test]
        fn every_anchor_sees_the_same_and_nothing_more_is_kept(
            versions in prop::collection::btree_map(1u64..60, any::<bool>(), 0..20),
            pins in prop::collection::vec(0u64..60, 0..4),
            has_base in any::<bool>(),
        ) {
            let horizon = version(60);
            let pins = pins.into_iter().map(version).collect();
            let holds = Holds::of(pins, horizon, has_base);
            let page = |(number, is_absent): (&u64, &bool)| PageVersion {
                version: version(*number),
                is_absent: *is_absent,
            };
            let all: Vec<PageVersion> = versions.iter().map(page).collect();
            let kept = judged(&all, &holds);
            // Absent and "nothing here" are the same where nothing lies below.
            let answer = |page: Option<PageVersion>| match page {
                Some(page) if page.is_absent => Answer::Absent,
                Some(page) => Answer::Content(page.version),
                None if has_base => Answer::Below,
                None => Answer::Absent,
            };
            for anchor in &holds.anchors {
                prop_assert_eq!(answer(seen(&all, *anchor)), answer(seen(&kept, *anchor)));
            }
            // Leaving out any one of those kept changes what some anchor sees.
            for left_out in 0..kept.len() {
                let mut fewer = kept.clone();
                fewer.remove(left_out);
                let changed = holds.anchors.iter().any(|anchor| {
                    answer(seen(&fewer, *anchor)) != answer(seen(&kept, *anchor))
                });
                prop_assert!(changed, "{:?} is kept for nobody", kept[left_out]);
            }
        }
    }

    #[test]
    fn without_pins_only_the_newest_version_stays() {
        let holds = Holds::of(Vec::new(), version(9), false);
        let page = |number| PageVersion {
            version: version(number),
            is_absent: false,
        };
        assert_eq!(judged(&[page(1), page(2), page(5)], &holds), [page(5)]);
    }
}
