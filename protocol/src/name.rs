//! Namespace keys, moments, and the names a program opens a database by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::version::Version;

/// The name of a namespace: 1 to 255 bytes of `A-Z a-z 0-9 . _ / -`.
///
/// The original takes more, and its programs may have made more: [`NamespaceKey::of_original`]. Such
/// keys come in through protocol v1 and the admin API only; in messages and names of ours they are
/// refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamespaceKey(String);

/// A name that cannot be one of ours, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The key is empty.
    #[error("a namespace key must not be empty")]
    Empty,
    /// The key is longer than [`NamespaceKey::MAX_LEN`].
    #[error("a namespace key has at most {max} bytes, this one has {len}", max = NamespaceKey::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Longer than [`NamespaceKey::MAX_ORIGINAL_LEN`], or not of visible ASCII, where the original's
    /// keys are taken.
    #[error("a namespace key is made of 1 to {max} visible ASCII characters", max = NamespaceKey::MAX_ORIGINAL_LEN)]
    NotVisible,
    /// A character that keys do not have.
    #[error("a namespace key is made of A-Z a-z 0-9 . _ / - only, not of {character:?}")]
    Character {
        /// The first such character.
        character: char,
    },
    /// What stands behind the `@` names no moment.
    #[error("'{text}' is not a moment: expected 20 hex digits after the '@'")]
    Moment {
        /// What stands there.
        text: String,
    },
}

impl NamespaceKey {
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = 255;
    /// The longest key of the original's that is taken, in bytes.
    pub const MAX_ORIGINAL_LEN: usize = 1024;

    /// Takes a key of the original's: 1 to [`Self::MAX_ORIGINAL_LEN`] visible ASCII characters, spaces
    /// among them.
    ///
    /// # Errors
    /// If it is empty, too long or made of anything else.
    pub fn of_original(key: impl Into<String>) -> Result<Self, NameError> {
        let key = key.into();
        let visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if !(1..=Self::MAX_ORIGINAL_LEN).contains(&key.len()) || !key.bytes().all(visible) {
            return Err(NameError::NotVisible);
        }
        Ok(Self(key))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NamespaceKey {
    type Error = NameError;

    fn try_from(key: String) -> Result<Self, NameError> {
        if key.is_empty() {
            return Err(NameError::Empty);
        }
        if key.len() > Self::MAX_LEN {
            return Err(NameError::TooLong { len: key.len() });
        }
        let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
        match key.chars().find(|c| !legal(c)) {
            Some(character) => Err(NameError::Character { character }),
            None => Ok(Self(key)),
        }
    }
}

impl FromStr for NamespaceKey {
    type Err = NameError;

    fn from_str(key: &str) -> Result<Self, NameError> {
        Self::try_from(key.to_owned())
    }
}

impl From<NamespaceKey> for String {
    fn from(key: NamespaceKey) -> Self {
        key.0
    }
}

impl fmt::Display for NamespaceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A point in a namespace's history, as a user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// The newest commit at or below this version.
    Version(Version),
    /// The last commit before the first one with a later time: milliseconds since the Unix epoch,
    /// by the server's clock.
    UnixMillis(u64),
}

impl FromStr for Moment {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse()
            .map(Moment::Version)
            .map_err(|_| NameError::Moment {
                text: text.to_owned(),
            })
    }
}

/// What a program opens: `namespace` or `namespace@moment`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DatabaseName {
    /// Which namespace.
    pub namespace: NamespaceKey,
    /// Which past moment of it; `None` is the live database.
    pub moment: Option<Moment>,
}

impl FromStr for DatabaseName {
    type Err = NameError;

    /// Leading slashes are dropped, as the original does: `/var/lib/x.db` is the key `var/lib/x.db`.
    fn from_str(name: &str) -> Result<Self, NameError> {
        let name = name.trim_start_matches('/');
        let (key, moment) = match name.split_once('@') {
            Some((key, moment)) => (key, Some(moment.parse()?)),
            None => (name, None),
        };
        Ok(Self {
            namespace: key.parse()?,
            moment,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_key_without_its_leading_slashes() {
        let name: DatabaseName = "//var/lib/x.db".parse().unwrap();
        assert_eq!(name.namespace.as_str(), "var/lib/x.db");
        assert_eq!(name.moment, None);
    }

    #[test]
    fn keys_of_the_original_may_have_any_visible_character() {
        for key in ["app:903be2.00", "a b@c", "x", &"y".repeat(1024)] {
            assert_eq!(NamespaceKey::of_original(key).unwrap().as_str(), key);
        }
        for key in ["", "a\tb", "a\nb", "\u{e9}", &"y".repeat(1025)] {
            let refusal = NamespaceKey::of_original(key).expect_err(key);
            assert_eq!(refusal, NameError::NotVisible);
        }
    }

    #[test]
    fn a_version_behind_the_at_sign_is_a_moment() {
        let name: DatabaseName = "test@000000000001e2400000".parse().unwrap();
        assert_eq!(name.moment, Some(Moment::Version(Version::new(123_456, 0))));
    }

    #[test]
    fn malformed_names_are_refused_with_what_is_wrong() {
        let long = "x".repeat(256);
        let cases: [(&str, &str); 6] = [
            ("", "a namespace key must not be empty"),
            ("///", "a namespace key must not be empty"),
            (
                "a b",
                "a namespace key is made of A-Z a-z 0-9 . _ / - only, not of ' '",
            ),
            (
                "test@",
                "'' is not a moment: expected 20 hex digits after the '@'",
            ),
            (
                "test@12",
                "'12' is not a moment: expected 20 hex digits after the '@'",
            ),
            (
                &long,
                "a namespace key has at most 255 bytes, this one has 256",
            ),
        ];
        for (name, message) in cases {
            assert_eq!(
                name.parse::<DatabaseName>().expect_err(name).to_string(),
                message
            );
        }
    }
}
