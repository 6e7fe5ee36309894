//! Writers that grow the file and churn its free list, on one database: where page-level
//! concurrency breaks first. Readers check every snapshot meanwhile; in the end an ordinary SQLite
//! checks a copy, row by row against what the writers know they committed.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use mvsqlite_e2e::{Client, Job, Store, Worker, copy_out};

const LASTING: Duration = Duration::from_secs(50);

fn churn(setup: &str, workers: u32) {
    let store = Store::start();
    store.create_namespace("growth");
    let client = Client::of(&store).deadline(Duration::from_secs(180));
    let table =
        "CREATE TABLE item (worker, id, generation, body, PRIMARY KEY (worker, id)) WITHOUT ROWID;
        CREATE INDEX item_length ON item (length(body));";
    client.query("growth", &format!("{setup}{table}"));

    let start = |number: u32, script| {
        let job = Job {
            script,
            databases: &["growth"],
            lasting: LASTING,
            keep: true,
        };
        // Every other one runs on the newest SQLite: both write the same pages.
        let client = match number % 2 {
            0 => client.clone(),
            _ => client.clone().with_newest_sqlite(),
        };
        Worker::start(&client, job, number, store.scratch())
    };
    let mut writers: Vec<_> = (0..workers).map(|n| start(n, "growth_worker.py")).collect();
    let mut reader = start(workers + workers % 2, "snapshot_reader.py");
    writers.iter_mut().for_each(Worker::finish);
    reader.finish();

    let copy = copy_out(&store, "growth");
    let pages: i64 = copy.value("PRAGMA page_count");
    let free: i64 = copy.value("PRAGMA freelist_count");
    println!("{pages} pages, {free} of them free");
    let beside = |worker: &Worker, what| format!("{}.{what}", worker.journal.path().display());
    let models: Vec<_> = writers
        .iter()
        .map(|writer| beside(writer, "model"))
        .collect();
    let mut arguments = vec![copy.path().to_str().unwrap()];
    arguments.extend(models.iter().map(String::as_str));
    let checked = Client::local().python("growth_check.py", &arguments);
    println!("{}", checked.ok());
    let snapshots = beside(&reader, "snapshots");
    let checked = client.python("snapshot_check.py", &["growth", "20", &snapshots]);
    println!("{}", checked.ok());
    store.finish();
}

#[test]
fn growing_and_shrinking_by_many_writers_keeps_the_database_whole() {
    churn("", 6);
}

#[test]
fn incremental_vacuum_by_many_writers_keeps_the_database_whole() {
    churn(
        "PRAGMA page_size = 1024; PRAGMA auto_vacuum = INCREMENTAL;",
        3,
    );
}
