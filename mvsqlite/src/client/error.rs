//! Why a call to the data plane failed.

use mvsqlite_protocol::Problem;

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No server gave an answer within the time allowed.
    #[error(
        "no answer from {server} after {attempts} attempts in {seconds} s: {reason}; check that mvstore runs there and that MVSQLITE_DATA_PLANE names it"
    )]
    Unreachable {
        /// The server that was tried last.
        server: String,
        /// How many times servers were tried.
        attempts: u32,
        /// For how long, in whole seconds.
        seconds: u64,
        /// What went wrong the last time.
        reason: String,
    },
    /// The server refused.
    #[error("{}{}", .0.detail, .0.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
    Refused(Box<Problem>),
    /// The answer is not one of data plane v2.
    #[error("{0}; check that MVSQLITE_DATA_PLANE names a data plane of mvstore")]
    BadReply(String),
}
