//! `sqlite-suite`: runs SQLite's test files over mvSQLite and compares with the lists.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;

use mvsqlite_suite::catalog::{TestFile, test_files};
use mvsqlite_suite::exceptions::Exceptions;
use mvsqlite_suite::glob::matches;
use mvsqlite_suite::process::{Mode, Runner};
use mvsqlite_suite::report::{self, Totals};
use mvsqlite_suite::store::Store;
use mvsqlite_suite::verdict::Verdict;

/// Runs SQLite's own test files over mvSQLite, each in a process of its own, and compares what fails
/// with the lists of what does not apply. Exit code 0: as the lists say; 1: not; 2: usage.
#[derive(Parser)]
struct Options {
    /// Names of files such as `select1`, or patterns such as `trans*`; all without one.
    files: Vec<String>,
    /// A file with names or patterns, one a line, `#` begins a remark.
    #[arg(long)]
    part: Option<PathBuf>,
    /// Where the databases lie.
    #[arg(long, value_enum, default_value_t = Mode::Optimistic)]
    mode: Mode,
    /// How many files at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Seconds that one file may take.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// SQLite's testfixture, linked with ours; its source tree lies beside it, in `src`.
    #[arg(long, env = "MVSQLITE_TESTFIXTURE")]
    fixture: PathBuf,
    /// The store's program.
    #[arg(long, env = "MVSTORE")]
    mvstore: PathBuf,
    /// The directory of the lists and of `fixture/prelude.tcl`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR")))]
    suite: PathBuf,
    /// Runs the files too that are listed as a whole, without judging them by that.
    #[arg(long)]
    listed: bool,
    /// Prints only the files in which something is not as the lists say, and the sums.
    #[arg(long)]
    quiet: bool,
    /// Where the output of each file is kept; `logs` beside the fixture without it.
    #[arg(long)]
    logs: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let exceptions = Exceptions::read(&options.suite.join("lists"))?;
    let totals = Run::prepare(&options, &exceptions)?.finish()?;
    println!("{totals}");
    Ok(match totals.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// A run under way.
struct Run<'a> {
    runner: Runner,
    exceptions: &'a Exceptions,
    jobs: usize,
    quiet: bool,
    waiting: Mutex<VecDeque<TestFile>>,
    totals: Mutex<Totals>,
    begun: Instant,
}

impl<'a> Run<'a> {
    fn prepare(options: &Options, exceptions: &'a Exceptions) -> Result<Self> {
        let home = options
            .fixture
            .parent()
            .context("the fixture has no directory")?;
        let all = test_files(&home.join("src"))?;
        let names: Vec<_> = all.iter().map(|file| file.name.clone()).collect();
        if let Some(exception) = exceptions.without_file(&names).first() {
            bail!("listed, but there is no such file: {:?}", exception.files);
        }
        let mut totals = Totals::default();
        let mut waiting = VecDeque::new();
        for file in chosen(all, &patterns(options)?)? {
            let listed = exceptions.of(&file.name, options.mode);
            match listed.iter().find(|exception| exception.whole_file()) {
                Some(exception) if !options.listed => totals.add_not_run(exception.reason),
                _ => waiting.push_back(file),
            }
        }
        let logs = options.logs.clone().unwrap_or_else(|| home.join("logs"));
        fs::create_dir_all(&logs)?;
        let store = match options.mode {
            Mode::Files => None,
            _ => Some(Store::start(&options.mvstore, &logs.join("mvstore.log"))?),
        };
        Ok(Self {
            runner: Runner {
                fixture: options.fixture.clone(),
                prelude: options.suite.join("fixture/prelude.tcl"),
                logs,
                mode: options.mode,
                store,
                timeout: Duration::from_secs(options.timeout),
            },
            exceptions,
            jobs: options.jobs.max(1),
            quiet: options.quiet,
            waiting: Mutex::new(waiting),
            totals: Mutex::new(totals),
            begun: Instant::now(),
        })
    }

    fn finish(mut self) -> Result<Totals> {
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs)
                .map(|_| scope.spawn(|| self.work()))
                .collect();
            for worker in workers {
                worker.join().ok().context("a worker ended early")??;
            }
            anyhow::Ok(())
        })?;
        if let Some(store) = &mut self.runner.store
            && !store.is_running()?
        {
            bail!(
                "mvstore ended during the run: see mvstore.log in {}",
                self.runner.logs.display()
            );
        }
        println!("{:.0} s", self.begun.elapsed().as_secs_f64());
        Ok(self
            .totals
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner))
    }

    fn work(&self) -> Result<()> {
        while let Some(file) = self.next() {
            let outcome = self.runner.run(&file)?;
            let listed = self.exceptions.of(&file.name, self.runner.mode);
            let verdict = Verdict::of(&outcome, &listed);
            if !self.quiet || !verdict.is_good() {
                println!("{}", report::of_file(&file.name, &outcome, &verdict));
            }
            let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
            totals.add(&outcome, &verdict);
        }
        Ok(())
    }

    fn next(&self) -> Option<TestFile> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    }
}

/// The patterns asked for, on the command line and in the file.
fn patterns(options: &Options) -> Result<Vec<String>> {
    let mut patterns = options.files.clone();
    if let Some(part) = &options.part {
        let text = fs::read_to_string(part).with_context(|| part.display().to_string())?;
        let lines = text.lines().filter_map(|line| line.split('#').next());
        patterns.extend(
            lines
                .flat_map(str::split_ascii_whitespace)
                .map(str::to_owned),
        );
    }
    Ok(patterns)
}

/// The files that match one of the patterns; all if there are none.
fn chosen(files: Vec<TestFile>, patterns: &[String]) -> Result<Vec<TestFile>> {
    for pattern in patterns {
        if !files.iter().any(|file| matches(pattern, &file.name)) {
            bail!("there is no test file like '{pattern}'");
        }
    }
    let asked_for = |file: &TestFile| {
        patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, &file.name))
    };
    Ok(files.into_iter().filter(asked_for).collect())
}
