//! The key-value contract: ordered keys, serializable transactions, versionstamps.
//!
//! Everything mvstore keeps goes through [`Engine`] and [`Transaction`]. They are modelled on
//! FoundationDB's transactions, with what the store does not need left out, so that the same store
//! logic runs on every engine and one conformance suite judges them all. No code outside this
//! module asks which engine it runs on; it asks [`Engine::limits`].
//!
//! # The rules every engine keeps
//!
//! - A transaction reads at one *read version*: it sees exactly the commits at or below it.
//! - **Reads do not see the transaction's own writes.** (FoundationDB: read-your-writes disabled.)
//!   The store never needs it, and without it the contract is small enough to be checked.
//! - A commit succeeds only if no commit above its read version wrote into a range that it read
//!   serializably or named by [`Transaction::add_read_conflict`]. A transaction that wrote nothing
//!   and named no write conflict commits without a check, at its read version.
//! - Writes are applied in the order in which they were made; all become visible at once, at one
//!   [`Version`], in version order, and only after they are durable.
//! - A versionstamped key is a write conflict at its final key.
//! - An acknowledged commit survives `kill -9` and power loss. One that returned an error other
//!   than [`KvError::MaybeCommitted`] has left no trace.
//! - Keys are at most [`Limits::key_bytes`], values at most [`Limits::value_bytes`], a transaction
//!   (keys and values written, conflict ranges) at most [`Limits::transaction_bytes`]; beyond:
//!   [`KvError::TooLarge`] at commit. A transaction older than [`Limits::transaction_age`] gets
//!   [`KvError::TooOld`] from reads and commit.
//! - Keys beginning with `0xff` belong to the engine; writing one is [`KvError::TooLarge`]-class
//!   misuse and refused with [`KvError::BadKey`].

pub mod clock;
pub mod conflict;
pub mod embedded;
pub mod faults;
pub mod foundationdb;
pub mod memory;
mod request;

use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mvsqlite_protocol::{ReadVersion, Version};

pub use clock::EngineTime;
pub use request::Draft;

/// An engine: where bytes live.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Starts a transaction. Costs nothing until it reads or commits.
    fn begin(&self, freshness: Freshness) -> Box<dyn Transaction>;

    /// What a transaction may hold.
    fn limits(&self) -> Limits;

    /// One line for the log and `/readyz`: the engine's name and where it keeps its bytes.
    fn describe(&self) -> String;

    /// Whether the engine can commit at all; the error says why not. After
    /// [`KvError::StorageFull`] it can still be read.
    async fn check(&self) -> Result<(), KvError>;

    /// Waits until the engine has stopped for good, and says why: only opening it anew can help.
    /// Most engines never do.
    async fn stopped(&self) -> KvError {
        std::future::pending().await
    }

    /// The engine's estimate of the bytes it occupies; `None` where it does not know.
    fn physical_bytes(&self) -> Option<u64>;

    /// The time for a transaction that reads at this version. Two processes that share the engine's
    /// content read the same clock, if need be with a fresh read version ([`Freshness::Strict`]);
    /// where they cannot run side by side, each restart may begin a new run of it.
    fn time(&self, read_version: ReadVersion) -> EngineTime;
}

/// How new a transaction's read version has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Sees every commit that was acknowledged, by any process, before its first read.
    Strict,
    /// May use a read version that is already known and a little old (at most about 2 s), if it
    /// is at or above this one. For reads of immutable data and for commits, whose conflict
    /// checks do not need more. An engine that has the newest at hand gives that. If even the
    /// newest is below, the newest is used: the number may come from a client, and what it means
    /// when it lies above all that was committed is the caller's to say.
    AtLeast(ReadVersion),
}

/// Whether a read takes part in conflict detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A later write there makes the commit conflict.
    Serializable,
    /// It does not.
    Snapshot,
}

/// A half-open range of keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key inside.
    pub begin: Vec<u8>,
    /// The first key outside.
    pub end: Vec<u8>,
}

/// What [`Transaction::get_range`] returns and where it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeOptions {
    /// Most pairs; at least 1.
    pub limit: usize,
    /// From the range's end backwards.
    pub reverse: bool,
    /// Conflict detection. A serializable range read conflicts over what it covered: up to and
    /// including the last pair when the limit cut it, else the whole range.
    pub isolation: Isolation,
}

/// A key and its value.
pub type Pair = (Bytes, Bytes);

/// Where the 10 bytes of the commit's version go: this many bytes from the start of the key or
/// value that was given with 10 placeholder bytes there.
pub type StampOffset = usize;

/// An atomic change of a value, made at commit without a read conflict. The stored value is first
/// cut or zero-extended to the operand's length; an absent one counts as zeros
/// (FoundationDB's ADD, BIT_XOR and MAX).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Atomic {
    /// Little-endian addition, wrapping.
    Add,
    /// Bitwise exclusive or.
    Xor,
    /// The larger of the two as unsigned little-endian integers.
    Max,
}

/// A transaction. Dropping it without committing leaves no trace.
///
/// Cancel safety: a dropped `get`, `get_range` or `read_version` future changes nothing. A dropped
/// `commit` future may or may not have committed.
#[async_trait]
pub trait Transaction: Send + Sync {
    /// The version this transaction reads at; chosen at the first call of any reading method.
    async fn read_version(&self) -> Result<ReadVersion, KvError>;

    /// The value of a key.
    async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, KvError>;

    /// Pairs of a range in key order, or in reverse. Fewer than the limit means there are no more.
    async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<Vec<Pair>, KvError>;

    /// What is to be committed. Every engine gathers it the same way; the writing methods below are
    /// ways to say it.
    fn draft(&self) -> &Draft;

