//! Namespace locks: the calls of protocol v1 by which an owner takes a namespace and gives it back.

use mvsqlite_protocol::{NamespaceKey, Version};

use super::CallError;
use super::DataPlane;
use super::retry::Attempts;
use super::transport::{PlainReply, PlainRequest, TransportError};

/// The header that names the caller as the owner of a namespace's lock, in requests of data plane v2.
/// In refusals of the lock calls it names the owner that there is.
pub(crate) const OWNER_HEADER: &str = "x-lock-owner";

/// How a lock is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// What its owner wrote stays.
    Commit,
    /// The namespace goes back to what it was when the lock was taken.
    Rollback,
}

/// Why a lock could not be taken or given back. The texts are those of the original's client.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else holds it.
    #[error("nslock: held by other owner: {0}")]
    Held(String),
    /// No text that can name an owner.
    #[error("nslock: invalid owner (empty or > 256 bytes)")]
    InvalidOwner,
    /// As [`LockError::InvalidOwner`], when giving it back.
    #[error("nslock: invalid owner")]
    InvalidOwnerOfRelease,
    /// The lock is not the caller's any more.
    #[error("nslock: lock is gone (nonce mismatch during rollback)")]
    Gone,
    /// There is no lock, or it is another's.
    #[error("nslock: not locked or owner mismatch (current: {})", .0.as_deref().unwrap_or("none"))]
    NotHeld(Option<String>),
    /// A rollback of the lock is under way.
    #[error("nslock: rollback already in progress")]
    RollingBack,
    /// Any other refusal: what was asked, the HTTP status, and what the server says.
    #[error("nslock: server rejected {call} (status {status}): {body}")]
    Rejected {
        /// `acquire` or `release`.
        call: &'static str,
        /// The HTTP status.
        status: u16,
        /// The server's words.
        body: String,
    },
    /// SQLite holds a lock on the database, as within a transaction.
    #[error("cannot {0} nslock while a transaction is active")]
    InTransaction(&'static str),
    /// No server answered.
    #[error("nslock: {0}")]
    Call(#[from] CallError),
}

impl DataPlane {
    /// Takes the lock of a namespace, at a version if one is given. The owner may do so again.
    pub(crate) fn acquire_lock(
        &self,
        key: &NamespaceKey,
        owner: &str,
        version: Option<Version>,
    ) -> Result<(), LockError> {
        let mut body = serde_json::json!({ "owner": owner });
        if let Some(version) = version {
            body["version"] = version.to_string().into();
        }
        let (reply, _) = self.lock_call("/nslock/acquire", key, &body)?;
        Err(match (reply.status, current_owner(&reply)) {
            (200..=299, _) => return Ok(()),
            (400, _) => LockError::InvalidOwner,
            (409, Some(owner)) => LockError::Held(owner),
            (status, _) => rejected("acquire", status, &reply),
        })
    }

    /// Gives the lock of a namespace back.
    pub(crate) fn release_lock(
        &self,
        key: &NamespaceKey,
        owner: &str,
        release: Release,
    ) -> Result<(), LockError> {
        let mode = match release {
            Release::Commit => "commit",
            Release::Rollback => "rollback",
        };
        let body = serde_json::json!({ "owner": owner, "mode": mode });
        let (reply, maybe_done) = self.lock_call("/nslock/release", key, &body)?;
        Err(match (reply.status, current_owner(&reply)) {
            (200..=299, _) => return Ok(()),
            // An earlier attempt, whose answer was lost, did it.
            (422, None) if maybe_done => return Ok(()),
            (400, _) => LockError::InvalidOwnerOfRelease,
            (409, _) => LockError::RollingBack,
            (410, _) => LockError::Gone,
            (422, owner) => LockError::NotHeld(owner),
            (status, _) => rejected("release", status, &reply),
        })
    }

    /// Sends a lock call until it is answered. True: an attempt before the last may have been done.
    fn lock_call(
        &self,
        path: &str,
        key: &NamespaceKey,
        body: &serde_json::Value,
    ) -> Result<(PlainReply, bool), CallError> {
        let headers = [
            ("content-type", "application/json"),
            ("x-namespace-key", key.as_str()),
        ];
        let body = body.to_string();
        let request = PlainRequest {
            path,
            headers: &headers,
            body: body.as_bytes(),
        };
        let mut attempts = Attempts::start(self);
        let mut maybe_done = false;
        loop {
            let server = attempts.server();
            let reason = match self.transport.plain_call(server, request, self.timeout) {
                Ok(reply) if reply.status < 500 => {
                    attempts.answered();
                    return Ok((reply, maybe_done));
                }
                // Protocol v1 says so whenever another attempt may succeed.
                Ok(reply) => {
                    maybe_done = true;
                    format!("status {}", reply.status)
                }
                Err(TransportError { maybe_sent, reason }) => {
                    maybe_done |= maybe_sent;
                    reason
                }
            };
            if !attempts.again() {
                return Err(attempts.unreachable(reason));
            }
        }
    }
}

fn current_owner(reply: &PlainReply) -> Option<String> {
    let mut headers = reply.headers.iter();
    let owner = headers.find(|(name, _)| name == OWNER_HEADER);
    owner.map(|(_, owner)| owner.clone())
}

fn rejected(call: &'static str, status: u16, reply: &PlainReply) -> LockError {
    LockError::Rejected {
        call,
        status,
        body: String::from_utf8_lossy(&reply.body).trim_end().to_owned(),
    }
}
