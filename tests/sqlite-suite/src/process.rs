//! Running one test file in a process of its own.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::catalog::TestFile;
use crate::outcome::{Ending, Outcome, ending_of};
use crate::store::Store;

/// On what the databases of the tests lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Ordinary files, for comparison.
    Files,
    /// mvSQLite as it comes.
    Optimistic,
    /// mvSQLite with `MVSQLITE_CONCURRENCY=exclusive`.
    Exclusive,
}

/// How to run test files.
pub struct Runner {
    /// SQLite's testfixture, linked with ours.
    pub fixture: PathBuf,
    /// The script that goes before each test file.
    pub prelude: PathBuf,
    /// Where the processes' output is kept.
    pub logs: PathBuf,
    /// Where the databases lie.
    pub mode: Mode,
    /// The store; `None` for ordinary files.
    pub store: Option<Store>,
    /// How long one file may take.
    pub timeout: Duration,
}

/// How often a running process is looked at.
const POLL: Duration = Duration::from_millis(20);

impl Runner {
    /// Runs a file and tells what came of it.
    ///
    /// # Errors
    /// If the process cannot be started or its output not be kept.
    pub fn run(&self, file: &TestFile) -> Result<Outcome> {
        let directory = tempfile::Builder::new()
            .prefix("mvsqlite-suite-")
            .tempdir()
            .context("no working directory for a test")?;
        let log = self
            .logs
            .join(format!("{}.log", file.name.replace('/', "-")));
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let begun = Instant::now();
        let status = self.run_in(directory.path(), file, output)?;
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let ending = match status {
            None => Ending::TimedOut,
            Some(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => Ending::Crashed(signal),
                (None, code) => ending_of(&said, code.unwrap_or(1)),
            },
        };
        Ok(Outcome::read(&said, ending, begun.elapsed()))
    }

    /// The status it ended with; `None` if it took too long.
    fn run_in(
        &self,
        directory: &Path,
        file: &TestFile,
        output: File,
    ) -> Result<Option<ExitStatus>> {
        let mut command = Command::new(&self.fixture);
        command
            .arg(&self.prelude)
            .arg(&file.path)
            .current_dir(directory)
            .env("MVSQLITE_SECTOR_SIZE", "1024")
            .env("SQLITE_TMPDIR", directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A group of its own, so that what a test starts ends with it.
            .process_group(0);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MVSQLITE_")) {
            if name != "MVSQLITE_SECTOR_SIZE" {
                command.env_remove(name);
            }
        }
        if let Some(store) = &self.store {
            command
                .env("MVSQLITE_DATA_PLANE", store.data_plane())
                .env("MVSQLITE_SUITE_ADMIN_PORT", store.admin_port().to_string());
        }
        if self.mode == Mode::Exclusive {
            command.env("MVSQLITE_CONCURRENCY", "exclusive");
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.fixture.display()))?;
        let deadline = Instant::now() + self.timeout;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if Instant::now() > deadline {
                break None;
            }
            thread::sleep(POLL);
        };
        end_group(child.id())?;
        child.wait()?;
        Ok(status)
    }
}

/// Ends a process group that was made here, with everything that is left in it.
fn end_group(leader: u32) -> io::Result<()> {
    let group = format!("-{leader}");
    let quiet = (Stdio::null(), Stdio::null());
    // There may be nobody left, which is as well.
    Command::new("kill")
        .args(["-KILL", "--", &group])
        .stdout(quiet.0)
        .stderr(quiet.1)
        .status()?;
    Ok(())
}
