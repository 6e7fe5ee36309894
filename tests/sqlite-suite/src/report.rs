//! What a run prints and adds up.

use std::collections::BTreeMap;
use std::fmt;

use crate::exceptions::Reason;
use crate::outcome::{Ending, Outcome};
use crate::verdict::{Complaint, Verdict};

/// The sums of a run.
#[derive(Debug, Default)]
pub struct Totals {
    /// Test files that were asked for.
    pub files: usize,
    /// Files that are listed as a whole, by reason.
    pub not_run: BTreeMap<Reason, usize>,
    /// Files that say themselves that they do not apply to this build.
    pub skipped: usize,
    /// Files in which something is not as the lists say.
    pub bad: usize,
    /// Files of which every case passed.
    pub clean: usize,
    /// Cases that ran.
    pub cases: usize,
    /// Failed cases that are listed, by reason.
    pub excused: BTreeMap<Reason, usize>,
    /// Failed cases that are not.
    pub failed: usize,
}

impl Totals {
    /// Counts a file that ran.
    pub fn add(&mut self, outcome: &Outcome, verdict: &Verdict) {
        self.files += 1;
        self.cases += outcome.ran;
        for (_, reason) in &verdict.excused {
            *self.excused.entry(*reason).or_default() += 1;
        }
        let failed = |it: &&Complaint| matches!(it, Complaint::Failed(_));
        self.failed += verdict.complaints.iter().filter(failed).count();
        match (verdict.is_good(), &outcome.ending) {
            (false, _) => self.bad += 1,
            (true, Ending::Finished) if outcome.failed.is_empty() => self.clean += 1,
            (true, Ending::Skipped) if outcome.ran == 0 => self.skipped += 1,
            (true, _) => {}
        }
    }

    /// Counts a file that is listed as a whole.
    pub fn add_not_run(&mut self, reason: Reason) {
        self.files += 1;
        *self.not_run.entry(reason).or_default() += 1;
    }

    /// Whether the run is as the lists say.
    pub fn is_good(&self) -> bool {
        self.bad == 0
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not_run: usize = self.not_run.values().sum();
        let ran = self.files - not_run;
        let excused: usize = self.excused.values().sum();
        let applicable = self.cases - excused;
        writeln!(
            f,
            "files: {} of {} run, {} without a failed case, {} do not apply as a whole{}",
            ran,
            self.files,
            self.clean,
            not_run + self.skipped,
            reasons(&self.not_run),
        )?;
        write!(
            f,
            "cases: {} passed of {applicable} that apply, of {} run{}",
            applicable - self.failed,
            self.cases,
            reasons(&self.excused),
        )
    }
}

fn reasons(counts: &BTreeMap<Reason, usize>) -> String {
    let counts: Vec<_> = counts
        .iter()
        .map(|(reason, n)| format!("{n} {reason}"))
        .collect();
    match counts.is_empty() {
        true => String::new(),
        false => format!(" ({})", counts.join(", ")),
    }
}

/// The line about a file, and a line for each complaint.
pub fn of_file(name: &str, outcome: &Outcome, verdict: &Verdict) -> String {
    let passed = outcome.ran.saturating_sub(outcome.failed.len());
    let mut text = format!(
        "{:<4} {name:<24} {passed} of {} cases passed, {} listed, {}, {:.1} s",
        if verdict.is_good() { "ok" } else { "BAD" },
        outcome.ran,
        verdict.excused.len(),
        outcome.ending,
        outcome.took.as_secs_f64(),
    );
    for complaint in &verdict.complaints {
        let line = match complaint {
            Complaint::Failed(case) => format!("failed: {case}"),
            Complaint::Ended(how) => how.clone(),
            Complaint::Stale(pattern) => format!("listed, but nothing like it failed: {pattern}"),
        };
        text.push_str("\n     ");
        text.push_str(&line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn listed_cases_do_not_count_as_applicable() {
        let outcome = Outcome {
            ending: Ending::Finished,
            ran: 5,
            failed: ["a".to_owned(), "b".to_owned()].into(),
            took: Duration::ZERO,
        };
        let verdict = Verdict {
            complaints: vec![Complaint::Failed("b".to_owned())],
            excused: vec![("a".to_owned(), Reason::Locks)],
        };
        let mut totals = Totals::default();
        totals.add(&outcome, &verdict);
        totals.add_not_run(Reason::Wal);
        assert!(!totals.is_good());
        let text = totals.to_string();
        assert!(
            text.contains("3 passed of 4 that apply, of 5 run (1 locks)"),
            "{text}"
        );
        assert!(text.contains("1 of 2 run"), "{text}");
    }
}
