//! A transaction's commit request while it is being put together: its mutations, its conflict
//! ranges, its size. Shared by the engines that decide commits in this process.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use mvsqlite_protocol::Version;

use super::conflict::ReadSet;
use super::{Atomic, Isolation, KeyRange, KvError, Limits, Pair, RangeOptions, StampOffset};

/// The first key that belongs to the engine; every user's key is below it.
const ENGINE_KEYS: &[u8] = &[0xff];

/// One write, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mutation {
    Set {
        key: Vec<u8>,
        value: Bytes,
    },
    Clear {
        key: Vec<u8>,
    },
    ClearRange {
        range: KeyRange,
    },
    StampKey {
        key: Vec<u8>,
        offset: StampOffset,
        value: Bytes,
    },
    StampValue {
        key: Vec<u8>,
        value: Vec<u8>,
        offset: StampOffset,
    },
    Atomic {
        op: Atomic,
        key: Vec<u8>,
        operand: Bytes,
    },
}

/// A [`Mutation`] once the commit's version is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Set {
        key: Vec<u8>,
        value: Bytes,
    },
    Clear {
        key: Vec<u8>,
    },
    ClearRange {
        range: KeyRange,
    },
    Atomic {
        op: Atomic,
        key: Vec<u8>,
        operand: Bytes,
    },
}

/// What a transaction has gathered so far.
#[derive(Debug)]
pub struct Draft {
    limits: Limits,
    /// Behind a lock because reading methods take `&self`.
    reads: Mutex<Reads>,
    mutations: Vec<Mutation>,
    write_conflicts: Vec<KeyRange>,
    bytes: u64,
    without_conflict: bool,
    /// The first misuse; writing methods cannot fail, so the commit reports it.
    misuse: Option<KvError>,
}

#[derive(Debug, Default)]
struct Reads {
    ranges: Vec<KeyRange>,
    bytes: u64,
}

/// A whole commit, checked against the limits.
#[derive(Debug)]
pub(super) struct CommitRequest {
    pub(super) reads: ReadSet,
    /// Without those of versionstamped keys, which are not known before the version is.
    write_conflicts: Vec<KeyRange>,
    mutations: Vec<Mutation>,
}

