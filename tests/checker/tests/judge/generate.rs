//! Random histories: of a store that works, of one that was tampered with, and arbitrary ones.

use std::collections::BTreeMap;

use mvsqlite_checker::{History, Operation, Outcome, TransactionRecord};
use proptest::prelude::*;

use crate::build::version;

const KEYS: u64 = 3;
const PROCESSES: u32 = 3;

/// What a transaction is to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    process: u32,
    steps: Vec<Step>,
    ending: Ending,
    /// How long before its moment it begins, and how long after it ends.
    slack: (u64, u64),
    /// How many commits old its snapshot is, if it only reads.
    age: usize,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Read(u64),
    Change(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Committed,
    Aborted,
    /// Not known, and committed.
    Silent,
    /// Not known, and not.
    Lost,
}

/// What is kept under the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Lists,
    Registers,
}

/// A run of a store that works: transactions happen one at a time, at ticks 100, 200, ...
pub(crate) fn plans(count: usize) -> impl Strategy<Value = Vec<Plan>> {
    let step = prop_oneof![
        (0..KEYS).prop_map(Step::Read),
        (0..KEYS).prop_map(Step::Change)
    ];
    let ending = prop_oneof![
        6 => Just(Ending::Committed),
        1 => Just(Ending::Aborted),
        1 => Just(Ending::Silent),
        1 => Just(Ending::Lost),
    ];
    let slack = (1u64..250, 1u64..250);
    let steps = prop::collection::vec(step, 1..4);
    let plan = (1..=PROCESSES, steps, ending, slack, 0usize..3).prop_map(
        |(process, steps, ending, slack, age)| Plan {
            process,
            steps,
            ending,
            slack,
            age,
        },
    );
    prop::collection::vec(plan, 1..=count)
}

#[derive(Debug, Clone, Default)]
struct State {
    version: u64,
    lists: BTreeMap<u64, Vec<u64>>,
    registers: BTreeMap<u64, u64>,
}

/// What is observed when the plans are carried out one after the other. With `stale`, read-only
/// transactions may see an older state, though none that their process knows is old.
pub(crate) fn carry_out(plans: &[Plan], kept: Kept, stale: bool, look: bool) -> History {
    let mut states = vec![State::default()];
    let mut known = BTreeMap::new();
    // The last of each process: it runs one transaction at a time.
    let mut before: BTreeMap<u32, usize> = BTreeMap::new();
    let mut history = History::default();
    for (index, plan) in plans.iter().enumerate() {
        let moment = 100 * (index as u64 + 1);
        let newest = states.last().unwrap().version;
        let reads_only = plan.steps.iter().all(|step| matches!(step, Step::Read(_)));
        let floor = *known.get(&plan.process).unwrap_or(&0);
        let mut at = states.len() - 1;
        if stale && reads_only {
            let oldest = states.partition_point(|state| state.version < floor);
            at = at.saturating_sub(plan.age).max(oldest);
        }
        let mut state = states[at].clone();
        let read_at = state.version;
        let operations = run(plan, kept, index as u64, &mut state);
        let applied = matches!(plan.ending, Ending::Committed | Ending::Silent) && !reads_only;
        if applied {
            state.version = newest + 10;
            states.push(state.clone());
        }
        let mut begun = moment.saturating_sub(plan.slack.0);
        if let Some(before) = before.insert(plan.process, index) {
            let ended = &mut history.transactions[before].ended;
            *ended = ended.map(|ended| ended.min(moment - 50));
            begun = begun.max(ended.map_or(0, |ended| ended + 1));
        }
        let ended = moment + plan.slack.1;
        let outcome = match plan.ending {
            Ending::Committed => Outcome::Committed,
            Ending::Aborted => Outcome::Aborted,
            Ending::Silent | Ending::Lost => Outcome::Unknown,
        };
        let committed = outcome == Outcome::Committed && applied;
        if outcome != Outcome::Unknown {
            let told = if committed { newest + 10 } else { read_at };
            known.insert(plan.process, told.max(floor));
        }
        history.transactions.push(TransactionRecord {
            process: plan.process,
            index: index as u64,
            begun,
            ended: (plan.ending != Ending::Lost).then_some(ended),
            outcome,
            operations,
            read_at: Some(version(read_at)),
            committed_at: committed.then(|| version(newest + 10)),
        });
    }
    if look && kept == Kept::Lists {
        history.final_lists = states.pop().unwrap().lists;
    }
    history
}

