//! Deleting a namespace, in two steps: it is gone for everybody in one transaction, whatever its
//! size; its keys follow in the background.
//!
//! Why nothing is left behind: every transaction that writes below a namespace reads its guard
//! serializably, so none can commit after the one that marked the guard. The guard itself goes last.
//!
//! A namespace that needs a newer build to write it is not deleted: others may read through it in
//! ways that this build does not know.

use mvsqlite_protocol::{NamespaceId, NamespaceKey};
use tokio::try_join;

use super::{Access, expect_generation, named};
use crate::context::{Context, Failure, Reruns, corrupt_in};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, KeyRange, KvError, RangeOptions};
use crate::layout::{Guard, State, UsageKind};

/// Most keys that one transaction removes. They are read before, with their pages.
const KEYS_A_STEP: usize = 250;
/// Most steps of one pass.
const STEPS_A_PASS: usize = 40;

/// Makes a namespace disappear and queues the removal of its keys.
pub(crate) async fn delete(ctx: &Context, key: &NamespaceKey) -> Result<(), StoreError> {
    let mut reruns = Reruns::new();
    // What a commit of unknown outcome was deleting.
    let mut uncertain = None;
    loop {
        let mut deleted = None;
        match try_delete(ctx, key, uncertain, &mut deleted).await {
            Ok(()) => return Ok(()),
            Err(failure) => {
                if matches!(failure, Failure::Engine(KvError::MaybeCommitted { .. })) {
                    uncertain = deleted;
                }
                reruns.after(failure)?;
            }
        }
    }
}

async fn try_delete(
    ctx: &Context,
    key: &NamespaceKey,
    uncertain: Option<NamespaceId>,
    deleted: &mut Option<NamespaceId>,
) -> Result<(), Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Serializable;
    let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
    // Another namespace may have taken the key since; it is not the one that was asked about.
    if uncertain.is_some_and(|id| entry.is_none_or(|entry| entry.id != id)) {
        return Ok(());
    }
    let id = named(key, entry)?.id;
    let guard = ctx.guard(&*txn, id, isolation).await?;
    let guard = guard.unwrap_or(Guard::NEW);
    expect_generation(key, &guard, Access::Write)?;
    let doomed = Guard {
        state: State::Deleting,
        ..guard
    };
    txn.clear(&ctx.keys.name(key.as_str()));
    txn.set(&ctx.keys.guard(id), &doomed.encode());
    txn.set(&ctx.keys.deleted(id), key.as_str().as_bytes());
    *deleted = Some(id);
    txn.commit().await?;
    Ok(())
}

/// What a pass over the deleted namespaces did.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Namespaces whose last key went.
    pub namespaces: u64,
    /// Keys are left.
    pub more: bool,
}

/// Removes keys of deleted namespaces, a bounded number of them.
pub(crate) async fn remove_deleted(ctx: &Context) -> Result<Removed, StoreError> {
    let mut removed = Removed::default();
    let mut reruns = Reruns::new();
    for _ in 0..STEPS_A_PASS {
        let options = RangeOptions {
            limit: 1,
            reverse: false,
            isolation: Isolation::Snapshot,
        };
        let queue = ctx.keys.all_deleted();
        let txn = ctx.begin(Freshness::Strict);
        let first = txn.get_range(&queue, options).await?;
        let Some((entry, _)) = first.first() else {
            return Ok(removed);
        };
        let id = ctx.keys.parse_deleted(entry);
        let id = id.map_err(corrupt_in("the queue of deleted namespaces"))?;
        match remove_step(ctx, id).await {
            Ok(true) => removed.namespaces += 1,
            Ok(false) => (),
            Err(failure) => reruns.after(failure)?,
        }
    }
    removed.more = true;
    Ok(removed)
}

/// Removes the next keys of a deleted namespace; `true` if they were the last.
async fn remove_step(ctx: &Context, id: NamespaceId) -> Result<bool, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let all = ctx.keys.namespace(id);
    let guard_key = KeyRange::single(&ctx.keys.guard(id));
    let behind_guard = KeyRange::new(guard_key.end, all.end.clone());
    let options = RangeOptions {
        limit: KEYS_A_STEP,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let (guard, keys) = try_join!(ctx.guard(&*txn, id, Isolation::Serializable), async {
        Ok(txn.get_range(&behind_guard, options).await?)
    },)?;
    let dying = guard.is_none_or(|guard| guard.state == State::Deleting);
    if !dying {
        return Err(StoreError::Corrupt {
            reason: format!("the live namespace {id} is queued for removal"),
        }
        .into());
    }
    let last_step = keys.len() < KEYS_A_STEP;
    match keys.last() {
        // What the engine does with a range is its own business; that it ends here bounds it.
        Some((last, _)) if !last_step => {
            let end = KeyRange::single(last).end;
            txn.clear_range(&KeyRange::new(behind_guard.begin, end));
        }
        _ => {
            txn.clear_range(&all);
            txn.clear(&ctx.keys.usage(id, UsageKind::Pages));
            txn.clear(&ctx.keys.usage(id, UsageKind::Staged));
            txn.clear_range(&ctx.keys.leases(id));
            txn.clear(&ctx.keys.truncation(id));
            txn.clear(&ctx.keys.deleted(id));
        }
    }
    txn.commit().await?;
    Ok(last_step)
}
