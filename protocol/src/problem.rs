//! Refusals: problem+json (RFC 9457) with a stable code.

use serde::{Deserialize, Serialize};

use crate::page::PageIndex;
use crate::version::Version;

/// `Content-Type` of a refusal.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// Why a call was refused. The names are stable; a client meets unknown ones as [`Code::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// The body, a header or the path is not what the call takes.
    Malformed,
    /// This caller may not do that.
    Forbidden,
    /// No such path.
    NotFound,
    /// There is no namespace of this key.
    NamespaceNotFound,
    /// The key now names another namespace (it was renamed, deleted or made anew meanwhile).
    NamespaceChanged,
    /// A namespace of this key exists already.
    NamespaceExists,
    /// Another transaction changed what this one read.
    Conflict,
    /// The commit was settled as aborted before it arrived.
    Aborted,
    /// The idempotency key was used for a different commit.
    KeyReused,
    /// The version was never reached.
    VersionUnknown,
    /// The version is no longer kept.
    SnapshotTooOld,
    /// The stage is unknown, expired, closed, or does not hold what the client believes.
    StageInvalid,
    /// More than one call may carry, or more than the store can commit at once.
    TooLarge,
    /// The pages are not a SQLite database this store can hold.
    BadPages,
    /// Another holds the namespace's lock or write lease, or this caller lost its own.
    Locked,
    /// The server, or this caller, may only read.
    ReadOnly,
    /// Something is temporarily out of reach or overloaded; nothing was written. Try again.
    Unavailable,
    /// The outcome of the commit is not known; settle it.
    OutcomeUnknown,
    /// The store's disk is full; nothing was written.
    StorageFull,
    /// The server took longer than it allows itself.
    Timeout,
    /// The stored bytes are not what was written.
    Corrupt,
    /// The server failed; its log says how.
    Internal,
    /// A code this build does not know.
    #[serde(other)]
    Unknown,
}

impl Code {
    /// The HTTP status that goes with the code: the one place where they are mapped.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::BadPages => 400,
            Self::Forbidden | Self::ReadOnly => 403,
            Self::NotFound | Self::NamespaceNotFound | Self::VersionUnknown => 404,
            Self::Conflict | Self::NamespaceExists | Self::Aborted => 409,
            Self::NamespaceChanged | Self::SnapshotTooOld | Self::StageInvalid => 410,
            Self::TooLarge => 413,
            Self::KeyReused => 422,
            Self::Locked => 423,
            Self::Corrupt | Self::Internal | Self::Unknown => 500,
            Self::Unavailable | Self::OutcomeUnknown => 503,
            Self::Timeout => 504,
            Self::StorageFull => 507,
        }
    }

    /// Whether the same call may simply be sent again: nothing was written by this one.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable)
    }
}

/// A refusal as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status again.
    pub status: u16,
    /// Why, for programs.
    pub code: Code,
    /// What went wrong, with what, for people. One sentence, no secrets.
    pub detail: String,
    /// What to do about it, if there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// With [`Code::Conflict`]: a page that was read here and changed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<PageIndex>,
    /// With [`Code::Conflict`]: the version that changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
}

impl Problem {
    /// A refusal with its code and one sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            status: code.status(),
            code,
            detail: detail.into(),
            hint: None,
            page: None,
            version: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_json_with_a_stable_code() {
        let problem = Problem::new(Code::NamespaceNotFound, "there is no namespace 'test'")
            .with_hint("create it");
        let json = r#"{"status":404,"code":"namespace_not_found","detail":"there is no namespace 'test'","hint":"create it"}"#;
        assert_eq!(serde_json::to_string(&problem).unwrap(), json);
        assert_eq!(serde_json::from_str::<Problem>(json).unwrap(), problem);
    }

    #[test]
    fn a_code_from_a_newer_server_is_unknown_not_an_error() {
        let json = r#"{"status":418,"code":"teapot","detail":"short and stout"}"#;
        assert_eq!(
            serde_json::from_str::<Problem>(json).unwrap().code,
            Code::Unknown
        );
    }
}
