//! What `mvstore fsck` prints, and what a server sends it: lines.

use std::io::{self, IsTerminal, Write};

use serde::{Deserialize, Serialize};

use crate::fsck::{Counts, Finding, Severity};

/// A line of the answer, as JSON an object with one field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Line {
    /// Something is wrong.
    Finding(Finding),
    /// How much was looked at so far.
    Progress(Counts),
    /// The last line of a check that came to its end.
    Done(Done),
    /// The last line of one that did not: why.
    Error(String),
}

/// A check that came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// How much was looked at.
    #[serde(flatten)]
    pub counts: Counts,
    /// How long it took.
    pub seconds: f64,
}

/// Prints lines.
pub(super) struct Report {
    is_json: bool,
    /// Progress is written over itself.
    shows_progress: bool,
    leftovers: u64,
    others: u64,
}

impl Report {
    pub(super) fn new(is_json: bool) -> Self {
        Self {
            is_json,
            shows_progress: io::stderr().is_terminal(),
            leftovers: 0,
            others: 0,
        }
    }

    /// Whether nothing counts of what was found.
    pub(super) fn is_clean(&self, is_strict: bool) -> bool {
        self.others == 0 && (self.leftovers == 0 || !is_strict)
    }

    /// Prints a line.
    pub(super) fn line(&mut self, line: &Line) -> io::Result<()> {
        match line {
            Line::Finding(finding) if finding.severity == Severity::Leftover => self.leftovers += 1,
            Line::Finding(_) => self.others += 1,
            _ => (),
        }
        if self.shows_progress {
            self.progress(line)?;
        }
        let mut out = io::stdout().lock();
        if self.is_json {
            let text = serde_json::to_string(line).map_err(io::Error::other)?;
            return writeln!(out, "{text}");
        }
        match line {
            Line::Finding(finding) => writeln!(out, "{finding}"),
            Line::Done(done) => writeln!(out, "{}", self.summary(done)),
            Line::Progress(_) | Line::Error(_) => Ok(()),
        }
    }

    /// Says how it ended.
    pub(super) fn finish(&mut self, done: Done) -> io::Result<()> {
        self.line(&Line::Done(done))
    }

    fn progress(&self, line: &Line) -> io::Result<()> {
        let mut err = io::stderr().lock();
        match line {
            Line::Progress(counts) => write!(
                err,
                "\r{} namespaces, {} page versions, {} MiB \x1b[K",
                counts.namespaces,
                counts.page_versions,
                counts.bytes >> 20
            ),
            // The line is left to what follows.
            _ => write!(err, "\r\x1b[K"),
        }?;
        err.flush()
    }

    fn summary(&self, done: &Done) -> String {
        let Counts {
            namespaces,
            commits,
            page_versions,
            staged_pages,
            bytes,
            counters_not_judged,
            expiries_not_judged,
            findings_not_told,
            ..
        } = done.counts;
        let found = match (self.others, self.leftovers) {
            (0, 0) => "clean".to_owned(),
            (others, leftovers) => format!("{others} findings and {leftovers} leftovers"),
        };
        let mut text = format!(
            "{found}: {namespaces} namespaces, {commits} commits, {page_versions} page versions, \
             {staged_pages} staged pages, {bytes} bytes read in {:.1} s",
            done.seconds
        );
        for (count, what) in [
            (findings_not_told, "further findings were not told"),
            (
                counters_not_judged,
                "namespaces' counters moved and were not judged",
            ),
            (expiries_not_judged, "objects' expiry was not judged"),
        ] {
            if count > 0 {
                text += &format!("; {count} {what}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_object_with_one_field_that_says_what_it_is() {
        let done = Line::Done(Done {
            counts: Counts::default(),
            seconds: 0.5,
        });
        let json = serde_json::to_string(&done).unwrap();
        assert!(json.starts_with(r#"{"done":{"namespaces":0,"#), "{json}");
        assert!(json.ends_with(r#""seconds":0.5}}"#), "{json}");
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), done);
        let error = Line::Error("why".to_owned());
        let json = serde_json::to_string(&error).unwrap();
        assert_eq!(json, r#"{"error":"why"}"#);
    }
}
