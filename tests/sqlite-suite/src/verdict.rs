//! The judgement of a file: its outcome beside what is listed for it.

use std::collections::BTreeSet;

use crate::exceptions::{Exception, Reason};
use crate::glob::matches;
use crate::outcome::{Ending, Outcome};

/// What is not as the lists say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complaint {
    /// A case failed that is not listed.
    Failed(String),
    /// The file did not come to its end, and that is not listed.
    Ended(String),
    /// Nothing that failed matches this listed pattern.
    Stale(String),
}

/// The judgement of one file.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// What is not as the lists say.
    pub complaints: Vec<Complaint>,
    /// Failed cases that are listed, with their reasons.
    pub excused: Vec<(String, Reason)>,
}

impl Verdict {
    /// Judges an outcome by the entries about its file.
    pub fn of(outcome: &Outcome, exceptions: &[&Exception]) -> Self {
        let mut verdict = Self::default();
        let mut used = BTreeSet::new();
        for case in &outcome.failed {
            verdict.judge_case(case, exceptions, &mut used);
        }
        verdict.judge_ending(&outcome.ending, exceptions, &mut used);
        for exception in exceptions {
            let patterns = exception.cases.iter().chain(&exception.ends);
            let stale = patterns.filter(|pattern| !used.contains(pattern.as_str()));
            verdict
                .complaints
                .extend(stale.cloned().map(Complaint::Stale));
        }
        verdict
    }

    /// Every pattern that matches counts as used: which of two excuses a case does not matter.
    fn judge_case<'a>(
        &mut self,
        case: &str,
        exceptions: &[&'a Exception],
        used: &mut BTreeSet<&'a str>,
    ) {
        let mut reason = None;
        for exception in exceptions {
            for pattern in exception
                .cases
                .iter()
                .filter(|pattern| matches(pattern, case))
            {
                used.insert(pattern);
                reason = reason.or(Some(exception.reason));
            }
        }
        match reason {
            Some(reason) => self.excused.push((case.to_owned(), reason)),
            None => self.complaints.push(Complaint::Failed(case.to_owned())),
        }
    }

    fn judge_ending<'a>(
        &mut self,
        ending: &Ending,
        exceptions: &[&'a Exception],
        used: &mut BTreeSet<&'a str>,
    ) {
        // A crash or a hang is never excused: the process belongs to somebody else.
        let excusable = match ending {
            Ending::Finished => return,
            Ending::Skipped | Ending::Broken(_) => true,
            Ending::Crashed(_) | Ending::TimedOut => false,
        };
        let words = ending.to_string();
        let mut listed = exceptions
            .iter()
            .filter_map(|exception| exception.ends.as_deref());
        match listed.find(|pattern| excusable && matches(pattern, &words)) {
            Some(pattern) => {
                used.insert(pattern);
            }
            None => self.complaints.push(Complaint::Ended(words)),
        }
    }

    /// Whether everything is as the lists say.
    pub fn is_good(&self) -> bool {
        self.complaints.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn outcome(failed: &[&str], ending: Ending) -> Outcome {
        Outcome {
            ending,
            ran: 10,
            failed: failed.iter().map(|case| (*case).to_owned()).collect(),
            took: Duration::ZERO,
        }
    }

    fn listed(cases: &[&str], ends: Option<&str>) -> Exception {
        Exception {
            files: vec!["a".to_owned()],
            cases: cases.iter().map(|case| (*case).to_owned()).collect(),
            ends: ends.map(str::to_owned),
            modes: Vec::new(),
            reason: Reason::Locks,
            why: "Why.".to_owned(),
        }
    }

    #[test]
    fn a_case_that_fails_without_being_listed_is_a_complaint() {
        let exception = listed(&["a-1"], None);
        let verdict = Verdict::of(&outcome(&["a-1", "a-2"], Ending::Finished), &[&exception]);
        assert_eq!(verdict.complaints, [Complaint::Failed("a-2".to_owned())]);
        assert_eq!(verdict.excused, [("a-1".to_owned(), Reason::Locks)]);
    }

    #[test]
    fn a_listed_case_that_does_not_fail_is_a_complaint() {
        let exception = listed(&["a-1.*", "a-2"], None);
        let verdict = Verdict::of(&outcome(&["a-1.7"], Ending::Finished), &[&exception]);
        assert_eq!(verdict.complaints, [Complaint::Stale("a-2".to_owned())]);
    }

    #[test]
    fn an_ending_is_excused_by_its_words_and_a_crash_by_nothing() {
        let exception = listed(&[], Some("*"));
        let broken = outcome(&[], Ending::Broken("no such table".to_owned()));
        assert!(Verdict::of(&broken, &[&exception]).is_good());
        assert!(!Verdict::of(&broken, &[]).is_good());
        let crashed = Verdict::of(&outcome(&[], Ending::Crashed(11)), &[&exception]);
        assert!(
            crashed
                .complaints
                .iter()
                .any(|it| matches!(it, Complaint::Ended(_)))
        );
    }
}