impl Draft {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            reads: Mutex::default(),
            mutations: Vec::new(),
            write_conflicts: Vec::new(),
            bytes: 0,
            without_conflict: false,
            misuse: None,
        }
    }

    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) {
        if self.admit(key, value.len()) {
            self.conflict_at(key);
            self.mutations.push(Mutation::Set {
                key: key.to_vec(),
                value: Bytes::copy_from_slice(value),
            });
        }
    }

    pub(super) fn clear(&mut self, key: &[u8]) {
        if self.admit(key, 0) {
            self.conflict_at(key);
            self.mutations.push(Mutation::Clear { key: key.to_vec() });
        }
    }

    pub(super) fn clear_range(&mut self, range: &KeyRange) {
        let silent = std::mem::take(&mut self.without_conflict);
        if range.is_empty() || !self.admit_range(range) {
            return;
        }
        self.bytes += range_bytes(range);
        if !silent {
            self.push_write_conflict(range.clone());
        }
        self.mutations.push(Mutation::ClearRange {
            range: range.clone(),
        });
    }

    pub(super) fn stamp_key(&mut self, key: &[u8], offset: StampOffset, value: &[u8]) {
        // Its write conflict is made at the final key, whatever was asked for.
        self.without_conflict = false;
        if self.admit(key, value.len()) && self.admit_stamp("key", key, offset) {
            self.bytes += conflict_bytes(key);
            self.mutations.push(Mutation::StampKey {
                key: key.to_vec(),
                offset,
                value: Bytes::copy_from_slice(value),
            });
        }
    }

    pub(super) fn stamp_value(&mut self, key: &[u8], value: &[u8], offset: StampOffset) {
        if self.admit(key, value.len()) && self.admit_stamp("value", value, offset) {
            self.conflict_at(key);
            self.mutations.push(Mutation::StampValue {
                key: key.to_vec(),
                value: value.to_vec(),
                offset,
            });
        }
    }

    pub(super) fn atomic(&mut self, op: Atomic, key: &[u8], operand: &[u8]) {
        if self.admit(key, operand.len()) {
            self.conflict_at(key);
            self.mutations.push(Mutation::Atomic {
                op,
                key: key.to_vec(),
                operand: Bytes::copy_from_slice(operand),
            });
        }
    }

    pub(super) fn next_write_without_conflict(&mut self) {
        self.without_conflict = true;
    }

    pub(super) fn add_read_conflict(&self, range: KeyRange) {
        if range.is_empty() {
            return;
        }
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.bytes += range_bytes(&range);
        reads.ranges.push(range);
    }

    pub(super) fn add_write_conflict(&mut self, range: &KeyRange) {
        if !range.is_empty() {
            self.push_write_conflict(range.clone());
        }
    }

    /// Notes that a key was read.
    pub(super) fn note_get(&self, key: &[u8], isolation: Isolation) {
        if isolation == Isolation::Serializable {
            self.add_read_conflict(KeyRange::single(key));
        }
    }

    /// Notes what a range read covered: up to and including its last pair where the limit cut it,
    /// else all of it.
    pub(super) fn note_range(&self, range: &KeyRange, options: RangeOptions, pairs: &[Pair]) {
        if options.isolation == Isolation::Snapshot {
            return;
        }
        let mut covered = range.clone();
        if let Some((last, _)) = pairs.last().filter(|_| pairs.len() >= options.limit) {
            if options.reverse {
                covered.begin = last.to_vec();
            } else {
                covered.end = KeyRange::single(last).end;
            }
        }
        self.add_read_conflict(covered);
    }

    pub(super) fn approximate_bytes(&self) -> u64 {
        self.bytes
            + self
                .reads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .bytes
    }

    /// How many writes and conflict ranges there are.
    pub(super) fn items(&self) -> u64 {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        (reads.ranges.len() + self.write_conflicts.len() + self.mutations.len()) as u64
    }

    /// Whether the transaction commits without a check: it wrote nothing, named no write conflict
    /// and misused nothing.
    pub fn is_read_only(&self) -> bool {
        self.mutations.is_empty() && self.write_conflicts.is_empty() && self.misuse.is_none()
    }

    /// The finished request, or what was wrong with it.
    pub(super) fn finish(self) -> Result<CommitRequest, KvError> {
        let bytes = self.approximate_bytes();
        if let Some(misuse) = self.misuse {
            return Err(misuse);
        }
        within("a transaction", bytes, self.limits.transaction_bytes)?;
        let reads = self
            .reads
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(CommitRequest {
            reads: ReadSet::new(reads.ranges),
            write_conflicts: self.write_conflicts,
            mutations: self.mutations,
        })
    }

    fn conflict_at(&mut self, key: &[u8]) {
        if !std::mem::take(&mut self.without_conflict) {
            self.push_write_conflict(KeyRange::single(key));
        }
    }

    fn push_write_conflict(&mut self, range: KeyRange) {
        self.bytes += range_bytes(&range);
        self.write_conflicts.push(range);
    }

    fn admit(&mut self, key: &[u8], value_bytes: usize) -> bool {
        self.bytes += key.len() as u64 + value_bytes as u64;
        let verdict = check_key(key, &self.limits).and_then(|()| {
            within(
                "a value",
                value_bytes as u64,
                self.limits.value_bytes as u64,
            )
        });
        self.note(verdict)
    }

    fn admit_range(&mut self, range: &KeyRange) -> bool {
        let verdict = check_range(range, &self.limits);
        self.note(verdict)
    }

    fn admit_stamp(&mut self, what: &str, bytes: &[u8], offset: StampOffset) -> bool {
        let fits = offset
            .checked_add(Version::LEN)
            .is_some_and(|end| end <= bytes.len());
        let verdict = if fits {
            Ok(())
        } else {
            Err(KvError::BadKey {
                reason: format!(
                    "a versionstamp of {} bytes at offset {offset} does not fit into a {what} of {} bytes",
                    Version::LEN,
                    bytes.len()
                ),
            })
        };
        self.note(verdict)
    }

    fn note(&mut self, verdict: Result<(), KvError>) -> bool {
        match verdict {
            Ok(()) => true,
            Err(error) => {
                self.misuse.get_or_insert(error);
                false
            }
        }
    }
}

impl CommitRequest {
    /// Bytes of values that it sets: 0 for one that only removes and counts.
    pub(super) fn bytes_set(&self) -> u64 {
        self.mutations
            .iter()
            .map(|mutation| match mutation {
                Mutation::Set { value, .. } | Mutation::StampKey { value, .. } => value.len(),
                Mutation::StampValue { value, .. } => value.len(),
                Mutation::Clear { .. } | Mutation::ClearRange { .. } | Mutation::Atomic { .. } => 0,
            } as u64)
            .sum()
    }

    /// What was read, which ranges others may not have read, and the writes, for an engine that
    /// hands them on.
    pub(super) fn into_parts(self) -> (ReadSet, Vec<KeyRange>, Vec<Mutation>) {
        (self.reads, self.write_conflicts, self.mutations)
    }

    /// What others may not have read, now that the version is known.
    pub(super) fn take_write_conflicts(&mut self, version: Version) -> Vec<KeyRange> {
        let mut ranges = std::mem::take(&mut self.write_conflicts);
        for mutation in &self.mutations {
            if let Mutation::StampKey { key, offset, .. } = mutation {
                ranges.push(KeyRange::single(&stamped(key.clone(), *offset, version)));
            }
        }
        ranges
    }

