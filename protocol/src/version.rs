//! Versions and the other fixed-size identifiers.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Defines a newtype over `[u8; N]`: hex as text, `bin` on the wire, ordered by its bytes.
macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes as stored and sent.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Takes a slice if its length is exactly [`Self::LEN`].
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseHexError;

            fn from_str(text: &str) -> Result<Self, ParseHexError> {
                parse_hex(text).map(Self).ok_or_else(|| ParseHexError {
                    what: $what,
                    digits: $len * 2,
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct BytesOrHex;

                impl Visitor<'_> for BytesOrHex {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        $name::from_slice(bytes)
                            .ok_or_else(|| E::invalid_length(bytes.len(), &self))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(BytesOrHex)
                } else {
                    deserializer.deserialize_bytes(BytesOrHex)
                }
            }
        }
    };
}

/// Text that is not the hex form of the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: expected exactly {digits} hex digits")]
pub struct ParseHexError {
    what: &'static str,
    digits: usize,
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

fixed_bytes! {
    /// The version a commit made: 8 bytes of the engine's commit version, then 2 bytes of order
    /// within it, both big-endian (a FoundationDB versionstamp). Unique and increasing over all
    /// commits of a store, never reused. As text: 20 lowercase hex digits.
    Version, 10, "a version"
}

fixed_bytes! {
    /// The identity of a namespace for ever: the versionstamp of its creation. Also stands for the
    /// version of a namespace that was never written. Never reused, unlike a [`crate::NamespaceKey`].
    NamespaceId, 10, "a namespace id"
}

fixed_bytes! {
    /// Drawn at random by the client for each commit and sent again with each retry of it.
    IdempotencyKey, 16, "an idempotency key"
}

fixed_bytes! {
    /// Names content that was uploaded ahead of the commit that will refer to it. Made by the server.
    StageId, 16, "a stage id"
}

fixed_bytes! {
    /// Names the holder of a write lease. Drawn at random by the client for each lease it asks for.
    LeaseNonce, 16, "a lease nonce"
}

fixed_bytes! {
    /// Drawn at random when a store is made and again when it is restored from a backup: versions
    /// and cached pages of one incarnation mean nothing in another.
    Incarnation, 8, "a store incarnation"
}

impl Version {
    /// Below every version of every store.
    pub const ZERO: Self = Self([0; 10]);

    /// Puts a version together from its two parts.
    pub fn new(commit: u64, order: u16) -> Self {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&commit.to_be_bytes());
        bytes[8..].copy_from_slice(&order.to_be_bytes());
        Self(bytes)
    }

    /// The engine's commit version: comparable with a [`ReadVersion`].
    pub fn commit(&self) -> u64 {
        self.0[..8]
            .iter()
            .fold(0, |n, byte| n << 8 | u64::from(*byte))
    }
}

impl NamespaceId {
    /// The id as a version: that of the still empty namespace. All its commits are above it.
    pub fn as_version(&self) -> Version {
        Version(self.0)
    }
}

impl From<Version> for NamespaceId {
    fn from(version: Version) -> Self {
        Self(version.0)
    }
}

/// A point in the store's order of commits at which reads are made: everything committed at or
/// below it is seen. Compared with the first 8 bytes of a [`Version`].
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ReadVersion(pub u64);

impl ReadVersion {
    /// Whether a read at this point sees the commit that made `version`.
    pub fn sees(&self, version: Version) -> bool {
        version.commit() <= self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_prints_as_twenty_lowercase_digits_and_parses_either_case() {
        let version = Version::new(123_456, 0);
        assert_eq!(version.to_string(), "000000000001e2400000");
        assert_eq!("000000000001E2400000".parse(), Ok(version));
        assert_eq!(version.commit(), 123_456);
    }

    #[test]
    fn text_of_another_length_or_alphabet_is_refused_with_its_reason() {
        for text in [
            "",
            "1",
            "000000000001e24000000",
            "00000000000+e2400000",
            "é0000000000000000000",
        ] {
            let error = text.parse::<Version>().expect_err(text);
            assert_eq!(
                error.to_string(),
                "not a version: expected exactly 20 hex digits"
            );
        }
    }

    #[test]
    fn a_version_is_bin_in_messagepack_and_hex_in_json() {
        let version = Version::new(1, 2);
        let packed = rmp_serde::to_vec(&version).unwrap();
        assert_eq!(packed, [0xc4, 10, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2]);
        assert_eq!(rmp_serde::from_slice::<Version>(&packed).unwrap(), version);
        assert_eq!(
            serde_json::to_string(&version).unwrap(),
            "\"00000000000000010002\""
        );
        assert!(rmp_serde::from_slice::<Version>(&[0xc4, 1, 0]).is_err());
    }

    #[test]
    fn a_read_version_sees_commits_up_to_itself_whatever_their_order() {
        assert!(ReadVersion(7).sees(Version::new(7, u16::MAX)));
        assert!(!ReadVersion(7).sees(Version::new(8, 0)));
    }
}
