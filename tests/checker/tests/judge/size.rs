//! Large histories.

use mvsqlite_checker::{Anomaly, Extra, History, Model, Operation, check};

use crate::build::{Change, append, history, list, transaction, version};

/// A run of a store that works: `count` transactions, 16 processes at a time, over 1,000 lists.
fn run(count: u64) -> History {
    let mut lists: Vec<Vec<u64>> = vec![Vec::new(); 1_000];
    let mut records = Vec::new();
    for number in 0..count {
        let keys = [number * 7 % 1_000, (number * 13 + 1) % 1_000];
        let mut operations = Vec::new();
        for key in keys {
            let elements = lists[key as usize].clone();
            operations.push(Operation::ReadList { key, elements });
        }
        if number % 3 > 0 {
            operations.push(append(keys[0], number));
            lists[keys[0] as usize].push(number);
        }
        let mut record = transaction(operations)
            .of(u32::try_from(number % 16).unwrap() + 1)
            .at_times(10 * number, 10 * number + 150)
            .read_at(number);
        record.committed_at = (number % 3 > 0).then(|| version(number + 1));
        records.push(record);
    }
    let mut history = history(records);
    history.final_lists = (0..).zip(lists).collect();
    history
}

#[test]
fn a_hundred_thousand_transactions_are_judged() {
    let report = check(&run(100_000), Model::StrictSerializable).unwrap();
    assert_eq!(report.transactions, 100_000);
    assert_eq!(report.reads_at_versions, 200_000 + 133_332);
}

#[test]
fn one_stale_read_among_fifty_thousand_transactions_is_found() {
    let mut history = run(50_000);
    for record in &mut history.transactions {
        record.read_at = None;
        record.committed_at = None;
    }
    let Operation::ReadList { elements, .. } = &mut history.transactions[40_000].operations[0]
    else {
        panic!("it reads first");
    };
    elements.pop().unwrap();
    let violation = check(&history, Model::StrictSerializable).unwrap_err();
    assert!(violation.transactions.len() < 5, "{violation}");
}

#[test]
fn a_cycle_of_five_thousand_transactions_is_found() {
    let count = 5_000;
    let ring = (0..count).map(|key| transaction([list(key, &[]), append((key + 1) % count, 1)]));
    let violation = check(&history(ring), Model::Serializable).unwrap_err();
    assert_eq!(violation.anomaly, Anomaly::AntiDependencyCycle(Extra::None));
    assert_eq!(violation.transactions.len(), 5_000);
}
