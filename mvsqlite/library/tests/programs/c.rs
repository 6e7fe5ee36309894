//! C programs with `libmvsqlite.a` and `mvsqlite.h`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{
    build, run, says_what_is_missing, source, survives_conflicts, writes_and_reads_notes,
};

/// The SQLite amalgamation, out of the crate that has it: its headers, and its source.
fn amalgamation() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        .arg("--manifest-path")
        .arg(source("Cargo.toml"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let sys = packages
        .iter()
        .find(|package| package["name"] == "libsqlite3-sys")
        .unwrap();
    let manifest = Path::new(sys["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().join("sqlite3")
}

/// Compiles a program and links it with the archive and the system's SQLite.
fn compile(source: &Path, include: &[PathBuf], directory: &Path) -> PathBuf {
    let archive = build(&["--lib"], "libmvsqlite.a");
    let program = directory.join("program");
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-o"]);
    cc.arg(&program);
    for directory in include {
        cc.arg("-I").arg(directory);
    }
    cc.arg(source).arg(archive);
    // Debian has the library without its development package.
    cc.args(["-l:libsqlite3.so.0", "-lpthread", "-ldl", "-lm"]);
    assert!(cc.status().unwrap().success());
    program
}

fn notes(directory: &Path) -> PathBuf {
    let include = [source("include"), amalgamation()];
    compile(&source("examples/notes.c"), &include, directory)
}

#[test]
fn the_example_writes_and_reads_notes() {
    let directory = tempfile::tempdir().unwrap();
    let program = notes(directory.path());
    writes_and_reads_notes(&program, "c-notes");
    survives_conflicts(&program, "c-conflicts");
    says_what_is_missing(&program);
}

#[test]
fn the_header_stands_alone_and_declares_what_the_archive_has() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("header.c");
    std::fs::write(
        &file,
        r#"
#include "mvsqlite.h"
#include "mvsqlite.h"
#include <stdio.h>
int (*registered)(const char *const *, int) = mvsqlite_register;
const char *(*errmsg)(void) = mvsqlite_errmsg;
const char *(*version)(void) = mvsqlite_version;
int main(void){
  const char *settings[] = { "MVSQLITE_DATA_PLANE=localhost", 0 };
  const char *wrong[] = { "PATH=/bin", 0 };
  int failed = registered(settings, MVSQLITE_MAKE_DEFAULT);
  printf("%d %s\n", failed, errmsg());
  failed = registered(wrong, 0);
  printf("%d %s\n", failed, errmsg());
  printf("%s\n", version());
  return 0;
}
"#,
    )
    .unwrap();
    let program = compile(&file, &[source("include")], directory.path());
    let printed = run(&program, &[], None).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert!(
        lines[0].starts_with("1 mvSQLite is misconfigured: MVSQLITE_DATA_PLANE"),
        "{printed}"
    );
    assert!(lines[1].starts_with("21 'PATH' is no setting"), "{printed}");
    assert_eq!(lines[2], env!("CARGO_PKG_VERSION"));
}
