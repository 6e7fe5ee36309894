//! `kill -9` of the store amid the commits of many clients, round after round: whatever was
//! acknowledged is there, whatever was not is there whole or not at all, and an ordinary SQLite
//! finds nothing wrong with a copy.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mvsqlite_e2e::{Client, Copied, Running, Store, copy_out, until};

const PYTHON_WORKERS: usize = 5;
/// This one is killed too.
const KILLED_WORKER: usize = 3;
const SECONDS: u64 = 30;
/// For how long the store is killed again and again; then the workers come to rest.
const KILLING: Duration = Duration::from_secs(22);

const SCHEMA: &str = "
    CREATE TABLE left (worker, number, body, PRIMARY KEY (worker, number));
    CREATE TABLE right (worker, number, body, PRIMARY KEY (worker, number)) WITHOUT ROWID;
    CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 31)
    INSERT INTO account SELECT i, 1000 FROM n;
    CREATE TABLE shell (number INTEGER PRIMARY KEY, body);";

/// What a worker wrote down: numbers acknowledged, and numbers whose outcome it was not told.
fn journal(path: &Path) -> (BTreeSet<i64>, BTreeSet<i64>) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let numbers = |kind: &str| {
        let of_kind = text.lines().filter_map(|line| line.strip_prefix(kind));
        of_kind
            .map(|number| number.trim().parse().unwrap())
            .collect()
    };
    (numbers("A"), numbers("U"))
}

fn start_workers(store: &Store, client: &Client) -> Vec<(usize, PathBuf, Running)> {
    let start = |worker: usize| {
        let journal = store.scratch().join(format!("worker-{worker}"));
        let number = worker.to_string();
        let seconds = SECONDS.to_string();
        let keep = (worker % 2).to_string();
        let path = journal.to_str().unwrap();
        let arguments = ["crash", &number, &seconds, path, &keep];
        let running = client.start_python("crash_worker.py", &arguments);
        (worker, journal, running)
    };
    (0..PYTHON_WORKERS).map(start).collect()
}

/// The sqlite3 shell inserting numbers until an error ends it; says which were acknowledged.
fn shell_batch(client: &Client, from: i64) -> BTreeSet<i64> {
    let insert = |number| {
        format!("INSERT INTO shell VALUES ({number}, hex(zeroblob(3000)));\n.print A{number}\n")
    };
    let batch: String = (from..from + 50).map(insert).collect();
    let finished = client.sqlite3("crash", &format!(".bail on\n{batch}"));
    let lines = finished.stdout.lines();
    lines
        .filter_map(|line| line.strip_prefix('A'))
        .map(|number| number.parse().unwrap())
        .collect()
}

/// How many transactions were acknowledged so far.
fn progress(workers: &[(usize, PathBuf, Running)]) -> usize {
    let journals = workers.iter().map(|(_, path, _)| journal(path));
    journals.map(|(acknowledged, _)| acknowledged.len()).sum()
}

fn check_worker(copy: &Copied, worker: usize, path: &Path) -> usize {
    let (acknowledged, unknown) = journal(path);
    let numbers = |table: &str| -> BTreeSet<i64> {
        let sql = format!("SELECT number FROM \"{table}\" WHERE worker = {worker}");
        copy.column(&sql).into_iter().collect()
    };
    let (left, right) = (numbers("left"), numbers("right"));
    assert_eq!(left, right, "worker {worker}: half a transaction");
    let lost: Vec<_> = acknowledged.difference(&left).collect();
    assert!(
        lost.is_empty(),
        "worker {worker}: acknowledged and lost: {lost:?}"
    );
    let mut known: BTreeSet<_> = acknowledged.union(&unknown).copied().collect();
    if worker == KILLED_WORKER {
        // It did not live to write down what it last did.
        known.insert(known.last().map_or(0, |last| last + 1));
    }
    let invented: Vec<_> = left.difference(&known).collect();
    assert!(
        invented.is_empty(),
        "worker {worker}: never reported: {invented:?}"
    );
    acknowledged.len()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_store_is_killed_again_and_again() {
    let mut store = Store::start();
    store.create_namespace("crash");
    // Impatient, so that outcomes stay unknown while the store is down for longer.
    let client = Client::of(&store).env("MVSQLITE_HTTP_TIMEOUT_SECS", "1");
    client.query("crash", SCHEMA);
    let begun = Instant::now();
    let mut workers = start_workers(&store, &client);
    let shell = std::thread::spawn({
        let client = client.clone();
        move || {
            let mut acknowledged = BTreeSet::new();
            let mut next = 0;
            while begun.elapsed() < Duration::from_secs(SECONDS) {
                acknowledged.extend(shell_batch(&client, next));
                next += 50;
            }
            acknowledged
        }
    });

    let mut round = 0;
    while begun.elapsed() < KILLING {
        round += 1;
        // Amid commits: after the workers have got somewhere since the last start.
        let enough = progress(&workers) + 7 * (round % 9) + 1;
        until("commits between two kills", Duration::from_secs(60), || {
            (progress(&workers) > enough).then_some(())
        });
        store.kill();
        match round {
            5 => workers[KILLED_WORKER].2.kill_now(),
            10 => until("a COMMIT to be given up", Duration::from_secs(30), || {
                workers
                    .iter()
                    .find(|(_, path, _)| !journal(path).1.is_empty())?;
                Some(())
            }),
            _ => {}
        }
        store.restart();
    }
    assert!(round >= 10, "{round} rounds are too few");
    println!("the store was killed {round} times");

    let mut journals = Vec::new();
    for (worker, path, running) in workers {
        match worker {
            KILLED_WORKER => println!("worker {worker}: killed"),
            _ => println!("worker {worker}: {}", running.finish().ok()),
        }
        journals.push((worker, path));
    }
    let shell = shell.join().unwrap();

    let copy = copy_out(&store, "crash");
    let mut acknowledged = 0;
    for (worker, path) in &journals {
        acknowledged += check_worker(&copy, *worker, path);
    }
    let stored: BTreeSet<i64> = copy
        .column("SELECT number FROM shell")
        .into_iter()
        .collect();
    let lost: Vec<_> = shell.difference(&stored).collect();
    assert!(lost.is_empty(), "shell: acknowledged and lost: {lost:?}");
    let money: i64 = copy.value("SELECT sum(amount) FROM account");
    assert_eq!(money, 32 * 1000, "transfers make and lose no money");
    println!("{acknowledged} and {} acknowledged, all there", shell.len());
    store.finish();
}
