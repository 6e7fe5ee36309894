//! Deleting a namespace, in two steps: it is gone for everybody in one transaction, whatever its
//! size; its keys follow in the background.
//!
//! Why nothing is left behind: every transaction that writes below a namespace reads its guard
//! serializably, so none can commit after the one that marked the guard. The guard itself goes last.
//!
//! A namespace with forks is only hidden: nobody finds it by a name, but the forks read through it. It
//! goes in the transaction that lets the last of them go.
//!
//! A namespace that needs a newer build to write it is not deleted: others may read through it in
//! ways that this build does not know.

use mvsqlite_protocol::{NamespaceId, NamespaceKey};
use tokio::try_join;

use super::{Access, expect_generation, named};
use crate::context::{Context, Failure, Reruns, corrupt_in};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, KeyRange, KvError, RangeOptions, Transaction};
use crate::layout::{Guard, State, UsageKind};

/// Most keys that one transaction removes. They are read before, with their pages.
const KEYS_A_STEP: usize = 250;
/// Most steps of one pass.
const STEPS_A_PASS: usize = 40;

/// What happens to a namespace that has forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forked {
    /// It disappears, and stays as long as they are there.
    Hide,
    /// It is not deleted.
    Refuse,
}

/// Makes a namespace disappear and queues the removal of its keys.
pub(crate) async fn delete(
    ctx: &Context,
    key: &NamespaceKey,
    forked: Forked,
) -> Result<(), StoreError> {
    let mut reruns = Reruns::new();
    // What a commit of unknown outcome was deleting.
    let mut uncertain = None;
    loop {
        let mut deleted = None;
        match try_delete(ctx, key, forked, uncertain, &mut deleted).await {
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
    forked: Forked,
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
    txn.clear(&ctx.keys.name(key.as_str()));
    if has_forks(ctx, &*txn, id, None).await? {
        if forked == Forked::Refuse {
            let key = key.to_string();
            return Err(StoreError::HasForks { key }.into());
        }
        mark(ctx, &mut *txn, id, &guard, State::Hidden);
    } else {
        mark(ctx, &mut *txn, id, &guard, State::Deleting);
        txn.set(&ctx.keys.deleted(id), key.as_str().as_bytes());
        let_go_of_base(ctx, &mut *txn, id, guard).await?;
    }
    *deleted = Some(id);
    txn.commit().await?;
    Ok(())
}

fn mark(ctx: &Context, txn: &mut dyn Transaction, id: NamespaceId, guard: &Guard, state: State) {
    let marked = Guard {
        state,
        ..guard.clone()
    };
    txn.set(&ctx.keys.guard(id), &marked.encode());
}

/// Whether a namespace has forks, `but` one. Read serializably, so that none can be made meanwhile,
/// and that of two forks that go at once the second sees that it is the last.
async fn has_forks(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    but: Option<NamespaceId>,
) -> Result<bool, Failure> {
    let options = RangeOptions {
        limit: 2,
        reverse: false,
        isolation: Isolation::Serializable,
    };
    let forks = txn.get_range(&ctx.keys.forks(id), options).await?;
    let but = but.map(|fork| ctx.keys.fork(id, fork));
    Ok(forks
        .iter()
        .any(|(key, _)| Some(&key[..]) != but.as_deref()))
}

/// Takes a namespace that goes off its base's list of forks. A base that was only kept for it goes
/// too, and so on.
async fn let_go_of_base(
    ctx: &Context,
    txn: &mut dyn Transaction,
    mut fork: NamespaceId,
    mut guard: Guard,
) -> Result<(), Failure> {
    while let Some(base) = guard.base() {
        txn.clear(&ctx.keys.fork(base.id, fork));
        let below = ctx.guard(txn, base.id, Isolation::Serializable).await?;
        let Some(below) = below.filter(|below| below.state == State::Hidden) else {
            break;
        };
        if has_forks(ctx, txn, base.id, Some(fork)).await? {
            break;
        }
        mark(ctx, txn, base.id, &below, State::Deleting);
        txn.set(&ctx.keys.deleted(base.id), &[]);
        (fork, guard) = (base.id, below);
    }
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
            txn.clear_range(&ctx.keys.layers_of(id));
            txn.clear(&ctx.keys.truncation(id));
            txn.clear(&ctx.keys.deleted(id));
        }
    }
    txn.commit().await?;
    Ok(last_step)
}
