//! Histories on disk: one JSON object per line, in any order, so that each process can write its
//! own file and a process that is killed loses no more than its last line.
//!
//! ```json
//! {"transaction": {"process": 1, "index": 0, "begun": 17, "ended": 25, "outcome": "committed",
//!     "operations": [{"read_list": {"key": 3, "elements": [1, 2]}}, {"append": {"key": 3, "element": 4}},
//!                    {"read": {"key": 9, "value": null}}, {"write": {"key": 9, "value": 5}}],
//!     "read_at": "00000000000000000007", "committed_at": "00000000000000000009"}}
//! {"final_lists": {"3": [1, 2, 4]}}
//! ```
//!
//! (Each object on a single line; here they are broken to be read.) `ended`, `read_at` and
//! `committed_at` may be null or absent; `outcome` is `committed`, `aborted` or `unknown`. Empty
//! lines are skipped. A last line without a line end that does not parse was cut off by a crash: it
//! is left out, which makes what it told of unobserved, as it should be.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::history::{History, TransactionRecord};

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Transaction(TransactionRecord),
    FinalLists(BTreeMap<u64, Vec<u64>>),
}

/// A line that is none of a history.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is none of a history: {reason}")]
#[non_exhaustive]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// What the parser says.
    pub reason: serde_json::Error,
}

impl TransactionRecord {
    /// The record as a line of a history file, line end included.
    pub fn to_line(&self) -> String {
        line(&Line::Transaction(self.clone()))
    }
}

impl History {
    /// Adds what `text`, the content of a file of JSON lines, holds.
    ///
    /// # Errors
    ///
    /// The first line that is none of a history. Lines before it have been added.
    pub fn add_lines(&mut self, text: &str) -> Result<(), BadLine> {
        for (number, raw) in text.split_inclusive('\n').enumerate() {
            if raw.trim().is_empty() {
                continue;
            }
            match serde_json::from_str(raw) {
                Ok(Line::Transaction(record)) => self.transactions.push(record),
                Ok(Line::FinalLists(lists)) => self.final_lists.extend(lists),
                Err(_) if !raw.ends_with('\n') => {}
                Err(reason) => {
                    let line = number + 1;
                    return Err(BadLine { line, reason });
                }
            }
        }
        Ok(())
    }

    /// Writes it as JSON lines.
    ///
    /// # Errors
    ///
    /// What `out` answers.
    pub fn write_lines(&self, mut out: impl Write) -> io::Result<()> {
        for record in &self.transactions {
            out.write_all(record.to_line().as_bytes())?;
        }
        if !self.final_lists.is_empty() {
            out.write_all(line(&Line::FinalLists(self.final_lists.clone())).as_bytes())?;
        }
        out.flush()
    }
}

fn line(line: &Line) -> String {
    let mut text = serde_json::to_string(line).expect("numbers, texts and lists are JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Operation, Outcome};

    fn history() -> History {
        let record = TransactionRecord {
            process: 1,
            index: 0,
            begun: 17,
            ended: None,
            outcome: Outcome::Unknown,
            operations: vec![
                Operation::Append { key: 3, element: 4 },
                Operation::ReadList {
                    key: 3,
                    elements: vec![4],
                },
                Operation::Write { key: 9, value: 5 },
                Operation::Read {
                    key: 9,
                    value: Some(5),
                },
            ],
            read_at: Some("07".to_owned()),
            committed_at: None,
        };
        History {
            transactions: vec![record],
            final_lists: BTreeMap::from([(3, vec![4])]),
        }
    }

    #[test]
    fn a_history_written_is_read_back() {
        let mut text = Vec::new();
        history().write_lines(&mut text).unwrap();
        let mut read = History::default();
        read.add_lines(std::str::from_utf8(&text).unwrap()).unwrap();
        assert_eq!(read, history());
    }

    #[test]
    fn the_documented_example_is_a_history() {
        let text = r#"{"transaction": {"process": 1, "index": 0, "begun": 17, "ended": 25, "outcome": "committed", "operations": [{"read_list": {"key": 3, "elements": [1, 2]}}, {"append": {"key": 3, "element": 4}}, {"read": {"key": 9, "value": null}}, {"write": {"key": 9, "value": 5}}], "read_at": "00000000000000000007", "committed_at": "00000000000000000009"}}

{"final_lists": {"3": [1, 2, 4]}}
"#;
        let mut read = History::default();
        read.add_lines(text).unwrap();
        assert_eq!(read.transactions[0].operations.len(), 4);
        assert_eq!(read.final_lists[&3], [1, 2, 4]);
    }

    #[test]
    fn only_a_last_line_may_be_cut_off() {
        let line = history().transactions[0].to_line();
        let cut = &line[..line.len() - 9];
        let mut read = History::default();
        read.add_lines(&format!("{line}{cut}")).unwrap();
        assert_eq!(read.transactions.len(), 1);
        let refused = History::default().add_lines(&format!("{cut}\n{line}"));
        assert_eq!(refused.unwrap_err().line, 1);
    }
}
