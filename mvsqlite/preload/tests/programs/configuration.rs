//! What the environment variables make of the library.

use std::net::TcpListener;

use crate::program::Program;
use crate::server::server;

const MAKE: &str = "CREATE TABLE t(v); INSERT INTO t VALUES(1); SELECT * FROM t";

#[test]
fn without_variables_a_program_works_as_without_the_library() {
    let mut shell = Program::new("sqlite3", &["local.db", MAKE]);
    assert_eq!(shell.run().printed(), "1");
    assert_eq!(shell.files(), ["local.db"]);
    let mut functions = Program::new("sqlite3", &["local.db", "SELECT mvsqlite_version()"]);
    assert!(functions.run().err.contains("no such function"));
}

#[test]
fn a_wrong_configuration_opens_nothing_rather_than_a_local_file() {
    for (variable, value, reason) in [
        ("MVSQLITE_DATA_PLANE", "localhost:7000", "expected http://"),
        ("MVSQLITE_SECTOR_SIZE", "8192", "not set"),
        ("MVSQLITE_ONLY_MAPPED", "perhaps", "MVSQLITE_"),
        ("MVSQLITE_DB_NAME_MAP", "nonsense", "MVSQLITE_"),
    ] {
        let mut shell = Program::new("sqlite3", &["app.db", MAKE])
            .env(variable, value)
            .env("MVSQLITE_LOG", "stderr");
        let ran = shell.run();
        assert!(!ran.success, "{variable}={value}");
        assert!(
            ran.err.contains("misconfigured") && ran.err.contains(reason),
            "{ran:?}"
        );
        assert!(shell.files().is_empty());
    }
}

#[test]
fn a_wrong_configuration_leaves_in_memory_and_unmapped_files_alone() {
    let mut memory = Program::new("sqlite3", &[":memory:", MAKE]).env("MVSQLITE_DATA_PLANE", "?");
    assert_eq!(memory.run().printed(), "1");
    let unmapped = |file| {
        Program::new("sqlite3", &[file, MAKE])
            .env("MVSQLITE_DATA_PLANE", "?")
            .env("MVSQLITE_DB_NAME_MAP", "mapped.db=orders")
            .env("MVSQLITE_ONLY_MAPPED", "1")
    };
    assert_eq!(unmapped("other.db").run().printed(), "1");
    assert!(!unmapped("mapped.db").run().success);
}

#[test]
fn nothing_is_printed_unless_asked() {
    let mut shell = Program::new("sqlite3", &["app.db", MAKE]).env("MVSQLITE_DATA_PLANE", "?");
    // What the program prints itself: SQLite's text, and what it cannot know.
    let err = shell.run().err;
    let expected = "Error: unable to open database \"app.db\": unable to open database file: \
                    mvSQLite is misconfigured";
    assert!(
        err.starts_with(expected) && err.lines().count() == 1,
        "{err}"
    );
}

#[test]
fn a_program_is_told_why_a_call_failed_and_only_of_failures_of_ours() {
    let mut shell = Program::new(
        "sqlite3",
        &[
            ":memory:",
            ".open missing-namespace",
            ".open /nowhere/plain.db?vfs=unix",
            "SELECT * FROM no_such_table",
        ],
    )
    .env("MVSQLITE_DATA_PLANE", &server().url)
    .env("MVSQLITE_DB_NAME_MAP", "missing-namespace=missing")
    .env("MVSQLITE_ONLY_MAPPED", "1");
    let err = shell.run().err;
    let lines: Vec<&str> = err.lines().collect();
    let missing = lines.iter().find(|line| line.contains("missing-namespace"));
    let missing = missing.unwrap_or_else(|| panic!("{err}"));
    assert!(
        missing.contains("unable to open database file: cannot open mvSQLite"),
        "{err}"
    );
    let plain = lines.iter().find(|line| line.contains("/nowhere"));
    let plain = plain.unwrap_or_else(|| panic!("{err}"));
    assert!(plain.ends_with("unable to open database file"), "{err}");
}

#[test]
fn a_store_that_is_not_there_is_cantopen_and_says_where_it_should_be() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut shell = Program::new("sqlite3", &["app.db", MAKE])
        .env("MVSQLITE_DATA_PLANE", &format!("http://{address}"))
        .env("MVSQLITE_HTTP_TIMEOUT_SECS", "1")
        .env("MVSQLITE_LOG", "stderr");
    let ran = shell.run();
    assert!(
        !ran.success && ran.err.contains(&address.port().to_string()),
        "{ran:?}"
    );
    assert!(shell.files().is_empty());
}

#[test]
fn a_mapped_file_is_found_by_its_name_and_by_every_spelling_of_its_path() {
    let server = server();
    server.store.create("mapped-orders");
    let shell = |file: &str, sql| {
        let program = Program::new("sqlite3", &[file, sql]);
        let path = program.directory.path().join("app.db");
        program
            .env("MVSQLITE_DATA_PLANE", &server.url)
            .env("MVSQLITE_ONLY_MAPPED", "1")
            .env(
                "MVSQLITE_DB_NAME_MAP",
                &format!("{}=mapped-orders", path.display()),
            )
    };
    shell("app.db", "CREATE TABLE t(v)").run().printed();
    for file in [
        "app.db",
        "./app.db",
        "../app.db/../x/../app.db",
        "file:app.db",
    ] {
        // The directory's own name is not known beforehand.
        let file = file.replace("../app.db/../x/../", "./x/../");
        let mut shell = shell(&file, "INSERT INTO t VALUES(1)");
        shell.run().printed();
        assert!(shell.files().is_empty(), "{file}");
    }
    let mut mixed = shell(
        "app.db",
        "ATTACH 'plain.db' AS plain; CREATE TABLE plain.p AS SELECT count(*) AS n FROM t;
         SELECT n FROM plain.p; PRAGMA plain.journal_mode=wal",
    );
    assert_eq!(mixed.run().printed(), "4\nwal");
    assert_eq!(mixed.files(), ["plain.db"]);
}
