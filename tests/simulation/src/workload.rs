//! What the client processes do, and what has to be true afterwards.

pub(crate) mod contents;
mod fault;
pub(crate) mod ledger;
pub mod mixture;
mod operation;
pub mod registers;
mod role;
mod session;
mod snapshot;
pub mod swarm;

use std::sync::Arc;

use mvsqlite::Config;

pub(crate) use contents::Database;
pub(crate) use ledger::Observation;
pub use mixture::Mixture;
use registers::Registers;
pub(crate) use snapshot::Snapshot;
pub use swarm::Family;
pub(crate) use swarm::Swarm;

use crate::history::{History, Recorder};
use crate::process::Process;
use crate::random::Random;

/// Makes a workload, drawn from a seed.
type Make = fn(&mut Random) -> Arc<dyn Workload>;

/// All workloads, by their names.
const ALL: [(&str, Make); 8] = [
    ("registers", |random| Arc::new(Registers::drawn(random))),
    ("lists", |random| mixture(Family::Lists, random)),
    ("bank", |random| mixture(Family::Bank, random)),
    ("churn", |random| mixture(Family::Churn, random)),
    ("large", |random| mixture(Family::Large, random)),
    ("schema", |random| mixture(Family::Schema, random)),
    ("exclusive", |random| mixture(Family::Exclusive, random)),
    ("history", |random| mixture(Family::History, random)),
];

fn mixture(family: Family, random: &mut Random) -> Arc<dyn Workload> {
    Arc::new(Mixture::new(family, random.number()))
}

/// The names of all workloads.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// The workload of this name as a seed has it; without a name also which one it is. `None`: there is
/// none of this name.
pub fn of_seed(name: Option<&str>, seed: u64) -> Option<Arc<dyn Workload>> {
    let mut random = Random::for_purpose(seed, "workload");
    let drawn = random.pick(&ALL);
    let (_, make) = match name {
        Some(name) => ALL.iter().find(|(known, _)| *known == name)?,
        None => drawn,
    };
    Some(make(&mut random))
}

/// Something for client processes to do, once: it may remember what happened.
pub trait Workload: Send + Sync {
    /// Its name on a command line.
    fn name(&self) -> &'static str;

    /// How many processes run it.
    fn processes(&self) -> u32;

    /// How a process is configured, drawn from its stream.
    fn configure(&self, config: &mut Config, random: &mut Random) {
        let _ = (config, random);
    }

    /// Makes what the processes work on. Nothing goes wrong meanwhile.
    fn setup(&self, process: &Process);

    /// What each process does. Anything may go wrong.
    fn run(&self, process: &Process, recorder: &Recorder);

    /// Looks at what is left, when nothing goes wrong any more. The history is that of all processes.
    /// What it finds there may be put into it: see [`History::final_lists`].
    ///
    /// # Errors
    /// What is wrong.
    fn verify(&self, process: &Process, history: &History) -> Result<(), String>;
}
