//! A run is its seed's.

use std::sync::Arc;

use mvsqlite_simulation::workload::registers::Registers;
use mvsqlite_simulation::{Plan, Workload, simulate};

#[test]
fn the_same_seed_gives_the_same_run_step_by_step() {
    let workload: Arc<dyn Workload> = Arc::new(Registers {
        processes: 4,
        transactions: 10,
    });
    let mut hashes = Vec::new();
    for seed in 0..4 {
        let first = simulate(seed, &Plan::calm(), &workload);
        let second = simulate(seed, &Plan::calm(), &workload);
        assert_eq!(first.failure, None, "seed {seed}");
        assert!(first.statistics.committed > 0, "seed {seed}");
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        hashes.push(first.trace_hash);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 4, "other seeds give other runs");
}
