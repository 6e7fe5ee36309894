//! The read version that transactions share.
//!
//! A read version costs a round trip to the cluster. A transaction that may read a little behind
//! ([`Freshness::AtLeast`](crate::kv::Freshness)) takes the newest one known here instead, if it is
//! young enough to leave time for the transaction: FoundationDB keeps versions for five seconds.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mvsqlite_protocol::ReadVersion;

/// Older ones are not used.
const MAX_AGE: Duration = Duration::from_secs(2);

/// A read version, and the time before which it was not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) version: ReadVersion,
    pub(super) at: Duration,
}

/// The newest read version known.
#[derive(Debug, Default)]
pub(super) struct SharedReadVersion(Mutex<Option<Known>>);

impl SharedReadVersion {
    /// A version at or above `least` that is not older than two seconds.
    pub(super) fn at_least(&self, least: ReadVersion, now: Duration) -> Option<Known> {
        self.lock()
            .filter(|known| known.version >= least && now.saturating_sub(known.at) < MAX_AGE)
    }

    /// Takes notice of a version; an older one than is known changes nothing, unless what is known
    /// is of no use any more.
    pub(super) fn learn(&self, learned: Known) {
        let mut known = self.lock();
        let keep = known.is_some_and(|known| {
            known.version >= learned.version && learned.at.saturating_sub(known.at) < MAX_AGE
        });
        if !keep {
            *known = Some(learned);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(version: u64, milliseconds: u64) -> Known {
        Known {
            version: ReadVersion(version),
            at: Duration::from_millis(milliseconds),
        }
    }

    fn shared(versions: &[Known]) -> SharedReadVersion {
        let shared = SharedReadVersion::default();
        versions.iter().for_each(|version| shared.learn(*version));
        shared
    }

    #[test]
    fn a_version_is_shared_until_it_is_two_seconds_old() {
        let shared = shared(&[known(7, 100)]);
        let at = |now| shared.at_least(ReadVersion(7), Duration::from_millis(now));
        assert_eq!(at(100), Some(known(7, 100)));
        assert_eq!(at(2_099), Some(known(7, 100)));
        assert_eq!(at(2_100), None);
    }

    #[test]
    fn a_version_below_the_one_asked_for_is_not_used() {
        let shared = shared(&[known(7, 0)]);
        assert_eq!(shared.at_least(ReadVersion(8), Duration::ZERO), None);
    }

    #[test]
    fn the_newest_version_stays_whichever_answer_comes_last() {
        let shared = shared(&[known(9, 5), known(7, 6)]);
        assert_eq!(
            shared.at_least(ReadVersion(0), Duration::ZERO),
            Some(known(9, 5))
        );
    }

    #[test]
    fn versions_that_went_back_are_taken_once_the_higher_one_is_of_no_use() {
        let shared = shared(&[known(9_000, 0), known(7, 2_500)]);
        assert_eq!(
            shared.at_least(ReadVersion(0), Duration::from_millis(2_500)),
            Some(known(7, 2_500))
        );
    }
}
