//! Workers: processes that commit numbered transactions and keep a journal of what they were told.

use std::path::Path;
use std::time::Duration;

use crate::{Client, Journal, Running};

/// A worker (a script of `python/` on `worker.py`) and its journal, which outlives it.
pub struct Worker {
    /// What it was told.
    pub journal: Journal,
    /// Its process, until it is killed or waited for.
    pub running: Option<Running>,
}

/// How a worker is started.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The script.
    pub script: &'a str,
    /// The databases that it works on.
    pub databases: &'a [&'a str],
    /// For how long.
    pub lasting: Duration,
    /// Whether it keeps its connection over failures.
    pub keep: bool,
}

impl Worker {
    /// Starts worker number `number`, with a journal in `directory`.
    pub fn start(client: &Client, job: Job<'_>, number: u32, directory: &Path) -> Self {
        let kind = job
            .script
            .trim_end_matches(".py")
            .trim_end_matches("_worker");
        let path = directory.join(format!("{kind}-{number}"));
        let fixed = [
            number.to_string(),
            job.lasting.as_secs_f64().to_string(),
            path.display().to_string(),
            u32::from(job.keep).to_string(),
        ];
        let mut arguments: Vec<&str> = fixed.iter().map(String::as_str).collect();
        arguments.extend(job.databases);
        let running = client.start_python(job.script, &arguments);
        Self {
            journal: Journal::new(path, number),
            running: Some(running),
        }
    }

    /// Ends it as `kill -9` does.
    ///
    /// # Panics
    /// If it is gone already.
    pub fn kill(&mut self) {
        drop(self.running.take().expect("it is running").kill());
    }

    /// Waits for its end, unless it was killed.
    ///
    /// # Panics
    /// If it failed.
    pub fn finish(&mut self) {
        match self.running.take() {
            Some(running) => {
                let finished = running.finish();
                println!("{}: {}", finished.name, finished.ok());
            }
            None => println!(
                "{}: killed after {} commits",
                self.journal.path().display(),
                self.journal.told().acknowledged.len()
            ),
        }
    }
}
