//! Content of one namespace that nothing refers to and nobody will: pages that protocol v1 uploaded,
//! and stages, when their time is up.
//!
//! What expires is collected in the background anyway ([`super::expiry`]); this is for those who want
//! it now, and want to know how much it is.

use mvsqlite_protocol::{NamespaceId, NamespaceKey, StageId};

use super::expiry::{collect_forgotten_stage, is_forgotten};
use super::truncate::Progress;
use crate::context::{Context, Failure, corrupt_in, rerun};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, KeyRange, RangeOptions};
use crate::layout::{StageRecord, StageState};
use crate::namespace::{Access, admit, named};
use crate::page::{stage_record, sweep_waiting};

/// Removes it, or only counts it without `apply`; `false` if the caller left before the end.
pub(crate) async fn delete_unreferenced(
    ctx: &Context,
    key: &NamespaceKey,
    apply: bool,
    mut progress: impl Progress,
) -> Result<bool, StoreError> {
    let id = rerun(|| find(ctx, key)).await?;
    let mut pages = 0;
    let waiting = delete_waiting(ctx, id, apply, &mut pages, &mut progress).await?;
    Ok(waiting && delete_stages(ctx, id, apply, &mut pages, &mut progress).await?)
}

async fn delete_waiting(
    ctx: &Context,
    id: NamespaceId,
    apply: bool,
    pages: &mut u64,
    progress: &mut impl Progress,
) -> Result<bool, StoreError> {
    let mut behind = None;
    loop {
        if progress(*pages).is_break() {
            return Ok(false);
        }
        let (gone, onward) = rerun(|| sweep_waiting(ctx, id, behind, apply)).await?;
        *pages += gone;
        behind = onward;
        if behind.is_none() {
            return Ok(true);
        }
    }
}

async fn delete_stages(
    ctx: &Context,
    id: NamespaceId,
    apply: bool,
    pages: &mut u64,
    progress: &mut impl Progress,
) -> Result<bool, StoreError> {
    let mut behind = None;
    loop {
        if progress(*pages).is_break() {
            return Ok(false);
        }
        let Some((stage, record)) = rerun(|| next_stage(ctx, id, behind)).await? else {
            return Ok(true);
        };
        behind = Some(stage);
        let Some(record) = record.filter(|record| is_garbage(ctx, record)) else {
            continue;
        };
        if !apply || collect_forgotten_stage(ctx, id, stage).await? {
            *pages += record.count;
        }
    }
}

async fn find(ctx: &Context, key: &NamespaceKey) -> Result<NamespaceId, Failure> {
    let txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Snapshot;
    let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
    let id = named(key, entry)?.id;
    let guard = ctx.guard(&*txn, id, isolation).await?;
    admit(key, id, guard, Access::Write)?;
    Ok(id)
}

/// The stage behind one, by its id.
async fn next_stage(
    ctx: &Context,
    id: NamespaceId,
    behind: Option<StageId>,
) -> Result<Option<(StageId, Option<StageRecord>)>, Failure> {
    let mut range = ctx.keys.all_stages(id);
    if let Some(behind) = behind {
        range = KeyRange::new(ctx.keys.whole_stage(id, behind).end, range.end);
    }
    if range.is_empty() {
        return Ok(None);
    }
    let options = RangeOptions {
        limit: 1,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let txn = ctx.begin(Freshness::Strict);
    let first = txn.get_range(&range, options).await?;
    let Some((key, _)) = first.first() else {
        return Ok(None);
    };
    let stage = ctx.keys.parse_stage(key);
    let stage = stage.map_err(corrupt_in(format_args!("the stages of {id}")))?;
    let record = stage_record(ctx, &*txn, id, stage).await?;
    Ok(Some((stage, record)))
}

fn is_garbage(ctx: &Context, record: &StageRecord) -> bool {
    match record.state {
        StageState::Open => is_forgotten(ctx, record),
        StageState::Dead => true,
        StageState::Committed => false,
    }
}
