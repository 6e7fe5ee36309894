//! What any key of the store is: for those who look at all of them.
//!
//! The store itself reads ranges in which only one kind of key can lie, and takes those apart with the
//! functions of `keys`. Here nothing is known beforehand. A key that is not exactly as the store
//! would write it is none of its keys.

use std::fmt;

use mvsqlite_protocol::v1::PageHash;
use mvsqlite_protocol::{IdempotencyKey, NamespaceId, PageIndex, StageId, Version};

use super::{Expiry, ExpiryKind, Keyspace, LeasePlace, UsageKind};
use crate::kv::KeyRange;

/// A key of the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MetadataKey {
    /// A fork of a namespace: base and fork.
    Fork(NamespaceId, NamespaceId),
    /// The store's format.
    Format,
    /// The high-water mark.
    HighWaterMark,
    /// Until when a write lease is held.
    LeaseTerm(NamespaceId),
    /// A place in the queue for a lease.
    LeasePlace(NamespaceId, LeasePlace),
    /// A catalog entry.
    Name(String),
    /// A time record.
    Time(u64),
    /// A usage counter.
    Usage(NamespaceId, UsageKind),
    /// A deleted namespace.
    Deleted(NamespaceId),
    /// A layer to fold.
    Layer(NamespaceId, Version),
    /// A truncation that runs.
    Truncation(NamespaceId),
    /// An entry of the expiry index, and the bucket that it lies in.
    Expiry(Expiry, u8),
}

/// A key among the pages of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PageKey {
    /// The guard.
    Guard,
    /// Uploaded content.
    WaitingPage(PageHash),
    /// When that was last of use.
    WaitingTime(PageHash),
    /// Where a commit put it.
    WaitingPlace(PageHash),
    /// A commit's outcome.
    Outcome(IdempotencyKey),
    /// The record of the namespace lock.
    Lock,
    /// A chunk of the changelog.
    Change(Version, u16),
    /// A page version.
    Page(PageIndex, Version),
    /// A staged page's sum.
    StagedSum(StageId, PageIndex),
    /// A staged page.
    StagedPage(StageId, PageIndex),
    /// A stage's record.
    Stage(StageId),
    /// The version of the last commit.
    Head,
    /// The conflict key of schema changes.
    Schema,
}

/// Takes fixed-size pieces off the front of a key.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take::<1>()?[0])
    }

    fn namespace(&mut self) -> Option<NamespaceId> {
        self.take().map(NamespaceId::from_bytes)
    }

    fn version(&mut self) -> Option<Version> {
        self.take().map(Version::from_bytes)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn index(&mut self) -> Option<PageIndex> {
        self.take().map(PageIndex::from_be_bytes)
    }
}

impl Keyspace {
    /// Every key of the metadata.
    pub(crate) fn all_metadata(&self) -> KeyRange {
        KeyRange::prefix(&self.metadata)
    }

    /// Every key of every namespace.
    pub(crate) fn all_pages(&self) -> KeyRange {
        KeyRange::prefix(&self.raw)
    }

    /// The ranges behind the two prefixes in which no key of the store lies.
    pub(crate) fn foreign(&self) -> Vec<KeyRange> {
        let mut halves = [self.all_metadata(), self.all_pages()];
        halves.sort_by(|one, other| one.begin.cmp(&other.begin));
        let mut ranges = Vec::new();
        for half in [&self.metadata, &self.raw] {
            let whole = KeyRange::prefix(&half[..half.len() - 1]);
            let mut begin = whole.begin.clone();
            for ours in halves.iter().filter(|ours| whole.contains(&ours.begin)) {
                ranges.push(KeyRange::new(begin, ours.begin.clone()));
                begin = ours.end.clone();
            }
            ranges.push(KeyRange::new(begin, whole.end));
        }
        ranges.retain(|range| !range.is_empty());
        ranges.dedup();
        ranges
    }

