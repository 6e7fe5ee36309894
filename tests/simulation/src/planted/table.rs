//! Which workload finds which planted bug, and within how many seeds.

use mvsqlite_planted::Bug;

use super::Hunt;

const fn hunt(bug: Bug, workload: &'static str, seeds: u64) -> Hunt {
    Hunt {
        bug,
        workload,
        seeds,
    }
}

/// Each bug once, but for those that other tests find: see scripts/planted-elsewhere.sh.
pub(super) const HUNTS: &[Hunt] = &[
    // Those that take longest begin first.
    hunt(Bug::PublishEarly, "bank", 400),
    hunt(Bug::NoAbortMarker, "lists", 300),
    hunt(Bug::StageUnchecked, "large", 200),
    hunt(Bug::AllocationUnchecked, "churn", 550),
    hunt(Bug::AcknowledgeEarly, "registers", 200),
    hunt(Bug::OvertakenUnchecked, "lists", 190),
    hunt(Bug::OthersUnchecked, "lists", 90),
    hunt(Bug::ForkUnheld, "history", 40),
    hunt(Bug::SkipConflictRange, "lists", 20),
    hunt(Bug::WindowOffByOne, "lists", 20),
    hunt(Bug::DropFromChangelog, "lists", 20),
    hunt(Bug::CountersStored, "churn", 20),
    hunt(Bug::ForgetOutcome, "lists", 20),
    hunt(Bug::GroupChecksFirst, "bank", 20),
    hunt(Bug::ServerCacheStale, "lists", 20),
    hunt(Bug::PageOneStale, "churn", 20),
    hunt(Bug::ForkSeesPresent, "history", 20),
    hunt(Bug::FoldAtNewVersion, "large", 20),
    hunt(Bug::FoldStopsEarly, "large", 20),
    hunt(Bug::SweepTooFar, "history", 20),
    hunt(Bug::RestoreUnlisted, "history", 20),
    hunt(Bug::ClientCacheStale, "lists", 20),
    hunt(Bug::MomentIgnored, "bank", 20),
    hunt(Bug::TimeoutIsFailure, "lists", 20),
    hunt(Bug::RetryUnderNewKey, "lists", 20),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Found by other tests, which scripts/planted-elsewhere.sh runs with each of them: the engine's
    /// crash tests over a disk that loses what was not synced, the models of the store and of its
    /// leases, and the client's own rules.
    const ELSEWHERE: [Bug; 6] = [
        Bug::IgnoreFailedSync,
        Bug::LeaseNonceUnchecked,
        Bug::HorizonUnchecked,
        Bug::ReadSetPerTransaction,
        Bug::ReadSetDropped,
        Bug::CounterKept,
    ];

    #[test]
    fn every_bug_is_hunted_once() {
        let hunted: Vec<_> = HUNTS.iter().map(|hunt| hunt.bug).chain(ELSEWHERE).collect();
        let each: BTreeSet<_> = hunted.iter().copied().collect();
        assert_eq!(each, Bug::ALL.iter().copied().collect());
        assert_eq!(hunted.len(), Bug::ALL.len());
    }
}
