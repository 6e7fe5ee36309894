//! The token that servers are shown.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::config::{Secret, Token};

/// How long what a file held is used before it is read again.
const FILE_TTL: Duration = Duration::from_secs(10);

/// Gives the token for each request.
pub(super) enum TokenSource {
    Value(Secret),
    /// Swapped without a lock, which a forked child could find held for ever.
    File {
        path: PathBuf,
        known: ArcSwapOption<(Duration, Secret)>,
    },
}

impl TokenSource {
    pub(super) fn new(token: &Token) -> Self {
        match token {
            Token::Value(secret) => Self::Value(secret.clone()),
            Token::File(path) => Self::File {
                path: path.clone(),
                known: ArcSwapOption::empty(),
            },
        }
    }

    /// The token to show at a time by the system's clock.
    ///
    /// # Errors
    /// If the file cannot be read or holds no token.
    pub(super) fn get(&self, now: Duration) -> Result<Secret, String> {
        let (path, known) = match self {
            Self::Value(secret) => return Ok(secret.clone()),
            Self::File { path, known } => (path, known),
        };
        if let Some(known) = &*known.load()
            && now.saturating_sub(known.0) < FILE_TTL
        {
            return Ok(known.1.clone());
        }
        let problem = |what: String| format!("MVSQLITE_TOKEN_FILE {}: {what}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
        let secret = text.lines().next().and_then(Secret::new);
        let secret = secret.ok_or_else(|| problem("no token in its first line".to_owned()))?;
        known.store(Some(Arc::new((now, secret.clone()))));
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_from_time_to_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "first\nof two lines\n").unwrap();
        let source = TokenSource::new(&Token::File(file.path().to_owned()));
        let at = |seconds| {
            let token = source.get(Duration::from_secs(seconds));
            token.map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(at(5).as_deref(), Ok("first"));
        std::fs::write(file.path(), "second").unwrap();
        assert_eq!(at(14).as_deref(), Ok("first"));
        assert_eq!(at(15).as_deref(), Ok("second"));
        std::fs::write(file.path(), "\nnot here").unwrap();
        assert!(at(30).unwrap_err().contains("no token"));
    }
}