fn run(plan: &Plan, kept: Kept, index: u64, state: &mut State) -> Vec<Operation> {
    let operation = |(number, step): (usize, &Step)| {
        let mark = 10 * index + number as u64 + 1;
        match (*step, kept) {
            (Step::Read(key), Kept::Lists) => {
                let elements = state.lists.get(&key).cloned().unwrap_or_default();
                Operation::ReadList { key, elements }
            }
            (Step::Read(key), Kept::Registers) => {
                let value = state.registers.get(&key).copied();
                Operation::Read { key, value }
            }
            (Step::Change(key), Kept::Lists) => {
                state.lists.entry(key).or_default().push(mark);
                Operation::Append { key, element: mark }
            }
            (Step::Change(key), Kept::Registers) => {
                state.registers.insert(key, mark);
                Operation::Write { key, value: mark }
            }
        }
    };
    plan.steps.iter().enumerate().map(operation).collect()
}

/// A way to tamper with a history. The numbers choose where.
#[derive(Debug, Clone)]
pub(crate) enum Corruption {
    /// An element disappears from a read.
    DropElement(usize, usize),
    /// The end of a list disappears from a read: it is stale.
    CutList(usize, usize),
    /// An element appears in a read before its time.
    SeeEarly(usize, usize),
    /// Two elements of a read change places.
    SwapElements(usize, usize),
    /// An element is read twice.
    Repeat(usize),
    /// Two reads change places.
    SwapReads(usize, usize),
    /// A register is read as another transaction wrote it, or as it began.
    ReadOther(usize, usize),
    /// A transaction becomes two.
    Split(usize),
    /// Two transactions change places in time.
    SwapTimes(usize, usize),
    /// A transaction runs in another process, as its last.
    Move(usize, u32),
    /// What was committed was not, or the other way round.
    Lie(usize),
    /// An append is left out of the record.
    Forget(usize),
    /// Two commits swap their versions.
    SwapVersions(usize, usize),
    /// A snapshot is called older, or newer.
    ShiftSnapshot(usize, bool),
    /// The end of a final list is lost.
    LoseEnd(usize),
}

pub(crate) fn corruption() -> impl Strategy<Value = Corruption> {
    let at = 0usize..64;
    let two = || (0usize..64, 0usize..64);
    prop_oneof![
        two().prop_map(|(a, b)| Corruption::DropElement(a, b)),
        two().prop_map(|(a, b)| Corruption::CutList(a, b)),
        two().prop_map(|(a, b)| Corruption::SeeEarly(a, b)),
        two().prop_map(|(a, b)| Corruption::SwapElements(a, b)),
        at.clone().prop_map(Corruption::Repeat),
        two().prop_map(|(a, b)| Corruption::SwapReads(a, b)),
        two().prop_map(|(a, b)| Corruption::ReadOther(a, b)),
        at.clone().prop_map(Corruption::Split),
        two().prop_map(|(a, b)| Corruption::SwapTimes(a, b)),
        (at.clone(), 1..=PROCESSES).prop_map(|(at, process)| Corruption::Move(at, process)),
        at.clone().prop_map(Corruption::Lie),
        at.clone().prop_map(Corruption::Forget),
        two().prop_map(|(a, b)| Corruption::SwapVersions(a, b)),
        (at.clone(), any::<bool>()).prop_map(|(at, up)| Corruption::ShiftSnapshot(at, up)),
        at.prop_map(Corruption::LoseEnd),
    ]
}

fn list_reads(history: &mut History) -> Vec<&mut Vec<u64>> {
    let operations = history
        .transactions
        .iter_mut()
        .flat_map(|r| &mut r.operations);
    let lists = operations.filter_map(|operation| match operation {
        Operation::ReadList { elements, .. } => Some(elements),
        _ => None,
    });
    lists.collect()
}

fn pick<T>(mut from: Vec<T>, at: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(at % from.len()))
}

