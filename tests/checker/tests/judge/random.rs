//! The judge beside the slow one, on random histories.

use mvsqlite_checker::{Anomaly, History, Model, VersionLog, check};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::brute_force::{serializable, versions_explain};
use crate::generate::{Kept, arbitrary, carry_out, corrupt, corruption, plans};

const CASES: u32 = 500;

fn without_versions(history: &History) -> History {
    let mut history = history.clone();
    for record in &mut history.transactions {
        record.read_at = None;
        record.committed_at = None;
    }
    history
}

/// The verdict, unless the history contradicts itself.
fn verdict(history: &History, model: Model) -> Option<Result<(), String>> {
    match check(history, model) {
        Ok(_) => Some(Ok(())),
        Err(violation) if violation.anomaly == Anomaly::MalformedHistory => None,
        Err(violation) => Some(Err(violation.to_string())),
    }
}

fn agree(history: &History, model: Model) {
    if let Some(verdict) = verdict(history, model) {
        let slow = serializable(history, model);
        assert_eq!(
            verdict.is_ok(),
            slow,
            "{model:?}: {verdict:?}\n{history:#?}"
        );
    }
}

fn kept() -> impl Strategy<Value = Kept> {
    prop_oneof![Just(Kept::Lists), Just(Kept::Registers)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn a_serial_execution_is_accepted(plans in plans(40), kept in kept(), look in any::<bool>()) {
        let history = carry_out(&plans, kept, false, look);
        for model in [Model::Serializable, Model::StrictSerializable, Model::SnapshotRead] {
            prop_assert!(matches!(verdict(&history, model), Some(Ok(()))), "{:?}", verdict(&history, model));
        }
        let history = without_versions(&history);
        for model in [Model::Serializable, Model::StrictSerializable] {
            prop_assert!(matches!(verdict(&history, model), Some(Ok(()))), "{:?}", verdict(&history, model));
        }
    }

    #[test]
    fn snapshots_may_be_old_where_that_is_allowed(plans in plans(40), kept in kept()) {
        let history = carry_out(&plans, kept, true, true);
        for model in [Model::Serializable, Model::SnapshotRead] {
            prop_assert!(matches!(verdict(&history, model), Some(Ok(()))), "{:?}", verdict(&history, model));
        }
    }

    #[test]
    fn on_tampered_lists_both_judges_agree(
        plans in plans(6),
        corruptions in prop::collection::vec(corruption(), 1..3),
        look in any::<bool>(),
    ) {
        let mut history = without_versions(&carry_out(&plans, Kept::Lists, false, look));
        for corruption in &corruptions {
            corrupt(&mut history, corruption);
        }
        let history = without_versions(&history);
        agree(&history, Model::Serializable);
        agree(&history, Model::StrictSerializable);
    }

    #[test]
    fn on_arbitrary_lists_both_judges_agree(history in arbitrary(5)) {
        agree(&history, Model::Serializable);
        agree(&history, Model::StrictSerializable);
    }

    /// Of registers not everything can be inferred. But whatever is refused must be wrong.
    #[test]
    fn tampered_registers_are_not_refused_for_nothing(
        plans in plans(6),
        corruptions in prop::collection::vec(corruption(), 1..3),
    ) {
        let mut history = carry_out(&plans, Kept::Registers, false, false);
        for corruption in &corruptions {
            corrupt(&mut history, corruption);
        }
        let history = without_versions(&history);
        for model in [Model::Serializable, Model::StrictSerializable] {
            if let Some(Err(violation)) = verdict(&history, model) {
                prop_assert!(!serializable(&history, model), "{violation}\n{history:#?}");
            }
        }
    }

    /// Where all versions are known nothing is inferred, of registers neither.
    #[test]
    fn on_versions_both_judges_agree(
        plans in plans(8),
        corruptions in prop::collection::vec(corruption(), 0..3),
        kept in kept(),
        stale in any::<bool>(),
    ) {
        let mut history = carry_out(&plans, kept, stale, true);
        // Of those that are not known, nobody knows the version either.
        history.transactions.retain(|record| record.outcome != mvsqlite_checker::Outcome::Unknown);
        history.final_lists.clear();
        for corruption in &corruptions {
            corrupt(&mut history, corruption);
        }
        let mut log = VersionLog::new(u64::MAX);
        for record in &history.transactions {
            log.record("all", record);
        }
        if let Some(verdict) = verdict(&history, Model::SnapshotRead) {
            let slow = versions_explain(&history) && log.check().is_ok();
            prop_assert_eq!(verdict.is_ok(), slow, "{:?}\n{:#?}", verdict, history);
        }
    }
}

/// Judges that agree because everything is refused, or nothing, would prove little.
#[test]
fn among_random_histories_there_are_good_and_bad_ones() {
    let mut runner = TestRunner::deterministic();
    let tampered = (plans(6), corruption()).prop_map(|(plans, corruption)| {
        let mut history = without_versions(&carry_out(&plans, Kept::Lists, false, false));
        corrupt(&mut history, &corruption);
        without_versions(&history)
    });
    for source in [tampered.boxed(), arbitrary(5).boxed()] {
        let histories = (0..400).map(|_| source.new_tree(&mut runner).unwrap().current());
        let verdicts: Vec<_> = histories
            .filter_map(|history| verdict(&history, Model::StrictSerializable))
            .collect();
        let accepted = verdicts.iter().filter(|verdict| verdict.is_ok()).count();
        let cycles = verdicts.iter().flat_map(|verdict| verdict.as_ref().err());
        let cycles = cycles.filter(|text| text.starts_with('G')).count();
        assert!(accepted > 40, "{accepted} accepted");
        assert!(verdicts.len() - accepted > 40, "{accepted} accepted");
        assert!(cycles > 20, "{cycles} cycles");
    }
}
