//! What `mvstore` refuses to start on: one line that says what, where and what to do, exit code 1,
//! and what was there is left as it was.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::path::Path;
use std::process::Command;

use mvsqlite_e2e::{Client, Store, StoreOptions, mvstore};

fn on(directory: &Path) -> StoreOptions {
    StoreOptions {
        data_dir: Some(directory.to_owned()),
        ..StoreOptions::default()
    }
}

/// The one line it gave up with.
fn refused(options: StoreOptions, expected: &[&str]) {
    let (status, log) = Store::start_refused(options);
    assert_eq!(status.code(), Some(1), "{log}");
    let line = log.lines().find(|line| line.starts_with("mvstore: "));
    let line = line.unwrap_or_else(|| panic!("no reason given:\n{log}"));
    println!("{line}");
    for text in expected {
        assert!(line.contains(text), "expected '{text}' in: {line}");
    }
}

#[test]
fn two_stores_do_not_share_a_directory() {
    let first = Store::start();
    first.create_namespace("test");
    let directory = first.data_dir().to_owned();
    refused(
        on(&directory),
        &[directory.to_str().unwrap(), "in use", "--data-dir"],
    );
    // The first one is none the worse for it.
    let made = Client::of(&first).query("test", "CREATE TABLE t (x); SELECT count(*) FROM t;");
    assert_eq!(made, "0");
    first.finish();
}

#[test]
fn a_directory_of_an_unknown_format_is_left_alone() {
    let mut store = Store::start();
    let directory = store.data_dir().to_owned();
    store.stop();
    let format = directory.join("FORMAT");
    let known = fs::read_to_string(&format).unwrap();
    for unknown in [
        "something else\n",
        "",
        "mvsqlite embedded store\nmin-reader 9000\nmin-writer 9000\n",
    ] {
        fs::write(&format, unknown).unwrap();
        refused(on(&directory), &[directory.to_str().unwrap(), "format"]);
        assert_eq!(fs::read_to_string(&format).unwrap(), unknown);
    }
    fs::write(&format, known).unwrap();
    store.restart();
    store.finish();
}

#[test]
fn a_directory_of_somebody_elses_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("letter.txt"), "dear reader").unwrap();
    refused(on(directory.path()), &["letter.txt", "--data-dir"]);
    let entries: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
}

#[test]
fn a_path_that_is_a_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    refused(on(&file), &[file.to_str().unwrap()]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let first = Store::start();
    let address = first.data_plane_address();
    let taken = StoreOptions {
        data_plane: address.rsplit(':').next().unwrap().parse().unwrap(),
        ..StoreOptions::default()
    };
    refused(taken, &[&address, "--data-plane"]);
    first.finish();
}

#[test]
fn a_wrong_command_line_exits_with_2_and_a_line_that_says_why() {
    for (arguments, because) in [
        (vec!["--no-such-flag"], "--no-such-flag"),
        (vec!["--data-plane", "nonsense"], "nonsense"),
        (vec!["--data-plane", "0.0.0.0:7000"], "--allow-open-access"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new(mvstore())
            .args(&arguments)
            .current_dir(directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        println!("{arguments:?}: {}", said.trim());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(because), "{arguments:?}: {said}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
