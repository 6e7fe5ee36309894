//! Many processes run random transactions and write down what they saw: the commits, in the order
//! of their versions, must explain every read of every transaction.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use mvsqlite_e2e::{Client, Store, copy_out};

const WORKERS: u32 = 6;
const SECONDS: &str = "20";

/// Rows of a few per page, on pages enough that most transactions do not meet.
const SCHEMA: &str = "
    CREATE TABLE register (key INTEGER PRIMARY KEY, value INTEGER, filler BLOB);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 59)
    INSERT INTO register SELECT i, 0, zeroblob(2500) FROM n;
    CREATE TABLE event (id INTEGER PRIMARY KEY, owner INTEGER, body BLOB);
    CREATE INDEX event_owner ON event (owner);";

#[test]
fn commits_in_the_order_of_their_versions_explain_every_read() {
    let store = Store::start();
    store.create_namespace("history");
    let client = Client::of(&store);
    client.query("history", SCHEMA);
    let path = |worker: u32| store.scratch().join(format!("history-{worker}.json"));
    let start = |worker: u32| {
        let (number, path) = (worker.to_string(), path(worker));
        let client = match worker % 3 {
            0 => client.clone().with_newest_sqlite(),
            _ => client.clone(),
        };
        let arguments = ["history", &number, SECONDS, path.to_str().unwrap()];
        client.start_python("history_worker.py", &arguments)
    };
    let workers: Vec<_> = (0..WORKERS).map(start).collect();
    for (worker, running) in workers.into_iter().enumerate() {
        println!("worker {worker}: {}", running.finish().ok());
    }
    let copy = copy_out(&store, "history");
    let files: Vec<_> = (0..WORKERS).map(path).collect();
    let mut arguments = vec![copy.path().to_str().unwrap()];
    arguments.extend(files.iter().map(|path| path.to_str().unwrap()));
    let checked = Client::local().python("history_check.py", &arguments);
    println!("{}", checked.ok());
    store.finish();
}
