//! Metadata values, and outcomes of commits.

use mvsqlite_protocol::v2::Concurrency;
use mvsqlite_protocol::{Incarnation, NamespaceId, Version};

use super::{Fields, Malformed, STAMP_PLACEHOLDER};
use crate::kv::StampOffset;

/// What format the store is in, and which store it is:
///
/// ```text
/// 0   2   generation that made it
/// 2   2   least generation that may read it
/// 4   2   least generation that may write it
/// 6   8   incarnation
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreFormat {
    /// Generation that made it.
    pub generation: u16,
    /// Least generation that may read it.
    pub min_reader: u16,
    /// Least generation that may write it.
    pub min_writer: u16,
    /// Drawn at random when the store was made, and anew when it is restored.
    pub incarnation: Incarnation,
}

impl StoreFormat {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for generation in [self.generation, self.min_reader, self.min_writer] {
            bytes.extend_from_slice(&generation.to_be_bytes());
        }
        bytes.extend_from_slice(self.incarnation.as_bytes());
        bytes
    }

    /// Decodes the fields above; a later generation may have appended others.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new("the store's format", bytes);
        Ok(Self {
            generation: fields.u16()?,
            min_reader: fields.u16()?,
            min_writer: fields.u16()?,
            incarnation: Incarnation::from_bytes(fields.take()?),
        })
    }
}

/// What the catalog knows about a namespace:
///
/// ```text
/// 0   1   kind: 1
/// 1  10   namespace id
/// 11  1   concurrency mode: 0 optimistic, 1 exclusive
/// 12  8   random: tells whose creation it was when a reply got lost
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CatalogEntry {
    /// The namespace's id.
    pub id: NamespaceId,
    /// How its writers keep out of each other's way.
    pub mode: Concurrency,
    /// Drawn at its creation.
    pub nonce: [u8; 8],
}

impl CatalogEntry {
    const WHAT: &str = "a catalog entry";
    const KIND: u8 = 1;

    /// The entry as it is stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mode = match self.mode {
            Concurrency::Exclusive => 1,
            _ => 0,
        };
        let mut bytes = vec![Self::KIND];
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.push(mode);
        bytes.extend_from_slice(&self.nonce);
        bytes
    }

    /// The entry of a new namespace, whose id will be the version of the commit that writes it.
    pub(crate) fn encode_new(mode: Concurrency, nonce: [u8; 8]) -> (Vec<u8>, StampOffset) {
        let entry = Self {
            id: NamespaceId::from_bytes(STAMP_PLACEHOLDER),
            mode,
            nonce,
        };
        (entry.encode(), 1)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(Self::WHAT, bytes);
        if fields.u8()? != Self::KIND {
            return Err(fields.bad("kind"));
        }
        let id = NamespaceId::from_bytes(fields.take()?);
        let mode = match fields.u8()? {
            0 => Concurrency::Optimistic,
            1 => Concurrency::Exclusive,
            _ => return Err(fields.bad("mode")),
        };
        let nonce = fields.take()?;
        fields.end()?;
        Ok(Self { id, mode, nonce })
    }
}

/// What became of the commit with an idempotency key:
///
/// ```text
/// 0   1   kind: 1 committed, 2 aborted
/// 1  16   XXH3-128 of the request (aborted: zeros)
/// 17 10   the version it made (aborted: zeros)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It happened.
    Committed {
        /// Of what was asked.
        digest: u128,
        /// The version it made.
        version: Version,
    },
    /// It never will.
    Aborted,
}

impl Outcome {
    /// The outcome of a commit that makes the version it is stamped with.
    pub(crate) fn encode_committed(digest: u128) -> (Vec<u8>, StampOffset) {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&digest.to_be_bytes());
        bytes.extend_from_slice(&STAMP_PLACEHOLDER);
        (bytes, 17)
    }

    /// The abort marker.
    pub(crate) fn encode_aborted() -> Vec<u8> {
        let mut bytes = vec![0; 27];
        bytes[0] = 2;
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new("a commit's outcome", bytes);
        let kind = fields.u8()?;
        let digest = u128::from_be_bytes(fields.take()?);
        let version = fields.version()?;
        let bad = |field| Err(fields.bad(field));
        let outcome = match kind {
            1 => Self::Committed { digest, version },
            2 if (digest, version) == (0, Version::ZERO) => Self::Aborted,
            2 => return bad("abort marker"),
            _ => return bad("kind"),
        };
        fields.end()?;
        Ok(outcome)
    }
}

