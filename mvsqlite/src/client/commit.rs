//! A commit, and what became of it.
//!
//! A commit is sent again under the same idempotency key until there is a definite answer. If one
//! attempt may have had its effect unseen, a refusal of a later one proves nothing about it, so the
//! key is settled: afterwards the commit either happened or never will.

use std::time::Duration;

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::{
    self, CommitReply, CommitRequest, GroupChanges, GroupCommitReply, GroupCommitRequest,
    GroupName, GroupSettleRequest, SettleReply, SettleRequest,
};
use mvsqlite_protocol::{Code, IdempotencyKey, NamespaceKey, Problem, ReadVersion, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DataPlane;
use super::data_plane::{Failure, decode, encode};
use super::error::CallError;
use super::retry::Attempts;

/// How fast a server makes staged content part of a namespace, at the very least. One that is given
/// up too early is settled as aborted, and a large transaction would never come through.
const STAGED_BYTES_PER_SECOND: u64 = 16 << 20;

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum CommitOutcome<R = CommitReply> {
    /// It is durable and visible.
    Committed(R),
    /// It was refused, and nothing was committed.
    Refused(Box<Problem>),
    /// No server answered it, and nothing was committed.
    NotCommitted(CallError),
    /// It may have been committed.
    Unknown(CallError),
}

/// How the sending ended.
enum Sent<R> {
    Committed(R),
    /// A refusal, or a failure that left no trace.
    Definite(CommitOutcome<R>),
    /// Some attempt may have had its effect; the outcome to report if settling finds that it had
    /// not.
    Doubtful(CommitOutcome<R>, CallError),
}

/// A commit on its way: of one namespace, or of several.
trait Submission: Serialize {
    type Reply: DeserializeOwned;

    /// Where it is sent.
    fn path(&self) -> String;

    /// Says that an earlier sending may still be under way. False if it said so already.
    fn mark_retried(&mut self) -> bool;

    /// What settles it: path and body.
    fn settlement(&self) -> Result<(String, Vec<u8>), CallError>;

    /// The reply of one that was settled as committed: what others changed is not known.
    fn settled(&self, version: Version, read_version: ReadVersion) -> Self::Reply;
}

#[derive(Serialize)]
#[serde(transparent)]
struct Single<'a> {
    #[serde(skip)]
    key: &'a NamespaceKey,
    request: CommitRequest,
}

impl Submission for Single<'_> {
    type Reply = CommitReply;

    fn path(&self) -> String {
        v2::path(self.key, "commit")
    }

    fn mark_retried(&mut self) -> bool {
        if active(Bug::RetryUnderNewKey) {
            // By its key the server knows it again.
            self.request.key = IdempotencyKey::from_bytes(self.request.key.as_bytes().map(|b| !b));
        }
        !std::mem::replace(&mut self.request.retry, true)
    }

    fn settlement(&self) -> Result<(String, Vec<u8>), CallError> {
        let request = SettleRequest {
            namespace: self.request.namespace,
            key: self.request.key,
        };
        Ok((v2::path(self.key, "settle"), encode(&request)?))
    }

    fn settled(&self, version: Version, read_version: ReadVersion) -> CommitReply {
        CommitReply {
            version,
            seen: self.request.base,
            read_version,
            changed: None,
        }
    }
}

impl Submission for GroupCommitRequest {
    type Reply = GroupCommitReply;

    fn path(&self) -> String {
        "/v2/commit".to_owned()
    }

    fn mark_retried(&mut self) -> bool {
        !std::mem::replace(&mut self.retry, true)
    }

    fn settlement(&self) -> Result<(String, Vec<u8>), CallError> {
        let members = self.members.iter().map(|member| GroupName {
            ns: member.ns.clone(),
            namespace: member.namespace,
        });
        let request = GroupSettleRequest {
            key: self.key,
            members: members.collect(),
        };
        Ok(("/v2/settle".to_owned(), encode(&request)?))
    }

    fn settled(&self, version: Version, read_version: ReadVersion) -> GroupCommitReply {
        let changes = self.members.iter().map(|member| GroupChanges {
            seen: member.base,
            changed: None,
        });
        GroupCommitReply {
            version,
            read_version,
            members: changes.collect(),
        }
    }
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
        self.submit(Single { key, request }, staged_bytes)
    }

    /// As [`Self::commit`], over several namespaces. The reply has an entry for each member.
    pub(crate) fn commit_group(
        &self,
        request: GroupCommitRequest,
        staged_bytes: u64,
    ) -> CommitOutcome<GroupCommitReply> {
        self.submit(request, staged_bytes)
    }

    fn submit<S: Submission>(&self, mut commit: S, staged_bytes: u64) -> CommitOutcome<S::Reply> {
        let timeout = self.timeout + Duration::from_secs(staged_bytes / STAGED_BYTES_PER_SECOND);
        match self.send_commit(&mut commit, timeout) {
            Sent::Committed(reply) => CommitOutcome::Committed(reply),
            Sent::Definite(outcome) => outcome,
            Sent::Doubtful(if_aborted, cause) => match self.settle(&commit) {
                Some(SettleReply::Committed {
                    version,
                    read_version,
                }) => CommitOutcome::Committed(commit.settled(version, read_version)),
                Some(SettleReply::Aborted) => if_aborted,
                None => CommitOutcome::Unknown(cause),
            },
        }
    }

    fn send_commit<S: Submission>(&self, commit: &mut S, timeout: Duration) -> Sent<S::Reply> {
        let path = commit.path();
        let mut body = match encode(commit) {
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
                // No answer says nothing about what the server did.
                return match doubt && !active(Bug::TimeoutIsFailure) {
                    true => doubtful(error),
                    false => Sent::Definite(CommitOutcome::NotCommitted(error)),
                };
            }
            if commit.mark_retried() {
                match encode(commit) {
                    Ok(again) => body = again,
                    Err(error) => return doubtful(error),
                }
            }
        }
    }

    /// `None`: no answer, or none that says it.
    fn settle(&self, commit: &impl Submission) -> Option<SettleReply> {
        let (path, body) = commit.settlement().ok()?;
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

fn doubtful<R>(error: CallError) -> Sent<R> {
    Sent::Doubtful(CommitOutcome::NotCommitted(error.clone()), error)
}

/// An answer that is not a success. `doubt`: an earlier attempt may have had its effect.
fn refused<R>(error: CallError, doubt: bool) -> Sent<R> {
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
