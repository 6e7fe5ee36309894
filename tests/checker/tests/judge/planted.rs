//! For every anomaly a history that has it, and one nearby that has not.

use std::collections::BTreeMap;

use mvsqlite_checker::{Anomaly, Extra, History, Model, Outcome, Report, check};

use crate::build::{Change, append, history, list, read, transaction, write};

use Model::{Serializable, SnapshotRead, StrictSerializable};

#[track_caller]
pub(crate) fn refused(history: &History, model: Model, anomaly: Anomaly) -> String {
    let violation = check(history, model).expect_err("it must be refused");
    let text = violation.to_string();
    assert_eq!(violation.anomaly, anomaly, "{text}");
    for number in 1..=violation.transactions.len() {
        assert!(
            text.contains(&format!("\n  T{number} is process ")),
            "{text}"
        );
    }
    text
}

#[track_caller]
pub(crate) fn accepted(history: &History, model: Model) -> Report {
    match check(history, model) {
        Ok(report) => report,
        Err(violation) => panic!("{violation}"),
    }
}

#[test]
fn malformed_an_element_appended_twice() {
    let history = history([transaction([append(1, 1)]), transaction([append(1, 1)])]);
    refused(&history, Serializable, Anomaly::MalformedHistory);
}

#[test]
fn malformed_a_value_written_twice() {
    let history = history([transaction([write(1, 1), write(1, 1)])]);
    refused(&history, Serializable, Anomaly::MalformedHistory);
}

#[test]
fn malformed_an_end_before_the_beginning() {
    let history = history([transaction([append(1, 1)]).at_times(5, 4)]);
    refused(&history, Serializable, Anomaly::MalformedHistory);
}

#[test]
fn malformed_two_transactions_at_one_place() {
    let mut history = history([transaction([append(1, 1)]), transaction([append(1, 2)])]);
    history.transactions[1].process = history.transactions[0].process;
    history.transactions[1].index = history.transactions[0].index;
    refused(&history, Serializable, Anomaly::MalformedHistory);
}

#[test]
fn malformed_an_aborted_transaction_with_a_version() {
    let aborted = transaction([append(1, 1)]).committed_at(3);
    let history = history([aborted.ended_as(Outcome::Aborted)]);
    refused(&history, Serializable, Anomaly::MalformedHistory);
}

#[test]
fn malformed_versions_of_different_lengths() {
    let mut history = history([
        transaction([append(1, 1)]).committed_at(3),
        transaction([append(1, 2)]).committed_at(4),
    ]);
    history.transactions[1].committed_at = Some("4".to_owned());
    refused(&history, Serializable, Anomaly::MalformedHistory);
}

#[test]
fn malformed_a_snapshot_read_without_a_version() {
    let versionless = history([transaction([read(1, None)])]);
    accepted(&versionless, Serializable);
    refused(&versionless, SnapshotRead, Anomaly::MalformedHistory);
    let versionless = history([transaction([write(1, 1)])]);
    refused(&versionless, SnapshotRead, Anomaly::MalformedHistory);
}

#[test]
fn internal_an_own_append_is_not_read() {
    let own = |seen: &[u64]| history([transaction([append(1, 1), list(1, seen)])]);
    refused(&own(&[]), Serializable, Anomaly::Internal);
    accepted(&own(&[1]), Serializable);
}

#[test]
fn internal_a_list_is_read_twice_and_differently() {
    let twice = |second: &[u64]| {
        history([
            transaction([append(1, 1)]),
            transaction([list(1, &[]), list(1, second)]),
        ])
    };
    refused(&twice(&[1]), Serializable, Anomaly::Internal);
    accepted(&twice(&[]), Serializable);
}

#[test]
fn internal_an_own_append_is_read_too_early() {
    let history = history([transaction([list(1, &[1]), append(1, 1)])]);
    refused(&history, Serializable, Anomaly::Internal);
}

#[test]
fn internal_an_own_write_is_not_read() {
    let history = history([transaction([write(1, 1), read(1, None)])]);
    refused(&history, Serializable, Anomaly::Internal);
}

#[test]
fn internal_an_own_write_is_read_too_early() {
    let history = history([transaction([read(1, 1), write(1, 1)])]);
    refused(&history, Serializable, Anomaly::Internal);
}

#[test]
fn internal_a_register_is_read_twice_and_differently() {
    let history = history([
        transaction([write(1, 1)]),
        transaction([read(1, None), read(1, 1)]),
    ]);
    refused(&history, Serializable, Anomaly::Internal);
}

