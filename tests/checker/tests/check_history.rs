//! The program that judges files.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::path::PathBuf;
use std::process::Command;

const APPEND: &str = r#"{"transaction":{"process":1,"index":0,"begun":0,"ended":5,"outcome":"committed","operations":[{"append":{"key":1,"element":7}}]}}"#;
const STALE: &str = r#"{"transaction":{"process":2,"index":0,"begun":9,"ended":11,"outcome":"committed","operations":[{"read_list":{"key":1,"elements":[]}}]}}"#;

/// Judges files of these contents.
fn judge(name: &str, arguments: &[&str], files: &[&str]) -> (i32, String) {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_check-history"));
    command.args(arguments);
    for (number, content) in files.iter().enumerate() {
        let path = directory.join(format!("{name}-{number}.jsonl"));
        std::fs::write(&path, content).unwrap();
        command.arg(path);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn the_files_are_judged_together() {
    let (append, stale) = (format!("{APPEND}\n"), format!("{STALE}\n"));
    let (status, text) = judge("together", &[], &[&append, &stale]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("2 transactions"), "{text}");
}

#[test]
fn a_violation_is_told_and_is_status_1() {
    let (append, stale) = (format!("{APPEND}\n"), format!("{STALE}\n"));
    let strict = ["--model", "strict-serializable"];
    let (status, text) = judge("strict", &strict, &[&append, &stale]);
    assert_eq!(status, 1, "{text}");
    assert!(text.starts_with("G-single-realtime\n"), "{text}");
    assert!(text.contains("process 2 #0"), "{text}");
}

#[test]
fn what_cannot_be_judged_is_status_2() {
    assert_eq!(judge("nothing", &[], &[]).0, 2);
    assert_eq!(judge("empty", &[], &[""]).0, 2);
    assert_eq!(judge("other", &[], &["{}\n"]).0, 2);
    let twice = format!("{APPEND}\n{APPEND}\n");
    assert_eq!(judge("malformed", &[], &[&twice]).0, 2);
    assert_eq!(judge("model", &["--model", "none"], &[APPEND]).0, 2);
}
