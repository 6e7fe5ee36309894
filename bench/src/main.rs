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
mod scale;
mod side;
mod stats;
mod store;
mod workload;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::scale::{Amounts, Probe, Scale};
use crate::side::Side;
use crate::stats::{Measured, Report};
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
    /// One measurement of a scale, in this process: what the parent starts.
    #[command(hide = true)]
    Probe {
        /// Which.
        probe: Probe,
        /// Which side.
        side: Side,
        /// The database: a namespace or a path.
        database: String,
        /// Operations in all.
        count: u64,
        /// Connections that share them.
        clients: u64,
    },
    /// What grows: clients, history, namespaces; minutes each.
    Scale {
        /// Which; all of them if none is named.
        scales: Vec<Scale>,
        /// A part of each only, to see that it works.
        #[arg(long, default_value_t = 1)]
        one_in: u64,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Worker {
            workload,
            side,
            database,
        }) => answer(&workload.run(*side, database)?),
        Some(Command::Probe {
            probe,
            side,
            database,
            count,
            clients,
        }) => answer(&probe.run(*side, database, *count, *clients)?),
        Some(Command::Scale { scales, one_in }) => run_scales(&arguments, scales, *one_in),
        None => run_all(&arguments),
    }
}

/// Tells the parent what was measured.
fn answer(measured: &Measured) -> Result<()> {
    println!("{}", serde_json::to_string(measured)?);
    Ok(())
}

fn scratch(arguments: &Arguments) -> Result<tempfile::TempDir> {
    Ok(match &arguments.directory {
        Some(directory) => tempfile::tempdir_in(directory)?,
        None => tempfile::tempdir()?,
    })
}

/// Runs each scale on a store of its own.
fn run_scales(arguments: &Arguments, scales: &[Scale], one_in: u64) -> Result<()> {
    let all = Scale::value_variants();
    let scales = if scales.is_empty() { all } else { scales };
    let amounts = Amounts::one_in(one_in)?;
    for scale in scales {
        let scratch = scratch(arguments)?;
        scale::run(*scale, amounts, &arguments.mvstore, scratch.path())?;
    }
    Ok(())
}

/// Runs every workload on both sides and prints the table.
fn run_all(arguments: &Arguments) -> Result<()> {
    let scratch = scratch(arguments)?;
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
