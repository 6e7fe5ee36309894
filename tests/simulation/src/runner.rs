//! Runs seeds in processes of their own, so that one that hangs or aborts takes no other along.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mvsqlite_simulation::Statistics;
use serde::{Deserialize, Serialize};

/// What came of a seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) workload: String,
    pub(crate) trace_hash: u64,
    pub(crate) steps: u64,
    pub(crate) failure: Option<String>,
    pub(crate) statistics: Statistics,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            workload,
            trace_hash,
            steps,
            ..
        } = self;
        write!(
            f,
            "seed {seed} ({workload}, {steps} steps, trace {trace_hash:016x}): "
        )?;
        match &self.failure {
            None => f.write_str("as it should be"),
            Some(failure) => write!(f, "FAILED: {failure}"),
        }
    }
}

/// How seeds are run.
pub(crate) struct Runner {
    /// What the workers are told.
    pub(crate) options: Vec<String>,
    /// What has to be said besides the seed to run it again.
    pub(crate) replay: String,
    pub(crate) jobs: usize,
    /// How long one seed may take.
    pub(crate) limit: Duration,
}

#[derive(Default)]
struct Totals {
    runs: u64,
    steps: u64,
    failed: Vec<u64>,
    statistics: Statistics,
}

/// A process that runs seeds.
pub(crate) struct Worker {
    process: Child,
    seeds: ChildStdin,
    answers: Receiver<String>,
}

impl Worker {
    /// Starts one that is told these options.
    pub(crate) fn start(options: &[String]) -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(seeds), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::Error::other(
                "a worker without standard input and output",
            ));
        };
        let (send, answers) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            // Whoever listens may have given up.
            let _ = lines.map(|line| send.send(line)).find(Result::is_err);
        });
        Ok(Self {
            process,
            seeds,
            answers,
        })
    }

    /// What came of a seed, or what became of the process.
    pub(crate) fn run(&mut self, seed: u64, limit: Duration) -> Result<Report, String> {
        writeln!(self.seeds, "{seed}").map_err(|error| error.to_string())?;
        match self.answers.recv_timeout(limit) {
            Ok(line) => serde_json::from_str(&line).map_err(|error| error.to_string()),
            Err(RecvTimeoutError::Timeout) => Err(format!("no end after {limit:?}")),
            Err(RecvTimeoutError::Disconnected) => Err(match self.process.wait() {
                Ok(status) => format!("the process ended: {status}"),
                Err(error) => format!("the process ended: {error}"),
            }),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Runner {
    /// Runs all seeds, and tells of those that fail as soon as they do. Returns how many.
    pub(crate) fn run(&self, seeds: Range<u64>) -> io::Result<usize> {
        let begun = Instant::now();
        let seeds = Mutex::new(seeds);
        let totals = Mutex::new(Totals::default());
        std::thread::scope(|scope| {
            let jobs = (0..self.jobs).map(|_| scope.spawn(|| self.job(&seeds, &totals)));
            let jobs: Vec<_> = jobs.collect();
            jobs.into_iter().try_for_each(|job| {
                job.join()
                    .unwrap_or_else(|_| Err(io::Error::other("a bug in the runner")))
            })
        })?;
        let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!(
            "{} seeds in {:.0} s, {} steps, {} failed {:?}",
            totals.runs,
            begun.elapsed().as_secs_f64(),
            totals.steps,
            totals.failed.len(),
            totals.failed
        );
        println!("{}", totals.statistics);
        Ok(totals.failed.len())
    }

    fn job(&self, seeds: &Mutex<Range<u64>>, totals: &Mutex<Totals>) -> io::Result<()> {
        let mut worker = None;
        loop {
            let next = seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(seed) = next else { return Ok(()) };
            let running = match &mut worker {
                Some(running) => running,
                None => worker.insert(Worker::start(&self.options)?),
            };
            let came = running.run(seed, self.limit);
            let failure = match &came {
                Ok(report) => report.failure.as_ref().map(|_| report.to_string()),
                Err(reason) => Some(format!("seed {seed}: FAILED: {reason}")),
            };
            if came.is_err() {
                worker = None;
            }
            let totals = &mut *totals.lock().unwrap_or_else(PoisonError::into_inner);
            totals.runs += 1;
            if let Ok(report) = &came {
                totals.steps += report.steps;
                totals.statistics.add(&report.statistics);
            }
            if let Some(failure) = failure {
                totals.failed.push(seed);
                println!(
                    "{failure}\n  replay: make sim SEED={seed} SIM=\"{}\"",
                    self.replay
                );
            }
        }
    }
}
