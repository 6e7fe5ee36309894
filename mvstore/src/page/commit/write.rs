//! What a commit writes, and what it asks the engine to watch.

use mvsqlite_protocol::v2::PAGE_1;
use mvsqlite_protocol::{NamespaceId, StageId, Version};

use super::plan::{InlinePage, Plan};
use super::prepare::Prepared;
use crate::context::Context;
use crate::kv::{Atomic, KeyRange, Transaction};
use crate::layout::{
    ChangeEntry, Outcome, PageOneClass, PageValue, Pages, STAMPED_VERSION, StageRecord, StageState,
    Usage, UsageKind,
};
use crate::page::cache::PageOne;
use crate::page::settle::forget_later;
use crate::page::stage::usage_of;

/// Fills the transaction.
pub(super) fn write(
    ctx: &Context,
    txn: &mut dyn Transaction,
    plan: &Plan<'_>,
    prepared: &Prepared<'_>,
    stage: Option<(StageId, StageRecord)>,
) {
    let (keys, id) = (&ctx.keys, plan.request.namespace);
    watch(ctx, txn, id, prepared);
    write_pages(ctx, txn, id, prepared, stage);
    write_change(ctx, txn, id, prepared);

    let (version, offset) = STAMPED_VERSION;
    txn.set_versionstamped_value(&keys.head(id), version, offset);
    let (outcome, offset) = Outcome::encode_committed(plan.digest);
    txn.set_versionstamped_value(&keys.outcome(id, plan.request.key), &outcome, offset);
    forget_later(ctx, txn, id, plan.request.key);
    if let Some((stage, record)) = stage {
        close_stage(ctx, txn, id, stage, record, prepared);
    }
}

/// Commits between the read version and this one must not change what it relies on.
fn watch(ctx: &Context, txn: &mut dyn Transaction, id: NamespaceId, prepared: &Prepared<'_>) {
    let keys = &ctx.keys;
    for run in &prepared.watched {
        txn.add_read_conflict(&keys.pages(id, run.first, run.end()));
    }
    // Page 1 by its class: one that leaves it alone collides with schema changes only.
    let page_one = match prepared.footprint.page_one {
        PageOneClass::Untouched => KeyRange::single(&keys.schema(id)),
        PageOneClass::Allocation | PageOneClass::Schema => keys.pages(id, PAGE_1, 1),
    };
    txn.add_read_conflict(&page_one);
    if prepared.footprint.page_one == PageOneClass::Schema {
        txn.set(&keys.schema(id), &[]);
    }
}

fn write_pages(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    prepared: &Prepared<'_>,
    stage: Option<(StageId, StageRecord)>,
) {
    let owner = id.as_bytes();
    let mut usage = Usage::default();
    let mut value = Vec::new();
    let mut put = |index, value: &[u8], bytes: usize| {
        let (key, offset) = ctx.keys.new_page(id, index);
        txn.set_versionstamped_key(&key, offset, value);
        usage.count += 1;
        usage.bytes += bytes as u64;
    };
    for InlinePage {
        index,
        content,
        sum,
    } in prepared.page_one.iter().chain(&prepared.inline)
    {
        PageValue::encode_raw(&mut value, owner, *sum, content);
        put(*index, &value, content.len());
    }
    if let Some((stage, record)) = stage {
        for (index, sum) in &prepared.staged {
            PageValue::encode_staged(&mut value, owner, *sum, stage);
            put(*index, &value, record.page_size as usize);
        }
    }
    if let Some(run) = prepared.removed {
        for index in run.first..run.first + run.count {
            PageValue::encode_absent(&mut value, owner, index);
            put(index, &value, 0);
        }
    }
    let counter = ctx.keys.usage(id, UsageKind::Pages);
    let change = usage.minus(&Usage::default());
    txn.atomic(Atomic::Add, &counter, &change);
}

fn write_change(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    prepared: &Prepared<'_>,
) {
    let entry = ChangeEntry {
        pages: Pages::Listed(prepared.changed.clone()),
        page_one: prepared.footprint.page_one,
        millis: ctx.now(),
        sum: None,
    };
    let bounds = &ctx.bounds;
    let chunks = entry.encode(bounds.changelog_chunk_bytes, bounds.changelog_chunks);
    for (number, chunk) in (0..).zip(&chunks) {
        let (key, offset) = ctx.keys.new_change(id, number);
        txn.set_versionstamped_key(&key, offset, chunk);
    }
}

/// The stage's pages belong to page versions now; what no version needs goes.
fn close_stage(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    stage: StageId,
    record: StageRecord,
    prepared: &Prepared<'_>,
) {
    let committed = StageRecord {
        state: StageState::Committed,
        ..record
    };
    txn.set(&ctx.keys.stage(id, stage), &committed.encode());
    txn.clear_range(&ctx.keys.staged_sums(id, stage, 0));
    for index in &prepared.leftover {
        txn.clear(&ctx.keys.staged_page(id, stage, *index));
    }
    let counter = ctx.keys.usage(id, UsageKind::Staged);
    let change = Usage::default().minus(&usage_of(&record));
    txn.atomic(Atomic::Add, &counter, &change);
}

/// The next begin asks for page 1 of this version. If the commit did not write it, another that
/// came in between may have.
pub(super) fn remember_page_one(
    ctx: &Context,
    id: NamespaceId,
    version: Version,
    prepared: &Prepared<'_>,
) {
    if let Some(page) = &prepared.page_one {
        let page = PageOne {
            from: version,
            content: page.content.to_vec().into(),
        };
        ctx.page_one.put(id, version, page);
    }
}
