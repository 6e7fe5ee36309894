//! The original's commit groups: COMMITs of one thread that are kept back and sent together.
//!
//! Between `mv_commit_group_begin` and the end of the group each COMMIT of a database of ours is
//! staged instead of sent: SQLite takes it for done. The end of the group sends all of them in one
//! request, which commits all or none.
//!
//! From the first staged COMMIT on no transaction begins on this thread: it would have to read what
//! is not committed. Whatever becomes of the group, each connection drops its cache at its next
//! transaction. Write leases stay with the group, are renewed, and end with it. A group belongs to its thread and process, and ends with them as if rolled back.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use mvsqlite_protocol::Version;

use super::cache::{Identity, OwnCommit};
use super::error::Cause;
use super::group::{Assembly, Written};
use super::lease::GroupLease;
use super::remote::lock_cache;
use crate::environment::Environment;

/// Why a commit group's function failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommitGroupError {
    /// A group is open on this thread already.
    #[error("mv_commit_group_begin called recursively in a commit group")]
    Recursive,
    /// There is no group to end.
    #[error("{0} called without a commit group open")]
    NotOpen(&'static str),
    /// Others changed what the group read: nothing was committed.
    #[error("commit group conflict")]
    Conflict,
    /// Nothing was committed.
    #[error("commit error: {0}")]
    Failed(Cause),
    /// It may have been committed.
    #[error("commit error: {0}")]
    Unknown(Cause),
}

thread_local! {
    static GROUP: RefCell<Option<Group>> = const { RefCell::new(None) };
}

/// The group of a thread.
struct Group {
    process: u32,
    staged: Option<Staged>,
}

/// COMMITs that were kept back, put together as one request.
struct Staged {
    env: Arc<Environment>,
    assembly: Assembly,
    files: Vec<StagedFile>,
}

/// What becomes part of the cache when the group commits.
pub(super) struct StagedFile {
    pub(super) identity: Identity,
    pub(super) base: Version,
    pub(super) written: Written,
    /// Where the handle will look for the version.
    pub(super) version: Arc<OnceLock<Version>>,
    /// Its write lease, if it wrote under one.
    pub(super) lease: Option<GroupLease>,
}

/// Runs something with this thread's group. `None` if the thread is ending.
fn with_group<R>(body: impl FnOnce(&mut Option<Group>) -> R) -> Option<R> {
    let run = |group: &RefCell<Option<Group>>| {
        let mut group = group.try_borrow_mut().ok()?;
        // The child of a fork has none of its parent's.
        group.take_if(|group| group.process != std::process::id());
        Some(body(&mut group))
    };
    GROUP.try_with(run).ok().flatten()
}

/// Takes this thread's group, to end it.
fn take_group(function: &'static str) -> Result<Group, CommitGroupError> {
    let group = with_group(Option::take).flatten();
    group.ok_or(CommitGroupError::NotOpen(function))
}

/// Opens a commit group on this thread.
///
/// # Errors
/// [`CommitGroupError::Recursive`].
pub fn begin_commit_group() -> Result<(), CommitGroupError> {
    let opened = with_group(|group| {
        let opens = group.is_none();
        group.get_or_insert(Group {
            process: std::process::id(),
            staged: None,
        });
        opens
    });
    match opened {
        Some(false) => Err(CommitGroupError::Recursive),
        _ => Ok(()),
    }
}

/// Ends this thread's commit group by sending what was staged. `None` if that is nothing.
///
/// # Errors
/// [`CommitGroupError::NotOpen`]; otherwise the group has ended, and was not committed unless it is
/// [`CommitGroupError::Unknown`].
pub fn commit_commit_group() -> Result<Option<Version>, CommitGroupError> {
    let Some(staged) = take_group("mv_commit_group_commit")?.staged else {
        return Ok(None);
    };
    let namespaces = staged.assembly.namespaces();
    let reply = staged.assembly.send(&staged.env);
    let shared = staged.env.shared();
    for file in &staged.files {
        shared.lock_recent().forget(file.identity);
    }
    let reply = reply.map_err(|cause| match cause {
        Cause::Conflict { .. } => CommitGroupError::Conflict,
        Cause::OutcomeUnknown(_) => CommitGroupError::Unknown(cause),
        cause => CommitGroupError::Failed(cause),
    })?;
    for file in staged.files {
        if let Some(lease) = &file.lease {
            lease.returned();
        }
        let at = namespaces
            .iter()
            .position(|id| *id == file.identity.namespace);
        if let Some(others) = at.and_then(|at| reply.members.get(at)) {
            let commit = OwnCommit {
                base: file.base,
                version: reply.version,
                seen: others.seen,
                changed: others.changed.as_ref(),
                written: file.written.pages,
                contents: file.written.contents,
            };
            lock_cache(&shared).committed(file.identity, commit);
        }
        // Set once: a file is staged once in a group.
        let _ = file.version.set(reply.version);
    }
    Ok(Some(reply.version))
}

/// Ends this thread's commit group and forgets what was staged.
///
/// # Errors
/// [`CommitGroupError::NotOpen`].
pub fn rollback_commit_group() -> Result<(), CommitGroupError> {
    take_group("mv_commit_group_rollback").map(drop)
}

/// Whether COMMITs of this thread are kept back.
pub(super) fn is_open() -> bool {
    with_group(|group| group.is_some()).unwrap_or(false)
}

/// Whether a transaction may begin on this thread.
pub(super) fn expect_nothing_staged() -> Result<(), Cause> {
    let staged = with_group(|group| group.as_ref().is_some_and(|group| group.staged.is_some()));
    match staged {
        Some(true) => Err(Cause::CommitGroupPending),
        _ => Ok(()),
    }
}

/// Keeps a COMMIT back, all of it or nothing.
pub(super) fn stage(env: &Arc<Environment>, assembly: Assembly) -> Result<(), Cause> {
    let staged = with_group(|group| {
        let Some(group) = group else {
            return Err(Cause::Misuse("a commit group that is not open"));
        };
        match &mut group.staged {
            Some(staged) if !staged.env.is_as_good_as(env) => Err(Cause::SeveralStores),
            Some(staged) => staged.assembly.merge(assembly),
            staged => {
                *staged = Some(Staged {
                    env: Arc::clone(env),
                    assembly,
                    files: Vec::new(),
                });
                Ok(())
            }
        }
    });
    staged.unwrap_or(Err(Cause::Misuse(
        "a commit group of a thread that is ending",
    )))
}

/// Keeps what a database wrote, for when the group commits.
pub(super) fn keep(file: StagedFile) {
    with_group(|group| {
        let staged = group.as_mut().and_then(|group| group.staged.as_mut());
        if let Some(staged) = staged {
            staged.files.push(file);
        }
    });
}
