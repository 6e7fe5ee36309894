//! Restoring a namespace to an earlier version, in constant time: a layer in the guard says that
//! pages are what they were then. It makes a version like any commit, so a restore can be undone by
//! another one; folding writes it out as page versions later.

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::{IdempotencyKey, NamespaceId, NamespaceKey, PageSet, Version};
use tokio::try_join;

use crate::context::{Context, Failure, Reruns};
use crate::error::StoreError;
use crate::failpoint;
use crate::kv::{Freshness, Isolation, KvError, Transaction};
use crate::layout::{ChangeEntry, Guard, LayerKind, Outcome, PageOneClass, Pages, STAMPED_VERSION};
use crate::namespace::{Access, admit, expect_kept, judge_lock, named};
use crate::page::{forget_later, is_commit, make_room, outcome, version_unknown};

/// Restores a namespace; returns the version that this makes, or the newest one if that is what was
/// asked for.
///
/// A lost reply of the engine is settled by an outcome under a random key, as that of a commit.
pub(crate) async fn restore(
    ctx: &Context,
    key: &NamespaceKey,
    to: Version,
) -> Result<Version, StoreError> {
    let mark = IdempotencyKey::from_bytes(ctx.random()?);
    let mut reruns = Reruns::new();
    loop {
        match try_restore(ctx, key, to, mark).await {
            Ok(Tried::Done(version)) => return Ok(version),
            // Each room made was taken by another if this goes on.
            Ok(Tried::MadeRoom) => reruns.after(KvError::Conflict.into())?,
            Err(failure) => reruns.after(failure)?,
        }
    }
}

enum Tried {
    Done(Version),
    MadeRoom,
}

async fn try_restore(
    ctx: &Context,
    key: &NamespaceKey,
    to: Version,
    mark: IdempotencyKey,
) -> Result<Tried, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Serializable;
    let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
    let id = named(key, entry)?.id;
    let (done, guard, head) = try_join!(
        outcome(ctx, &*txn, id, mark),
        ctx.guard(&*txn, id, isolation),
        ctx.head(&*txn, id),
    )?;
    if let Some(Outcome::Committed { version, .. }) = done {
        return Ok(Tried::Done(version));
    }
    let guard = admit(key, id, guard, Access::Write)?;
    judge_lock(ctx, &*txn, key, id, &guard, None).await?;
    expect_kept(to, guard.horizon)?;
    if to > head || !is_commit(ctx, &*txn, id, to).await? {
        return Err(version_unknown(key, to).into());
    }
    if to == head {
        return Ok(Tried::Done(head));
    }
    if !guard.has_room() && make_room(ctx, id).await? {
        return Ok(Tried::MadeRoom);
    }
    write_restore(ctx, &mut *txn, id, &guard, to)?;
    let (committed, offset) = Outcome::encode_committed(0);
    txn.set_versionstamped_value(&ctx.keys.outcome(id, mark), &committed, offset);
    forget_later(ctx, &mut *txn, id, mark);
    let version = txn.commit().await?;
    failpoint::pass(failpoint::RESTORED);
    Ok(Tried::Done(version))
}

/// Makes the transaction write a version that restores `to`, which must be one that is kept. The
/// guard, read serializably, is written with the layer and whatever else the caller changed in it.
///
/// # Errors
/// [`StoreError::Unavailable`] while there is no room for a layer.
pub(crate) fn write_restore(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
    to: Version,
) -> Result<(), Failure> {
    if !guard.has_room() {
        return Err(StoreError::Unavailable {
            reason: format!(
                "the namespace {id} is busy: its last large changes are not worked off yet, and nothing was written"
            ),
        }
        .into());
    }
    let keys = &ctx.keys;
    let (bytes, offset) = guard.encode_with_layer(LayerKind::Restore { to });
    txn.set_versionstamped_value(&keys.guard(id), &bytes, offset);
    let (queued, offset) = keys.new_layer(id);
    txn.set_versionstamped_key(&queued, offset, &[]);
    let entry = ChangeEntry {
        // It has to be listed: any page may be another one now.
        pages: match active(Bug::RestoreUnlisted) {
            true => Pages::Listed(PageSet::new()),
            false => Pages::Everything,
        },
        page_one: PageOneClass::Schema,
        millis: ctx.now(),
        sum: None,
    };
    let bounds = &ctx.bounds;
    let chunks = entry.encode(bounds.changelog_chunk_bytes, bounds.changelog_chunks);
    for (number, chunk) in (0..).zip(&chunks) {
        let (key, offset) = keys.new_change(id, number);
        txn.set_versionstamped_key(&key, offset, chunk);
    }
    txn.set(&keys.schema(id), &[]);
    let (version, offset) = STAMPED_VERSION;
    txn.set_versionstamped_value(&keys.head(id), version, offset);
    Ok(())
}
