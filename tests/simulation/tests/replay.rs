//! A run is its seed's.

use mvsqlite_simulation::{Plan, simulate, workload};

#[test]
fn the_same_seed_gives_the_same_run_step_by_step_whatever_goes_wrong() {
    for name in workload::names() {
        let mut hashes = Vec::new();
        for seed in 0..2 {
            let workload = || workload::of_seed(Some(name), seed).expect("it has this name");
            let plan = Plan::of_seed(seed);
            let first = simulate(seed, &plan, &workload());
            let second = simulate(seed, &plan, &workload());
            assert_eq!(first.failure, None, "{name}, seed {seed}");
            assert_eq!(first.trace_hash, second.trace_hash, "{name}, seed {seed}");
            assert_eq!(first.statistics, second.statistics, "{name}, seed {seed}");
            hashes.push(first.trace_hash);
        }
        hashes.dedup();
        assert_eq!(hashes.len(), 2, "{name}: other seeds give other runs");
    }
}

#[test]
fn when_nothing_goes_wrong_every_process_knows_what_became_of_what_it_did() {
    for name in workload::names() {
        let workload = workload::of_seed(Some(name), 1).expect("it has this name");
        let outcome = simulate(1, &Plan::calm(), &workload);
        assert_eq!(outcome.failure, None, "{name}");
        let statistics = outcome.statistics;
        assert!(statistics.committed > 0, "{name}: {statistics}");
        assert_eq!((statistics.unknown, statistics.lost), (0, 0), "{name}");
    }
}