#[test]
fn g1a_an_aborted_append_is_read() {
    let of = |outcome| {
        history([
            transaction([append(1, 1)]).ended_as(outcome),
            transaction([list(1, &[1])]),
        ])
    };
    refused(&of(Outcome::Aborted), Serializable, Anomaly::AbortedRead);
    accepted(&of(Outcome::Unknown), Serializable);
}

#[test]
fn g1a_an_aborted_write_is_read() {
    let of = |outcome| {
        history([
            transaction([write(1, 1)]).ended_as(outcome),
            transaction([read(1, 1)]),
        ])
    };
    refused(&of(Outcome::Aborted), Serializable, Anomaly::AbortedRead);
    accepted(&of(Outcome::Unknown), Serializable);
}

#[test]
fn g1b_half_of_a_transaction_is_read() {
    let reading = |seen: &[u64]| {
        history([
            transaction([append(1, 1), append(1, 2)]),
            transaction([list(1, seen)]),
            transaction([list(1, &[1, 2])]),
        ])
    };
    refused(&reading(&[1]), Serializable, Anomaly::IntermediateRead);
    accepted(&reading(&[1, 2]), Serializable);
}

#[test]
fn g1b_a_value_is_read_that_was_replaced_in_its_transaction() {
    let history = history([
        transaction([write(1, 1), write(1, 2)]),
        transaction([read(1, 1)]),
    ]);
    refused(&history, Serializable, Anomaly::IntermediateRead);
}

#[test]
fn g1b_two_transactions_append_in_turns() {
    let history = history([
        transaction([append(1, 1), append(1, 2)]),
        transaction([append(1, 3)]),
        transaction([list(1, &[1, 3, 2])]),
    ]);
    refused(&history, Serializable, Anomaly::IntermediateRead);
}

#[test]
fn never_written_an_element_out_of_nowhere() {
    let history = history([transaction([list(1, &[7])])]);
    refused(&history, Serializable, Anomaly::NeverWritten);
}

#[test]
fn never_written_a_value_out_of_nowhere() {
    let history = history([transaction([read(1, 7)])]);
    refused(&history, Serializable, Anomaly::NeverWritten);
}

#[test]
fn duplicate_element_an_append_happened_twice() {
    let history = history([
        transaction([append(1, 1)]),
        transaction([append(1, 2)]),
        transaction([list(1, &[1, 2, 1])]),
    ]);
    refused(&history, Serializable, Anomaly::DuplicateElement);
}

#[test]
fn incompatible_order_two_readers_disagree() {
    let history = history([
        transaction([append(1, 1)]),
        transaction([append(1, 2)]),
        transaction([list(1, &[1, 2])]),
        transaction([list(1, &[2, 1])]),
    ]);
    refused(&history, Serializable, Anomaly::IncompatibleOrder);
}

#[test]
fn lost_append_of_a_committed_transaction() {
    let mut history = history([transaction([append(1, 1)]), transaction([append(1, 2)])]);
    accepted(&history, Serializable);
    history.final_lists = BTreeMap::from([(1, vec![2])]);
    refused(&history, Serializable, Anomaly::LostAppend);
    // What nobody acknowledged may be missing.
    history.transactions[0].outcome = Outcome::Unknown;
    accepted(&history, Serializable);
    // A list that is not among the final ones was empty.
    history.final_lists = BTreeMap::from([(9, vec![])]);
    refused(&history, Serializable, Anomaly::LostAppend);
}

#[test]
fn lost_append_that_somebody_had_seen() {
    let mut history = history([
        transaction([append(1, 1)]).ended_as(Outcome::Unknown),
        transaction([list(1, &[1])]),
    ]);
    history.final_lists = BTreeMap::from([(1, vec![])]);
    refused(&history, Serializable, Anomaly::LostAppend);
    history.final_lists = BTreeMap::from([(1, vec![1])]);
    accepted(&history, Serializable);
}

#[test]
fn phantom_of_a_transaction_of_which_only_half_came() {
    let mut history =
        history([transaction([append(1, 1), append(2, 1)]).ended_as(Outcome::Unknown)]);
    history.final_lists = BTreeMap::from([(1, vec![1]), (2, vec![])]);
    refused(&history, Serializable, Anomaly::LostAppend);
    history.final_lists = BTreeMap::from([(1, vec![1]), (2, vec![1])]);
    accepted(&history, Serializable);
    history.final_lists = BTreeMap::from([(1, vec![]), (2, vec![])]);
    accepted(&history, Serializable);
}

#[test]
fn g0_two_transactions_in_opposite_orders() {
    let history = history([
        transaction([append(1, 1), append(2, 1)]),
        transaction([append(1, 2), append(2, 2)]),
        transaction([list(1, &[1, 2])]),
        transaction([list(2, &[2, 1])]),
    ]);
    let text = refused(&history, Serializable, Anomaly::WriteCycle(Extra::None));
    assert!(text.contains("-ww-> T2"), "{text}");
    assert!(text.contains("T2 -ww-> T1"), "{text}");
}

