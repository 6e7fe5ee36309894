//! Exclusive mode: programs with the habits of WAL-mode SQLite run unchanged, from several processes.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use mvsqlite_e2e::{Client, Session, Store, StoreOptions, until};

const WORKERS: &str = "4";
const ROUNDS: &str = "20";

fn habits(client: &Client, database: &str) -> String {
    let finished = client.python("wal_habits.py", &[database, WORKERS, ROUNDS]);
    finished.ok().to_owned()
}

fn exclusive(store: &Store) -> Client {
    Client::of(store).env("MVSQLITE_CONCURRENCY", "exclusive")
}

#[test]
fn a_program_that_never_expects_commit_to_fail_runs_as_on_a_local_file() {
    let store = Store::start();
    let local = store.scratch().join("local.db");
    let expected = habits(&Client::local(), local.to_str().unwrap());
    // Asked for by the client.
    store.create_namespace("asked");
    let newest = exclusive(&store).with_newest_sqlite();
    assert_eq!(habits(&newest, "asked"), expected);
    // As a property of the namespace.
    let body = r#"{"key":"set","concurrency":"exclusive"}"#;
    assert_eq!(store.admin("create_namespace", body).0, 201);
    assert_eq!(habits(&Client::of(&store), "set"), expected);
    store.finish();
}

#[test]
fn a_writer_that_is_killed_keeps_others_waiting_for_its_lease_and_no_longer() {
    let store = Store::start_with(StoreOptions {
        arguments: vec!["--lease-ttl".to_owned(), "1".to_owned()],
        ..StoreOptions::default()
    });
    store.create_namespace("killed");
    let client = exclusive(&store);
    client.query("killed", "CREATE TABLE t (v); INSERT INTO t VALUES (0);");
    let mut holder = Session::open(&client, "killed").unwrap();
    holder.ok("BEGIN IMMEDIATE");
    holder.ok("UPDATE t SET v = 100");
    let mut waiting = Session::open(&client, "killed").unwrap();
    waiting.ok("PRAGMA busy_timeout = 30000");
    waiting.send("UPDATE t SET v = v + 1");
    // The holder is alive, so its lease is renewed well beyond its term: nobody gets in.
    let mut impatient = Session::open(&client, "killed").unwrap();
    impatient.ok("PRAGMA busy_timeout = 2500");
    impatient.fails("BEGIN IMMEDIATE", 5);
    assert!(!waiting.has_answered());
    // `kill -9`.
    drop(holder);
    waiting.receive("UPDATE t SET v = v + 1").unwrap();
    assert_eq!(waiting.value("SELECT v FROM t"), "1");
    store.finish();
}

#[test]
fn a_stopped_writer_that_comes_back_too_late_fails_at_commit_and_overwrites_nothing() {
    let store = Store::start_with(StoreOptions {
        arguments: vec!["--lease-ttl".to_owned(), "0.5".to_owned()],
        ..StoreOptions::default()
    });
    store.create_namespace("stopped");
    let client = exclusive(&store);
    client.query("stopped", "CREATE TABLE t (v); INSERT INTO t VALUES (0);");
    let mut late = Session::open(&client, "stopped").unwrap();
    late.ok("BEGIN IMMEDIATE");
    late.ok("UPDATE t SET v = v + 100");
    late.signal("-STOP");
    let mut other = Session::open(&client, "stopped").unwrap();
    until(
        "the lease of the stopped writer",
        Duration::from_secs(30),
        || other.run("UPDATE t SET v = v + 1").ok(),
    );
    late.signal("-CONT");
    late.fails("COMMIT", mvsqlite_e2e::code::BUSY_SNAPSHOT);
    late.ok("BEGIN IMMEDIATE");
    late.ok("UPDATE t SET v = v + 100");
    late.ok("COMMIT");
    assert_eq!(other.value("SELECT v FROM t"), "101");
    store.finish();
}

#[test]
fn optimistic_writers_and_careful_ones_share_a_namespace_without_losing_updates() {
    let store = Store::start();
    store.create_namespace("shared");
    Client::of(&store).query(
        "shared",
        "CREATE TABLE counter (value INTEGER); INSERT INTO counter VALUES (0);
         CREATE TABLE log (id INTEGER PRIMARY KEY, worker INTEGER, value INTEGER);",
    );
    let careful = exclusive(&store).start_python("add_one.py", &["shared", "1", "40"]);
    let optimistic = Client::of(&store).start_python("add_one.py", &["shared", "2", "40"]);
    println!("careful: {}", careful.finish().ok());
    println!("optimistic: {}", optimistic.finish().ok());
    let counter = Client::of(&store).query("shared", "SELECT value FROM counter;");
    assert_eq!(counter, "80");
    store.finish();
}
