//! Python's sqlite3: threads, fork, multiprocessing, time travel, backups, transaction control.
//! The scripts in `python/` hold the assertions.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use mvsqlite_e2e::{Client, Session, Store};

/// Runs a script on an empty namespace, with Debian's SQLite and with the newest one.
fn run(script: &str) {
    let store = Store::start();
    for (namespace, client) in [
        ("debian", Client::of(&store)),
        ("newest", Client::of(&store).with_newest_sqlite()),
    ] {
        store.create_namespace(namespace);
        let finished = client.python(script, &[namespace]);
        println!("{namespace}: {}", finished.ok());
    }
    store.finish();
}

#[test]
fn threads_with_a_connection_each_lose_no_update() {
    run("threads.py");
}

#[test]
fn a_forked_child_has_its_own_connections_and_the_parent_goes_on() {
    run("fork.py");
}

#[test]
fn processes_on_one_counter_are_serializable() {
    run("processes.py");
}

#[test]
fn every_version_opens_by_name_and_by_time() {
    run("time_travel.py");
}

#[test]
fn transactions_see_one_moment_and_conflicts_come_out_at_commit() {
    run("isolation.py");
}

#[test]
fn backups_go_in_and_out() {
    let store = Store::start();
    store.create_namespace("backup");
    let ours = store.scratch().join("ours.db");
    let local = store.scratch().join("local.db");
    let arguments = [ours.to_str().unwrap(), local.to_str().unwrap()];
    let client = Client::of(&store).mapped(&ours, "backup");
    println!("{}", client.python("backups.py", &arguments).ok());
    assert!(!ours.exists(), "the mapped name must not become a file");
    assert!(local.exists(), "other names are ordinary files");
    store.finish();
}

/// `PRAGMA synchronous = OFF` answered with a row whose column had no name, which Python takes for
/// a lack of memory: the statement raised MemoryError.
#[test]
fn pragmas_that_the_library_answers_have_a_named_column() {
    let store = Store::start();
    store.create_namespace("pragmas");
    let mut session = Session::open(&Client::of(&store), "pragmas").unwrap();
    session.ok("PRAGMA synchronous = OFF");
    assert_eq!(session.value("PRAGMA mvsqlite_last_error"), "");
    assert_eq!(session.value("PRAGMA mvsqlite_namespace"), "pragmas");
    session.ok("CREATE TABLE t (x)");
    assert_eq!(session.value("PRAGMA synchronous"), "2");
    let version = session.value("PRAGMA mvsqlite_version");
    assert_eq!(
        session.value("SELECT mv_last_known_version('main')"),
        version
    );
    store.finish();
}