/// How much there is of something: 8 bytes count, 8 bytes of how many bytes they hold, both
/// little-endian, so that both are changed by one atomic addition of 128 bits. That is exact as long
/// as no more is taken away than is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// How many.
    pub count: u64,
    /// How many bytes of page content.
    pub bytes: u64,
}

impl Usage {
    /// The operand that adds `self` and takes `other` away.
    pub(crate) fn minus(&self, other: &Self) -> [u8; 16] {
        self.wide().wrapping_sub(other.wide()).to_le_bytes()
    }

    fn wide(&self) -> u128 {
        u128::from(self.bytes) << 64 | u128::from(self.count)
    }

    /// Decodes a counter; one that was never added to is zero.
    pub(crate) fn decode(bytes: Option<&[u8]>) -> Result<Self, Malformed> {
        let Some(bytes) = bytes else {
            return Ok(Self::default());
        };
        let mut fields = Fields::new("a usage counter", bytes);
        let usage = Self {
            count: u64::from_le_bytes(fields.take()?),
            bytes: u64::from_le_bytes(fields.take()?),
        };
        fields.end()?;
        Ok(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_stores_format_is_14_bytes_as_documented() {
        let format = StoreFormat {
            generation: 1,
            min_reader: 2,
            min_writer: 3,
            incarnation: Incarnation::from_bytes([9; 8]),
        };
        assert_eq!(hex(&format.encode()), "0001000200030909090909090909");
        assert_eq!(StoreFormat::decode(&format.encode()), Ok(format));
        StoreFormat::decode(&[0; 13]).expect_err("cut short");
    }

    #[test]
    fn a_catalog_entry_is_20_bytes_as_documented() {
        let entry = CatalogEntry {
            id: NamespaceId::from_bytes([5; 10]),
            mode: Concurrency::Exclusive,
            nonce: [6; 8],
        };
        let golden = "0105050505050505050505010606060606060606";
        assert_eq!(hex(&entry.encode()), golden);
        assert_eq!(CatalogEntry::decode(&entry.encode()), Ok(entry));
        let (new, offset) = CatalogEntry::encode_new(Concurrency::Optimistic, [6; 8]);
        assert_eq!(hex(&new), "0100000000000000000000000606060606060606");
        assert_eq!(offset, 1);
    }

    #[test]
    fn an_outcome_is_27_bytes_as_documented() {
        let (mut committed, offset) = Outcome::encode_committed(0x0102);
        committed[offset..].copy_from_slice(&[7; 10]);
        assert_eq!(
            hex(&committed),
            "010000000000000000000000000000010207070707070707070707"
        );
        let decoded = Outcome::Committed {
            digest: 0x0102,
            version: Version::from_bytes([7; 10]),
        };
        assert_eq!(Outcome::decode(&committed), Ok(decoded));
        let aborted = Outcome::encode_aborted();
        assert_eq!(hex(&aborted), format!("02{}", "00".repeat(26)));
        assert_eq!(Outcome::decode(&aborted), Ok(Outcome::Aborted));
        Outcome::decode(&[3; 27]).expect_err("an impossible kind");
    }

    /// Symptom: a damaged outcome read as "this commit never happened", which its client was then told.
    /// Cause: of an abort marker only the first byte was looked at. Fix: the others are zeros, and
    /// nothing follows them.
    #[test]
    fn an_abort_marker_is_that_and_nothing_else() {
        let marker = Outcome::encode_aborted();
        for at in 1..marker.len() {
            let mut damaged = marker.clone();
            damaged[at] ^= 0x10;
            Outcome::decode(&damaged).expect_err("a changed byte");
        }
        Outcome::decode(&[&marker[..], &[0]].concat()).expect_err("too long");
    }

    #[test]
    fn usage_is_exact_under_one_wide_addition() {
        let usage = |count, bytes| Usage { count, bytes };
        let stored = usage(3, 5000).minus(&usage(0, 0));
        assert_eq!(hex(&stored), "03000000000000008813000000000000");
        // 3 pages of 5000 bytes, then one of 4999 less: the borrow stays inside its half.
        let change = usage(0, 0).minus(&usage(1, 4999));
        let sum = u128::from_le_bytes(stored).wrapping_add(u128::from_le_bytes(change));
        assert_eq!(Usage::decode(Some(&sum.to_le_bytes())), Ok(usage(2, 1)));
        assert_eq!(Usage::decode(None), Ok(usage(0, 0)));
    }
}
