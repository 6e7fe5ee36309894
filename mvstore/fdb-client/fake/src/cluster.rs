//! Versions of keys, and who conflicts with whom.
//!
//! Versions count a million a second, as FoundationDB's do. Five million are kept: a read or a
//! commit at an older one is too old. A commit conflicts if a later commit than its read version
//! wrote into a range that it read.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::code;
use crate::control::Faults;

/// How many versions back reads and commits may be.
const KEPT_VERSIONS: i64 = 5_000_000;

pub(crate) type Range = (Vec<u8>, Vec<u8>);
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// The values that a key has had, each from its version on; `None` where it was cleared.
type History = Vec<(i64, Option<Vec<u8>>)>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomicOp {
    Add,
    Xor,
    Max,
}

#[derive(Clone)]
pub(crate) enum Mutation {
    Set(Vec<u8>, Vec<u8>),
    ClearRange(Range),
    Atomic(AtomicOp, Vec<u8>, Vec<u8>),
    /// Both carry their offset: the last four bytes, little-endian, of key or value.
    VersionstampedKey(Vec<u8>, Vec<u8>),
    VersionstampedValue(Vec<u8>, Vec<u8>),
}

/// What a client sends to commit.
#[derive(Clone, Default)]
pub(crate) struct CommitRequest {
    pub(crate) read_version: i64,
    pub(crate) mutations: Vec<Mutation>,
    pub(crate) reads: Vec<Range>,
    pub(crate) writes: Vec<Range>,
}

pub(crate) struct Cluster {
    state: Mutex<State>,
}

pub(crate) struct State {
    keys: BTreeMap<Vec<u8>, History>,
    /// Commits that can still conflict with one, oldest first.
    recent: VecDeque<(i64, Vec<Range>)>,
    last: i64,
    started: Instant,
    /// By how much a test has moved the clock.
    skipped: i64,
    pub(crate) faults: Faults,
}

/// The cluster that a cluster file names. Lives as long as the process.
pub(crate) fn named(file: &str) -> Arc<Cluster> {
    static CLUSTERS: Mutex<Option<HashMap<String, Arc<Cluster>>>> = Mutex::new(None);
    let mut clusters = CLUSTERS.lock().unwrap_or_else(PoisonError::into_inner);
    clusters
        .get_or_insert_default()
        .entry(file.to_owned())
        .or_insert_with(|| {
            Arc::new(Cluster {
                state: Mutex::new(State::new()),
            })
        })
        .clone()
}

