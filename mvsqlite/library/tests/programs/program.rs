//! Building and running the programs under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::server;

/// Has cargo build something of this package, as others build it.
pub fn build(what: &[&str], file: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME")]);
    build.args(what);
    build.arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());
    profile.join(file)
}

/// A file of this package.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a program with the store's URL as the only variable of ours. Gives what it printed to
/// standard output, or else to standard error.
pub fn run(program: &Path, arguments: &[&str], url: Option<&str>) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MVSQLITE_") {
            command.env_remove(name);
        }
    }
    if let Some(url) = url {
        command.env("MVSQLITE_DATA_PLANE", url);
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    match output.status.success() && output.stderr.is_empty() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

/// What the two examples do alike.
pub fn writes_and_reads_notes(program: &Path, namespace: &str) {
    server().store.create(namespace);
    let url = Some(server().url.as_str());
    let first = run(program, &[namespace, "buy milk"], url);
    assert_eq!(first.as_deref(), Ok("1 buy milk"));
    let second = run(program, &[namespace, "call Ada"], url);
    assert_eq!(second.as_deref(), Ok("1 buy milk\n2 call Ada"));
    let only_read = run(program, &[namespace], url);
    assert_eq!(only_read, second);
}

/// Without the store's address the program is told so, and no local file is made.
pub fn says_what_is_missing(program: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("never").display().to_string();
    let failure = run(program, &[&name], None).unwrap_err();
    assert!(failure.contains("MVSQLITE_DATA_PLANE"), "{failure}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Writers at the same moment lose none of each other's notes.
pub fn survives_conflicts(program: &Path, namespace: &str) {
    server().store.create(namespace);
    let url = server().url.as_str();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for note in 0..5 {
                    let text = format!("{writer} {note}");
                    run(program, &[namespace, &text], Some(url)).unwrap();
                }
            });
        }
    });
    let all = run(program, &[namespace], Some(url)).unwrap();
    assert_eq!(all.lines().count(), 20, "{all}");
}
