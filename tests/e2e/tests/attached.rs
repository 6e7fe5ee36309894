//! Money moved between two attached databases while store and clients are killed: at every moment
//! all of it is there, and every transfer is in both databases or in neither.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::{Duration, Instant};

use mvsqlite_e2e::{
    Client, Copied, Job, Session, Store, Told, Worker, code, copy_out, judge_all, until,
};

const ONE: &str = "bank-one";
const OTHER: &str = "bank-other";
const SCHEMA: &str = "
    CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER, filler BLOB);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 15)
    INSERT INTO account SELECT i, 1000, zeroblob(2500) FROM n;
    CREATE TABLE transfer (worker, number, body, PRIMARY KEY (worker, number));";

const WRITERS: u32 = 4;
const LASTING: Duration = Duration::from_secs(16);
/// For how long store and clients are killed; then the others come to rest.
const KILLING: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

fn banks() -> Store {
    let store = Store::start();
    for bank in [ONE, OTHER] {
        store.create_namespace(bank);
        Client::of(&store).query(bank, SCHEMA);
    }
    store
}

fn start(store: &Store, client: &Client, script: &str, number: u32) -> Worker {
    let job = Job {
        script,
        databases: &[ONE, OTHER],
        lasting: LASTING,
        keep: number.is_multiple_of(2),
    };
    Worker::start(client, job, number, store.scratch())
}

#[test]
fn transfers_between_two_databases_are_whole_at_every_moment_and_after_every_kill() {
    let mut store = banks();
    // Impatient, so that outcomes stay unknown while the store is down for longer.
    let client = Client::of(&store).env("MVSQLITE_HTTP_TIMEOUT_SECS", "1");
    let begun = Instant::now();
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|number| start(&store, &client, "attached_worker.py", number))
        .collect();
    let mut reader = start(&store, &client, "attached_reader.py", WRITERS);
    let told = |writers: &[Worker]| -> Vec<Told> {
        writers.iter().map(|writer| writer.journal.told()).collect()
    };
    let acknowledged =
        |writers: &[Worker]| -> usize { told(writers).iter().map(|t| t.acknowledged.len()).sum() };
    let mut round = 0;
    while begun.elapsed() < KILLING {
        round += 1;
        let enough = acknowledged(&writers) + 5;
        until("transfers between two kills", PATIENCE, || {
            (acknowledged(&writers) > enough).then_some(())
        });
        store.kill();
        match round {
            2 => writers[0].kill(),
            3 => until("a transfer to be given up", PATIENCE, || {
                // The one that each is at counts as unknown.
                let given_up = |told: &Told| told.unknown.len() > 1 || !told.refused.is_empty();
                told(&writers).iter().any(given_up).then_some(())
            }),
            _ => {}
        }
        store.restart();
    }
    assert!(round >= 3, "too few rounds");
    reader.finish();
    writers.iter_mut().for_each(Worker::finish);
    let (one, other) = (copy_out(&store, ONE), copy_out(&store, OTHER));
    let journals = writers.iter().map(|writer| &writer.journal);
    judge_all(journals, &[(&one, "transfer"), (&other, "transfer")]);
    let transfers = acknowledged(&writers);
    let sum = |copy: &Copied| copy.value::<i64>("SELECT sum(amount) FROM account");
    assert_eq!(sum(&one) + sum(&other), 2 * 16 * 1000);
    println!("{transfers} transfers acknowledged over {round} kills, all there");
    store.finish();
}

#[test]
fn the_shell_commits_two_databases_at_one_version() {
    let store = banks();
    let client = Client::of(&store);
    let sql = format!(
        "ATTACH '{OTHER}' AS other;
         BEGIN;
         UPDATE account SET amount = amount - 7 WHERE id = 3;
         UPDATE other.account SET amount = amount + 7 WHERE id = 3;
         COMMIT;
         SELECT mv_last_known_version('main') = mv_last_known_version('other');"
    );
    assert_eq!(client.query(ONE, &sql).trim(), "1");
    // Under a file name each, as an unmodified program has them.
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let map = format!("{}={ONE},{}={OTHER}", path("one.db"), path("other.db"));
    let mapped = client
        .env("MVSQLITE_DB_NAME_MAP", &map)
        .env("MVSQLITE_ONLY_MAPPED", "1");
    let sql = format!(
        "ATTACH '{}' AS other; ATTACH '{}' AS plain;
         CREATE TABLE plain.note (text);
         BEGIN;
         INSERT INTO plain.note VALUES ('moved');
         UPDATE account SET amount = amount - 7 WHERE id = 3;
         UPDATE other.account SET amount = amount + 7 WHERE id = 3;
         COMMIT;
         SELECT (SELECT amount FROM main.account WHERE id = 3), (SELECT amount FROM other.account WHERE id = 3), text FROM plain.note;",
        path("other.db"),
        path("plain.db")
    );
    assert_eq!(mapped.query(&path("one.db"), &sql).trim(), "986|1014|moved");
    store.finish();
}

#[test]
fn a_conflict_in_an_attached_database_undoes_the_main_one_too() {
    let store = banks();
    let client = Client::of(&store);
    let mut session = Session::open(&client, ONE).unwrap();
    session.ok(&format!("ATTACH '{OTHER}' AS other"));
    session.ok("BEGIN");
    session.ok("UPDATE account SET amount = 0 WHERE id = 1");
    session.ok("UPDATE other.account SET amount = 0 WHERE id = 1");
    client.query(OTHER, "UPDATE account SET amount = 5 WHERE id = 1");
    session.fails("COMMIT", code::BUSY_SNAPSHOT);
    let amounts = "SELECT a.amount || ' ' || b.amount FROM main.account a, other.account b \
                   WHERE a.id = 1 AND b.id = 1";
    assert_eq!(session.value(amounts), "1000 5");
    // The original's way, by hand.
    session.ok("SELECT mv_commit_group_begin()");
    session.ok("BEGIN");
    session.ok("UPDATE account SET amount = 1 WHERE id = 1");
    session.ok("UPDATE other.account SET amount = 1 WHERE id = 1");
    session.ok("COMMIT");
    let version = session.value("SELECT mv_commit_group_commit('main')");
    assert_eq!(version.len(), 20);
    assert_eq!(session.value(amounts), "1 1");
    store.finish();
}

/// A write in exclusive mode waited for nothing until the busy timeout was over: the attached database
/// had been written by others since the transaction began to read the main one, and each retry took a
/// snapshot of that same moment again.
#[test]
fn in_exclusive_mode_an_attached_database_is_written_on_its_newest_version() {
    let store = banks();
    let client = Client::of(&store).env("MVSQLITE_CONCURRENCY", "exclusive");
    let mut session = Session::open(&client, ONE).unwrap();
    session.ok(&format!("ATTACH '{OTHER}' AS other"));
    session.ok("BEGIN");
    assert_eq!(session.value("SELECT sum(amount) FROM account"), "16000");
    client.query(OTHER, "UPDATE account SET amount = 5 WHERE id = 1");
    session.ok("UPDATE other.account SET amount = amount + 7 WHERE id = 1");
    session.ok("COMMIT");
    let amount = "SELECT amount FROM other.account WHERE id = 1";
    assert_eq!(session.value(amount), "12");
    store.finish();
}
