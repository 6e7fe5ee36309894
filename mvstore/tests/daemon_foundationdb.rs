//! The real `mvstore` with a cluster file: one binary, with and without a client library.

#[path = "../fdb-client/tests/support/fake_home.rs"]
mod fake_home;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// An `mvstore` on a cluster file in its own directory, with this `FDB_HOME`.
fn mvstore(home: &Path) -> (TempDir, Command) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("fdb.cluster");
    fs::write(&file, "fake:fake@127.0.0.1:4500").expect("a file can be written there");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mvstore"));
    command
        .args(["--data-plane", "127.0.0.1:0", "--admin-api", "127.0.0.1:0"])
        .env("FDB_CLUSTER_FILE", file)
        .env("FDB_HOME", home)
        .env_remove("RUST_LOG")
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    (directory, command)
}

#[test]
fn a_client_library_that_cannot_be_loaded_ends_the_start_with_a_message_that_names_it() {
    let home = tempfile::tempdir().unwrap();
    let library = home.path().join("libfdb_c.so");
    fs::write(&library, "not ELF").unwrap();
    let (directory, mut command) = mvstore(home.path());
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(library.to_str().unwrap()), "{stderr}");
    assert!(
        !directory.path().join("mvstore-data").exists(),
        "it fell back to the embedded engine"
    );
}

#[test]
fn with_a_cluster_file_it_serves_from_foundationdb_and_ends_in_order_on_sigterm() {
    let home = fake_home::fake_home();
    let (_directory, mut command) = mvstore(home.path());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    while !said.contains("serving") {
        let line = log.next().expect("it serves before its log ends").unwrap();
        said.push_str(&line);
        said.push('\n');
    }
    assert!(said.contains("FoundationDB, cluster file"), "{said}");

    let pid = child.id().to_string();
    let signalled = Command::new("kill").arg(&pid).status().unwrap();
    assert!(signalled.success());
    let rest: Vec<_> = log.map_while(Result::ok).collect();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{said}{}", rest.join("\n"));
}
