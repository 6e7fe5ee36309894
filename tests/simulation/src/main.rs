//! Runs seeds.

use std::sync::Arc;

use clap::Parser;
use mvsqlite_simulation::workload::registers::Registers;
use mvsqlite_simulation::{Plan, Workload, simulate};

#[derive(Parser)]
struct Arguments {
    /// Runs this one.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs so many.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Prints each step.
    #[arg(long)]
    trace: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => 0..arguments.seeds,
    };
    let mut failed = false;
    let workload: Arc<dyn Workload> = Arc::new(Registers {
        processes: 4,
        transactions: 25,
    });
    for seed in seeds {
        let mut plan = Plan::calm();
        plan.prints = arguments.trace;
        let outcome = simulate(seed, &plan, &workload);
        println!(
            "{seed}: {:016x} {} steps, {}, {:?}",
            outcome.trace_hash, outcome.steps, outcome.statistics, outcome.failure
        );
        failed |= outcome.failure.is_some();
    }
    std::process::exit(failed.into());
}
