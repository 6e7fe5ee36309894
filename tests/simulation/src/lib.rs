//! Clients, stores, network and disk in one seeded run that replays.
//!
//! The logic is the product's: the client with its caches and background threads (and SQLite on top,
//! where a workload puts it there), and the store over the key-value contract. Around it everything is
//! simulated, and all that is left to chance is drawn from one seed: who runs next, how long a message
//! or an fsync takes, and what goes wrong. The same seed gives the same run, step by step.
//!
//! | module | what |
//! |---|---|
//! | `scheduler` | simulated time; tasks and threads of which one runs at a time |
//! | `engine` | the key-value engine with a disk that loses what was not synced |
//! | `store_node` | a store as a process that is killed and starts again |
//! | `dispatch` | requests as bytes, given to a store |
//! | `world` | stores and network |
//! | `faults` | what goes wrong from time to time |
//! | [`process`] | a client process |
//! | [`plan`] | what goes wrong, and how often |
//! | `sqlite` | SQLite over the VFS, once for each process |
//! | `check` | what must hold after a run |
//! | [`workload`] | what the processes do |
//! | [`history`] | what they did and saw |
//! | [`outcome`] | what came of a run |

mod check;
mod dispatch;
mod engine;
mod faults;
pub mod history;
pub mod outcome;
pub mod plan;
pub mod process;
pub mod random;
mod run;
mod scheduler;
mod sqlite;
mod store_node;
mod trace;
pub mod workload;
mod world;

pub use history::{History, Recorder, Recording};
pub use outcome::{Failure, Outcome, Statistics};
pub use plan::{EngineKind, Faults, Plan};
pub use process::Process;
pub use random::Random;
pub use run::simulate;
pub use workload::Workload;
