//! Commit: one transaction of the store over one namespace or several, whose cost does not grow
//! with what was read.
//!
//! An attempt, all in one transaction of the engine:
//!
//! 1. Read what stands under the idempotency key (an answer, if it was committed before) in the
//!    namespace of the smallest id; and of each namespace the catalog entry, the guard, the head,
//!    and the changelog from the base on.
//! 2. Compare every commit in (base, read version] with what this one relies on: a collision there
//!    is a conflict for good.
//! 3. Ask the engine to watch the same pages, as at most 2,000 ranges, until the commit.
//! 4. Write page versions, changelog, head, outcome and counters.
//!
//! A namespace that was only read goes through the first three steps and gets no new version.
//!
//! What the engine reports as a conflict is no answer, only a reason to look again at a fresh read
//! version. Nor is a refusal seen at a read version that may be a little old. What the engine cannot
//! tell (committed or not) the next attempt finds out in its first step.
//!
//! The changelog is immutable, so a long walk along it is spread over as many transactions as it
//! takes; [`progress::Progress`] remembers how far it came.
//!
//! A large commit takes memory by its pages, which a stage or a shrinking page count asks for in a
//! request of any size: only a few of them are under way at once.
//!
//! | module | what |
//! |---|---|
//! | `request` | what a commit is asked to do, whichever protocol it came by |
//! | `plan` | the rules that need no store, and the digest |
//! | `staged` | the list of a stage's pages |
//! | `prepare` | what will be written and what it relies on |
//! | `attempt` | one transaction |
//! | `fence` | whether locks and leases let it through |
//! | `write` | what it writes and watches |
//! | `layer` | commits of too many pages to write them one by one |
//! | `progress` | what is known from earlier attempts |

mod attempt;
mod fence;
mod layer;
mod plan;
mod prepare;
mod progress;
mod request;
mod staged;
mod write;

use mvsqlite_protocol::NamespaceKey;
use mvsqlite_protocol::v2::{CommitReply, CommitRequest, GroupCommitReply, GroupCommitRequest};

use self::attempt::{Attempt, replay};
use self::plan::Plan;
use self::progress::Progress;
pub(crate) use self::request::{Commit, ConflictRule, Dialect, Effect, Member};
use super::settle::settled;
use crate::context::{Context, Failure};
use crate::error::StoreError;
use crate::kv::{Freshness, KvError};

/// Commits a transaction over one namespace: all or nothing, at one version.
pub(crate) async fn commit(
    ctx: &Context,
    key: &NamespaceKey,
    lock_owner: Option<String>,
    request: CommitRequest,
) -> Result<CommitReply, StoreError> {
    let commit = Commit {
        lock_owner,
        ..Commit::of_one(key, request)
    };
    let mut reply = commit_members(ctx, commit).await?;
    let changes = reply
        .members
        .pop()
        .expect("a reply has an entry for each member");
    Ok(CommitReply {
        version: reply.version,
        seen: changes.seen,
        read_version: reply.read_version,
        changed: changes.changed,
    })
}

/// Commits a transaction over several namespaces: all of it or nothing, at one version.
pub(crate) async fn commit_group(
    ctx: &Context,
    lock_owner: Option<String>,
    request: GroupCommitRequest,
) -> Result<GroupCommitReply, StoreError> {
    let commit = Commit {
        lock_owner,
        ..request.into()
    };
    commit_members(ctx, commit).await
}

/// Commits, whichever protocol asked for it.
///
/// For protocol v1: resolve each key to its id, fetch pages named by hash (missing content is for
/// the caller to refuse, before this), and give each namespace a [`Member`] of [`Dialect::V1`] with
/// [`Effect::Write`], which makes a version even of no pages. With a read set to be judged by its
/// pages the rule is [`ConflictRule::Pages`] with `written_count_as_read: false`, else
/// [`ConflictRule::Whole`]. `retry` is "no promise was given that this is the first sending".
/// Content beyond [`mvsqlite_protocol::v2::Limits::inline_bytes`] over all members has to be staged
/// first; page 1 always comes inline.
///
/// In the reply, `changed` covers what others did in (base, seen], where `seen` is the newest commit
/// that the deciding transaction saw. Others may have committed between that and the new version: a
/// client that takes the new version as what it knows has to be told of those too.
///
/// # Guarantees
/// A reply means that the commit is durable and visible, in all of its namespaces. A refusal other
/// than [`StoreError::OutcomeUnknown`] means that nothing of it happened and, for this sending and
/// all earlier ones, never will.
///
/// # Errors
/// [`StoreError::Conflict`] for a rule that was broken, and for a base above a v1 member's head;
/// [`StoreError::BadGroup`], and whatever is wrong with a member.
pub(crate) async fn commit_members(
    ctx: &Context,
    commit: Commit,
) -> Result<GroupCommitReply, StoreError> {
    let plan = Plan::new(&commit, &ctx.limits)?;
    let mut doubt = commit.retry;
    let refusal = match run(ctx, &plan, &mut doubt).await {
        Ok(reply) => return Ok(reply),
        Err(refusal) => refusal,
    };
    if !doubt || is_final(&refusal) {
        return Err(refusal);
    }
    // An earlier sending or attempt may still be under way, and this refusal would not stop it.
    let unknown = |error: StoreError| StoreError::OutcomeUnknown {
        key: commit.key,
        reason: format!("{refusal}; then: {error}"),
    };
    let home = plan.home;
    match settled(ctx, &home.ns, home.id, commit.key).await {
        Ok(Some(version)) => replay(ctx, &commit, version).await.map_err(unknown),
        Ok(None) if matches!(refusal, StoreError::Unavailable { .. }) => {
            Err(StoreError::Aborted { key: commit.key })
        }
        Ok(None) => Err(refusal),
        Err(gone @ StoreError::NamespaceNotFound { .. }) => Err(gone),
        Err(error) => Err(unknown(error)),
    }
}

/// Whether a refusal holds for every sending of the commit, whenever it arrives.
fn is_final(refusal: &StoreError) -> bool {
    match refusal {
        // Found in the changelog, where every other attempt must find it too. A conflict that only
        // the engine saw names no version.
        StoreError::Conflict { version, .. } => version.is_some(),
        StoreError::Aborted { .. } | StoreError::KeyReused { .. } => true,
        StoreError::OutcomeUnknown { .. } => true,
        _ => false,
    }
}

/// Sets `doubt` when an attempt has come to nobody knows what.
async fn run(
    ctx: &Context,
    plan: &Plan<'_>,
    doubt: &mut bool,
) -> Result<GroupCommitReply, StoreError> {
    let mut progress = Progress::new(plan.commit);
    loop {
        let attempt = Attempt { ctx, plan };
        match attempt.run(&mut progress).await {
            Ok(Some(reply)) => return Ok(reply),
            // It goes on in a younger transaction.
            Ok(None) => (),
            Err(Failure::Refused(refusal)) => {
                if progress.freshness == Freshness::Strict || is_final(&refusal) {
                    return Err(refusal);
                }
                progress.freshness = Freshness::Strict;
            }
            Err(Failure::Engine(error)) => {
                *doubt |= matches!(error, KvError::MaybeCommitted { .. });
                progress.note(error, plan.commit.key)?;
            }
        }
    }
}