    /// What a key of the metadata is; `None` if it is no key that the store writes.
    pub(crate) fn metadata_key(&self, key: &[u8]) -> Option<MetadataKey> {
        let mut rest = Rest(key.strip_prefix(&self.metadata[..])?);
        let parsed = match rest.byte()? {
            b'c' => MetadataKey::Fork(rest.namespace()?, rest.namespace()?),
            b'f' => MetadataKey::Format,
            b'h' => MetadataKey::HighWaterMark,
            b'l' => lease_key(&mut rest)?,
            b'n' => {
                let name = std::str::from_utf8(std::mem::take(&mut rest.0)).ok()?;
                MetadataKey::Name(name.to_owned())
            }
            b't' => MetadataKey::Time(rest.number()?),
            b'u' => {
                let id = rest.namespace()?;
                MetadataKey::Usage(
                    id,
                    match rest.byte()? {
                        b'p' => UsageKind::Pages,
                        b's' => UsageKind::Staged,
                        _ => return None,
                    },
                )
            }
            b'w' => match rest.byte()? {
                b'd' => MetadataKey::Deleted(rest.namespace()?),
                b'l' => MetadataKey::Layer(rest.namespace()?, rest.version()?),
                b't' => MetadataKey::Truncation(rest.namespace()?),
                _ => return None,
            },
            b'x' => expiry_key(&mut rest)?,
            _ => return None,
        };
        rest.0.is_empty().then_some(parsed)
    }

    /// The namespace that a key among the pages belongs to.
    pub(crate) fn owner(&self, key: &[u8]) -> Option<NamespaceId> {
        Rest(key.strip_prefix(&self.raw[..])?).namespace()
    }

    /// What a key among the pages is; `None` if it is no key that the store writes.
    pub(crate) fn page_key(&self, key: &[u8]) -> Option<(NamespaceId, PageKey)> {
        let mut rest = Rest(key.strip_prefix(&self.raw[..])?);
        let id = rest.namespace()?;
        let parsed = match rest.byte()? {
            b'g' => PageKey::Guard,
            b'h' => match rest.byte()? {
                b'c' => PageKey::WaitingPage(rest.take()?),
                b't' => PageKey::WaitingTime(rest.take()?),
                b'v' => PageKey::WaitingPlace(rest.take()?),
                _ => return None,
            },
            b'i' => PageKey::Outcome(IdempotencyKey::from_bytes(rest.take()?)),
            b'k' => PageKey::Lock,
            b'l' => PageKey::Change(rest.version()?, u16::from_be_bytes(rest.take()?)),
            b'p' => PageKey::Page(rest.index()?, rest.version()?),
            b's' => {
                let stage = StageId::from_bytes(rest.take()?);
                match rest.byte()? {
                    b'm' => PageKey::StagedSum(stage, rest.index()?),
                    b'p' => PageKey::StagedPage(stage, rest.index()?),
                    b'r' => PageKey::Stage(stage),
                    _ => return None,
                }
            }
            b'v' => PageKey::Head,
            b'x' => PageKey::Schema,
            _ => return None,
        };
        rest.0.is_empty().then_some((id, parsed))
    }

    /// A key for people: what it is where that is known, and its bytes where not.
    pub(crate) fn describe(&self, key: &[u8]) -> String {
        if let Some(parsed) = self.metadata_key(key) {
            return parsed.to_string();
        }
        match self.page_key(key) {
            Some((id, parsed)) => format!("{id} {parsed}"),
            None => key.escape_ascii().to_string(),
        }
    }

    /// The keys of one bucket of the expiry index.
    pub(crate) fn expiry_bucket(&self, bucket: u8) -> KeyRange {
        KeyRange::prefix(&[&self.metadata[..], b"x", &[bucket]].concat())
    }

    /// The changelog of a namespace.
    pub(crate) fn changelog(&self, id: NamespaceId) -> KeyRange {
        self.changes(id, Version::ZERO, None)
    }
}

