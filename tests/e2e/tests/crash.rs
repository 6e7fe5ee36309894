//! `kill -9` of the store amid the commits of many clients, dozens of times: whatever was
//! acknowledged is there, whatever was not is there whole or not at all, and an ordinary SQLite
//! finds nothing wrong with a copy.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mvsqlite_e2e::{Client, Ledger, Store, copy_out, until};

const WORKERS: u32 = 5;
const SECONDS: u64 = 30;
/// For how long the store is killed again and again; then the workers come to rest.
const KILLING: Duration = Duration::from_secs(22);
const PATIENCE: Duration = Duration::from_secs(60);

/// The sqlite3 shell inserting numbers until an error ends it; says which were acknowledged.
fn shell_batch(client: &Client, from: i64) -> BTreeSet<i64> {
    let insert = |number| {
        format!("INSERT INTO shell VALUES ({number}, hex(zeroblob(3000)));\n.print A{number}\n")
    };
    let batch: String = (from..from + 50).map(insert).collect();
    let finished = client.sqlite3("shell", &format!(".bail on\n{batch}"));
    let lines = finished.stdout.lines();
    lines
        .filter_map(|line| line.strip_prefix('A'))
        .map(|number| number.parse().unwrap())
        .collect()
}

/// Shell after shell, for as long as the workers run.
fn shells(client: &Client, begun: Instant) -> BTreeSet<i64> {
    let mut acknowledged = BTreeSet::new();
    let mut next = 0;
    while begun.elapsed() < Duration::from_secs(SECONDS) {
        acknowledged.extend(shell_batch(client, next));
        next += 50;
    }
    acknowledged
}

#[test]
fn nothing_acknowledged_is_lost_when_the_store_is_killed_again_and_again() {
    let mut store = Store::start();
    store.create_namespace("shell");
    let table = "CREATE TABLE shell (number INTEGER PRIMARY KEY, body);";
    Client::of(&store).query("shell", table);
    // Impatient, so that outcomes stay unknown while the store is down for longer.
    let client = Client::of(&store).env("MVSQLITE_HTTP_TIMEOUT_SECS", "1");
    let begun = Instant::now();
    let mut ledger = Ledger::start(&store, &client, WORKERS, SECONDS);
    let shell = std::thread::spawn(move || shells(&client, begun));

    let mut round = 0;
    while begun.elapsed() < KILLING {
        round += 1;
        // Amid commits: after the workers have got somewhere since the last start.
        let enough = ledger.acknowledged() + 7 * (round % 9) + 1;
        until("commits between two kills", PATIENCE, || {
            (ledger.acknowledged() > enough).then_some(())
        });
        store.kill();
        match round {
            2 => ledger.kill(3),
            3 => until("a transaction to be given up", PATIENCE, || {
                (ledger.failed() > 0).then_some(())
            }),
            _ => {}
        }
        store.restart();
    }
    println!("the store was killed {round} times");
    assert!(round >= 3, "too few rounds");

    let shell = shell.join().unwrap();
    ledger.settle(&store);
    let stored = copy_out(&store, "shell").column("SELECT number FROM shell");
    let stored: BTreeSet<i64> = stored.into_iter().collect();
    let lost: Vec<_> = shell.difference(&stored).collect();
    assert!(lost.is_empty(), "shell: acknowledged and lost: {lost:?}");
    println!("{} by shells, all there", shell.len());
    store.finish();
}