    /// The same, to add to.
    fn draft_mut(&mut self) -> &mut Draft;

    /// Writes a value.
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.draft_mut().set(key, value);
    }

    /// Removes a key.
    fn clear(&mut self, key: &[u8]) {
        self.draft_mut().clear(key);
    }

    /// Removes every key of a range.
    fn clear_range(&mut self, range: &KeyRange) {
        self.draft_mut().clear_range(range);
    }

    /// Writes under a key that holds the commit's version from `offset` on.
    fn set_versionstamped_key(&mut self, key: &[u8], offset: StampOffset, value: &[u8]) {
        self.draft_mut().stamp_key(key, offset, value);
    }

    /// Writes a value that holds the commit's version from `offset` on.
    fn set_versionstamped_value(&mut self, key: &[u8], value: &[u8], offset: StampOffset) {
        self.draft_mut().stamp_value(key, value, offset);
    }

    /// Changes a value atomically.
    fn atomic(&mut self, op: Atomic, key: &[u8], operand: &[u8]) {
        self.draft_mut().atomic(op, key, operand);
    }

    /// Makes the commit conflict if another wrote into the range, as if it had been read.
    fn add_read_conflict(&mut self, range: &KeyRange) {
        self.draft_mut().add_read_conflict(range.clone());
    }

    /// Makes other transactions conflict as if the range had been written.
    fn add_write_conflict(&mut self, range: &KeyRange) {
        self.draft_mut().add_write_conflict(range);
    }

    /// The next single `set`, `clear` or `clear_range` conflicts with nobody. For work that changes
    /// no readable state (folding, collection).
    fn next_write_without_conflict(&mut self) {
        self.draft_mut().next_write_without_conflict();
    }

    /// Roughly how much of [`Limits::transaction_bytes`] is used.
    fn approximate_bytes(&self) -> u64 {
        self.draft().approximate_bytes()
    }

    /// Commits. The version returned is the one the versionstamps got; a transaction that wrote
    /// nothing returns one that means nothing.
    async fn commit(self: Box<Self>) -> Result<Version, KvError>;
}

/// What a transaction may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a key.
    pub key_bytes: usize,
    /// Most bytes of a value.
    pub value_bytes: usize,
    /// Most bytes of a transaction: keys and values written, and conflict ranges.
    pub transaction_bytes: u64,
    /// Longest time from a transaction's read version to its commit.
    pub transaction_age: Duration,
}

impl Limits {
    /// What FoundationDB allows.
    pub const FOUNDATIONDB: Self = Self {
        key_bytes: 10_000,
        value_bytes: 100_000,
        transaction_bytes: 10_000_000,
        transaction_age: Duration::from_secs(5),
    };

    /// What the embedded engine allows. A transaction is held in memory until it is durable.
    pub const EMBEDDED: Self = Self {
        key_bytes: 10_000,
        value_bytes: 1 << 20,
        transaction_bytes: 256 << 20,
        transaction_age: Duration::from_secs(60),
    };
}

/// Why an engine refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// Another commit wrote what this transaction read. Nothing was written.
    #[error("the transaction conflicts with another one")]
    Conflict,
    /// The commit may or may not have happened. Engines see to it that it does not happen later on;
    /// one that cannot reach its storage to make sure says in the reason that it may. Whoever has to
    /// know for certain commits a write to something that this transaction read serializably: then
    /// it has either happened before that, or cannot any more.
    #[error("it is not known whether the transaction was committed: {reason}")]
    MaybeCommitted {
        /// What went wrong.
        reason: String,
    },
    /// The read version is too old. Nothing was written.
    #[error("the transaction took too long: its read version is no longer kept")]
    TooOld,
    /// A key, a value or the whole is larger than the limits. Nothing was written.
    #[error("{what} of {bytes} bytes is above the engine's limit of {limit}")]
    TooLarge {
        /// Which limit: "a key", "a value", "a transaction".
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A key that belongs to the engine, or a versionstamp that does not fit. Nothing was written.
    #[error("misuse of the engine: {reason}")]
    BadKey {
        /// What is wrong.
        reason: String,
    },
    /// The disk is full. Nothing was written; reading still works.
    #[error("the disk is full: {reason}")]
    StorageFull {
        /// What the engine said.
        reason: String,
    },
    /// The engine cannot serve now. Nothing was written.
    #[error("the storage engine is unavailable: {reason}")]
    Unavailable {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Stored bytes are not what was written. Nothing was written.
    #[error("stored data is corrupt: {reason}")]
    Corrupt {
        /// What was found, where.
        reason: String,
    },
}

impl KeyRange {
    /// From `begin` up to, but not including, `end`.
    pub fn new(begin: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self {
            begin: begin.into(),
            end: end.into(),
        }
    }

    /// Just this key.
    pub fn single(key: &[u8]) -> Self {
        let mut end = key.to_vec();
        end.push(0);
        Self {
            begin: key.to_vec(),
            end,
        }
    }

    /// Every key with this prefix. A prefix of nothing but `0xff` bytes is an empty range: such
    /// keys belong to the engine.
    pub fn prefix(prefix: &[u8]) -> Self {
        let kept = prefix
            .iter()
            .rposition(|byte| *byte != 0xff)
            .map_or(0, |last| last + 1);
        let mut end = prefix[..kept].to_vec();
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end = prefix.to_vec(),
        }
        Self {
            begin: prefix.to_vec(),
            end,
        }
    }

    /// Whether no key can be inside.
    pub fn is_empty(&self) -> bool {
        self.begin >= self.end
    }

    /// Whether the key is inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.begin.as_slice() <= key && key < self.end.as_slice()
    }

    /// As bounds for ordered maps. The range must not be empty.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Included(&self.begin), Bound::Excluded(&self.end))
    }
}