fn lease_key(rest: &mut Rest<'_>) -> Option<MetadataKey> {
    let id = rest.namespace()?;
    Some(match rest.byte()? {
        b'h' => MetadataKey::LeaseTerm(id),
        b'q' => {
            let place = LeasePlace {
                number: rest.number()?,
                nonce: rest.take()?,
            };
            MetadataKey::LeasePlace(id, place)
        }
        _ => return None,
    })
}

fn expiry_key(rest: &mut Rest<'_>) -> Option<MetadataKey> {
    let bucket = rest.byte()?;
    let at_millis = rest.number()?;
    let namespace = rest.namespace()?;
    let kind = match rest.byte()? {
        b'i' => ExpiryKind::Outcome,
        b's' => ExpiryKind::Stage,
        b'h' => ExpiryKind::Waiting,
        _ => return None,
    };
    let expiry = Expiry {
        at_millis,
        namespace,
        kind,
        name: rest.take()?,
    };
    Some(MetadataKey::Expiry(expiry, bucket))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for MetadataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fork(base, fork) => write!(f, "fork {fork} of {base}"),
            Self::Format => f.write_str("format"),
            Self::HighWaterMark => f.write_str("high-water mark"),
            Self::LeaseTerm(id) => write!(f, "lease of {id}"),
            Self::LeasePlace(id, place) => {
                write!(f, "place {} in the lease queue of {id}", place.number)
            }
            Self::Name(name) => write!(f, "name '{}'", name.escape_debug()),
            Self::Time(millis) => write!(f, "time {millis}"),
            Self::Usage(id, UsageKind::Pages) => write!(f, "usage of {id}: pages"),
            Self::Usage(id, UsageKind::Staged) => write!(f, "usage of {id}: staged pages"),
            Self::Deleted(id) => write!(f, "deletion of {id}"),
            Self::Layer(id, at) => write!(f, "layer {at} of {id} to fold"),
            Self::Truncation(id) => write!(f, "truncation of {id}"),
            Self::Expiry(expiry, bucket) => {
                let what = match expiry.kind {
                    ExpiryKind::Outcome => "outcome",
                    ExpiryKind::Stage => "stage",
                    ExpiryKind::Waiting => "upload",
                };
                let (name, id) = (hex(&expiry.name), expiry.namespace);
                write!(
                    f,
                    "expiry of {what} {name} of {id} at {} in bucket {bucket}",
                    expiry.at_millis
                )
            }
        }
    }
}

