//! A group of commits on its way to the disk: what it will leave under each key.
//!
//! Atomic changes and cleared ranges need to know what is there, and "there" includes the commits
//! that went into the same group before. So a group is a layer of contents over the newest durable
//! view, and each commit is worked out on a layer of its own over the group, which is merged when
//! the whole commit has succeeded.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::library::{Contents, View};
use crate::kv::request::{Change, apply_atomic};
use crate::kv::{KeyRange, KvError};

/// See the module's documentation.
pub(super) struct Group {
    below: View,
    contents: Contents,
    bytes: u64,
}

impl Group {
    pub(super) fn new(below: View) -> Self {
        Self {
            below,
            contents: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Roughly what it will take on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn into_contents(self) -> Contents {
        self.contents
    }

    /// Adds a commit: all of its changes, or none if one of them fails.
    pub(super) fn add(&mut self, changes: impl Iterator<Item = Change>) -> Result<(), KvError> {
        let mut commit = BTreeMap::new();
        for change in changes {
            self.apply(&mut commit, change)?;
        }
        self.bytes += commit
            .iter()
            .map(|(key, value)| (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64)
            .sum::<u64>();
        self.contents.extend(commit);
        Ok(())
    }

    fn apply(&self, commit: &mut Contents, change: Change) -> Result<(), KvError> {
        match change {
            Change::Set { key, value } => drop(commit.insert(key, Some(value))),
            Change::Clear { key } => drop(commit.insert(key, None)),
            Change::ClearRange { range } => self.clear_range(commit, &range)?,
            Change::Atomic { op, key, operand } => {
                let stored = match commit.get(&key).or_else(|| self.contents.get(&key)) {
                    Some(pending) => pending.clone(),
                    None => self.below.get(&key)?,
                };
                let value = apply_atomic(op, stored.as_deref(), &operand);
                commit.insert(key, Some(value));
            }
        }
        Ok(())
    }

    fn clear_range(&self, commit: &mut Contents, range: &KeyRange) -> Result<(), KvError> {
        for (_, value) in commit.range_mut::<[u8], _>(range.bounds()) {
            *value = None;
        }
        for (key, _) in self.contents.range::<[u8], _>(range.bounds()) {
            commit.insert(key.clone(), None);
        }
        for key in self.below.keys(range) {
            commit.insert(key?, None);
        }
        Ok(())
    }
}