/// Tampers with a history, if there is what the corruption is about.
pub(crate) fn corrupt(history: &mut History, corruption: &Corruption) {
    let count = history.transactions.len();
    if count == 0 {
        return;
    }
    match *corruption {
        Corruption::DropElement(read, at) => {
            if let Some(list) = pick(list_reads(history), read).filter(|list| !list.is_empty()) {
                list.remove(at % list.len());
            }
        }
        Corruption::CutList(read, at) => {
            if let Some(list) = pick(list_reads(history), read).filter(|list| !list.is_empty()) {
                list.truncate(at % list.len());
            }
        }
        Corruption::SeeEarly(read, at) => see_early(history, read, at),
        Corruption::SwapElements(read, at) => {
            if let Some(list) = pick(list_reads(history), read).filter(|list| list.len() > 1) {
                let at = at % (list.len() - 1);
                list.swap(at, at + 1);
            }
        }
        Corruption::Repeat(read) => {
            if let Some(list) = pick(list_reads(history), read).filter(|list| !list.is_empty()) {
                list.push(list[0]);
            }
        }
        Corruption::SwapReads(first, second) => swap_reads(history, first, second),
        Corruption::ReadOther(read, other) => read_other(history, read, other),
        Corruption::Split(at) => split(history, at % count),
        Corruption::SwapTimes(first, second) => {
            let (first, second) = (first % count, second % count);
            let time = |history: &History, at: usize| {
                let record = &history.transactions[at];
                (record.begun, record.ended, record.process, record.index)
            };
            let (of_first, of_second) = (time(history, first), time(history, second));
            for (at, time) in [(first, of_second), (second, of_first)] {
                let record = &mut history.transactions[at];
                (record.begun, record.ended, record.process, record.index) = time;
            }
        }
        Corruption::Move(at, process) => {
            let record = &mut history.transactions[at % count];
            record.process = process;
            record.index += 1_000;
        }
        Corruption::Lie(at) => {
            let record = &mut history.transactions[at % count];
            record.committed_at = None;
            record.outcome = match record.outcome {
                Outcome::Committed => Outcome::Aborted,
                _ => Outcome::Committed,
            };
        }
        Corruption::Forget(at) => {
            let record = &mut history.transactions[at % count];
            let change = |operation: &Operation| matches!(operation, Operation::Append { .. });
            if let Some(at) = record.operations.iter().position(change) {
                record.operations.remove(at);
            }
        }
        Corruption::SwapVersions(first, second) => {
            let commits = history.transactions.iter_mut();
            let mut versions: Vec<_> = commits.filter_map(|r| r.committed_at.as_mut()).collect();
            if let Some(last) = versions.len().checked_sub(1).filter(|last| *last > 0) {
                let first = first % last;
                let second = first + 1 + second % (last - first);
                let (left, right) = versions.split_at_mut(second);
                std::mem::swap(left[first], right[0]);
            }
        }
        Corruption::ShiftSnapshot(at, up) => {
            if let Some(text) = &mut history.transactions[at % count].read_at {
                let at = u64::from_str_radix(text, 16).unwrap();
                *text = version(if up { at + 10 } else { at.saturating_sub(10) });
            }
        }
        Corruption::LoseEnd(at) => {
            let lists: Vec<_> = history.final_lists.values_mut().collect();
            if let Some(list) = pick(lists, at) {
                list.pop();
            }
        }
    }
}

fn see_early(history: &mut History, read: usize, at: usize) {
    let appended: Vec<_> = history
        .transactions
        .iter()
        .flat_map(|record| &record.operations)
        .filter_map(|operation| match operation {
            Operation::Append { key, element } => Some((*key, *element)),
            _ => None,
        })
        .collect();
    let reads = history
        .transactions
        .iter_mut()
        .flat_map(|r| &mut r.operations);
    let reads = reads.filter_map(|operation| match operation {
        Operation::ReadList { key, elements } => Some((*key, elements)),
        _ => None,
    });
    if let Some((key, elements)) = pick(reads.collect(), read) {
        let missing = appended
            .into_iter()
            .filter(|(of, element)| *of == key && !elements.contains(element));
        if let Some((_, element)) = pick(missing.collect(), at) {
            elements.push(element);
        }
    }
}

