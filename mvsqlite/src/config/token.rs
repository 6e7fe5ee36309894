//! The token that servers are shown, which nobody else gets to see.

use std::path::PathBuf;

use super::{ConfigError, bad};

/// Where the token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// From `MVSQLITE_TOKEN`.
    Value(Secret),
    /// The first line of this file, read again from time to time: tokens are renewed.
    File(PathBuf),
}

/// A text that nobody gets to see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// `None` for what cannot stand in a header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let visible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        visible.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(...)")
    }
}

pub(super) fn token(
    value: Option<String>,
    file: Option<String>,
) -> Result<Option<Token>, ConfigError> {
    match (value, file) {
        (Some(_), Some(_)) => bad(
            "MVSQLITE_TOKEN_FILE",
            "MVSQLITE_TOKEN is set as well; set one of them",
        ),
        (Some(value), None) => match Secret::new(&value) {
            Some(secret) => Ok(Some(Token::Value(secret))),
            // Not with its value: it is a secret all the same.
            None => bad("MVSQLITE_TOKEN", "expected visible ASCII characters"),
        },
        (None, Some(path)) => Ok(Some(Token::File(path.into()))),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: Option<&str>, file: Option<&str>) -> Result<Option<Token>, ConfigError> {
        token(value.map(str::to_owned), file.map(str::to_owned))
    }

    #[test]
    fn a_token_comes_from_one_of_two_places() {
        let value = Token::Value(Secret::new("s3cret").unwrap());
        assert_eq!(parsed(Some(" s3cret\n"), None), Ok(Some(value)));
        let file = Token::File("/run/token".into());
        assert_eq!(parsed(None, Some("/run/token")), Ok(Some(file)));
        assert_eq!(parsed(None, None), Ok(None));
        assert!(parsed(Some("a"), Some("b")).is_err());
    }

    #[test]
    fn a_token_is_never_printed() {
        for value in ["s3cret", "s3cret of two words"] {
            let printed = format!("{:?}", parsed(Some(value), None));
            assert!(!printed.contains("s3cret"), "{printed}");
        }
    }
}
