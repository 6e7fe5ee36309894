//! What a test file's process said and how it ended.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The file ran to its end and said so.
    Finished,
    /// The file ended early by its own choice, without a summary: it says that it cannot run here.
    Skipped,
    /// An error outside of any case ended the script.
    Broken(String),
    /// A signal ended it.
    Crashed(i32),
    /// It took longer than it was given.
    TimedOut,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Skipped => f.write_str("skipped itself"),
            Self::Broken(message) => write!(f, "broke off: {message}"),
            Self::Crashed(signal) => write!(f, "crashed with signal {signal}"),
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

/// The outcome of one test file.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How its process ended.
    pub ending: Ending,
    /// How many cases ran. Names may be used more than once, so this may exceed the names.
    pub ran: usize,
    /// Names of the cases that failed.
    pub failed: BTreeSet<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Reads what a process wrote: `tester.tcl`'s lines.
    pub fn read(output: &str, ending: Ending, took: Duration) -> Self {
        let mut outcome = Self {
            ending,
            ran: 0,
            failed: BTreeSet::new(),
            took,
        };
        let mut running = None;
        for line in output.lines() {
            outcome.read_line(line, &mut running);
        }
        outcome
    }

    fn read_line<'a>(&mut self, line: &'a str, running: &mut Option<&'a str>) {
        if let Some(case) = line.strip_suffix("... Ok") {
            self.ran += 1;
            *running = Some(case);
        } else if let Some(case) = line.strip_suffix("...") {
            // The verdict follows on lines of its own.
            self.ran += 1;
            *running = Some(case);
        } else if let Some((case, _)) = expectation(line) {
            self.failed.insert(case.to_owned());
        } else if line.starts_with("Error: ") {
            self.failed.extend(running.map(str::to_owned));
        } else if let Some(names) = line.strip_prefix("!Failures on these tests:") {
            let names = names.split_ascii_whitespace().map(str::to_owned);
            self.failed.extend(names);
        }
    }
}

/// `! CASE expected: [...]`.
fn expectation(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("! ")?.split_once(" expected: [")
}

/// The end of a script that ended by itself: with a summary, without one, or by an error.
pub fn ending_of(output: &str, status: i32) -> Ending {
    let has_summary = output.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next().is_some_and(|word| word.parse::<u64>().is_ok())
            && words.next() == Some("errors")
            && words.next() == Some("out")
    });
    match (has_summary, status) {
        (true, _) => Ending::Finished,
        (false, 0) => Ending::Skipped,
        (false, _) => Ending::Broken(last_error(output)),
    }
}

/// What the interpreter said at the end, in one line.
fn last_error(output: &str) -> String {
    let lines: Vec<_> = output.lines().collect();
    let trace = lines
        .iter()
        .position(|line| line.trim() == "while executing");
    let at = trace.map_or(lines.len(), |trace| trace).saturating_sub(1);
    lines.get(at).map_or("no message", |line| *line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
select1-1.1... Ok
select1-1.2...
! select1-1.2 expected: [1 {no such table}]
! select1-1.2 got:      [0 {}]
select1-1.3...
Error: no such command
select1-1.4... Ok
SQLite 2022 abc
2 errors out of 4 tests on host Linux 64-bit little-endian
!Failures on these tests: select1-1.2 select1-1.3
";

    #[test]
    fn cases_are_counted_and_those_that_failed_are_named() {
        let outcome = Outcome::read(OUTPUT, Ending::Finished, Duration::ZERO);
        let failed: Vec<_> = outcome.failed.iter().map(String::as_str).collect();
        assert_eq!(
            (outcome.ran, failed),
            (4, vec!["select1-1.2", "select1-1.3"])
        );
    }

    #[test]
    fn a_failure_counts_even_if_the_summary_never_comes() {
        let cut = OUTPUT.split("select1-1.4").next().unwrap_or_default();
        let outcome = Outcome::read(cut, Ending::Crashed(11), Duration::ZERO);
        assert_eq!(outcome.failed.len(), 2);
    }

    #[test]
    fn a_script_without_a_summary_did_not_finish() {
        assert_eq!(ending_of(OUTPUT, 1), Ending::Finished);
        assert_eq!(ending_of("", 0), Ending::Skipped);
        let broken = "a-1... Ok\nno such table: t1\n    while executing\n\"db eval {...}\"\n";
        let message = "no such table: t1".to_owned();
        assert_eq!(ending_of(broken, 1), Ending::Broken(message));
    }
}
