//! For every way in which versions can be wrong a history in which they are.

use mvsqlite_checker::{Anomaly, Model, Outcome, VersionLog};

use crate::build::{Change, append, history, list, read, transaction, write};
use crate::planted::{accepted, refused};

use Model::{Serializable, SnapshotRead, StrictSerializable};

#[test]
fn not_the_snapshot_a_commit_is_missing() {
    let reading = |seen: &[u64], at| {
        history([
            transaction([append(1, 1)]).committed_at(10),
            transaction([list(1, seen)]).read_at(at),
        ])
    };
    refused(&reading(&[], 10), SnapshotRead, Anomaly::NotTheSnapshot);
    accepted(&reading(&[], 9), SnapshotRead);
    accepted(&reading(&[1], 10), SnapshotRead);
}

#[test]
fn not_the_snapshot_a_commit_is_seen_early() {
    let history = history([
        transaction([append(1, 1)]).committed_at(10),
        transaction([list(1, &[1])]).read_at(9),
    ]);
    refused(&history, SnapshotRead, Anomaly::NotTheSnapshot);
}

#[test]
fn not_the_snapshot_of_a_transaction_that_was_aborted() {
    let history = history([
        transaction([append(1, 1)]).committed_at(10),
        transaction([list(1, &[1])])
            .read_at(9)
            .ended_as(Outcome::Aborted),
    ]);
    refused(&history, Serializable, Anomaly::NotTheSnapshot);
}

#[test]
fn not_the_snapshot_of_a_register() {
    let reading = |value: Option<u64>, at| {
        history([
            transaction([write(1, 1)]).committed_at(10),
            transaction([write(1, 2)]).committed_at(20),
            transaction([read(1, value)]).read_at(at),
        ])
    };
    refused(&reading(Some(1), 20), SnapshotRead, Anomaly::NotTheSnapshot);
    refused(&reading(Some(2), 19), SnapshotRead, Anomaly::NotTheSnapshot);
    refused(&reading(None, 10), SnapshotRead, Anomaly::NotTheSnapshot);
    refused(&reading(Some(1), 9), SnapshotRead, Anomaly::NotTheSnapshot);
    accepted(&reading(None, 9), SnapshotRead);
    accepted(&reading(Some(1), 19), SnapshotRead);
    accepted(&reading(Some(2), 21), SnapshotRead);
}

#[test]
fn not_the_snapshot_a_commit_of_unknown_version_lies_nowhere() {
    let reading = |with, without| {
        history([
            transaction([append(1, 1)]).ended_as(Outcome::Unknown),
            transaction([list(1, &[1])]).read_at(with),
            transaction([list(1, &[])]).read_at(without),
        ])
    };
    accepted(&reading(10, 9), SnapshotRead);
    refused(&reading(9, 10), SnapshotRead, Anomaly::NotTheSnapshot);
}

#[test]
fn not_the_snapshot_two_lists_put_a_commit_at_different_places() {
    let reading = |with, without| {
        history([
            transaction([append(1, 1), append(2, 1)]).ended_as(Outcome::Unknown),
            transaction([list(1, &[1])]).read_at(with),
            transaction([list(2, &[])]).read_at(without),
        ])
    };
    accepted(&reading(10, 9), SnapshotRead);
    refused(&reading(9, 10), SnapshotRead, Anomaly::NotTheSnapshot);
}

#[test]
fn stale_commit_what_was_read_had_changed() {
    // A serializable order exists: the second first. But that is not the one claimed.
    let claimed = |second| {
        history([
            transaction([append(1, 1)]).committed_at(10),
            transaction([list(1, &[]), append(2, 1)])
                .read_at(5)
                .committed_at(second),
        ])
    };
    accepted(&claimed(9), SnapshotRead);
    refused(&claimed(11), SnapshotRead, Anomaly::StaleCommit);
}