    /// The writes in the order in which they were made, their stamps filled in.
    pub(super) fn into_changes(self, version: Version) -> impl Iterator<Item = Change> {
        self.mutations
            .into_iter()
            .map(move |mutation| match mutation {
                Mutation::Set { key, value } => Change::Set { key, value },
                Mutation::Clear { key } => Change::Clear { key },
                Mutation::ClearRange { range } => Change::ClearRange { range },
                Mutation::StampKey { key, offset, value } => Change::Set {
                    key: stamped(key, offset, version),
                    value,
                },
                Mutation::StampValue { key, value, offset } => Change::Set {
                    key,
                    value: stamped(value, offset, version).into(),
                },
                Mutation::Atomic { op, key, operand } => Change::Atomic { op, key, operand },
            })
    }
}

/// Whether a key may be read or written.
pub(super) fn check_key(key: &[u8], limits: &Limits) -> Result<(), KvError> {
    if key >= ENGINE_KEYS {
        return Err(engine_key());
    }
    within("a key", key.len() as u64, limits.key_bytes as u64)
}

/// Whether a range, which is not empty, may be read or cleared. The end may be one byte longer
/// than a key, so that every range of keys can be named.
pub(super) fn check_range(range: &KeyRange, limits: &Limits) -> Result<(), KvError> {
    if range.end.as_slice() > ENGINE_KEYS {
        return Err(engine_key());
    }
    let longest = range.begin.len().max(range.end.len().saturating_sub(1));
    within("a key", longest as u64, limits.key_bytes as u64)
}

/// The value after an atomic change.
pub(super) fn apply_atomic(op: Atomic, stored: Option<&[u8]>, operand: &[u8]) -> Bytes {
    let mut value = stored.unwrap_or_default().to_vec();
    value.resize(operand.len(), 0);
    match op {
        Atomic::Add => {
            let mut carry = false;
            for (digit, addend) in value.iter_mut().zip(operand) {
                let (sum, over) = digit.overflowing_add(*addend);
                let (sum, over_again) = sum.overflowing_add(u8::from(carry));
                *digit = sum;
                carry = over || over_again;
            }
        }
        Atomic::Xor => value
            .iter_mut()
            .zip(operand)
            .for_each(|(byte, other)| *byte ^= other),
        Atomic::Max => {
            if value.iter().rev().lt(operand.iter().rev()) {
                value.copy_from_slice(operand);
            }
        }
    }
    value.into()
}

fn stamped(mut bytes: Vec<u8>, offset: StampOffset, version: Version) -> Vec<u8> {
    bytes[offset..offset + Version::LEN].copy_from_slice(version.as_bytes());
    bytes
}

fn engine_key() -> KvError {
    KvError::BadKey {
        reason: "keys that begin with 0xff belong to the engine".to_owned(),
    }
}

fn within(what: &'static str, bytes: u64, limit: u64) -> Result<(), KvError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(KvError::TooLarge { what, bytes, limit })
}

fn range_bytes(range: &KeyRange) -> u64 {
    range.begin.len() as u64 + range.end.len() as u64
}

fn conflict_bytes(key: &[u8]) -> u64 {
    2 * key.len() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(bytes: &[u8]) -> u64 {
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    #[test]
    fn an_atomic_result_has_the_operands_length() {
        for op in [Atomic::Add, Atomic::Xor, Atomic::Max] {
            for (stored, operand) in [(0, 3), (5, 3), (3, 0), (2, 2)] {
                let stored = vec![1; stored];
                assert_eq!(
                    apply_atomic(op, Some(&stored), &vec![1; operand]).len(),
                    operand
                );
            }
        }
    }

    #[test]
    fn addition_carries_and_wraps() {
        assert_eq!(
            apply_atomic(Atomic::Add, Some(&[0xff, 0xff]), &[1, 0]),
            [0, 0][..]
        );
        assert_eq!(
            apply_atomic(Atomic::Add, Some(&[0xff, 1]), &[1, 0]),
            [0, 2][..]
        );
    }

    proptest! {
        #[test]
        fn atomics_agree_with_arithmetic(stored in prop::option::of(any::<[u8; 8]>()), operand in any::<[u8; 8]>()) {
            let before = stored.map_or(0, u64::from_le_bytes);
            let by = u64::from_le_bytes(operand);
            let apply = |op| number(&apply_atomic(op, stored.as_ref().map(<[u8; 8]>::as_slice), &operand));
            prop_assert_eq!(apply(Atomic::Add), before.wrapping_add(by));
            prop_assert_eq!(apply(Atomic::Xor), before ^ by);
            prop_assert_eq!(apply(Atomic::Max), before.max(by));
        }
    }
}
