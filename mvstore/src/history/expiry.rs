//! One bounded pass over what has expired.
//!
//! A stage dies in two steps: first it is marked dead, which stops batches and commits that are
//! under way, because they read its record serializably; its pages go in a later transaction.
//!
//! One thing that fails, a damaged record say, does not keep the others: a pass goes on, and tells the
//! first failure at its end.

use mvsqlite_protocol::{IdempotencyKey, NamespaceId, StageId};

use crate::context::{Context, Failure, Reruns, corrupt_in};
use crate::error::StoreError;
use crate::failpoint;
use crate::kv::{Atomic, Freshness, Isolation, RangeOptions};
use crate::layout::{Expiry, ExpiryKind, StageRecord, StageState, Usage, UsageKind};
use crate::namespace::remove_deleted;
use crate::page::{collect_waiting, expire_stage_later, stage_record, staged_usage};
use crate::store::Collected;

/// Most index entries that one pass takes from each bucket.
const ENTRIES_A_BUCKET: usize = 256;

/// Forgets outcomes, stages and deleted namespaces whose time is up.
pub(crate) async fn collect_expired(ctx: &Context) -> Result<Collected, StoreError> {
    let mut collected = Collected::default();
    let mut failed = Ok(());
    for bucket in 0..Expiry::BUCKETS {
        failed = failed.and(collect_bucket(ctx, bucket, &mut collected).await);
    }
    let removed = remove_deleted(ctx).await;
    failed?;
    let removed = removed?;
    collected.namespaces_removed = removed.namespaces;
    collected.more |= removed.more;
    Ok(collected)
}

async fn collect_bucket(
    ctx: &Context,
    bucket: u8,
    collected: &mut Collected,
) -> Result<(), StoreError> {
    let range = ctx.keys.expired(bucket, ctx.now());
    let options = RangeOptions {
        limit: ENTRIES_A_BUCKET,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let due = ctx
        .begin(Freshness::Strict)
        .get_range(&range, options)
        .await?;
    collected.more |= due.len() == ENTRIES_A_BUCKET;
    let mut outcomes = Vec::new();
    let mut waiting = Vec::new();
    let mut failed = Ok(());
    for (key, _) in &due {
        let expiry = ctx.keys.parse_expiry(key);
        let expiry = expiry.map_err(corrupt_in("the expiry index"))?;
        match expiry.kind {
            ExpiryKind::Outcome => outcomes.push(expiry),
            ExpiryKind::Waiting => waiting.push(expiry),
            ExpiryKind::Stage => failed = failed.and(collect_stage(ctx, expiry, collected).await),
        }
    }
    forget_outcomes(ctx, &outcomes).await?;
    collected.idempotency_keys += outcomes.len() as u64;
    collected.waiting_pages += collect_waiting(ctx, &waiting).await?;
    failed
}

async fn forget_outcomes(ctx: &Context, outcomes: &[Expiry]) -> Result<(), StoreError> {
    if outcomes.is_empty() {
        return Ok(());
    }
    let mut reruns = Reruns::new();
    loop {
        let mut txn = ctx.begin(Freshness::Strict);
        for expiry in outcomes {
            let key = IdempotencyKey::from_bytes(expiry.name);
            txn.clear(&ctx.keys.outcome(expiry.namespace, key));
            txn.clear(&ctx.keys.expiry(expiry));
        }
        match txn.commit().await {
            Ok(_) => {
                failpoint::pass(failpoint::COLLECT_STEP);
                return Ok(());
            }
            Err(error) => reruns.after(error.into())?,
        }
    }
}

/// Collects a stage that was found dead or forgotten, in both steps; `false` if it was used since.
pub(super) async fn collect_forgotten_stage(
    ctx: &Context,
    id: NamespaceId,
    stage: StageId,
) -> Result<bool, StoreError> {
    // Its entry in the index stands wherever it stands, and finds nothing when it comes due.
    let expiry = Expiry {
        at_millis: 0,
        namespace: id,
        kind: ExpiryKind::Stage,
        name: *stage.as_bytes(),
    };
    let mut reruns = Reruns::new();
    loop {
        match try_collect_stage(ctx, expiry).await {
            Ok(Step::Closed) => (),
            Ok(Step::Removed) => return Ok(true),
            Ok(Step::Nothing) => return Ok(false),
            Err(failure) => reruns.after(failure)?,
        }
    }
}

async fn collect_stage(
    ctx: &Context,
    expiry: Expiry,
    collected: &mut Collected,
) -> Result<(), StoreError> {
    let mut reruns = Reruns::new();
    loop {
        match try_collect_stage(ctx, expiry).await {
            Ok(Step::Nothing) => return Ok(()),
            Ok(Step::Closed) => {
                collected.stages_closed += 1;
                collected.more = true;
                return Ok(());
            }
            Ok(Step::Removed) => {
                collected.stages_removed += 1;
                return Ok(());
            }
            Err(failure) => reruns.after(failure)?,
        }
    }
}

/// What happened to a stage whose time seemed to be up.
enum Step {
    /// It had been used since, or belongs to a commit, or is gone.
    Nothing,
    /// It was marked dead.
    Closed,
    /// It was removed.
    Removed,
}

async fn try_collect_stage(ctx: &Context, expiry: Expiry) -> Result<Step, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let (id, stage) = (expiry.namespace, StageId::from_bytes(expiry.name));
    let record = stage_record(ctx, &*txn, id, stage).await?;
    let step = match record {
        Some(record) if record.state == StageState::Open => {
            if !is_forgotten(ctx, &record) {
                txn.clear(&ctx.keys.expiry(&expiry));
                expire_stage_later(ctx, &mut *txn, id, stage, record.touched_millis);
                Step::Nothing
            } else {
                let dead = StageRecord {
                    state: StageState::Dead,
                    ..record
                };
                txn.set(&ctx.keys.stage(id, stage), &dead.encode());
                Step::Closed
            }
        }
        Some(record) if record.state == StageState::Dead => {
            txn.clear_range(&ctx.keys.whole_stage(id, stage));
            let counter = ctx.keys.usage(id, UsageKind::Staged);
            let change = Usage::default().minus(&staged_usage(&record));
            txn.atomic(Atomic::Add, &counter, &change);
            txn.clear(&ctx.keys.expiry(&expiry));
            Step::Removed
        }
        _ => {
            txn.clear(&ctx.keys.expiry(&expiry));
            Step::Nothing
        }
    };
    txn.commit().await?;
    failpoint::pass(failpoint::COLLECT_STEP);
    Ok(step)
}

pub(super) fn is_forgotten(ctx: &Context, record: &StageRecord) -> bool {
    let ttl = u64::try_from(ctx.options.stage_ttl.as_millis()).unwrap_or(u64::MAX);
    record.touched_millis.saturating_add(ttl) < ctx.now()
}
