//! The thread that commits: whatever waits for it becomes one group, one batch, one fsync.
//!
//! Invariants:
//! - It alone decides conflicts, gives out versions and writes. So the order of acceptance is the
//!   order of versions, and a check sees every commit accepted before, durable or not.
//! - A version is given out only at or below a durable ceiling, or in the very batch that raises
//!   the ceiling; a restart begins above it.
//! - A group becomes visible after its fsync, and answers go out after that.
//! - After a failed write nothing is written or read any more: what the disk holds is not known.
//!
//! It waits for no company: a lone commit goes to the disk at once, and those that arrive meanwhile
//! form the next group.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::{ReadVersion, Version};
use tokio::sync::oneshot;

use super::group::Group;
use super::library::{Library, WriteError};
use super::runway::Runway;
use super::{Shared, Stopped};
use crate::kv::KvError;
use crate::kv::conflict::ConflictWindow;
use crate::kv::request::CommitRequest;

/// Versions reserved at a time; a restart skips at most so many. An even million, so that versions
/// stay readable.
pub(super) const RESERVED: u64 = 1_000_000;

/// No further commit joins a group of this many bytes, so that memory and the others' waiting stay
/// bounded.
const GROUP_BYTES: u64 = 16 << 20;

/// Nor one of this many commits.
const GROUP_COMMITS: usize = 1_024;

/// A commit that waits to be decided.
pub(super) struct Job {
    pub(super) read_version: ReadVersion,
    pub(super) request: CommitRequest,
    pub(super) answer: oneshot::Sender<Result<Version, KvError>>,
}

/// What the thread is told.
pub(super) enum Message {
    Commit(Box<Job>),
    /// Commit what came before and end.
    Close,
}

/// The thread's own state.
pub(super) struct Committer {
    library: Library,
    shared: Arc<Shared>,
    window: ConflictWindow,
    /// The newest version given out.
    newest: u64,
    ceiling: u64,
    runway: Runway,
}

/// A commit of the group, and who waits for it.
struct Accepted {
    version: Version,
    answer: oneshot::Sender<Result<Version, KvError>>,
}

impl Committer {
    /// `ceiling` is durable already; every version given out before is at or below `newest`.
    pub(super) fn new(
        library: Library,
        runway: Runway,
        shared: Arc<Shared>,
        newest: u64,
        ceiling: u64,
    ) -> Self {
        let window = ConflictWindow::new(ReadVersion(newest), shared.options.window_limits());
        Self {
            library,
            shared,
            window,
            newest,
            ceiling,
            runway,
        }
    }

    /// Serves until it is told to close or nobody is left to tell. The database is closed when it
    /// returns and no view is left.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        let mut open = true;
        while open {
            let Ok(first) = inbox.recv() else {
                break;
            };
            open = self.commit_group(first, inbox);
        }
        for message in inbox.try_iter() {
            if let Message::Commit(job) = message {
                answer(job.answer, Err(self.shared.closed()));
            }
        }
    }

    /// Commits the first and what waits behind it. `false` after [`Message::Close`].
    fn commit_group(&mut self, first: Message, inbox: &Receiver<Message>) -> bool {
        let mut group = Group::new(self.library.view());
        let mut accepted = Vec::new();
        let mut next = Some(first);
        let mut open = true;
        while let Some(message) = next.take() {
            match message {
                Message::Commit(job) => self.accept(*job, &mut group, &mut accepted),
                Message::Close => {
                    open = false;
                    break;
                }
            }
            if group.bytes() < GROUP_BYTES && accepted.len() < GROUP_COMMITS {
                next = inbox.try_recv().ok();
            }
        }
        if !accepted.is_empty() {
            let bytes = group.bytes();
            self.write(group, accepted);
            // They have their answers: nobody waits for this.
            self.runway.lay_out(bytes);
        }
        open
    }

    /// Takes a job into the group, or answers why not.
    fn accept(&mut self, mut job: Job, group: &mut Group, accepted: &mut Vec<Accepted>) {
        let version = Version::new(self.newest + 1, 0);
        let verdict = self.judge(&job).and_then(|()| {
            let conflicts = job.request.take_write_conflicts(version);
            group.add(job.request.into_changes(version))?;
            Ok(conflicts)
        });
        match verdict {
            Ok(conflicts) => {
                self.newest = version.commit();
                let now = self.shared.options.clock.now();
                self.window.record(self.newest, now, conflicts);
                accepted.push(Accepted {
                    version,
                    answer: job.answer,
                });
            }
            Err(error) => answer(job.answer, Err(error)),
        }
    }

    fn judge(&self, job: &Job) -> Result<(), KvError> {
        self.shared.check_running()?;
        self.window.check(job.read_version, &job.request.reads)?;
        self.shared.check_space(job.request.bytes_set())
    }

    fn write(&mut self, group: Group, accepted: Vec<Accepted>) {
        let raised = (self.newest > self.ceiling).then(|| self.newest + RESERVED);
        let mut written = self.library.write(group.into_contents(), raised);
        if active(Bug::IgnoreFailedSync) {
            // Nobody knows what is on the disk.
            written = Ok(());
        }
        match written {
            Ok(()) => {
                self.ceiling = raised.unwrap_or(self.ceiling);
                self.shared
                    .publish(ReadVersion(self.newest), self.library.view());
                for commit in accepted {
                    answer(commit.answer, Ok(commit.version));
                }
            }
            Err(error) => self.stop(error, accepted),
        }
    }

    fn stop(&self, error: WriteError, accepted: Vec<Accepted>) {
        let (WriteError::Refused(reason) | WriteError::Unknown(reason)) = &error;
        tracing::error!(directory = %self.shared.path.display(), %reason, "the embedded engine has stopped");
        let stopped = Stopped::new(reason);
        // Before anybody is told: what they read to find out would not show what is on the disk.
        self.shared.stop(stopped.clone());
        for commit in accepted {
            let outcome = match error {
                WriteError::Refused(_) => stopped.error(),
                WriteError::Unknown(_) => KvError::MaybeCommitted {
                    reason: reason.clone(),
                },
            };
            answer(commit.answer, Err(outcome));
        }
    }
}

/// Who asked may have gone away; the outcome stands all the same.
fn answer(to: oneshot::Sender<Result<Version, KvError>>, outcome: Result<Version, KvError>) {
    drop(to.send(outcome));
}
