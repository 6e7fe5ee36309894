//! SQLite's own speedtest1 over the preload library: it runs to its end, and all that its queries
//! return hashes to the same as on a file.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use mvsqlite_e2e::{Client, Finished, Store, copy_out, speedtest1};

fn speedtest(client: &Client, database: &str, testset: &str, options: &[&str]) -> Finished {
    let mut arguments = vec!["--verify", "--testset", testset];
    arguments.extend(options);
    arguments.push(database);
    let client = client.clone().deadline(Duration::from_secs(300));
    client.run(&speedtest1(), &arguments)
}

/// The line with the number of bytes that queries returned, and their hash.
fn hash(finished: &Finished) -> String {
    let mut lines = finished.ok().lines();
    let line = lines.find(|line| line.starts_with("Verification Hash"));
    line.unwrap_or_else(|| panic!("no hash from\n{finished}"))
        .to_owned()
}

fn same_as_on_a_file(testset: &str, options: &[&str]) {
    let store = Store::start();
    store.create_namespace("speed");
    let file = store.scratch().join("speed.db");
    // The file is there for its answers: its fsyncs would take most of the time.
    let on_file = [options, &["--nosync"]].concat();
    let local = speedtest(&Client::local(), file.to_str().unwrap(), testset, &on_file);
    let ours = speedtest(&Client::of(&store), "speed", testset, options);
    println!(
        "{testset} {options:?}: {}, file {:?}, preload library {:?}",
        hash(&ours),
        local.elapsed,
        ours.elapsed
    );
    assert_eq!(hash(&local), hash(&ours));
    copy_out(&store, "speed");
    store.finish();
}

#[test]
fn the_main_test_set_returns_the_same() {
    same_as_on_a_file("main", &["--size", "60"]);
}

#[test]
fn the_main_test_set_returns_the_same_with_spills_and_autovacuum() {
    same_as_on_a_file(
        "main",
        &[
            "--size",
            "12",
            "--autovacuum",
            "--cachesize",
            "20",
            "--without-rowid",
        ],
    );
}

#[test]
fn the_other_test_sets_return_the_same() {
    for testset in ["cte", "rtree", "orm", "fp"] {
        same_as_on_a_file(testset, &["--size", "12"]);
    }
}
