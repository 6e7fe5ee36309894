//! `check-history [--model MODEL] FILE...` judges the history that the files hold together.
//!
//! The files are JSON lines as `json_lines.rs` of this crate describes them: one object per line,
//! `{"transaction": {...}}` or `{"final_lists": {...}}`. MODEL is `serializable` (the default),
//! `strict-serializable` or `snapshot-read`. Exit status: 0 the history is right, 1 it is not, 2 it
//! could not be judged.

use std::io::Write;
use std::process::ExitCode;

use mvsqlite_checker::{Anomaly, History, Model, check};

const USAGE: &str =
    "usage: check-history [--model serializable|strict-serializable|snapshot-read] FILE...";

fn main() -> ExitCode {
    let (model, history) = match read() {
        Ok(read) => read,
        Err(error) => {
            tell(&error);
            return ExitCode::from(2);
        }
    };
    match check(&history, model) {
        Ok(report) => {
            tell(&format!("{model:?}: {report}"));
            ExitCode::SUCCESS
        }
        Err(violation) => {
            tell(&violation.to_string());
            ExitCode::from(match violation.anomaly {
                Anomaly::MalformedHistory => 2,
                _ => 1,
            })
        }
    }
}

/// To standard output: who is not there to read it is told by the exit status.
fn tell(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn read() -> Result<(Model, History), String> {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    let mut model = Model::Serializable;
    if arguments.first().is_some_and(|first| first == "--model") {
        arguments.remove(0);
        let name = arguments.drain(..arguments.len().min(1)).next();
        model = match name.as_deref() {
            Some("serializable") => Model::Serializable,
            Some("strict-serializable") => Model::StrictSerializable,
            Some("snapshot-read") => Model::SnapshotRead,
            _ => return Err(USAGE.to_owned()),
        };
    }
    if arguments.is_empty() || arguments[0].starts_with('-') {
        return Err(USAGE.to_owned());
    }
    let mut history = History::default();
    for path in arguments {
        let text = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
        // A line that a crash has torn need not end between two characters.
        let text = String::from_utf8_lossy(&text);
        let added = history.add_lines(&text);
        added.map_err(|error| format!("{path}: {error}"))?;
    }
    if history.transactions.is_empty() {
        return Err("the files hold no transaction".to_owned());
    }
    Ok((model, history))
}
