//! Proof that the checks can fail: each planted bug is switched on, and seeds are run until one of
//! them finds it.
//!
//! A process for each bug, since the switch is the process's. What finds a bug is a workload that
//! anybody may run, with what goes wrong as any seed draws it: the table only says which workload, so
//! that the proof takes minutes and not hours. The seeds that were needed are run again without the
//! bug, and have to pass.

mod table;

use std::io;
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
}

impl Hunt {
    fn prove(&self, first: u64, limit: Duration) -> io::Result<Verdict> {
        let all = first..first.saturating_add(self.seeds);
        let Some((seed, how)) = self.look(Some(self.bug), all, limit)? else {
            return Ok(Verdict::NotFound);
        };
        Ok(match self.look(None, first..seed + 1, limit)? {
            None => Verdict::Found {
                seeds: seed + 1 - first,
                how,
            },
            Some((seed, how)) => Verdict::FailsWithout(seed, how),
        })
    }

    /// Runs seeds until one fails: which, and why.
    fn look(
        &self,
        bug: Option<Bug>,
        mut seeds: std::ops::Range<u64>,
        limit: Duration,
    ) -> io::Result<Option<(u64, String)>> {
        let mut options = vec!["--worker", "--workload", self.workload];
        if let Some(bug) = bug {
            options.extend(["--bug", bug.name()]);
        }
        let options: Vec<_> = options.into_iter().map(str::to_owned).collect();
        let mut worker = Worker::start(&options)?;
        Ok(seeds.find_map(|seed| {
            // A process that hangs or dies of a bug has found it, too.
            let came = worker.run(seed, limit);
            let failure = came.map_or_else(Some, |report| report.failure);
            failure.map(|failure| (seed, failure))
        }))
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
            let how = how.lines().next().unwrap_or_default();
            format!("found by seed {seeds} of {most}: {how}")
        }
        Verdict::NotFound => format!(
            "NOT FOUND in {most} seeds. {} Expected: {}.",
            bug.what(),
            bug.damage()
        ),
        Verdict::FailsWithout(seed, how) => {
            format!("PROVES NOTHING: seed {seed} fails without it: {how}")
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    println!("{:<25} {workload:<10} {seconds:>5.1} s  {what}", bug.name());
    matches!(verdict, Verdict::Found { .. })
}
