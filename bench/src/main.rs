//! Measures SQLite over mvSQLite beside SQLite on a local file, and beside a bare loopback HTTP
//! exchange, in one run; prints ratios with the goals of the design.
//!
//! The machine is shared with whatever else runs on it, so absolute times mean little and are only
//! printed to make the ratios checkable. Nothing here is a test: no figure makes it fail.
//!
//! The parent starts a store on the embedded engine and runs each workload in a process of its own
//! (`mvsqlite-bench worker …`), because the page cache is shared by a process's connections and a
//! cold read must be cold.

mod echo;
mod linked;
mod side;
mod stats;
mod store;
mod workload;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::side::Side;
use crate::stats::Report;
use crate::store::Store;
use crate::workload::Workload;

/// Benchmarks of mvSQLite, as ratios measured in one run.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// The mvstore binary to measure.
    #[arg(long, env = "MVSTORE_BINARY", default_value = "target/release/mvstore")]
    mvstore: std::path::PathBuf,

    /// Where the store and the local files live: both on the same file system.
    #[arg(long, env = "MVSQLITE_BENCH_DIR")]
    directory: Option<std::path::PathBuf>,

    /// Only workloads whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// One workload on one side, in this process: what the parent starts.
    #[command(hide = true)]
    Worker {
        /// Which workload.
        workload: Workload,
        /// Which side.
        side: Side,
        /// The database: a namespace or a path.
        database: String,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Worker {
            workload,
            side,
            database,
        }) => {
            let measured = workload.run(side, &database)?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(())
        }
        None => run_all(&arguments),
    }
}

/// Runs every workload on both sides and prints the table.
fn run_all(arguments: &Arguments) -> Result<()> {
    let scratch = match &arguments.directory {
        Some(directory) => tempfile::tempdir_in(directory)?,
        None => tempfile::tempdir()?,
    };
    let store = Store::start(&arguments.mvstore, scratch.path())?;
    let mut report = Report::new(echo::median()?);
    println!(
        "store idle after start: {} MB resident",
        store.resident_bytes()? / 1_000_000
    );
    for workload in Workload::ALL {
        if arguments
            .only
            .as_ref()
            .is_some_and(|only| !workload.name().contains(only.as_str()))
        {
            continue;
        }
        let local = side::measure(workload, Side::Local, scratch.path(), &store)?;
        let ours = side::measure(workload, Side::Mvsqlite, scratch.path(), &store)?;
        report.add(workload, &local, &ours);
    }
    report.print();
    println!(
        "store at the end: {} MB resident",
        store.resident_bytes()? / 1_000_000
    );
    store.stop()
}
