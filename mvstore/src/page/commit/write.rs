//! What a commit writes, and what it asks the engine to watch.

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::PAGE_1;
use mvsqlite_protocol::{NamespaceId, PageIndex, StageId, Version};

use super::layer::{self, write_layer};
use super::plan::{InlinePage, Plan};
use super::prepare::Prepared;
use crate::context::Context;
use crate::kv::{Atomic, KeyRange, Transaction};
use crate::layout::{
    ChangeEntry, Guard, Outcome, PageOneClass, PageValue, Pages, STAMPED_VERSION, StageRecord,
    StageState, Usage, UsageKind,
};
use crate::page::cache::PageOne;
use crate::page::conflict::Footprint;
use crate::page::settle::forget_later;
use crate::page::stage::usage_of;

/// A stage that the commit refers to, as the transaction found it.
pub(super) type Staged = Option<(StageId, StageRecord)>;

/// Writes what became of the commit, where its next sending looks for it.
pub(super) fn write_outcome(ctx: &Context, txn: &mut dyn Transaction, plan: &Plan<'_>) {
    let (home, key) = (plan.home.id, plan.commit.key);
    if active(Bug::ForgetOutcome) {
        return;
    }
    let (outcome, offset) = Outcome::encode_committed(plan.digest);
    txn.set_versionstamped_value(&ctx.keys.outcome(home, key), &outcome, offset);
    forget_later(ctx, txn, home, key);
}

/// Writes a namespace's new version.
pub(super) fn write_version(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
    prepared: &Prepared<'_>,
    stage: Staged,
) {
    let keys = &ctx.keys;
    if prepared.page_one_class == PageOneClass::Schema {
        txn.set(&keys.schema(id), &[]);
    }
    write_pages(ctx, txn, id, prepared, stage);
    write_change(ctx, txn, id, prepared);
    let (version, offset) = STAMPED_VERSION;
    txn.set_versionstamped_value(&keys.head(id), version, offset);
    if let Some(layered) = prepared.layered {
        write_layer(ctx, txn, id, guard, layered, stage);
        if layered.staged {
            layer::close_stage(ctx, txn, id, stage, &prepared.staged);
            return;
        }
    }
    if let Some((stage, record)) = stage {
        close_stage(ctx, txn, id, stage, record, prepared);
    }
}

/// Commits between the read version and this one must not change what it relies on.
pub(super) fn watch(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    prepared: &Prepared<'_>,
) {
    let keys = &ctx.keys;
    for run in &prepared.watched {
        // Each of them, or a commit at the same moment goes unseen.
        if active(Bug::SkipConflictRange) {
            break;
        }
        txn.add_read_conflict(&keys.pages(id, run.first, run.end()));
    }
    let also = match prepared.footprint {
        // Every commit writes the head.
        Footprint::Whole => KeyRange::single(&keys.head(id)),
        Footprint::Pages { page_one: None, .. } => return,
        // Page 1 by its class: one that leaves it alone collides with schema changes only.
        Footprint::Pages {
            page_one: Some(PageOneClass::Untouched),
            ..
        } => KeyRange::single(&keys.schema(id)),
        Footprint::Pages {
            page_one: Some(PageOneClass::Allocation | PageOneClass::Schema),
            ..
        } => keys.pages(id, PAGE_1, 1),
    };
    txn.add_read_conflict(&also);
}

fn write_pages(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    prepared: &Prepared<'_>,
    stage: Staged,
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
        for (index, sum) in prepared.staged_versions() {
            PageValue::encode_staged(&mut value, owner, *sum, stage);
            put(*index, &value, record.page_size as usize);
        }
    }
    if let Some(run) = prepared.removed_versions() {
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
    let mut changed = prepared.changed.clone();
    if active(Bug::DropFromChangelog) {
        // Every page, or caches keep the old one.
        changed = changed.iter().skip(1).collect();
    }
    let entry = ChangeEntry {
        pages: Pages::Listed(changed),
        page_one: prepared.page_one_class,
        millis: ctx.now(),
        sum: None,
    };
    let bounds = &ctx.bounds;
    let chunks = entry.encode(bounds.changelog_chunk_bytes, prepared.changelog_chunks);
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
    if prepared.staged.is_empty() {
        // Nothing will refer to it, and nobody would come back to its record.
        txn.clear(&ctx.keys.stage(id, stage));
    } else {
        txn.set(&ctx.keys.stage(id, stage), &committed.encode());
    }
    txn.clear_range(&ctx.keys.staged_sums(id, stage, 0));
    if let Some(first) = prepared.leftover_from {
        // One range: there may be any number of them.
        txn.clear_range(&ctx.keys.staged_pages(id, stage, first, PageIndex::MAX));
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
