//! Random histories of interleaved transactions, compared with a model that is too simple to be
//! wrong: every version's whole content, and every commit's write conflicts as a list.

use std::collections::BTreeMap;
use std::sync::Arc;

use mvsqlite_protocol::Version;
use mvstore::kv::{Atomic, Engine, Isolation, KeyRange, KvError, RangeOptions, Transaction};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::{begin, block_on, clear};

const PREFIX: &[u8] = b"conformance/model/";
/// Transactions open at once.
const OPEN: usize = 3;

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    Get(Vec<u8>, Isolation),
    GetRange(KeyRange, RangeOptions),
    ReadConflict(KeyRange),
    WriteConflict(KeyRange),
    Silence,
    Write(Write),
    Commit,
    Drop,
}

#[derive(Debug, Clone)]
enum Write {
    Set(Vec<u8>, Vec<u8>),
    Clear(Vec<u8>),
    ClearRange(KeyRange),
    StampKey(Vec<u8>, Vec<u8>),
    StampValue(Vec<u8>),
    Atomic(Atomic, Vec<u8>, Vec<u8>),
}

pub(super) fn check(engine: &Arc<dyn Engine>, cases: u32) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let history = vec((0..OPEN, step()), 1..60);
    TestRunner::new(config)
        .run(&history, |history| block_on(replay(engine, history)))
        .unwrap_or_else(|failure| panic!("{failure}"));
}

