//! `mvstore fsck`: checks a data directory, a cluster, or the store of a running server, and tells by
//! lines and an exit code what is wrong.
//!
//! Opening a data directory recovers what a crash left in it, as a server's start does; the check
//! itself writes nothing.

mod flags;
mod online;
mod report;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

pub use flags::FsckCommand;
pub use report::{Done, Line};

use self::report::Report;
use crate::daemon::EngineError;
use crate::fsck::{self, Event, FsckError, FsckOptions};
use crate::kv::Engine;
use crate::kv::embedded::{self, EmbeddedEngine, EmbeddedOptions};
use crate::kv::foundationdb;

/// Every finding is a leftover, or there is none.
const CLEAN: u8 = 0;
/// There are findings.
const FOUND: u8 = 1;
/// The store could not be checked, or not to its end.
const NOT_CHECKED: u8 = 3;
/// How often progress is told, at most.
pub(crate) const PROGRESS: Duration = Duration::from_secs(1);
/// How long threads of the runtime may take to end.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no answer. One line: what, where, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no store there.
    #[error(
        "there is no store in {path}: give the data directory of an mvstore with --data-dir, or the admin API of a running one with --url"
    )]
    NoStore {
        /// The directory.
        path: String,
    },
    /// The engine cannot be opened.
    #[error("{0}{hint}", hint = hint(.0))]
    Engine(#[from] EngineError),
    /// The check did not come to its end.
    #[error(transparent)]
    Check(#[from] FsckError),
    /// The server cannot be asked, or its answer broke off.
    #[error("{url}: {reason}")]
    Server {
        /// The address asked.
        url: String,
        /// What went wrong, and what to do.
        reason: String,
    },
    /// The system gives no threads, or nobody reads what is written.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Whoever has the directory can be asked.
fn hint(error: &EngineError) -> &'static str {
    use crate::kv::embedded::OpenError;
    match error {
        EngineError::Embedded(OpenError::InUse { .. }) => {
            ". To check the store of a running server, give its admin API: mvstore fsck --url http://127.0.0.1:7001"
        }
        _ => "",
    }
}

/// Runs the command.
///
/// Exit codes: 0 if nothing is wrong, or space is wasted at most; 1 if something is (with `--strict`
/// whatever is found counts); 3 if that could not be found out.
pub fn run(command: &FsckCommand) -> ExitCode {
    match try_run(command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("mvstore fsck: {error}");
            ExitCode::from(NOT_CHECKED)
        }
    }
}

fn try_run(command: &FsckCommand) -> Result<u8, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut report = Report::new(command.json);
    let done = runtime.block_on(async {
        match &command.url {
            Some(url) => online::check(command, url, &mut report).await,
            None => check_engine(command, &mut report).await,
        }
    });
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    report.finish(done?)?;
    Ok(match report.is_clean(command.strict) {
        true => CLEAN,
        false => FOUND,
    })
}

/// Checks by way of an engine of our own.
async fn check_engine(command: &FsckCommand, report: &mut Report) -> Result<Done, CommandError> {
    if let Some(cluster) = command.cluster.clone() {
        let engine = spawn_blocking(move || foundationdb::open(&cluster)).await;
        let engine = engine
            .map_err(EngineError::from)?
            .map_err(EngineError::from)?;
        return check(command, engine, report).await;
    }
    let path = command.data_dir.clone();
    if is_nothing(&path) {
        let path = path.display().to_string();
        return Err(CommandError::NoStore { path });
    }
    let engine = spawn_blocking(|| EmbeddedEngine::open(path, EmbeddedOptions::default())).await;
    let engine = engine
        .map_err(EngineError::from)?
        .map_err(EngineError::from)?;
    let engine = Arc::new(engine);
    let done = check(command, Arc::clone(&engine) as Arc<dyn Engine>, report).await;
    // Closing does not fail.
    let _ = spawn_blocking(move || engine.close()).await;
    done
}

/// Whether opening the directory would make a store there.
fn is_nothing(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let mut names = entries.flatten().map(|entry| entry.file_name());
            names.all(|name| embedded::is_no_store(&name))
        }
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

async fn check(
    command: &FsckCommand,
    engine: Arc<dyn Engine>,
    report: &mut Report,
) -> Result<Done, CommandError> {
    let options = FsckOptions {
        sqlite: command.sqlite,
        bytes_per_second: command.bytes_per_second,
        ..FsckOptions::new(&command.metadata_prefix, &command.raw_data_prefix)
    };
    let since = Instant::now();
    let mut told = Instant::now();
    let mut failed = None;
    let counts = fsck::check_with(engine, options, |event| {
        let line = match event {
            Event::Progress(_) if told.elapsed() < PROGRESS => return ControlFlow::Continue(()),
            Event::Progress(counts) => {
                told = Instant::now();
                Line::Progress(counts)
            }
            Event::Found(finding) => Line::Finding(finding),
        };
        match report.line(&line) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })
    .await;
    if let Some(error) = failed {
        return Err(error.into());
    }
    Ok(Done {
        counts: counts?,
        seconds: since.elapsed().as_secs_f64(),
    })
}
