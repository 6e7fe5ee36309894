//! Debian's sqlite3 shell.

use crate::program::{Program, library};
use crate::server::server;

/// A shell that loads the extension, then runs these commands, one per argument.
fn shell(commands: &[&str]) -> Program {
    let load = format!(".load {}", library().display());
    let mut arguments = vec![":memory:", &load];
    arguments.extend(commands);
    Program::new("sqlite3", &arguments)
}

#[test]
fn a_database_is_opened_by_the_name_of_the_vfs_after_loading() {
    server().store.create("ext-shell");
    let open = ".open 'file:ext-shell?vfs=mvsqlite'";
    let mut first = shell(&[
        open,
        "CREATE TABLE t(v); INSERT INTO t VALUES('kept')",
        "SELECT length(mv_last_known_version('main'))",
    ]);
    assert_eq!(first.run().printed(), "20");
    assert!(first.files().is_empty());
    assert_eq!(shell(&[open, "SELECT v FROM t"]).run().printed(), "kept");
}

#[test]
fn the_default_vfs_stays_the_default() {
    let mut ran = shell(&[".open plain.db", "CREATE TABLE t(v)"]);
    ran.run().printed();
    assert_eq!(ran.files(), ["plain.db"]);
}

#[test]
fn the_connection_that_loads_it_has_the_functions_and_can_attach() {
    server().store.create("ext-attach");
    let ran = shell(&[
        "ATTACH 'file:ext-attach?vfs=mvsqlite' AS a; CREATE TABLE a.t(v)",
        "SELECT length(mv_last_known_version('a')), length(mvsqlite_version()) > 0",
    ])
    .run();
    assert_eq!(ran.printed(), "20|1");
}

#[test]
fn a_variant_gives_new_databases_its_page_size() {
    for size in ["4096", "8192", "16384", "32768"] {
        let name = format!("ext-size-{size}");
        server().store.create(&name);
        let open = format!(".open 'file:{name}?vfs=mvsqlite-{size}'");
        let ran = shell(&[&open, "CREATE TABLE t(v); PRAGMA page_size", ".vfsname"]).run();
        assert_eq!(ran.printed(), format!("{size}\nmvsqlite-{size}"));
        let plain = format!(".open 'file:{name}?vfs=mvsqlite'");
        assert_eq!(shell(&[&plain, "PRAGMA page_size"]).run().printed(), size);
    }
}

#[test]
fn loading_it_twice_changes_nothing() {
    server().store.create("ext-twice");
    let again = format!(".load {}", library().display());
    let ran = shell(&[
        &again,
        ".open 'file:ext-twice?vfs=mvsqlite'",
        &again,
        "CREATE TABLE t(v); SELECT count(*) FROM t",
    ])
    .run();
    assert_eq!(ran.printed(), "0");
}

#[test]
fn it_is_found_by_the_name_of_its_file_too() {
    let directory = tempfile::tempdir().unwrap();
    for (file, entry) in [
        ("mvsqlite.so", "sqlite3_mvsqlite_init"),
        ("libmvsqlite_extension.so", "sqlite3_mvsqliteextension_init"),
        ("anything.so", "sqlite3_extension_init"),
    ] {
        let copy = directory.path().join(file);
        std::fs::copy(library(), &copy).unwrap();
        let load = format!(".load {} {entry}", copy.display());
        let ran = Program::new("sqlite3", &[":memory:", &load, "SELECT mvsqlite_version()"]).run();
        assert_eq!(ran.printed(), env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn without_variables_it_loads_and_an_open_says_what_is_missing() {
    let mut ran = shell(&[
        ".open 'file:ext-unset?vfs=mvsqlite'",
        "SELECT 1 FROM sqlite_schema",
    ])
    .env("MVSQLITE_DATA_PLANE", "")
    .env("MVSQLITE_LOG", "stderr");
    let ended = ran.run();
    assert!(
        ended.err.contains("MVSQLITE_DATA_PLANE: not set"),
        "{ended:?}"
    );
    assert!(ran.files().is_empty());
}

#[test]
fn a_conflict_of_a_single_statement_is_reported_as_there_is_nobody_to_run_it_again() {
    server().store.create("ext-conflict");
    let open = ".open 'file:ext-conflict?vfs=mvsqlite'";
    shell(&[open, "CREATE TABLE t(v); INSERT INTO t VALUES(1)"])
        .run()
        .printed();
    // Another shell commits between this one's read and its COMMIT.
    let other = format!(
        "sqlite3 :memory: '.load {}' \".open 'file:ext-conflict?vfs=mvsqlite'\" 'UPDATE t SET v=5'",
        library().display()
    );
    let ran = shell(&[
        open,
        "BEGIN; SELECT v FROM t",
        &format!(".shell {other}"),
        "UPDATE t SET v=v+1; COMMIT",
    ])
    .run();
    assert!(ran.err.contains("database is locked"), "{ran:?}");
    let now = shell(&[open, "SELECT v FROM t"]).run();
    assert_eq!(now.printed(), "5");
}
