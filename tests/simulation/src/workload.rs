//! What the client processes do, and what has to be true afterwards.

pub mod registers;

use mvsqlite::Config;

use crate::history::{History, Recorder};
use crate::process::Process;
use crate::random::Random;

/// Something for client processes to do.
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
