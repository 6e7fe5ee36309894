//! Stages: content uploaded ahead of the commit that will refer to it.
//!
//! A stage's record counts its pages and sums them up, exactly, under replacement and removal too:
//! beside each page lies its sum, and a batch reads the sums it replaces. Batches read and write the
//! record serializably, so the record is the one gate: once it is not open, nothing is added.
//! Those of one stage that come by this server take turns.

mod turns;

use std::collections::BTreeMap;

use mvsqlite_protocol::page::MAX_PAGE_SIZE;
use mvsqlite_protocol::v2::{PAGE_1, StageReply, StageRequest};
use mvsqlite_protocol::{NamespaceId, NamespaceKey, PageIndex, ReadVersion, StageId};
use tokio::try_join;

use crate::context::{Context, Failure, Reruns, corrupt_in, side_by_side};
use crate::error::StoreError;
use crate::failpoint;
use crate::kv::{Freshness, Isolation, KeyRange, KvError, RangeOptions, Transaction};
use crate::layout::{
    Expiry, ExpiryKind, PageValue, StageRecord, StageState, Usage, UsageKind, decode_sum, page_sum,
};
use crate::namespace::{Access, admit, expect_id};

pub(crate) use turns::Turns;

/// What a batch does, by page: put this content there, or take the page out.
type Actions<'a> = BTreeMap<PageIndex, Option<(&'a [u8], u64)>>;

/// Adds pages to a stage or drops some; makes the stage if none is named.
pub(crate) async fn stage(
    ctx: &Context,
    key: &NamespaceKey,
    request: StageRequest,
) -> Result<StageReply, StoreError> {
    let (stage, is_new) = match request.stage {
        Some(stage) => (stage, false),
        None => (StageId::from_bytes(ctx.random()?), true),
    };
    add(ctx, key, &request, stage, is_new).await
}

/// Adds pages to the stage with this id; makes it if it is not there.
pub(crate) async fn stage_as(
    ctx: &Context,
    key: &NamespaceKey,
    stage: StageId,
    request: StageRequest,
) -> Result<StageReply, StoreError> {
    add(ctx, key, &request, stage, true).await
}

async fn add(
    ctx: &Context,
    key: &NamespaceKey,
    request: &StageRequest,
    stage: StageId,
    is_new: bool,
) -> Result<StageReply, StoreError> {
    let batch = Batch {
        id: request.namespace,
        stage,
        is_new,
        actions: plan(ctx, request)?,
    };
    let _turn = ctx.stage_turns.wait(stage).await;
    let mut freshness = Freshness::AtLeast(request.read_version);
    let mut reruns = Reruns::new();
    loop {
        match try_stage(ctx, key, &batch, freshness).await {
            Ok(reply) => return Ok(reply),
            Err(Failure::Refused(_)) if freshness != Freshness::Strict => (),
            // A batch may be done twice: it replaces its own pages.
            Err(failure) => reruns.after(failure)?,
        }
        freshness = Freshness::Strict;
    }
}

struct Batch<'a> {
    id: NamespaceId,
    stage: StageId,
    is_new: bool,
    actions: Actions<'a>,
}

/// The rules that need no store.
fn plan<'a>(ctx: &Context, request: &'a StageRequest) -> Result<Actions<'a>, StoreError> {
    let bytes: u64 = request
        .pages
        .iter()
        .map(|page| page.data.len() as u64)
        .sum();
    let changes = request.pages.len() as u64 + request.unstage.len();
    let most_changes = ctx.bounds.transaction_pages;
    if bytes > ctx.limits.stage_batch_bytes {
        return Err(StoreError::TooLarge {
            what: "bytes of page content in one stage call",
            amount: bytes,
            limit: ctx.limits.stage_batch_bytes,
        });
    }
    if changes > most_changes {
        return Err(StoreError::TooLarge {
            what: "pages in one stage call",
            amount: changes,
            limit: most_changes,
        });
    }
    let mut actions: Actions<'_> = request.unstage.iter().map(|page| (page, None)).collect();
    for page in &request.pages {
        if page.index == PAGE_1 || page.index == PageIndex::MAX {
            return Err(StoreError::BadPages {
                reason: format!("page {} cannot be staged", u64::from(page.index) + 1),
                hint: "send page 1 with the commit itself",
            });
        }
        expect_size(&page.data)?;
        let sum = page_sum(page.index, &page.data);
        actions.insert(page.index, Some((&page.data, sum)));
    }
    Ok(actions)
}

