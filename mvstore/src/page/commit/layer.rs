//! Commits too large to write a version of each page: one layer in the guard shows them all.
//!
//! Such a commit is as atomic and as quick as any other. Page 1, changelog, head and outcome are
//! written as ever; the layer refers to the stage, which stays as it is; folding makes page versions
//! of it later. Writing the guard conflicts with every commit under way, whose next attempt finds in
//! the changelog whether that matters.

use mvsqlite_protocol::{NamespaceId, PageIndex, PageRun};

use super::prepare::CommitLimits;
use super::staged::StagedPage;
use super::write::Staged;
use crate::context::Context;
use crate::kv::{Atomic, Transaction};
use crate::layout::{Guard, LayerKind, StageRecord, StageState, Usage, UsageKind};
use crate::page::stage::usage_of;

/// Most pages that a commit cuts off one by one.
const MOST_CUT_OFF: u64 = 1000;

/// Which of a commit's pages a layer shows. All others are written as page versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layered {
    /// Those of the stage.
    pub staged: bool,
    /// Those that cease to exist.
    pub removed: bool,
    /// The page count behind the commit; the largest there is where none is known.
    count: PageIndex,
}

impl Layered {
    /// Decides by what the page versions would cost a transaction that this commit has a share of.
    pub(super) fn new(
        staged: &[StagedPage],
        removed: Option<PageRun>,
        count: Option<u32>,
        limits: &CommitLimits<'_>,
    ) -> Option<Self> {
        let most = limits.versions_behind_inline();
        let amount = staged.len() as u64;
        let staged = amount > most;
        let left = if staged { most } else { most - amount };
        let most_cut_off = left.min(MOST_CUT_OFF);
        let layered = Self {
            staged,
            removed: removed.is_some_and(|run| u64::from(run.count) > most_cut_off),
            count: count.unwrap_or(PageIndex::MAX),
        };
        (layered.staged || layered.removed).then_some(layered)
    }

    fn kind(&self, stage: Staged) -> LayerKind {
        LayerKind::Stage {
            stage: stage.map(|(stage, _)| stage).filter(|_| self.staged),
            count: self.count,
            cuts: self.removed,
        }
    }
}

/// Writes the layer. What it shows of the stage counts as page versions from now on.
pub(super) fn write_layer(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
    layered: Layered,
    stage: Staged,
) {
    let (value, offset) = guard.encode_with_layer(layered.kind(stage));
    txn.set_versionstamped_value(&ctx.keys.guard(id), &value, offset);
    let (entry, offset) = ctx.keys.new_layer(id);
    txn.set_versionstamped_key(&entry, offset, &[]);
}

/// Gives the stage to the layer, with everything in it. Folding takes it apart.
pub(super) fn close_stage(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    stage: Staged,
    staged: &[StagedPage],
) {
    let Some((stage, record)) = stage else {
        return;
    };
    let committed = StageRecord {
        state: StageState::Committed,
        ..record
    };
    txn.set(&ctx.keys.stage(id, stage), &committed.encode());
    let nothing = Usage::default();
    let shown = Usage {
        count: staged.len() as u64,
        bytes: staged.len() as u64 * u64::from(record.page_size),
    };
    for (kind, change) in [
        (UsageKind::Pages, shown.minus(&nothing)),
        (UsageKind::Staged, nothing.minus(&usage_of(&record))),
    ] {
        txn.atomic(Atomic::Add, &ctx.keys.usage(id, kind), &change);
    }
}
