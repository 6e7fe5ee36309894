//! Many processes run random transactions and write down what they saw. Some order must explain
//! every read, in which nobody comes before a transaction that was answered when he began; and so
//! must the order of the versions.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeMap;
use std::fs;

use mvsqlite_checker::{Anomaly, History, Model, Operation, Outcome, TransactionRecord, check};
use mvsqlite_e2e::{Client, Copied, Store, copy_out};

/// Rows of a few per page, on pages enough that most transactions do not meet.
const SCHEMA: &str = "
    CREATE TABLE register (key INTEGER PRIMARY KEY, value INTEGER, filler BLOB);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 59)
    INSERT INTO register SELECT i, 0, zeroblob(2500) FROM n;
    CREATE TABLE event (id INTEGER PRIMARY KEY, owner INTEGER, place INTEGER, body BLOB);
    CREATE UNIQUE INDEX event_place ON event (owner, place);";

/// Runs workers, and answers what they and a look after the end saw.
fn observe(workers: u32, seconds: &str, mode: &[&str]) -> History {
    let store = Store::start();
    store.create_namespace("history");
    let client = Client::of(&store);
    client.query("history", SCHEMA);
    let path = |worker: u32| store.scratch().join(format!("history-{worker}.jsonl"));
    let start = |worker: u32| {
        let (number, path) = (worker.to_string(), path(worker));
        let client = match worker % 3 {
            0 => client.clone().with_newest_sqlite(),
            _ => client.clone(),
        };
        let mut arguments = vec!["history", &number, seconds, path.to_str().unwrap()];
        arguments.extend(mode);
        client.start_python("history_worker.py", &arguments)
    };
    let running: Vec<_> = (0..workers).map(start).collect();
    for (worker, running) in running.into_iter().enumerate() {
        println!("worker {worker}: {}", running.finish().ok());
    }
    let mut history = History::default();
    for worker in 0..workers {
        let text = fs::read_to_string(path(worker)).unwrap();
        history.add_lines(&text).unwrap();
    }
    let copy = copy_out(&store, "history");
    history.final_lists = lists(&copy);
    let look = look_at_registers(&copy, &history);
    history.transactions.push(look);
    store.finish();
    history
}

fn pairs(copy: &Copied, query: &str) -> Vec<(u64, u64)> {
    let lines = copy.column::<String>(query);
    let pair = |line: &String| {
        let (first, second) = line.split_once(' ').unwrap();
        (first.parse().unwrap(), second.parse().unwrap())
    };
    lines.iter().map(pair).collect()
}

fn lists(copy: &Copied) -> BTreeMap<u64, Vec<u64>> {
    let mut lists = BTreeMap::<_, Vec<_>>::new();
    for (key, element) in pairs(
        copy,
        "SELECT owner || ' ' || id FROM event ORDER BY owner, place",
    ) {
        lists.entry(key).or_default().push(element);
    }
    lists
}

/// A transaction that reads all registers when everything has ended.
fn look_at_registers(copy: &Copied, history: &History) -> TransactionRecord {
    let registers = pairs(copy, "SELECT key || ' ' || value FROM register");
    assert_eq!(registers.len(), 60);
    let read = |(key, value): (u64, u64)| Operation::Read {
        key,
        value: (value != 0).then_some(value),
    };
    let last = history.transactions.iter().map(|record| record.ended);
    TransactionRecord {
        process: u32::MAX - 1,
        index: 0,
        begun: last.max().unwrap().unwrap() + 1,
        ended: None,
        outcome: Outcome::Committed,
        operations: registers.into_iter().map(read).collect(),
        read_at: None,
        committed_at: None,
    }
}

fn anomaly(history: &History) -> Anomaly {
    let violation = check(history, Model::StrictSerializable).unwrap_err();
    println!("found: {violation}");
    violation.anomaly
}

#[test]
fn histories_of_many_processes_are_strictly_serializable() {
    let history = observe(6, "20", &[]);
    let report = match check(&history, Model::StrictSerializable) {
        Ok(report) => report,
        Err(violation) => panic!("{violation}"),
    };
    println!("{report}");
    assert!(
        report.effective > 100 && report.reads_at_versions > 300,
        "{report}"
    );
    assert!(report.unordered_registers.is_empty(), "{report}");

    // Would anything have been found? Of this very history, told wrongly:
    let mut lost = history.clone();
    let list = lost.final_lists.values_mut().find(|list| list.len() > 1);
    list.unwrap().pop();
    assert_eq!(anomaly(&lost), Anomaly::LostAppend);

    let mut forgotten = history.clone();
    let appends = |record: &TransactionRecord| {
        let mut operations = record.operations.iter();
        let appended = operations.any(|operation| matches!(operation, Operation::Append { .. }));
        appended && record.committed_at.is_some()
    };
    let at = forgotten.transactions.iter().position(appends).unwrap();
    forgotten.transactions.remove(at);
    assert_eq!(anomaly(&forgotten), Anomaly::NeverWritten);

    let mut stale = history;
    let mut reads = stale.transactions.iter_mut().rev().filter_map(|record| {
        let reader = record.committed_at.is_none() && record.outcome == Outcome::Committed;
        let list = record
            .operations
            .iter_mut()
            .find_map(|operation| match operation {
                Operation::ReadList { elements, .. } if elements.len() > 1 => Some(elements),
                _ => None,
            });
        list.filter(|_| reader)
    });
    reads.next().unwrap().pop();
    drop(reads);
    check(&stale, Model::StrictSerializable).unwrap_err();
}

/// The same recording by a program that does not read and write in one transaction.
#[test]
fn a_transaction_cut_in_two_is_found_out() {
    let history = observe(4, "5", &["split"]);
    let mut without_versions = history.clone();
    for record in &mut without_versions.transactions {
        record.read_at = None;
        record.committed_at = None;
    }
    for history in [history, without_versions] {
        let found = anomaly(&history);
        assert_ne!(found, Anomaly::MalformedHistory);
    }
}