/// Whether content is of a size that a page may have.
pub(super) fn expect_size(content: &[u8]) -> Result<(), StoreError> {
    if (1..=MAX_PAGE_SIZE as usize).contains(&content.len()) {
        return Ok(());
    }
    Err(StoreError::BadPages {
        reason: format!(
            "a page of {} bytes cannot be stored; pages have up to {MAX_PAGE_SIZE}",
            content.len()
        ),
        hint: "use 'PRAGMA page_size' of at most 32768, or VACUUM a local copy to that size first",
    })
}

async fn try_stage(
    ctx: &Context,
    key: &NamespaceKey,
    batch: &Batch<'_>,
    freshness: Freshness,
) -> Result<StageReply, Failure> {
    let mut txn = ctx.begin(freshness);
    let (id, stage) = (batch.id, batch.stage);
    let isolation = Isolation::Serializable;
    let (entry, guard, record) = try_join!(
        ctx.catalog_entry(&*txn, key.as_str(), isolation),
        ctx.guard(&*txn, id, isolation),
        record(ctx, &*txn, id, stage),
    )?;
    expect_id(key, entry, id)?;
    admit(key, id, guard, Access::Write)?;
    let old = match record {
        Some(record) if record.state == StageState::Open => record,
        Some(_) => return Err(closed(stage).into()),
        None if batch.is_new => StageRecord {
            state: StageState::Open,
            page_size: 0,
            count: 0,
            sum: 0,
            touched_millis: 0,
        },
        None => return Err(unknown(stage).into()),
    };
    // A stage that is just being made holds nothing.
    let replaced = match record {
        Some(_) => replaced_sums(ctx, &*txn, batch).await?,
        None => BTreeMap::new(),
    };
    let mut new = old;
    new.touched_millis = ctx.now();
    let mut buffer = Vec::new();
    for (index, action) in &batch.actions {
        let before = replaced.get(index);
        if let Some(sum) = before {
            new.count = new.count.wrapping_sub(1);
            new.sum ^= sum;
        }
        let place = ctx.keys.staged_page(id, stage, *index);
        let marker = ctx.keys.staged_sum(id, stage, *index);
        match action {
            Some((content, sum)) => {
                new.count = new.count.wrapping_add(1);
                new.sum ^= sum;
                new.page_size = one_size(new.page_size, content)?;
                PageValue::encode_raw(&mut buffer, stage.as_bytes(), *sum, content);
                txn.set(&place, &buffer);
                txn.set(&marker, &sum.to_be_bytes());
            }
            None if before.is_some() => {
                txn.clear(&place);
                txn.clear(&marker);
            }
            None => (),
        }
    }
    if record.is_none() {
        expire_later(ctx, &mut *txn, id, stage, new.touched_millis);
    }
    let change = usage_of(&new).minus(&usage_of(&old));
    let counter = ctx.keys.usage(id, UsageKind::Staged);
    txn.atomic(crate::kv::Atomic::Add, &counter, &change);
    txn.set(&ctx.keys.stage(id, stage), &new.encode());
    let version = commit_batch(txn).await?;
    failpoint::pass(failpoint::STAGED);
    Ok(StageReply {
        stage,
        count: new.count,
        sum: new.sum,
        read_version: version,
    })
}

async fn commit_batch(txn: Box<dyn Transaction>) -> Result<ReadVersion, KvError> {
    Ok(ReadVersion(txn.commit().await?.commit()))
}