#[test]
fn stale_commit_a_register_that_was_read_had_changed() {
    let history = history([
        transaction([write(1, 1)]).committed_at(10),
        transaction([read(1, None), write(2, 1)])
            .read_at(5)
            .committed_at(11),
    ]);
    refused(&history, SnapshotRead, Anomaly::StaleCommit);
}

#[test]
fn version_order_elements_stand_against_their_versions() {
    let history = history([
        transaction([append(1, 1)]).committed_at(20),
        transaction([append(1, 2)]).committed_at(10),
        transaction([list(1, &[1, 2])]),
    ]);
    refused(&history, Serializable, Anomaly::VersionOrder);
}

#[test]
fn version_order_two_commits_at_one_version() {
    let history = history([
        transaction([append(1, 1)]).committed_at(10),
        transaction([append(2, 2)]).committed_at(10),
    ]);
    refused(&history, Serializable, Anomaly::VersionOrder);
}

#[test]
fn version_order_a_commit_not_above_its_snapshot() {
    let history = history([transaction([append(1, 1)]).read_at(10).committed_at(10)]);
    refused(&history, Serializable, Anomaly::VersionOrder);
}

#[test]
fn version_order_a_process_goes_back() {
    let reading = |first, second| {
        history([
            transaction([]).of(5).read_at(first),
            transaction([]).of(5).read_at(second),
        ])
    };
    refused(&reading(10, 9), Serializable, Anomaly::VersionOrder);
    accepted(&reading(10, 10), Serializable);
    let committing = history([
        transaction([]).of(5).read_at(10),
        transaction([append(1, 1)]).of(5).committed_at(10),
    ]);
    refused(&committing, Serializable, Anomaly::VersionOrder);
}

#[test]
fn version_order_a_snapshot_older_than_an_answer() {
    let reading = |at| {
        history([
            transaction([append(1, 1)]).committed_at(10).at_times(0, 10),
            transaction([]).read_at(at).at_times(20, 30),
        ])
    };
    accepted(&reading(9), Serializable);
    accepted(&reading(10), StrictSerializable);
    refused(&reading(9), StrictSerializable, Anomaly::VersionOrder);
}

#[test]
fn version_order_a_commit_below_an_answer() {
    let history = history([
        transaction([append(1, 1)]).committed_at(10).at_times(0, 10),
        transaction([append(2, 1)]).committed_at(9).at_times(20, 30),
    ]);
    refused(&history, Serializable, Anomaly::VersionOrder);
}

#[test]
fn version_log_keeps_namespaces_apart_and_allows_some_staleness() {
    let commit = transaction([]).of(1).committed_at(10).at_times(0, 10);
    let stale = transaction([]).of(2).read_at(9).at_times(20, 30);
    let judge = |staleness, other| {
        let mut log = VersionLog::new(staleness);
        log.record("one", &commit);
        log.record(other, &stale);
        assert_eq!(log.len(), 2);
        log.check()
    };
    let violation = judge(0, "one").unwrap_err();
    assert_eq!(violation.anomaly, Anomaly::VersionOrder);
    assert!(violation.to_string().contains("in namespace one"));
    judge(0, "two").unwrap();
    judge(9, "one").unwrap_err();
    judge(10, "one").unwrap();
    judge(u64::MAX, "one").unwrap();
}

#[test]
fn a_register_whose_order_is_open_is_named() {
    let history = history([
        transaction([write(1, 1)]),
        transaction([write(1, 2)]),
        transaction([write(2, 1)]),
        transaction([read(2, 1), write(2, 2)]),
    ]);
    let report = accepted(&history, Serializable);
    assert_eq!(report.unordered_registers, [1]);
    let versions = history.transactions.into_iter().zip(1..);
    let known = versions.map(|(record, version)| record.committed_at(version));
    let report = accepted(&crate::build::history(known), Serializable);
    assert!(report.unordered_registers.is_empty(), "{report}");
}
