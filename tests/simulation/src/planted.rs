//! Proof that the checks can fail: each planted bug is switched on, and seeds are run until one of
//! them finds it.
//!
//! A process for each bug, since the switch is the process's. What finds a bug is a workload that
//! anybody may run, with what goes wrong as any seed draws it: the table only says which workload, so
//! that the proof takes minutes and not hours. The seeds that were needed are run again without the
//! bug, and have to pass.

mod table;

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mvsqlite_planted::Bug;

use crate::runner::Worker;
use table::HUNTS;

/// Where a bug is looked for.
#[derive(Debug, Clone, Copy)]
struct Hunt {
    bug: Bug,
    /// The workload that is run.
    workload: &'static str,
    /// Within so many seeds it has to be found: about three times what was needed at most in several
    /// ranges of seeds.
    seeds: u64,
}

/// What came of some seeds.
enum Looked {
    /// All passed.
    Nothing,
    /// This one failed, with these words.
    Failure(u64, String),
    /// This one came to no end in time.
    TooSlow(u64),
}

/// What came of a hunt.
enum Verdict {
    Found {
        /// How many were run.
        seeds: u64,
        /// What the check said.
        how: String,
    },
    /// Not within its seeds.
    NotFound,
    /// This seed fails without the bug.
    FailsWithout(u64, String),
    /// This seed came to no end in time, which says more about the machine than about the bug: what
    /// never ends is ended by its number of steps.
    TooSlow(u64),
}

impl Hunt {
    fn prove(&self, first: u64, limit: Duration) -> io::Result<Verdict> {
        let all = first..first.saturating_add(self.seeds);
        let (seed, how) = match self.look(Some(self.bug), all, limit)? {
            Looked::Nothing => return Ok(Verdict::NotFound),
            Looked::TooSlow(seed) => return Ok(Verdict::TooSlow(seed)),
            Looked::Failure(seed, how) => (seed, how),
        };
        Ok(match self.look(None, first..seed + 1, limit)? {
            Looked::Nothing => Verdict::Found {
                seeds: seed + 1 - first,
                how,
            },
            Looked::TooSlow(seed) => Verdict::TooSlow(seed),
            Looked::Failure(seed, how) => Verdict::FailsWithout(seed, how),
        })
    }

    /// Runs seeds until one fails.
    fn look(&self, bug: Option<Bug>, seeds: Range<u64>, limit: Duration) -> io::Result<Looked> {
        let mut options = vec!["--worker", "--workload", self.workload];
        if let Some(bug) = bug {
            options.extend(["--bug", bug.name()]);
        }
        let options: Vec<_> = options.into_iter().map(str::to_owned).collect();
        let mut worker = Worker::start(&options)?;
        for seed in seeds {
            let started = Instant::now();
            match worker.run(seed, limit) {
                Ok(report) => match report.failure {
                    Some(failure) => return Ok(Looked::Failure(seed, failure)),
                    None => continue,
                },
                Err(_) if started.elapsed() >= limit => return Ok(Looked::TooSlow(seed)),
                // A process that dies of a bug has found it, too.
                Err(reason) => return Ok(Looked::Failure(seed, reason)),
            }
        }
        Ok(Looked::Nothing)
    }
}

/// Looks for every planted bug, or the one of this name, in seeds from the first on, and prints what
/// came of each. False if one was not found, or if there is none of this name.
///
/// # Errors
/// If no process can be started.
pub(crate) fn prove(
    only: Option<&str>,
    first: u64,
    jobs: usize,
    limit: Duration,
) -> io::Result<bool> {
    let begun = Instant::now();
    let wanted = |hunt: &&Hunt| only.is_none_or(|only| hunt.bug.name() == only);
    let hunts: Vec<_> = HUNTS.iter().filter(wanted).collect();
    let (next, found) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // So that lines come whole.
    let printer = Mutex::new(());
    let job = || -> io::Result<()> {
        while let Some(hunt) = hunts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            let verdict = hunt.prove(first, limit)?;
            let _whole = printer.lock().unwrap_or_else(PoisonError::into_inner);
            found.fetch_add(report(hunt, &verdict, started).into(), Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let jobs: Vec<_> = (0..jobs).map(|_| scope.spawn(job)).collect();
        jobs.into_iter().try_for_each(|job| {
            let ended = job.join();
            ended.unwrap_or_else(|_| Err(io::Error::other("a bug in the hunt for bugs")))
        })
    })?;
    let found = found.into_inner();
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{found} of {} planted bugs found, from seed {first} on, in {seconds:.0} s",
        hunts.len()
    );
    Ok(found == hunts.len() && found > 0)
}

/// Prints what came of a hunt; whether the bug was found.
fn report(hunt: &Hunt, verdict: &Verdict, started: Instant) -> bool {
    let Hunt {
        bug,
        workload,
        seeds: most,
    } = hunt;
    let what = match verdict {
        Verdict::Found { seeds, how } => {
            // Of a violation of serializability the first line only names the anomaly.
            let how: Vec<_> = how.lines().map(str::trim).take(2).collect();
            format!("found by seed {seeds} of {most}: {}", how.join(": "))
        }
        Verdict::NotFound => format!(
            "NOT FOUND in {most} seeds. {} Expected: {}.",
            bug.what(),
            bug.damage()
        ),
        Verdict::FailsWithout(seed, how) => {
            format!("PROVES NOTHING: seed {seed} fails without it: {how}")
        }
        Verdict::TooSlow(seed) => format!("PROVES NOTHING: seed {seed} came to no end in time"),
    };
    let seconds = started.elapsed().as_secs_f64();
    println!("{:<25} {workload:<10} {seconds:>5.1} s  {what}", bug.name());
    matches!(verdict, Verdict::Found { .. })
}