/// A stage's pages are all of one size; so its bytes are known from its count.
fn one_size(size: u32, content: &[u8]) -> Result<u32, StoreError> {
    // `expect_size` was here before.
    let this = u32::try_from(content.len()).unwrap_or(u32::MAX);
    if size == 0 || size == this {
        return Ok(this);
    }
    Err(StoreError::BadPages {
        reason: format!("a page of {this} bytes does not belong with pages of {size} bytes"),
        hint: "stage pages of one size only",
    })
}

/// What a stage occupies.
pub(crate) fn usage_of(record: &StageRecord) -> Usage {
    Usage {
        count: record.count,
        bytes: record.count.saturating_mul(record.page_size.into()),
    }
}

/// A stage's record, read serializably.
pub(crate) async fn record(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    stage: StageId,
) -> Result<Option<StageRecord>, Failure> {
    let key = ctx.keys.stage(id, stage);
    let value = txn.get(&key, Isolation::Serializable).await?;
    let record = value.map(|value| StageRecord::decode(&value)).transpose();
    Ok(record.map_err(corrupt_in(format_args!("stage {stage} of {id}")))?)
}

/// The sums of the pages that a batch replaces or drops, by page; perhaps of others too. Read
/// without conflict: whoever changes one writes the record as well.
async fn replaced_sums(
    ctx: &Context,
    txn: &dyn Transaction,
    batch: &Batch<'_>,
) -> Result<BTreeMap<PageIndex, u64>, Failure> {
    let place = || corrupt_in(format!("stage {}", batch.stage));
    let read = async |(first, last): (PageIndex, PageIndex)| {
        let key = |index| ctx.keys.staged_sum(batch.id, batch.stage, index);
        let range = KeyRange::new(key(first), KeyRange::single(&key(last)).end);
        let options = RangeOptions {
            limit: (last - first) as usize + 1,
            reverse: false,
            isolation: Isolation::Snapshot,
        };
        let pairs = txn.get_range(&range, options).await?;
        let sums = pairs.iter().map(|(key, value)| {
            let index = ctx.keys.parse_staged(key).map_err(place())?;
            Ok((index, decode_sum(value).map_err(place())?))
        });
        sums.collect::<Result<Vec<_>, StoreError>>()
            .map_err(Failure::from)
    };
    let stretches = stretches(batch.actions.keys().copied());
    let sums = side_by_side(stretches.into_iter().map(read).collect()).await?;
    Ok(sums.into_iter().flatten().collect())
}

/// The farthest that two pages of a stretch lie apart.
const GAP: PageIndex = 16;

/// Ascending pages as stretches, first to last: most pages of a batch are new, and one scan that
/// finds nothing costs as much as looking up a single page.
fn stretches(pages: impl Iterator<Item = PageIndex>) -> Vec<(PageIndex, PageIndex)> {
    let mut stretches: Vec<(PageIndex, PageIndex)> = Vec::new();
    for page in pages {
        match stretches.last_mut() {
            Some((_, last)) if page - *last <= GAP => *last = page,
            _ => stretches.push((page, page)),
        }
    }
    stretches
}

/// Notes when to look whether the stage was forgotten.
pub(crate) fn expire_later(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    stage: StageId,
    touched_millis: u64,
) {
    let ttl = u64::try_from(ctx.options.stage_ttl.as_millis()).unwrap_or(u64::MAX);
    let expiry = Expiry {
        at_millis: touched_millis.saturating_add(ttl),
        namespace: id,
        kind: ExpiryKind::Stage,
        name: *stage.as_bytes(),
    };
    txn.set(&ctx.keys.expiry(&expiry), &[]);
}

pub(super) fn unknown(stage: StageId) -> StoreError {
    StoreError::StageInvalid {
        stage,
        reason: "there is no such stage".to_owned(),
    }
}

pub(super) fn closed(stage: StageId) -> StoreError {
    StoreError::StageInvalid {
        stage,
        reason: "it was committed, or expired".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_looked_up_together_and_distant_pages_apart() {
        let pages = [1, 2, 18, 35, 36, 1000];
        let expected = [(1, 18), (35, 36), (1000, 1000)];
        assert_eq!(stretches(pages.into_iter()), expected);
        assert!(stretches(std::iter::empty()).is_empty());
    }
}
