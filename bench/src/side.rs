//! The two sides that are compared, and how a workload is run on one of them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rusqlite::{Connection, OpenFlags};

use crate::linked;
use crate::scale::Probe;
use crate::stats::Measured;
use crate::store::Store;
use crate::workload::Workload;

/// Where the database lives.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// A file on the local disk: WAL, synchronous=FULL, 8 KiB pages.
    Local,
    /// A namespace of the store, through the VFS, 8 KiB pages.
    Mvsqlite,
}

impl Side {
    /// Opens a connection. The statement cache and SQLite's page cache are SQLite's defaults.
    pub fn open(self, database: &str) -> Result<Connection> {
        let connection = match self {
            Self::Local => {
                let connection = Connection::open(database)?;
                connection.execute_batch(
                    "PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
                )?;
                connection
            }
            Self::Mvsqlite => {
                linked::register().context("registering the VFS")?;
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
                Connection::open_with_flags_and_vfs(database, flags, c"mvsqlite")?
            }
        };
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        Ok(connection)
    }
}

/// Runs a workload on one side: first its preparation, then, in a fresh process, what is measured.
pub fn measure(workload: Workload, side: Side, scratch: &Path, store: &Store) -> Result<Measured> {
    let name = workload.name();
    let database = match side {
        Side::Local => scratch.join(format!("{name}.db")).display().to_string(),
        Side::Mvsqlite => {
            store.create_namespace(name)?;
            name.to_owned()
        }
    };
    if workload.needs_preparation() {
        worker(Workload::Prepare, side, &database, store)?;
    }
    worker(workload, side, &database, store)
}

/// Runs one workload in a process of its own.
fn worker(workload: Workload, side: Side, database: &str, store: &Store) -> Result<Measured> {
    let name = name(&workload);
    in_process(&["worker", &name, &self::name(&side), database], store)
}

/// Runs one probe in a process of its own.
pub fn probe(
    probe: Probe,
    side: Side,
    database: &str,
    count: u64,
    clients: u64,
    store: &Store,
) -> Result<Measured> {
    let (count, clients) = (count.to_string(), clients.to_string());
    let arguments = [
        "probe",
        &name(&probe),
        &name(&side),
        database,
        &count,
        &clients,
    ];
    in_process(&arguments, store)
}

/// Runs this program once more, as a client of the store.
fn in_process(arguments: &[&str], store: &Store) -> Result<Measured> {
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .env("MVSQLITE_DATA_PLANE", store.data_plane())
        .stderr(Stdio::inherit())
        .output()
        .context("starting a process for the measurement")?;
    ensure!(output.status.success(), "'{}' failed", arguments.join(" "));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The name a value has on the command line.
fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}
