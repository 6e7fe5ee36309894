//! Libraries that are refused. Nothing here ever starts the network, so each test finds the process
//! as if nothing had been tried before it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use mvstore_fdb_client::{Client, LibrarySearch, StartError, foundationdb};

fn start(home: &Path) -> StartError {
    Client::start(&LibrarySearch::only_in(home)).expect_err("there is no library that will do")
}

#[test]
fn an_absent_library_is_reported_with_the_package_to_install_and_every_place_looked_at() {
    let home = tempfile::tempdir().unwrap();
    let error = start(home.path());
    assert!(matches!(error, StartError::NotFound { .. }));
    let message = error.to_string();
    for part in [
        "libfdb_c.so was not found",
        "foundationdb-clients",
        "FDB_HOME",
        &format!(
            "{}: no such file",
            home.path().join("libfdb_c.so").display()
        ),
        &format!(
            "{}: no such file",
            home.path().join("lib/libfdb_c.so").display()
        ),
    ] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_file_that_is_no_library_is_named_with_the_loaders_reason() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("libfdb_c.so");
    fs::write(&file, "not ELF").unwrap();
    let StartError::Unloadable { library, reason } = start(home.path()) else {
        panic!("a text file was not found unloadable");
    };
    assert_eq!(library, file);
    assert!(!reason.is_empty());
}

#[test]
fn a_library_without_the_calls_is_refused_before_anything_is_called() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("lib")).unwrap();
    let file = home.path().join("lib/libfdb_c.so");
    symlink(a_library_of_this_process(), &file).unwrap();
    let error = start(home.path());
    assert_eq!(
        error,
        StartError::MissingCall {
            library: file,
            call: "fdb_create_database"
        }
    );
    assert!(error.to_string().contains("7.3"), "{error}");
}

/// Any shared library that certainly is one, and not FoundationDB's: the C library.
fn a_library_of_this_process() -> String {
    let maps = fs::read_to_string("/proc/self/maps").expect("Linux lists what is mapped");
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|file| file.contains("/libc.so") || file.contains("/libc-"))
        .expect("the test is linked with the C library")
        .to_owned()
}

#[test]
fn a_call_before_the_library_is_loaded_aborts_with_a_message_and_never_jumps_through_null() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "calls_too_early"])
        .output()
        .unwrap();
    assert_eq!(child.status.signal(), Some(libc::SIGABRT));
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert!(
        stderr.contains("before its client library was loaded"),
        "{stderr}"
    );
}

#[test]
#[ignore = "aborts: it is the child of another test"]
fn calls_too_early() {
    foundationdb::api::get_max_api_version();
}
