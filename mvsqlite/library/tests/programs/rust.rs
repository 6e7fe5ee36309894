//! Rust programs with rusqlite and its bundled SQLite.

use library::{Error, Registration, VFS_NAME, register};
use rusqlite::{Connection, OpenFlags};

use crate::program::{build, says_what_is_missing, survives_conflicts, writes_and_reads_notes};
use crate::server::server;

fn example() -> std::path::PathBuf {
    build(&["--example", "notes"], "examples/notes")
}

#[test]
fn the_example_writes_and_reads_notes() {
    writes_and_reads_notes(&example(), "rust-notes");
}

#[test]
fn the_example_runs_transactions_again_that_lost() {
    survives_conflicts(&example(), "rust-conflicts");
}

#[test]
fn without_variables_the_example_says_what_is_missing() {
    says_what_is_missing(&example());
}

/// One test, since a process registers once.
#[test]
fn a_registration_with_settings_serves_by_name_by_uri_and_with_functions() {
    let settings = || Registration::new().set("MVSQLITE_DATA_PLANE", &server().url);
    settings().register().unwrap();
    server().store.create("registered");

    let flags = OpenFlags::default();
    let db = Connection::open_with_flags_and_vfs("registered", flags, VFS_NAME).unwrap();
    db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES (7)")
        .unwrap();
    let by_uri = Connection::open_with_flags("file:registered?vfs=mvsqlite-4096", flags).unwrap();
    let sql = "SELECT v, length(mv_last_known_version('main')) FROM t";
    let read = by_uri.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
    assert_eq!(read, Ok((7, 20)));

    // The default VFS is still the one of the system.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plain.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE t(v)")
        .unwrap();
    assert!(path.is_file());

    assert!(register().is_ok(), "registering again changes nothing");
    let again = settings().register();
    assert!(matches!(again, Err(Error::AlreadyRegistered)), "{again:?}");
}
