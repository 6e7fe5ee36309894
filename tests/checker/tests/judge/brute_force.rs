//! The slow judge: tries every order of the transactions, each with and without those whose outcome
//! is not known. It shares nothing with the fast one but the definition.

use std::collections::{BTreeMap, BTreeSet};

use mvsqlite_checker::{History, Model, Operation, Outcome, TransactionRecord};

type Lists = BTreeMap<u64, Vec<u64>>;
type Registers = BTreeMap<u64, u64>;

#[derive(Clone, Default)]
struct State {
    lists: Lists,
    registers: Registers,
}

impl State {
    /// The state after a transaction, if it explains what that read.
    fn after(&self, record: &TransactionRecord) -> Option<Self> {
        let mut state = self.clone();
        for operation in &record.operations {
            match operation {
                Operation::Append { key, element } => {
                    state.lists.entry(*key).or_default().push(*element);
                }
                Operation::Write { key, value } => {
                    state.registers.insert(*key, *value);
                }
                Operation::ReadList { key, elements } => {
                    let list = state.lists.get(key).map_or(&[][..], Vec::as_slice);
                    if list != elements {
                        return None;
                    }
                }
                Operation::Read { key, value } => {
                    if state.registers.get(key) != value.as_ref() {
                        return None;
                    }
                }
            }
        }
        Some(state)
    }

    fn is_final(&self, history: &History) -> bool {
        let found = &history.final_lists;
        let keys: BTreeSet<_> = self.lists.keys().chain(found.keys()).collect();
        found.is_empty()
            || keys.into_iter().all(|key| {
                let empty = Vec::new();
                self.lists.get(key).unwrap_or(&empty) == found.get(key).unwrap_or(&empty)
            })
    }
}

/// Whether some order explains the history. Versions are not looked at.
pub(crate) fn serializable(history: &History, model: Model) -> bool {
    let search = Search { history, model };
    search.extend(
        &State::default(),
        &mut vec![false; history.transactions.len()],
    )
}

struct Search<'h> {
    history: &'h History,
    model: Model,
}

impl Search<'_> {
    fn extend(&self, state: &State, placed: &mut Vec<bool>) -> bool {
        if placed.iter().all(|placed| *placed) {
            return state.is_final(self.history);
        }
        for at in 0..placed.len() {
            if placed[at] || !self.may_come(at, placed) {
                continue;
            }
            let record = &self.history.transactions[at];
            let Some(after) = state.after(record) else {
                continue;
            };
            placed[at] = true;
            let effective = record.outcome != Outcome::Aborted && self.extend(&after, placed);
            let found =
                effective || (record.outcome != Outcome::Committed && self.extend(state, placed));
            placed[at] = false;
            if found {
                return true;
            }
        }
        false
    }

    /// Whether everything that must come before it has come.
    fn may_come(&self, at: usize, placed: &[bool]) -> bool {
        let records = &self.history.transactions;
        let record = &records[at];
        records.iter().zip(placed).all(|(other, placed)| {
            let settled = other.outcome != Outcome::Unknown;
            let own = other.process == record.process && other.index < record.index;
            let earlier = self.model == Model::StrictSerializable
                && other.ended.is_some_and(|ended| ended < record.begun);
            *placed || !settled || !(own || earlier)
        })
    }
}

/// Whether the order of versions explains the history: all committed writers and all readers must
/// have versions.
pub(crate) fn versions_explain(history: &History) -> bool {
    let mut commits: Vec<_> = history.transactions.iter().collect();
    commits.retain(|record| record.committed_at.is_some());
    commits.sort_by_key(|record| &record.committed_at);
    let mut states = vec![(String::new(), State::default())];
    for record in commits {
        let (_, state) = states.last().unwrap();
        let Some(after) = state.after(record) else {
            return false;
        };
        states.push((record.committed_at.clone().unwrap(), after));
    }
    let snapshots_hold = history.transactions.iter().all(|record| {
        record.read_at.as_ref().is_none_or(|at| {
            let upto = states.partition_point(|(version, _)| version <= at);
            states[upto - 1].1.after(record).is_some()
        })
    });
    snapshots_hold && states.last().unwrap().1.is_final(history)
}
