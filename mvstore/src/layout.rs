//! The on-disk format: every key and every value of the store, and nothing else about them.
//!
//! Integers in keys are big-endian, so that byte order is their order; in values they are
//! big-endian too, except for the usage counters, which the engine adds to as little-endian.
//! `version` is the 10 bytes of a versionstamp, `id` a namespace id (10 bytes), `index` 4 bytes.
//! The two prefixes come from the store's options and contain no NUL, so that the NUL behind
//! them ends them; the byte behind that keeps the two halves apart when the prefixes are equal.
//!
//! Metadata, under `<metadata prefix> 00 'm'`:
//!
//! | key | value |
//! |---|---|
//! | `c` id child id | a fork of the namespace: the version of it that the fork sees |
//! | `f` | [`StoreFormat`]: generations and incarnation |
//! | `h` | high-water mark: a version the store has reached |
//! | `l` id `h` | [`LeaseTerm`]: until when the holder named in the guard has the write lease |
//! | `l` id `q` place nonce | [`Deadline`]: until when a place in the queue for the lease is kept |
//! | `n` namespace key | [`CatalogEntry`] |
//! | `t` milliseconds | the version at that time; both grow together |
//! | `u` id kind | [`Usage`]: `p` of page versions, `s` of staged pages |
//! | `w` `d` id | a deleted namespace whose keys are still to be removed; the value is its key |
//! | `w` `l` id version | a layer still to be folded: a [`FoldCursor`] |
//! | `w` `t` id | [`TruncationMark`]: a truncation runs |
//! | `x` bucket milliseconds id kind name | nothing; something expires then ([`Expiry`]) |
//!
//! Reserved there: `a` operations, `k` tokens, `q` quotas, `s` named snapshots.
//!
//! Pages, under `<raw data prefix> 00 'd' id`:
//!
//! | key | value |
//! |---|---|
//! | `g` | [`Guard`] |
//! | `h` `c` hash | content that protocol v1 uploaded: [`encode_waiting`] |
//! | `h` `t` hash | when it was last uploaded or committed: milliseconds, little-endian for the engine |
//! | `h` `v` hash | [`WaitingPlace`]: a commit brought this content along |
//! | `i` idempotency key | [`Outcome`] of a commit |
//! | `k` | [`LockRecord`], while the namespace is locked |
//! | `l` version chunk(be16) | changelog: a piece of a [`ChangeEntry`] |
//! | `p` index version | [`PageValue`]: a page as of that version |
//! | `s` stage id `m` index | the staged page's sum (8 bytes) |
//! | `s` stage id `p` index | the staged page, as a [`PageValue`] |
//! | `s` stage id `r` | [`StageRecord`] |
//! | `v` | version of the last commit; absent before the first |
//! | `x` | nothing; written by commits that change page 1 outside its allocation fields |
//!
//! **Growing without a new format.** A namespace's guard says which generation may read and which
//! may write it, and has room for the lock, the lease and the horizon. Generation 2 gave it layers
//! and ancestors; a store and a namespace that have none are as generation 1 wrote them. Page
//! tags and flag bits that this build does not know are refused as unknown, never guessed at.

mod catalog;
mod changelog;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod guard;
mod keys;
mod layer;
mod lease;
mod lock;
mod page;
mod parse;
mod truncation;
mod waiting;

pub(crate) use catalog::{CatalogEntry, Outcome, StoreFormat, Usage};
pub(crate) use changelog::{ChangeEntry, ChangeReader, PageOneClass, Pages};
pub(crate) use guard::{Guard, Nonce, State};
pub(crate) use keys::{Expiry, ExpiryKind, Keyspace, LeasePlace, UsageKind};
pub(crate) use layer::{Ancestor, FoldCursor, FoldPass, Layer, LayerKind, MAX_LAYERS};
pub(crate) use lease::{Deadline, LeaseTerm};
pub(crate) use lock::LockRecord;
pub(crate) use page::{Holding, PageValue, StageRecord, StageState, decode_sum, page_sum};
pub(crate) use parse::{MetadataKey, PageKey};
pub(crate) use truncation::TruncationMark;
pub(crate) use waiting::{WaitingPlace, decode_touched, decode_waiting, encode_waiting};

use mvsqlite_protocol::Version;

/// The newest format generation that this build reads and writes.
pub(crate) const GENERATION: u8 = 2;

/// The generation that everything is written in which does not need a newer one.
pub(crate) const FIRST_GENERATION: u8 = 1;

/// The generation that knows layers, ancestors and forks.
pub(crate) const LAYERS_GENERATION: u8 = 2;

/// Where a versionstamp will be put: ten zeros until the engine knows better.
const STAMP_PLACEHOLDER: [u8; Version::LEN] = [0; Version::LEN];

/// Stored bytes that do not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// Fewer bytes than the fields need.
    #[error("{what} is cut short")]
    Short {
        /// Which key or value.
        what: &'static str,
    },
    /// Bytes behind the last field.
    #[error("{what} has bytes too many")]
    Long {
        /// Which key or value.
        what: &'static str,
    },
    /// A field with a value it cannot have.
    #[error("{what} has an impossible {field}")]
    Field {
        /// Which key or value.
        what: &'static str,
        /// Which field.
        field: &'static str,
    },
}

/// Takes fixed-size fields off the front of a key or value.
struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Malformed::Short { what: self.what })?;
        self.rest = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    fn version(&mut self) -> Result<Version, Malformed> {
        Ok(Version::from_bytes(self.take()?))
    }

    fn bad(&self, field: &'static str) -> Malformed {
        Malformed::Field {
            what: self.what,
            field,
        }
    }

    fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Long { what: self.what })
        }
    }
}

/// Decodes a value that is a version and nothing else: `v`, the high-water mark, time records.
pub(crate) fn decode_version(bytes: &[u8]) -> Result<Version, Malformed> {
    Version::from_slice(bytes).ok_or(Malformed::Short { what: "a version" })
}

/// A value that will be the version of the commit that writes it: bytes and stamp offset.
pub(crate) const STAMPED_VERSION: (&[u8], usize) = (&STAMP_PLACEHOLDER, 0);