impl Cluster {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            recent: VecDeque::new(),
            // Beyond 32 bits, so that nobody gets away with fewer.
            last: 10_000_000_000,
            started: Instant::now(),
            skipped: 10_000_000_000,
            faults: Faults::default(),
        }
    }

    fn clock(&self) -> i64 {
        self.skipped + i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX / 2)
    }

    /// Lets time pass.
    pub(crate) fn skip(&mut self, versions: i64) {
        self.skipped += versions;
    }

    /// A version at or above every commit made so far.
    pub(crate) fn read_version(&mut self) -> i64 {
        self.last = self.last.max(self.clock());
        self.last
    }

    fn check_age(&mut self, version: i64) -> Result<(), i32> {
        let newest = self.read_version();
        if version > newest {
            return Err(code::FUTURE_VERSION);
        }
        if version < newest - KEPT_VERSIONS {
            return Err(code::TRANSACTION_TOO_OLD);
        }
        Ok(())
    }

    pub(crate) fn get(&mut self, key: &[u8], version: i64) -> Result<Option<Vec<u8>>, i32> {
        self.check_age(version)?;
        Ok(self.at(key, version))
    }

    fn at(&self, key: &[u8], version: i64) -> Option<Vec<u8>> {
        let versions = self.keys.get(key)?;
        as_of(versions, version).cloned()
    }

    /// Pairs of a range, at most `limit`.
    pub(crate) fn get_range(
        &mut self,
        range: &Range,
        version: i64,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Pair>, i32> {
        self.check_age(version)?;
        if range.0 >= range.1 {
            return Ok(Vec::new());
        }
        let bounds = (
            Bound::Included(range.0.as_slice()),
            Bound::Excluded(range.1.as_slice()),
        );
        let live = self
            .keys
            .range::<[u8], _>(bounds)
            .filter_map(|(key, versions)| {
                as_of(versions, version).map(|value| (key.clone(), value.clone()))
            });
        Ok(if reverse {
            live.rev().take(limit).collect()
        } else {
            live.take(limit).collect()
        })
    }

    /// Commits, or says why not. The version returned is that of the versionstamps.
    pub(crate) fn commit(&mut self, request: &CommitRequest) -> Result<i64, i32> {
        let newest = self.read_version();
        // As FoundationDB's resolver: a transaction that read nothing is never too old.
        if !request.reads.is_empty() && request.read_version < newest - KEPT_VERSIONS {
            return Err(code::TRANSACTION_TOO_OLD);
        }
        if self.conflicts(request) {
            return Err(code::NOT_COMMITTED);
        }
        let version = newest + 1;
        self.last = version;
        let mut writes = request.writes.clone();
        for mutation in &request.mutations {
            if let Mutation::VersionstampedKey(key, _) = mutation {
                writes.push(single(&stamped(key, version)));
            }
            self.apply(mutation, version);
        }
        self.recent.push_back((version, writes));
        while let Some((oldest, _)) = self.recent.front()
            && *oldest < version - KEPT_VERSIONS
        {
            self.recent.pop_front();
        }
        Ok(version)
    }

    fn conflicts(&self, request: &CommitRequest) -> bool {
        self.recent
            .iter()
            .rev()
            .take_while(|(version, _)| *version > request.read_version)
            .flat_map(|(_, writes)| writes)
            .any(|write| request.reads.iter().any(|read| overlap(read, write)))
    }

    fn apply(&mut self, mutation: &Mutation, version: i64) {
        match mutation {
            Mutation::Set(key, value) => self.put(key.clone(), version, Some(value.clone())),
            Mutation::VersionstampedKey(key, value) => {
                self.put(stamped(key, version), version, Some(value.clone()));
            }
            Mutation::VersionstampedValue(key, value) => {
                self.put(key.clone(), version, Some(stamped(value, version)));
            }
            Mutation::Atomic(op, key, operand) => {
                let stored = self.at(key, version).unwrap_or_default();
                self.put(key.clone(), version, Some(combine(*op, stored, operand)));
            }
            Mutation::ClearRange((begin, end)) => {
                let cleared: Vec<_> = self
                    .keys
                    .range(begin.clone()..end.clone().max(begin.clone()))
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in cleared {
                    self.put(key, version, None);
                }
            }
        }
    }

    fn put(&mut self, key: Vec<u8>, version: i64, value: Option<Vec<u8>>) {
        let versions = self.keys.entry(key).or_default();
        let unneeded = versions
            .iter()
            .rposition(|(at, _)| *at < version - KEPT_VERSIONS)
            .unwrap_or(0);
        versions.drain(..unneeded);
        match versions.last_mut() {
            Some((at, last)) if *at == version => *last = value,
            _ => versions.push((version, value)),
        }
    }
}

/// The value that a key had at a version.
fn as_of(versions: &History, version: i64) -> Option<&Vec<u8>> {
    let (_, value) = versions.iter().rev().find(|(at, _)| *at <= version)?;
    value.as_ref()
}

/// Replaces ten bytes at the offset in the last four by the versionstamp, and cuts those four off.
fn stamped(bytes: &[u8], version: i64) -> Vec<u8> {
    let (body, suffix) = bytes.split_at(bytes.len() - 4);
    let offset = suffix
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | usize::from(*byte));
    let mut result = body.to_vec();
    result[offset..offset + 10].copy_from_slice(&stamp(version));
    result
}

/// The ten bytes of a commit's version. Each commit has one of its own here, so its order is 0.
pub(crate) fn stamp(version: i64) -> [u8; 10] {
    let mut stamp = [0; 10];
    stamp[..8].copy_from_slice(&version.to_be_bytes());
    stamp
}

fn combine(op: AtomicOp, mut stored: Vec<u8>, operand: &[u8]) -> Vec<u8> {
    stored.resize(operand.len(), 0);
    match op {
        AtomicOp::Add => {
            let mut carry = 0;
            for (byte, add) in stored.iter_mut().zip(operand) {
                let sum = u16::from(*byte) + u16::from(*add) + carry;
                *byte = (sum & 0xff) as u8;
                carry = sum >> 8;
            }
        }
        AtomicOp::Xor => {
            for (byte, with) in stored.iter_mut().zip(operand) {
                *byte ^= with;
            }
        }
        AtomicOp::Max => {
            if operand.iter().rev().gt(stored.iter().rev()) {
                stored.copy_from_slice(operand);
            }
        }
    }
    stored
}

fn overlap(one: &Range, other: &Range) -> bool {
    one.0 < other.1 && other.0 < one.1
}

/// The range of one key.
pub(crate) fn single(key: &[u8]) -> Range {
    let mut end = key.to_vec();
    end.push(0);
    (key.to_vec(), end)
}