impl fmt::Display for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guard => f.write_str("guard"),
            Self::WaitingPage(hash) => write!(f, "upload {}", hex(hash)),
            Self::WaitingTime(hash) => write!(f, "time of upload {}", hex(hash)),
            Self::WaitingPlace(hash) => write!(f, "place of upload {}", hex(hash)),
            Self::Outcome(key) => write!(f, "outcome {key}"),
            Self::Lock => f.write_str("lock"),
            Self::Change(version, chunk) => write!(f, "changelog {version} chunk {chunk}"),
            Self::Page(index, version) => write!(f, "page {} at {version}", u64::from(*index) + 1),
            Self::StagedSum(stage, index) => {
                write!(f, "stage {stage} sum of page {}", u64::from(*index) + 1)
            }
            Self::StagedPage(stage, index) => {
                write!(f, "stage {stage} page {}", u64::from(*index) + 1)
            }
            Self::Stage(stage) => write!(f, "stage {stage}"),
            Self::Head => f.write_str("head"),
            Self::Schema => f.write_str("schema"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: NamespaceId = NamespaceId::from_bytes([7; 10]);
    const STAGE: StageId = StageId::from_bytes([9; 16]);

    fn keys() -> Keyspace {
        Keyspace::new("meta", "m").unwrap()
    }

    #[test]
    fn every_key_that_is_written_is_known_and_nothing_longer_or_shorter() {
        let keys = keys();
        let version = Version::new(5, 6);
        let place = LeasePlace {
            number: 3,
            nonce: [4; 16],
        };
        let expiry = Expiry {
            at_millis: 8,
            namespace: ID,
            kind: ExpiryKind::Stage,
            name: [0x2a; 16],
        };
        let metadata = [
            (keys.fork(ID, ID), MetadataKey::Fork(ID, ID)),
            (keys.format(), MetadataKey::Format),
            (keys.high_water_mark(), MetadataKey::HighWaterMark),
            (keys.lease_term(ID), MetadataKey::LeaseTerm(ID)),
            (
                keys.lease_place(ID, place),
                MetadataKey::LeasePlace(ID, place),
            ),
            (keys.time(8), MetadataKey::Time(8)),
            (
                keys.usage(ID, UsageKind::Staged),
                MetadataKey::Usage(ID, UsageKind::Staged),
            ),
            (keys.deleted(ID), MetadataKey::Deleted(ID)),
            (keys.layer(ID, version), MetadataKey::Layer(ID, version)),
            (keys.truncation(ID), MetadataKey::Truncation(ID)),
            (keys.expiry(&expiry), MetadataKey::Expiry(expiry, 10)),
        ];
        for (key, parsed) in metadata {
            assert_eq!(keys.metadata_key(&key), Some(parsed));
            assert_eq!(keys.metadata_key(&[&key[..], b"!"].concat()), None);
            assert_eq!(keys.metadata_key(&key[..key.len() - 1]), None);
        }
        let name = MetadataKey::Name("app/db".to_owned());
        assert_eq!(keys.metadata_key(&keys.name("app/db")), Some(name));
        let hash = [1; 32];
        let pages = [
            (keys.guard(ID), PageKey::Guard),
            (keys.waiting_page(ID, &hash), PageKey::WaitingPage(hash)),
            (keys.waiting_time(ID, &hash), PageKey::WaitingTime(hash)),
            (keys.waiting_place(ID, &hash), PageKey::WaitingPlace(hash)),
            (
                keys.outcome(ID, IdempotencyKey::from_bytes([3; 16])),
                PageKey::Outcome(IdempotencyKey::from_bytes([3; 16])),
            ),
            (keys.lock(ID), PageKey::Lock),
            (keys.change(ID, version, 2), PageKey::Change(version, 2)),
            (keys.page_at(ID, 4, version), PageKey::Page(4, version)),
            (keys.staged_sum(ID, STAGE, 4), PageKey::StagedSum(STAGE, 4)),
            (
                keys.staged_page(ID, STAGE, 4),
                PageKey::StagedPage(STAGE, 4),
            ),
            (keys.stage(ID, STAGE), PageKey::Stage(STAGE)),
            (keys.head(ID), PageKey::Head),
            (keys.schema(ID), PageKey::Schema),
        ];
        for (key, parsed) in pages {
            assert_eq!(keys.owner(&key), Some(ID));
            assert_eq!(keys.page_key(&key), Some((ID, parsed)));
            assert_eq!(keys.page_key(&[&key[..], b"!"].concat()), None);
            assert_eq!(keys.page_key(&key[..key.len() - 1]), None);
        }
    }

    #[test]
    fn the_ranges_around_the_two_halves_leave_out_nothing_but_them() {
        for (metadata, raw) in [("meta", "m"), ("m", "m"), ("", "")] {
            let keys = Keyspace::new(metadata, raw).unwrap();
            let foreign = keys.foreign();
            let is_foreign = |key: &[u8]| foreign.iter().any(|range| range.contains(key));
            for prefix in [metadata, raw] {
                for half in [&b""[..], b"!", b"e", b"z"] {
                    assert!(is_foreign(&[prefix.as_bytes(), b"\0", half].concat()));
                }
            }
            assert!(!is_foreign(&keys.format()));
            assert!(!is_foreign(&keys.guard(ID)));
        }
    }
}
