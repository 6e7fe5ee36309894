//! Brings the page cache up to a version, by what the changelog says was changed since.

use mvsqlite_protocol::{NamespaceId, PageSet, Version};

use super::changes::{Interval, read_batch};
use crate::context::{Context, Failure};
use crate::kv::Transaction;
use crate::layout::Guard;

/// Makes what the page cache holds of a namespace good at this version too, as far as that is so.
/// The version must exist, at or below the transaction's read version.
///
/// One batch of the changelog at most is read. Where more has happened, what is kept is taken to
/// have changed: reading on would cost more than it saves.
pub(super) async fn catch_up(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
    version: Version,
) -> Result<(), Failure> {
    let Some(from) = ctx.page_cache.behind(id, version) else {
        return Ok(());
    };
    // The changelog below the horizon may have gaps.
    let changed = match from >= guard.horizon {
        true => changed_between(ctx, txn, id, from, version).await?,
        false => None,
    };
    ctx.page_cache.advance(id, from, version, changed.as_ref());
    Ok(())
}

/// The pages changed in (from, to]; `None` is unknown.
async fn changed_between(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    from: Version,
    to: Version,
) -> Result<Option<PageSet>, Failure> {
    let batch = read_batch(ctx, txn, id, from, Some(to)).await?;
    // An entry has to stand exactly at `from`, or nothing says that none is missing behind it.
    let first = batch.entries.first().map(|(version, _)| *version);
    let anchored = from == id.as_version() || first == Some(from);
    if !anchored || !batch.is_last {
        return Ok(None);
    }
    let mut interval = Interval::new();
    let later = batch.entries.iter().filter(|(version, _)| *version > from);
    later.for_each(|(_, entry)| interval.add(entry));
    Ok(interval.finish())
}
