//! Truncation: forgetting a namespace's history below a cut.
//!
//! 1. **Enter**, one transaction: find the cut, raise the horizon in the guard to it, and mark the
//!    truncation as running. From then on nothing reads below the horizon, so what follows may take
//!    its time, stop anywhere and be done again.
//! 2. **Gather** the pages that the changelog up to the horizon names. An entry that says
//!    "everything", or more pages than are kept count of, means all pages.
//! 3. **Sweep** those pages: remove the versions that no readable moment needs, with the staged
//!    content they own, and take them off the usage counters.
//! 4. **Forget** the changelog below the horizon, except for the entries at pins. Only now: until
//!    then it is what tells a truncation that was cut short where to look.
//!
//! Invariants:
//! - Each transaction that removes something reads the guard serializably and acts only if the
//!   horizon is still at least as high and the namespace is not being deleted; and it reads and
//!   writes the truncation's mark, so that no two truncations remove the same thing. That makes the
//!   counters exact: what is subtracted was read in the transaction that removes it.
//! - Removing is done without write conflicts. It changes nothing that can be read.
//! - The horizon lies at a commit (or the namespace's id), whose changelog entry is kept.
//!
//! What it does not do: decide when history is old enough; that is its caller's policy.

mod changelog;
mod holds;
mod judge;
mod mark;
mod sweep;

use std::ops::ControlFlow;

use mvsqlite_protocol::{NamespaceId, NamespaceKey, Version};
use tokio::try_join;

pub(crate) use self::holds::forked_at;

use self::holds::Holds;
use self::mark::Running;
use crate::context::{Context, Failure, Reruns};
use crate::error::StoreError;
use crate::failpoint;
use crate::kv::{Freshness, Isolation, Transaction};
use crate::layout::{Guard, State};
use crate::namespace::{Access, admit, named, not_found};
use crate::page::newest_until;
use crate::store::Truncated;

/// What the caller of a truncation is told, and whether it still cares: the page versions removed
/// so far, after each step.
pub(crate) trait Progress: FnMut(u64) -> ControlFlow<()> + Send {}

impl<F: FnMut(u64) -> ControlFlow<()> + Send> Progress for F {}

/// Forgets what is older than the newest commit at or below `before`, as far as nothing holds it.
/// Without `apply` nothing is changed, only counted.
pub(crate) async fn truncate(
    ctx: &Context,
    key: &NamespaceKey,
    before: Version,
    apply: bool,
    mut progress: impl Progress,
) -> Result<Truncated, StoreError> {
    let running = apply.then(|| Running::new(ctx)).transpose()?;
    let mut reruns = Reruns::new();
    let mut run = loop {
        match enter(ctx, key, before, running).await {
            Ok(run) => break run,
            Err(failure) => reruns.after(failure)?,
        }
    };
    let done = run.run(&mut progress).await;
    let left = run.leave().await;
    let is_complete = done?;
    left?;
    Ok(Truncated {
        horizon: run.horizon,
        page_versions: run.removed,
        is_complete,
    })
}

/// A truncation under way.
struct Run<'a> {
    ctx: &'a Context,
    key: &'a NamespaceKey,
    id: NamespaceId,
    /// Nothing below it is readable, or would be.
    horizon: Version,
    /// `None`: nothing is changed, only counted.
    running: Option<Running>,
    /// Page versions removed so far.
    removed: u64,
}

/// Finds the cut and makes it the horizon, unless it is only asked for.
async fn enter<'a>(
    ctx: &'a Context,
    key: &'a NamespaceKey,
    before: Version,
    running: Option<Running>,
) -> Result<Run<'a>, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Serializable;
    let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
    let id = named(key, entry)?.id;
    let (guard, head) = try_join!(ctx.guard(&*txn, id, isolation), ctx.head(&*txn, id))?;
    let guard = guard.ok_or_else(|| not_found(key))?;
    let access = if running.is_some() {
        Access::Write
    } else {
        Access::Read
    };
    let old = admit(key, id, Some(guard.clone()), access)?.horizon;
    let cut = cut(ctx, &*txn, id, &guard, head, before).await?;
    let horizon = old.max(cut);
    if let Some(running) = running {
        running.begin(ctx, &mut *txn, key, id).await?;
        if horizon > old {
            let raised = Guard { horizon, ..guard };
            txn.set(&ctx.keys.guard(id), &raised.encode());
        }
        txn.commit().await?;
        failpoint::pass(failpoint::TRUNCATE_MARKED);
    }
    Ok(Run {
        ctx,
        key,
        id,
        horizon,
        running,
        removed: 0,
    })
}

/// How far history may go: to the newest commit that is not above `before`, the present, and
/// whatever holds history back. Everything that holds is read serializably.
async fn cut(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
    head: Version,
    before: Version,
) -> Result<Version, Failure> {
    let present = Version::new(txn.read_version().await?.0, u16::MAX);
    let ceiling = holds::ceiling(ctx, txn, id, guard).await?;
    let limit = before.min(present).min(ceiling.unwrap_or(present));
    if limit >= head {
        return Ok(head);
    }
    newest_until(ctx, txn, id, limit).await
}

impl Run<'_> {
    /// Does the work; `false` if the caller did not care to see its end.
    async fn run(&mut self, progress: &mut impl Progress) -> Result<bool, StoreError> {
        let Some(pages) = self.gather(progress).await? else {
            return Ok(false);
        };
        if !self.sweep(pages, progress).await? {
            return Ok(false);
        }
        self.forget_changelog(progress).await
    }

    /// Lets go of the mark. A mark that stays behind is taken for dead after a while.
    async fn leave(&self) -> Result<(), StoreError> {
        match self.running {
            Some(running) => running.end(self.ctx, self.id).await,
            None => Ok(()),
        }
    }

    /// What the namespace holds on to, read in a transaction that may remove what it does not.
    async fn holds(&self, txn: &mut dyn Transaction) -> Result<Holds, Failure> {
        let isolation = Isolation::Serializable;
        let guard = self.ctx.guard(txn, self.id, isolation).await?;
        let guard = guard.ok_or_else(|| not_found(self.key))?;
        if guard.state == State::Deleting {
            return Err(not_found(self.key).into());
        }
        if let Some(running) = self.running {
            if guard.horizon.max(self.id.as_version()) < self.horizon {
                let reason = format!("the horizon of namespace {} went back", self.id);
                return Err(StoreError::Internal { reason }.into());
            }
            running.touch(self.ctx, txn, self.key, self.id).await?;
        }
        Ok(Holds::new(&guard, self.horizon))
    }
}