fn swap_reads(history: &mut History, first: usize, second: usize) {
    let reads: Vec<(usize, usize)> = history
        .transactions
        .iter()
        .enumerate()
        .flat_map(|(at, record)| {
            let operations = record.operations.iter().enumerate();
            let reads = operations.filter(|(_, operation)| {
                matches!(
                    operation,
                    Operation::ReadList { .. } | Operation::Read { .. }
                )
            });
            reads.map(move |(number, _)| (at, number))
        })
        .collect();
    if reads.is_empty() {
        return;
    }
    let [(a, x), (b, y)] = [first, second].map(|at| reads[at % reads.len()]);
    let one = history.transactions[a].operations[x].clone();
    let other = std::mem::replace(&mut history.transactions[b].operations[y], one);
    history.transactions[a].operations[x] = other;
}

fn read_other(history: &mut History, read: usize, other: usize) {
    let operations = history.transactions.iter().flat_map(|r| &r.operations);
    let written: Vec<_> = operations
        .filter_map(|operation| match operation {
            Operation::Write { key, value } => Some((*key, *value)),
            _ => None,
        })
        .collect();
    let reads = history
        .transactions
        .iter_mut()
        .flat_map(|r| &mut r.operations);
    let reads = reads.filter_map(|operation| match operation {
        Operation::Read { key, value } => Some((*key, value)),
        _ => None,
    });
    if let Some((key, value)) = pick(reads.collect(), read) {
        let values = written.into_iter().filter(|(of, _)| *of == key);
        let values = values.map(|(_, value)| Some(value)).chain([None]);
        *value = pick(values.collect(), other).flatten();
    }
}

/// A transaction is seen as two, the second part in a process of its own.
fn split(history: &mut History, at: usize) {
    let record = &mut history.transactions[at];
    let half = record.operations.len() / 2;
    let mut second = record.clone();
    second.operations = record.operations.split_off(half);
    second.process = 77;
    second.committed_at = None;
    history.transactions.push(second);
}

/// A history of lists without rhyme or reason, but for reads that begin as the lists do.
pub(crate) fn arbitrary(count: usize) -> impl Strategy<Value = History> {
    let read = (0..2u64, prop::collection::vec(0usize..6, 0..3));
    let steps = prop::collection::vec(
        prop_oneof![(0..2u64).prop_map(Err), read.prop_map(Ok)],
        1..4,
    );
    let outcome = prop_oneof![
        6 => Just(Outcome::Committed),
        1 => Just(Outcome::Aborted),
        2 => Just(Outcome::Unknown),
    ];
    let one = (1..=3u32, steps, outcome, 0..10u64, 0..10u64, any::<bool>());
    let look = prop::option::weighted(0.3, prop::collection::vec(0usize..6, 0..4));
    (prop::collection::vec(one, 1..=count), look).prop_map(|(all, look)| {
        let mut history = History::default();
        let mut next = 0;
        let mut appended: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (index, (process, steps, outcome, begun, length, answered)) in
            all.into_iter().enumerate()
        {
            let operations = steps.into_iter().map(|step| match step {
                Err(key) => {
                    next += 1;
                    appended.entry(key).or_default().push(next);
                    Operation::Append { key, element: next }
                }
                // Which elements is chosen when all are known.
                Ok((key, picks)) => {
                    let elements = picks.into_iter().map(|pick| pick as u64).collect();
                    Operation::ReadList { key, elements }
                }
            });
            history.transactions.push(TransactionRecord {
                process,
                index: index as u64,
                begun,
                ended: (answered || outcome == Outcome::Committed).then_some(begun + length),
                outcome,
                operations: operations.collect(),
                read_at: None,
                committed_at: None,
            });
        }
        let choose = |key: u64, picks: &[u64]| {
            let mut left = appended.get(&key).cloned().unwrap_or_default();
            let mut chosen = Vec::new();
            for pick in picks {
                if !left.is_empty() {
                    // The first one mostly: most reads are to fit together.
                    let at = if *pick == 5 { 1 % left.len() } else { 0 };
                    chosen.push(left.remove(at));
                }
            }
            chosen
        };
        for operation in history
            .transactions
            .iter_mut()
            .flat_map(|r| &mut r.operations)
        {
            if let Operation::ReadList { key, elements } = operation {
                *elements = choose(*key, elements);
            }
        }
        if let Some(picks) = look {
            let picks: Vec<_> = picks.into_iter().map(|pick| pick as u64).collect();
            history.final_lists = [0, 1].map(|key| (key, choose(key, &picks))).into();
        }
        history
    })
}