/// What nobody saw comes after what somebody did.
#[test]
fn g0_with_an_append_that_nobody_saw() {
    let history = history([
        transaction([append(1, 1), append(2, 1)]),
        transaction([append(1, 2), append(2, 2)]),
        transaction([list(1, &[1])]),
        transaction([list(2, &[2, 1])]),
    ]);
    refused(&history, Serializable, Anomaly::WriteCycle(Extra::None));
}

#[test]
fn g0_realtime_an_append_before_one_that_was_answered() {
    let history = history([
        transaction([append(1, 1)]).at_times(0, 10),
        transaction([append(1, 2)]).at_times(20, 30),
        transaction([list(1, &[2, 1])]),
    ]);
    accepted(&history, Serializable);
    let text = refused(
        &history,
        StrictSerializable,
        Anomaly::WriteCycle(Extra::RealTime),
    );
    assert!(text.contains("was answered at 10"), "{text}");
}

#[test]
fn g1c_two_transactions_read_each_other() {
    let history = history([
        transaction([append(1, 1), list(2, &[1])]),
        transaction([append(2, 1), list(1, &[1])]),
    ]);
    let anomaly = Anomaly::CircularInformationFlow(Extra::None);
    refused(&history, Serializable, anomaly);
}

#[test]
fn g1c_of_registers() {
    let history = history([
        transaction([write(1, 1), read(2, 1)]),
        transaction([write(2, 1), read(1, 1)]),
    ]);
    let anomaly = Anomaly::CircularInformationFlow(Extra::None);
    refused(&history, Serializable, anomaly);
}

#[test]
fn g1c_process_a_process_reads_what_it_appends_later() {
    let history = history([
        transaction([list(1, &[1])]).of(5),
        transaction([append(1, 1)]).of(5),
    ]);
    let anomaly = Anomaly::CircularInformationFlow(Extra::Process);
    refused(&history, Serializable, anomaly);
}

#[test]
fn g1c_realtime_a_read_from_the_future() {
    let history = history([
        transaction([list(1, &[1])]).at_times(0, 10),
        transaction([append(1, 1)]).at_times(20, 30),
    ]);
    accepted(&history, Serializable);
    let anomaly = Anomaly::CircularInformationFlow(Extra::RealTime);
    refused(&history, StrictSerializable, anomaly);
}

#[test]
fn g_single_a_lost_update_of_a_list() {
    let history = history([
        transaction([list(1, &[]), append(1, 1)]),
        transaction([list(1, &[]), append(1, 2)]),
        transaction([list(1, &[1, 2])]),
    ]);
    let anomaly = Anomaly::SingleAntiDependency(Extra::None);
    let text = refused(&history, Serializable, anomaly);
    assert!(text.contains("found list 1 as [], without the"), "{text}");
}

#[test]
fn g_single_read_skew() {
    let history = history([
        transaction([append(1, 1), append(2, 1)]),
        transaction([list(1, &[]), list(2, &[1])]),
        transaction([list(1, &[1])]),
    ]);
    let anomaly = Anomaly::SingleAntiDependency(Extra::None);
    refused(&history, Serializable, anomaly);
}

/// The snapshots of transactions that failed are promised too.
#[test]
fn g_single_read_skew_of_an_aborted_transaction() {
    let history = history([
        transaction([append(1, 1), append(2, 1)]),
        transaction([list(1, &[]), list(2, &[1])]).ended_as(Outcome::Aborted),
    ]);
    let anomaly = Anomaly::SingleAntiDependency(Extra::None);
    refused(&history, Serializable, anomaly);
}

#[test]
fn g_single_read_skew_of_registers() {
    let history = history([
        transaction([write(1, 1), write(2, 1)]),
        transaction([read(1, None), read(2, 1)]),
    ]);
    let anomaly = Anomaly::SingleAntiDependency(Extra::None);
    refused(&history, Serializable, anomaly);
}

/// Only that the second replaced what it had read tells which value is the older one.
#[test]
fn g_single_a_value_read_beside_one_that_its_replacer_wrote() {
    let history = history([
        transaction([write(1, 1)]),
        transaction([read(1, 1), write(1, 2), write(2, 2)]),
        transaction([read(1, 1), read(2, 2)]),
    ]);
    let anomaly = Anomaly::SingleAntiDependency(Extra::None);
    refused(&history, Serializable, anomaly);
}