async fn replay(
    engine: &Arc<dyn Engine>,
    history: Vec<(usize, Step)>,
) -> Result<(), TestCaseError> {
    clear(engine, &KeyRange::prefix(PREFIX)).await;
    let mut model = Model::default();
    let mut open: [Option<Session>; OPEN] = [None, None, None];
    for (slot, step) in history {
        let mut session = match open[slot].take() {
            Some(session) => session,
            None => Session::begin(engine, &model).await,
        };
        match step {
            Step::Drop => {}
            Step::Commit => session.commit(&mut model).await?,
            step => {
                session.apply(step, &model).await?;
                open[slot] = Some(session);
            }
        }
    }
    let all = KeyRange::prefix(PREFIX);
    let mut last = Session::begin(engine, &model).await;
    let options = RangeOptions {
        limit: usize::MAX,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    last.apply(Step::GetRange(all, options), &model).await
}

/// Everything committed so far.
#[derive(Default)]
struct Model {
    /// The content after each commit; before the first it is empty.
    contents: Vec<Content>,
    /// What each commit wrote, for conflicts.
    writes: Vec<Vec<KeyRange>>,
    versions: Vec<Version>,
}

impl Model {
    fn at(&self, commits: usize) -> Content {
        match commits {
            0 => Content::new(),
            commits => self.contents[commits - 1].clone(),
        }
    }
}

/// A transaction and what the model knows of it.
struct Session {
    transaction: Box<dyn Transaction>,
    /// How many commits it sees.
    sees: usize,
    reads: Vec<KeyRange>,
    write_conflicts: Vec<KeyRange>,
    writes: Vec<Write>,
    silent: bool,
}

impl Session {
    async fn begin(engine: &Arc<dyn Engine>, model: &Model) -> Self {
        let transaction = begin(engine);
        transaction.read_version().await.unwrap();
        Self {
            transaction,
            sees: model.contents.len(),
            reads: Vec::new(),
            write_conflicts: Vec::new(),
            writes: Vec::new(),
            silent: false,
        }
    }

    async fn apply(&mut self, step: Step, model: &Model) -> Result<(), TestCaseError> {
        match step {
            Step::Get(key, isolation) => {
                let got = self.transaction.get(&key, isolation).await.unwrap();
                let content = model.at(self.sees);
                prop_assert_eq!(got.as_deref(), content.get(&key).map(Vec::as_slice));
                if isolation == Isolation::Serializable {
                    self.reads.push(KeyRange::single(&key));
                }
            }
            Step::GetRange(range, options) => self.get_range(range, options, model).await?,
            Step::ReadConflict(range) => {
                self.transaction.add_read_conflict(&range);
                self.reads.push(range);
            }
            Step::WriteConflict(range) => {
                self.transaction.add_write_conflict(&range);
                if !range.is_empty() {
                    self.write_conflicts.push(range);
                }
            }
            Step::Silence => {
                // The contract leaves open what it does to other writes than the next plain one.
                self.transaction.next_write_without_conflict();
                self.silent = true;
                let key = [PREFIX, b"silent"].concat();
                self.write(Write::Set(key, b"!".to_vec()));
            }
            Step::Write(write) => self.write(write),
            Step::Commit | Step::Drop => unreachable!("handled by the caller"),
        }
        Ok(())
    }

    async fn get_range(
        &mut self,
        range: KeyRange,
        options: RangeOptions,
        model: &Model,
    ) -> Result<(), TestCaseError> {
        let got = self.transaction.get_range(&range, options).await.unwrap();
        let content = model.at(self.sees);
        let mut expected: Vec<_> = content
            .into_iter()
            .filter(|(key, _)| range.contains(key))
            .collect();
        if options.reverse {
            expected.reverse();
        }
        expected.truncate(options.limit);
        let got: Vec<_> = got.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        prop_assert_eq!(&got, &expected);
        if options.isolation == Isolation::Serializable {
            let mut covered = range;
            if expected.len() == options.limit {
                let last = &expected[options.limit - 1].0;
                if options.reverse {
                    covered.begin = last.clone();
                } else {
                    covered.end = KeyRange::single(last).end;
                }
            }
            self.reads.push(covered);
        }
        Ok(())
    }

    fn write(&mut self, write: Write) {
        let transaction = &mut self.transaction;
        let written = match &write {
            Write::Set(key, value) => {
                transaction.set(key, value);
                Some(KeyRange::single(key))
            }
            Write::Clear(key) => {
                transaction.clear(key);
                Some(KeyRange::single(key))
            }
            Write::ClearRange(range) => {
                transaction.clear_range(range);
                if range.is_empty() {
                    // Nothing was asked for: it is no write, and alone it needs no version.
                    return;
                }
                Some(range.clone())
            }
            Write::StampKey(key, value) => {
                transaction.set_versionstamped_key(key, key.len() - Version::LEN, value);
                None
            }
            Write::StampValue(key) => {
                transaction.set_versionstamped_value(key, &[b'v'; 12], 1);
                Some(KeyRange::single(key))
            }
            Write::Atomic(op, key, operand) => {
                transaction.atomic(*op, key, operand);
                Some(KeyRange::single(key))
            }
        };
        let silent = std::mem::take(&mut self.silent);
        self.write_conflicts.extend(written.filter(|_| !silent));
        self.writes.push(write);
    }

    async fn commit(self, model: &mut Model) -> Result<(), TestCaseError> {
        let reading = self.writes.is_empty() && self.write_conflicts.is_empty();
        let overtaken = model.writes[self.sees..]
            .iter()
            .flatten()
            .any(|written| self.reads.iter().any(|read| overlap(read, written)));
        let outcome = self.transaction.commit().await;
        if reading {
            prop_assert!(outcome.is_ok(), "{outcome:?}");
            return Ok(());
        }
        if overtaken {
            prop_assert_eq!(outcome, Err(KvError::Conflict));
            return Ok(());
        }
        prop_assert!(outcome.is_ok(), "{outcome:?}");
        let version = outcome.unwrap();
        prop_assert!(model.versions.last().is_none_or(|last| *last < version));
        let mut content = model.at(model.contents.len());
        let mut conflicts = self.write_conflicts;
        for write in self.writes {
            if let Write::StampKey(key, _) = &write {
                conflicts.push(KeyRange::single(&stamp(key.clone(), version)));
            }
            perform(&mut content, write, version);
        }
        model.contents.push(content);
        model.writes.push(conflicts);
        model.versions.push(version);
        Ok(())
    }
}

fn overlap(a: &KeyRange, b: &KeyRange) -> bool {
    !a.is_empty() && !b.is_empty() && a.begin < b.end && b.begin < a.end
}

/// The last ten bytes are the stamp's.
fn stamp(mut key: Vec<u8>, version: Version) -> Vec<u8> {
    let offset = key.len() - Version::LEN;
    key[offset..].copy_from_slice(version.as_bytes());
    key
}

fn perform(content: &mut Content, write: Write, version: Version) {
    match write {
        Write::Set(key, value) => drop(content.insert(key, value)),
        Write::Clear(key) => drop(content.remove(&key)),
        Write::ClearRange(range) => content.retain(|key, _| !range.contains(key)),
        Write::StampKey(key, value) => drop(content.insert(stamp(key, version), value)),
        Write::StampValue(key) => {
            let value = [b"v", version.as_bytes().as_slice(), b"v"].concat();
            content.insert(key, value);
        }
        Write::Atomic(op, key, operand) => {
            let mut stored = content.remove(&key).unwrap_or_default();
            stored.resize(operand.len(), 0);
            content.insert(key, calculate(op, &stored, &operand));
        }
    }
}

/// Atomics on numbers of at most 16 bytes, by way of integers.
fn calculate(op: Atomic, stored: &[u8], operand: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let mut wide = [0; 16];
        wide[..bytes.len()].copy_from_slice(bytes);
        u128::from_le_bytes(wide)
    };
    let (a, b) = (number(stored), number(operand));
    let result = match op {
        Atomic::Add => a.wrapping_add(b),
        Atomic::Xor => a ^ b,
        Atomic::Max => a.max(b),
    };
    result.to_le_bytes()[..operand.len()].to_vec()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), isolation()).prop_map(|(key, isolation)| Step::Get(key, isolation)),
        5 => (range(), 1usize..5, any::<bool>(), isolation()).prop_map(
            |(range, limit, reverse, isolation)| {
                Step::GetRange(range, RangeOptions { limit, reverse, isolation })
            }
        ),
        1 => range().prop_map(Step::ReadConflict),
        1 => range().prop_map(Step::WriteConflict),
        1 => Just(Step::Silence),
        12 => write().prop_map(Step::Write),
        7 => Just(Step::Commit),
        1 => Just(Step::Drop),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let value = || vec(any::<u8>(), 0..4);
    prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| Write::Set(key, value)),
        2 => key().prop_map(Write::Clear),
        2 => range().prop_map(Write::ClearRange),
        2 => (key(), value()).prop_map(|(mut key, value)| {
            key.extend([0; Version::LEN]);
            Write::StampKey(key, value)
        }),
        1 => key().prop_map(Write::StampValue),
        3 => (atomic(), key(), value()).prop_map(|(op, key, operand)| Write::Atomic(op, key, operand)),
    ]
}

fn atomic() -> impl Strategy<Value = Atomic> {
    prop::sample::select(vec![Atomic::Add, Atomic::Xor, Atomic::Max])
}

fn isolation() -> impl Strategy<Value = Isolation> {
    prop::sample::select(vec![Isolation::Serializable, Isolation::Snapshot])
}

/// Few keys, so that transactions meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(0u8..4, 0..3).prop_map(|tail| [PREFIX, &tail].concat())
}

/// Now and then an empty one.
fn range() -> impl Strategy<Value = KeyRange> {
    (key(), key(), any::<u8>()).prop_map(|(one, other, order)| {
        if order < 240 && other < one {
            KeyRange::new(other, one)
        } else {
            KeyRange::new(one, other)
        }
    })
}
