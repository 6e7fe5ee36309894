//! `sim`: runs seeds of the simulation, says which of them fail and how to run one of those again.

mod planted;
mod runner;

use std::io::{BufRead, Write, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mvsqlite_planted::{Bug, arm};
use mvsqlite_simulation::{Plan, simulate, workload};
use runner::{Report, Runner};

/// Runs clients, stores, network and disk in seeded worlds.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Runs only this one, in this process.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: prints each step.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Which workload; without it, the one that the seed draws.
    #[arg(long)]
    workload: Option<String>,
    /// Nothing goes wrong.
    #[arg(long)]
    calm: bool,
    /// Plants this bug.
    #[arg(long)]
    bug: Option<String>,
    /// Proves that every planted bug is found; with --bug only that one.
    #[arg(long)]
    planted: bool,
    /// Runs each seed twice, and fails if the runs differ.
    #[arg(long)]
    twice: bool,
    /// How many processes run seeds; without it, one for each core.
    #[arg(long)]
    jobs: Option<usize>,
    /// How long one seed may take, in seconds.
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// Takes seeds from standard input, one in a line.
    #[arg(long, hide = true)]
    worker: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(name) = &arguments.bug {
        let Some(bug) = Bug::from_name(name) else {
            eprintln!("there is no planted bug '{name}'");
            return ExitCode::from(2);
        };
        arm(Some(bug).filter(|_| !arguments.planted));
    }
    if workload::of_seed(arguments.workload.as_deref(), 0).is_none() {
        let names: Vec<_> = workload::names().collect();
        eprintln!("there is no such workload; there are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    if arguments.planted {
        return prove(&arguments);
    }
    match (arguments.worker, arguments.seed) {
        (true, _) => work(&arguments),
        (false, Some(seed)) => one(&arguments, seed),
        (false, None) => many(&arguments),
    }
}

/// Runs a seed, and once more if that was asked for.
fn run(arguments: &Arguments, seed: u64) -> Report {
    let mut plan = match arguments.calm {
        true => Plan::calm(),
        false => Plan::of_seed(seed),
    };
    plan.prints = arguments.trace;
    let workload = workload::of_seed(arguments.workload.as_deref(), seed)
        .expect("the name was looked up before");
    let outcome = simulate(seed, &plan, &workload);
    let mut failure = outcome.failure.map(|failure| failure.to_string());
    if arguments.twice && failure.is_none() {
        let workload = workload::of_seed(arguments.workload.as_deref(), seed)
            .expect("the name was looked up before");
        let again = simulate(seed, &plan, &workload).trace_hash;
        if again != outcome.trace_hash {
            failure = Some("a second run of the seed went another way".to_owned());
        }
    }
    Report {
        seed,
        workload: workload.name().to_owned(),
        trace_hash: outcome.trace_hash,
        steps: outcome.steps,
        failure,
        statistics: outcome.statistics,
    }
}

fn one(arguments: &Arguments, seed: u64) -> ExitCode {
    let report = run(arguments, seed);
    println!("{report}");
    println!("{}", report.statistics);
    ExitCode::from(u8::from(report.failure.is_some()))
}

fn work(arguments: &Arguments) -> ExitCode {
    for line in stdin().lock().lines().map_while(Result::ok) {
        let Ok(seed) = line.trim().parse() else {
            continue;
        };
        let report = run(arguments, seed);
        let Ok(line) = serde_json::to_string(&report) else {
            continue;
        };
        println!("{line}");
        if stdout().flush().is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

impl Arguments {
    fn jobs(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.unwrap_or(cores).max(1)
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }
}

fn prove(arguments: &Arguments) -> ExitCode {
    let (bug, first) = (arguments.bug.as_deref(), arguments.first);
    match planted::prove(bug, first, arguments.jobs(), arguments.limit()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the workers cannot be run: {error}");
            ExitCode::from(2)
        }
    }
}

fn many(arguments: &Arguments) -> ExitCode {
    let mut options = vec!["--worker".to_owned()];
    let mut replay = Vec::new();
    for (flag, value) in [
        ("--workload", &arguments.workload),
        ("--bug", &arguments.bug),
    ] {
        if let Some(value) = value {
            replay.extend([flag.to_owned(), value.clone()]);
        }
    }
    if arguments.calm {
        replay.push("--calm".to_owned());
    }
    options.extend(replay.iter().cloned());
    if arguments.twice {
        options.push("--twice".to_owned());
    }
    let runner = Runner {
        options,
        replay: replay.join(" "),
        jobs: arguments.jobs(),
        limit: arguments.limit(),
    };
    match runner.run(arguments.first..arguments.first.saturating_add(arguments.seeds)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the workers cannot be run: {error}");
            ExitCode::from(2)
        }
    }
}