#[test]
fn g_single_process_a_process_does_not_see_its_own_commit() {
    let reading = |seen: &[u64]| {
        history([
            transaction([append(1, 1)]).of(5),
            transaction([list(1, seen)]).of(5),
            transaction([list(1, &[1])]),
        ])
    };
    let anomaly = Anomaly::SingleAntiDependency(Extra::Process);
    refused(&reading(&[]), Serializable, anomaly);
    accepted(&reading(&[1]), Serializable);
}

#[test]
fn g_single_process_a_register_goes_back() {
    let history = history([
        transaction([write(1, 1)]).of(4),
        transaction([write(1, 2)]).of(4),
        transaction([read(1, 2)]).of(5),
        transaction([read(1, 1)]).of(5),
    ]);
    let anomaly = Anomaly::SingleAntiDependency(Extra::Process);
    refused(&history, Serializable, anomaly);
}

#[test]
fn g_single_realtime_a_stale_read() {
    let history = history([
        transaction([append(1, 1)]).at_times(0, 10),
        transaction([list(1, &[])]).at_times(20, 30),
    ]);
    accepted(&history, Serializable);
    let anomaly = Anomaly::SingleAntiDependency(Extra::RealTime);
    refused(&history, StrictSerializable, anomaly);
}

/// Nobody has seen the two writes together: only their times tell which was first.
#[test]
fn g_single_realtime_a_stale_read_of_a_register() {
    let history = history([
        transaction([write(1, 1)]).at_times(0, 10),
        transaction([write(1, 2)]).at_times(20, 30),
        transaction([read(1, 1)]).at_times(40, 50),
    ]);
    accepted(&history, Serializable);
    let anomaly = Anomaly::SingleAntiDependency(Extra::RealTime);
    refused(&history, StrictSerializable, anomaly);
}

#[test]
fn g2_item_write_skew() {
    let history = history([
        transaction([list(1, &[]), append(2, 1)]),
        transaction([list(2, &[]), append(1, 1)]),
    ]);
    let anomaly = Anomaly::AntiDependencyCycle(Extra::None);
    let text = refused(&history, Serializable, anomaly);
    assert_eq!(text.matches("-rw->").count(), 2, "{text}");
}

#[test]
fn g2_item_write_skew_of_registers() {
    let history = history([
        transaction([read(1, None), write(2, 1)]),
        transaction([read(2, None), write(1, 1)]),
    ]);
    let anomaly = Anomaly::AntiDependencyCycle(Extra::None);
    refused(&history, Serializable, anomaly);
}

#[test]
fn g2_item_a_lost_update_that_nobody_saw() {
    let of_lists = history([
        transaction([list(1, &[]), append(1, 1)]),
        transaction([list(1, &[]), append(1, 2)]),
    ]);
    let of_registers = history([
        transaction([read(1, None), write(1, 1)]),
        transaction([read(1, None), write(1, 2)]),
    ]);
    let anomaly = Anomaly::AntiDependencyCycle(Extra::None);
    refused(&of_lists, Serializable, anomaly);
    refused(&of_registers, Serializable, anomaly);
}

#[test]
fn g2_item_the_smallest_of_many_cycles_is_told() {
    // Three who do not see one another, and far more who do not see one another in a ring.
    let ring = |keys: std::ops::Range<u64>| {
        let end = keys.end;
        let start = keys.start;
        keys.map(move |key| {
            let next = if key + 1 == end { start } else { key + 1 };
            transaction([list(key, &[]), append(next, 1)])
        })
    };
    let history = history(ring(100..160).chain(ring(1..4)).chain(ring(200..260)));
    let violation = check(&history, Serializable).unwrap_err();
    assert_eq!(violation.transactions.len(), 3, "{violation}");
}

#[test]
fn g2_item_realtime_two_readers_disagree_about_what_came_first() {
    // Each reader saw one append, not the other, and a third came after both.
    let history = history([
        transaction([append(1, 1)]).at_times(0, 100),
        transaction([append(2, 1)]).at_times(0, 100),
        transaction([list(1, &[1]), list(2, &[])]).at_times(10, 20),
        transaction([list(1, &[]), list(2, &[1])]).at_times(30, 40),
    ]);
    let anomaly = Anomaly::AntiDependencyCycle(Extra::None);
    refused(&history, Serializable, anomaly);
}

/// What was not answered may come at any later time.
#[test]
fn a_transaction_of_unknown_outcome_may_take_effect_after_its_process_went_on() {
    let history = history([
        transaction([append(1, 1)])
            .of(5)
            .at_times(0, 10)
            .ended_as(Outcome::Unknown),
        transaction([list(1, &[])]).of(5).at_times(20, 30),
        transaction([list(1, &[1])]).of(5).at_times(40, 50),
    ]);
    accepted(&history, StrictSerializable);
}
