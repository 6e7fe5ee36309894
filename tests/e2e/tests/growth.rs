//! Writers that grow the file and churn its free list, on one database: where page-level
//! concurrency breaks first. Readers check every snapshot meanwhile; in the end an ordinary SQLite
//! checks a copy, row by row against what the writers know they committed.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use mvsqlite_e2e::{Client, Store, copy_out};

const SECONDS: &str = "50";

fn churn(setup: &str, workers: u32) {
    let store = Store::start();
    store.create_namespace("growth");
    let client = Client::of(&store).deadline(Duration::from_secs(180));
    let table =
        "CREATE TABLE item (worker, id, generation, body, PRIMARY KEY (worker, id)) WITHOUT ROWID;
        CREATE INDEX item_length ON item (length(body));";
    client.query("growth", &format!("{setup}{table}"));

    let model = |worker: u32| store.scratch().join(format!("model-{worker}.json"));
    let start = |worker: u32| {
        let (number, model) = (worker.to_string(), model(worker));
        let arguments = ["growth", &number, SECONDS, model.to_str().unwrap()];
        // Every other one runs on the newest SQLite: both write the same pages.
        let client = match worker % 2 {
            0 => client.clone(),
            _ => client.clone().with_newest_sqlite(),
        };
        client.start_python("growth_worker.py", &arguments)
    };
    let writers: Vec<_> = (0..workers).map(start).collect();
    let reader = client.start_python("growth_reader.py", &["growth", SECONDS]);
    for (worker, writer) in writers.into_iter().enumerate() {
        println!("writer {worker}: {}", writer.finish().ok());
    }
    println!("reader: {}", reader.finish().ok());

    let copy = copy_out(&store, "growth");
    let pages: i64 = copy.value("PRAGMA page_count");
    let free: i64 = copy.value("PRAGMA freelist_count");
    println!("{pages} pages, {free} of them free");
    let models: Vec<_> = (0..workers).map(model).collect();
    let mut arguments = vec![copy.path().to_str().unwrap()];
    arguments.extend(models.iter().map(|path| path.to_str().unwrap()));
    println!(
        "{}",
        Client::local().python("growth_check.py", &arguments).ok()
    );
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
