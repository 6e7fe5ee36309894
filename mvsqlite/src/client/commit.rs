//! A commit, and what became of it.
//!
//! A commit is sent again under the same idempotency key until there is a definite answer. If one
//! attempt may have had its effect unseen, a refusal of a later one proves nothing about it, so the
//! key is settled: afterwards the commit either happened or never will.

use std::time::Duration;

use mvsqlite_protocol::v2::{self, CommitReply, CommitRequest, SettleReply, SettleRequest};
use mvsqlite_protocol::{Code, NamespaceKey, Problem};

use super::DataPlane;
use super::data_plane::{Failure, decode, encode};
use super::error::CallError;
use super::retry::Attempts;

/// How fast a server makes staged content part of a namespace, at the very least. One that is given
/// up too early is settled as aborted, and a large transaction would never come through.
const STAGED_BYTES_PER_SECOND: u64 = 16 << 20;

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum CommitOutcome {
    /// It is durable and visible.
    Committed(CommitReply),
    /// It was refused, and nothing was committed.
    Refused(Box<Problem>),
    /// No server answered it, and nothing was committed.
    NotCommitted(CallError),
    /// It may have been committed.
    Unknown(CallError),
}

/// How the sending ended.
enum Sent {
    Committed(CommitReply),
    /// A refusal, or a failure that left no trace.
    Definite(CommitOutcome),
    /// Some attempt may have had its effect; the outcome to report if settling finds that it had
    /// not.
    Doubtful(CommitOutcome, CallError),
}

impl DataPlane {
    /// Commits. Takes at most four times the timeout, not counting the time that `staged_bytes`
    /// of content staged before may take the server besides.
    pub(crate) fn commit(
        &self,
        key: &NamespaceKey,
        request: CommitRequest,
        staged_bytes: u64,
    ) -> CommitOutcome {
        let timeout = self.timeout + Duration::from_secs(staged_bytes / STAGED_BYTES_PER_SECOND);
        let settle = SettleRequest {
            namespace: request.namespace,
            key: request.key,
        };
        let base = request.base;
        match self.send_commit(key, request, timeout) {
            Sent::Committed(reply) => CommitOutcome::Committed(reply),
            Sent::Definite(outcome) => outcome,
            Sent::Doubtful(if_aborted, cause) => match self.settle(key, &settle) {
                Some(SettleReply::Committed {
                    version,
                    read_version,
                }) => CommitOutcome::Committed(CommitReply {
                    version,
                    seen: base,
                    read_version,
                    changed: None,
                }),
                Some(SettleReply::Aborted) => if_aborted,
                None => CommitOutcome::Unknown(cause),
            },
        }
    }

    fn send_commit(
        &self,
        key: &NamespaceKey,
        mut request: CommitRequest,
        timeout: Duration,
    ) -> Sent {
        let path = v2::path(key, "commit");
        let mut body = match encode(&request) {
            Ok(body) => body,
            Err(error) => return Sent::Definite(CommitOutcome::NotCommitted(error)),
        };
        let mut attempts = Attempts::start(self);
        let mut doubt = false;
        loop {
            let reason = match self.attempt(attempts.server(), &path, &body, timeout) {
                Ok(body) => {
                    attempts.answered();
                    return match decode(&body) {
                        Ok(reply) => Sent::Committed(reply),
                        Err(error) => doubtful(error),
                    };
                }
                Err(Failure::Final(error)) => return refused(error, doubt),
                Err(Failure::Again { maybe_done, reason }) => {
                    doubt |= maybe_done;
                    reason
                }
            };
            if !attempts.again() {
                let error = attempts.unreachable(reason);
                return match doubt {
                    true => doubtful(error),
                    false => Sent::Definite(CommitOutcome::NotCommitted(error)),
                };
            }
            if !request.retry {
                request.retry = true;
                match encode(&request) {
                    Ok(again) => body = again,
                    Err(error) => return doubtful(error),
                }
            }
        }
    }

    /// `None`: no answer, or none that says it.
    fn settle(&self, key: &NamespaceKey, request: &SettleRequest) -> Option<SettleReply> {
        let path = v2::path(key, "settle");
        let body = encode(request).ok()?;
        let mut attempts = Attempts::start(self);
        loop {
            match self.attempt(attempts.server(), &path, &body, self.timeout) {
                Ok(body) => return decode(&body).ok(),
                Err(Failure::Final(_)) => return None,
                Err(Failure::Again { .. }) => {
                    if !attempts.again() {
                        return None;
                    }
                }
            }
        }
    }
}

fn doubtful(error: CallError) -> Sent {
    Sent::Doubtful(CommitOutcome::NotCommitted(error.clone()), error)
}

/// An answer that is not a success. `doubt`: an earlier attempt may have had its effect.
fn refused(error: CallError, doubt: bool) -> Sent {
    match error {
        CallError::Refused(problem) => {
            // These do not say that nothing was written.
            let vague = matches!(problem.code, Code::Internal | Code::Corrupt | Code::Unknown);
            match doubt || vague {
                true => Sent::Doubtful(
                    CommitOutcome::Refused(problem.clone()),
                    CallError::Refused(problem),
                ),
                false => Sent::Definite(CommitOutcome::Refused(problem)),
            }
        }
        error => doubtful(error),
    }
}
