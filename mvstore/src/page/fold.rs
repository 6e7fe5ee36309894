//! Folding: writing out as page versions what a layer shows, so that the layer can go.
//!
//! Layers are folded oldest first. One step is one transaction of bounded size:
//!
//! 1. It reads the guard serializably and acts only if the layer is still the oldest one and the
//!    namespace is not being deleted.
//! 2. It reads the layer's entry in the work queue serializably and moves the cursor there. So each
//!    step is done once, by whichever server, and the usage counters are exact.
//! 3. It writes page versions at exactly the layer's version, without write conflicts: with them,
//!    folding a gigabyte would collide with every commit that reads there. Nothing that can be read
//!    changes: at one version a page's own version and the layer say the same.
//!
//! The layer goes, with its queue entry, in a step of its own after the last page was looked at.
//!
//! What becomes a page version: of a stage, each page that it holds, by reference to the staged
//! content; of a stage that cut pages off, an absent one for each page that was visible below it; of
//! a restore, a copy of each page (or an absent one) whose newest version below the restore is above
//! the version restored. That every layer below is folded already makes "below it" simple.

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::{NamespaceId, PageIndex, StageId};

use super::changes::predecessor;
use super::lineage::Lineage;
use super::view::{Found, View};
use crate::context::{Context, Failure, Reruns, corrupt_in, side_by_side};
use crate::error::StoreError;
use crate::failpoint;
use crate::kv::{Atomic, Freshness, Isolation, KeyRange, KvError, RangeOptions, Transaction};
use crate::layout::{
    FIRST_GENERATION, FoldCursor, FoldPass, GENERATION, Guard, LAYERS_GENERATION, Layer, LayerKind,
    PageValue, State, Usage, UsageKind, decode_sum, page_sum,
};
use crate::store::Folded;

/// Most steps of one pass, and most of them for one namespace, so that a large layer does not keep
/// the others waiting.
const STEPS_A_PASS: u32 = 64;
const STEPS_A_NAMESPACE: u32 = 16;
/// Most steps that a commit does to make room for its own layer.
const STEPS_OF_HELP: u32 = 256;

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There is nothing to fold.
    Nothing,
    /// Some pages.
    Pages,
    /// A layer went.
    Dropped,
}

/// One bounded pass over the work queue. A namespace that fails does not keep the others; the first
/// failure is told at the end.
pub(crate) async fn fold_layers(ctx: &Context) -> Result<Folded, StoreError> {
    let mut folded = Folded::default();
    let mut failed = Ok(());
    let mut steps = STEPS_A_PASS;
    let mut behind = None;
    while steps > 0 {
        let Some(id) = next_in_queue(ctx, behind).await? else {
            break;
        };
        behind = Some(id);
        let most = steps.min(STEPS_A_NAMESPACE);
        match fold_namespace(ctx, id, most).await {
            Ok((taken, layers)) => {
                folded.layers += layers;
                folded.more |= taken == most;
                steps -= taken.min(steps);
            }
            Err(error) => failed = failed.and(Err(error)),
        }
    }
    failed.map(|()| folded)
}

/// The first namespace in the work queue behind another one.
async fn next_in_queue(
    ctx: &Context,
    behind: Option<NamespaceId>,
) -> Result<Option<NamespaceId>, StoreError> {
    let range = ctx.keys.layers_behind(behind);
    let first = ctx
        .begin(Freshness::Strict)
        .get_range(&range, first(1))
        .await?;
    let parsed = first.first().map(|(key, _)| ctx.keys.parse_layer(key));
    let parsed = parsed.transpose();
    let parsed = parsed.map_err(corrupt_in("the queue of layers to fold"))?;
    Ok(parsed.map(|(id, _)| id))
}

/// Folds a namespace's layers; returns the steps taken and the layers that went.
async fn fold_namespace(
    ctx: &Context,
    id: NamespaceId,
    most: u32,
) -> Result<(u32, u64), StoreError> {
    let mut reruns = Reruns::new();
    let (mut taken, mut layers) = (0, 0);
    while taken < most {
        match step(ctx, id).await {
            Ok(Step::Nothing) => break,
            Ok(Step::Pages) => taken += 1,
            Ok(Step::Dropped) => {
                taken += 1;
                layers += 1;
            }
            // Another server is at it, and got through.
            Err(Failure::Engine(KvError::Conflict)) => taken += 1,
            Err(failure) => reruns.after(failure)?,
        }
    }
    Ok((taken, layers))
}

/// Folds until a layer goes, so that a commit has room for its own: `false` if that takes too long.
pub(crate) async fn make_room(ctx: &Context, id: NamespaceId) -> Result<bool, StoreError> {
    for _ in 0..STEPS_OF_HELP {
        match step(ctx, id).await {
            Ok(Step::Nothing | Step::Dropped) => return Ok(true),
            Ok(Step::Pages) => (),
            Err(Failure::Engine(
                KvError::Conflict | KvError::TooOld | KvError::MaybeCommitted { .. },
            )) => (),
            Err(Failure::Engine(error)) => return Err(error.into()),
            Err(Failure::Refused(error)) => return Err(error),
        }
    }
    Ok(false)
}

/// One transaction of folding.
async fn step(ctx: &Context, id: NamespaceId) -> Result<Step, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let guard = ctx.guard(&*txn, id, Isolation::Serializable).await?;
    if guard
        .as_ref()
        .is_some_and(|guard| guard.min_reader.max(guard.min_writer) > GENERATION)
    {
        // A newer server's affair.
        return Ok(Step::Nothing);
    }
    let guard = guard.filter(|guard| guard.state != State::Deleting);
    let Some((guard, layer)) = guard.and_then(|guard| {
        let oldest = guard.layers.first().copied()?;
        Some((guard, oldest))
    }) else {
        txn.clear_range(&ctx.keys.layers_of(id));
        txn.commit().await?;
        return Ok(Step::Nothing);
    };
    let entry = ctx.keys.layer(id, layer.at);
    let cursor = txn.get(&entry, Isolation::Serializable).await?;
    let cursor = FoldCursor::decode(&cursor.unwrap_or_default());
    let cursor = cursor.map_err(corrupt_in(format_args!("the fold of {} of {id}", layer.at)))?;
    let mut fold = Fold {
        ctx,
        id,
        layer,
        usage: Usage::default(),
    };
    let Some(cursor) = fold.pages(&mut *txn, &guard, cursor).await? else {
        drop_layer(ctx, &mut *txn, id, guard, layer).await?;
        failpoint::pass(failpoint::FOLD_BEFORE_DROP);
        txn.commit().await?;
        failpoint::pass(failpoint::FOLD_DROPPED);
        tracing::debug!(namespace = %id, version = %layer.at, "a layer was folded");
        return Ok(Step::Dropped);
    };
    let counter = ctx.keys.usage(id, UsageKind::Pages);
    let change = fold.usage.minus(&Usage::default());
    txn.atomic(Atomic::Add, &counter, &change);
    txn.set(&entry, &cursor.encode());
    txn.commit().await?;
    failpoint::pass(failpoint::FOLD_STEP);
    Ok(Step::Pages)
}

/// Takes the layer off the guard, and out of the work queue.
async fn drop_layer(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    mut guard: Guard,
    layer: Layer,
) -> Result<(), Failure> {
    guard.layers.retain(|other| *other != layer);
    if guard.layers.is_empty() && guard.ancestors.is_empty() {
        // Older servers may come back; but they know nothing of forks, and might delete the base.
        let forks = txn
            .get_range(&ctx.keys.forks(id), options(1, Isolation::Serializable))
            .await?;
        lower(&mut guard.min_reader);
        if forks.is_empty() {
            lower(&mut guard.min_writer);
        }
    }
    txn.set(&ctx.keys.guard(id), &guard.encode());
    txn.clear(&ctx.keys.layer(id, layer.at));
    Ok(())
}

fn lower(generation: &mut u8) {
    if *generation == LAYERS_GENERATION {
        *generation = FIRST_GENERATION;
    }
}

/// One step of folding a layer.
struct Fold<'a> {
    ctx: &'a Context,
    id: NamespaceId,
    layer: Layer,
    /// Page versions added that were not counted when the layer was made.
    usage: Usage,
}

impl Fold<'_> {
    /// Folds pages from the cursor on, as many as a step may; returns where the next one goes on, or
    /// nothing if there are none left.
    async fn pages(
        &mut self,
        txn: &mut dyn Transaction,
        guard: &Guard,
        cursor: FoldCursor,
    ) -> Result<Option<FoldCursor>, Failure> {
        let FoldCursor { pass, next } = cursor;
        match (pass, self.layer.kind) {
            (
                FoldPass::Staged,
                LayerKind::Stage {
                    stage: Some(stage),
                    count,
                    cuts,
                },
            ) => {
                let next = self.staged(txn, stage, count, next).await?;
                let behind = if cuts {
                    FoldCursor {
                        pass: FoldPass::Older,
                        next: count.into(),
                    }
                } else {
                    FoldCursor::DONE
                };
                Ok(Some(next.map_or(behind, |next| FoldCursor { pass, next })))
            }
            (
                FoldPass::Staged,
                LayerKind::Stage {
                    count, cuts: true, ..
                },
            ) => self.older(txn, guard, count.into()).await.map(Some),
            (FoldPass::Staged, LayerKind::Restore { .. }) => {
                self.older(txn, guard, 0).await.map(Some)
            }
            (FoldPass::Older, _) => self.older(txn, guard, next).await.map(Some),
            (FoldPass::Done, _) | (FoldPass::Staged, LayerKind::Stage { .. }) => Ok(None),
        }
    }

    /// Makes page versions of staged pages; returns the next index, if any may be left.
    async fn staged(
        &mut self,
        txn: &mut dyn Transaction,
        stage: StageId,
        count: PageIndex,
        next: u64,
    ) -> Result<Option<u64>, Failure> {
        let (ctx, id) = (self.ctx, self.id);
        let Ok(next) = PageIndex::try_from(next) else {
            return Ok(None);
        };
        let place = || corrupt_in(format!("stage {stage} of {id}"));
        let range = ctx.keys.staged_sums(id, stage, next);
        let most = ctx.bounds.fold_pages;
        let pairs = txn.get_range(&range, first(most)).await?;
        let mut value = Vec::new();
        let mut last = None;
        for (key, sum) in &pairs {
            let index = ctx.keys.parse_staged(key).map_err(place())?;
            if index < count {
                let sum = decode_sum(sum).map_err(place())?;
                PageValue::encode_staged(&mut value, id.as_bytes(), sum, stage);
                self.put(txn, index, &value);
            } else {
                quietly(txn).clear(&ctx.keys.staged_page(id, stage, index));
            }
            quietly(txn).clear(key);
            last = Some(u64::from(index) + 1);
        }
        // Where a step ended because it was full, there may be more.
        let may_be_more = pairs.len() == most && !active(Bug::FoldStopsEarly);
        Ok(last.filter(|_| may_be_more))
    }

    /// Makes page versions of what was cut off or restored, as many as a step may.
    async fn older(
        &mut self,
        txn: &mut dyn Transaction,
        guard: &Guard,
        mut next: u64,
    ) -> Result<FoldCursor, Failure> {
        let (ctx, id) = (self.ctx, self.id);
        let bounds = &ctx.bounds;
        let lineage = Lineage::read(ctx, txn, id, guard).await?;
        let chunk = u64::from(bounds.fold_chunk).min(bounds.fold_pages as u64);
        let (mut looked_at, mut bytes) = (0, 0);
        while looked_at < bounds.fold_pages as u64 && bytes < bounds.fold_bytes {
            let Some(begin) = self.next_page(txn, &lineage, next).await? else {
                return Ok(FoldCursor::DONE);
            };
            let end = (u64::from(begin) + chunk).min(PageIndex::MAX.into());
            // The last index that there can be is below that.
            let indexes =
                (u64::from(begin)..end).filter_map(|index| PageIndex::try_from(index).ok());
            let indexes: Vec<_> = indexes.collect();
            let (pages, read) = self.pages_at_layer(txn, &lineage, &indexes).await?;
            self.write(txn, pages);
            bytes += read;
            looked_at += chunk;
            next = end;
        }
        Ok(FoldCursor {
            pass: FoldPass::Older,
            next,
        })
    }

    /// What pages become at the layer's version, where that is not what is below it anyway; and how
    /// many bytes of content were read for that.
    async fn pages_at_layer(
        &self,
        txn: &dyn Transaction,
        lineage: &Lineage,
        indexes: &[PageIndex],
    ) -> Result<(Vec<Found>, u64), Failure> {
        let bytes_of = |pages: &[Found]| pages.iter().map(Found::len).sum::<u64>();
        let view = View::new(self.ctx, txn, lineage);
        let below = predecessor(self.layer.at);
        let below = view.find(self.id, below, indexes).await?;
        let bytes = bytes_of(&below);
        let LayerKind::Restore { to } = self.layer.kind else {
            let visible = below.into_iter().filter(|page| page.content.is_some());
            let absent = visible.map(|page| Found {
                content: None,
                ..page
            });
            return Ok((absent.collect(), bytes));
        };
        let changed: Vec<_> = below.into_iter().filter(|page| page.from > to).collect();
        let indexes: Vec<_> = changed.iter().map(|page| page.index).collect();
        let restored = view.find(self.id, to, &indexes).await?;
        let bytes = bytes + bytes_of(&restored);
        let pairs = restored.into_iter().zip(changed);
        let differing = pairs.filter(|(restored, below)| restored.content != below.content);
        let differing = differing.map(|(restored, _)| restored);
        Ok((differing.collect(), bytes))
    }

    fn write(&mut self, txn: &mut dyn Transaction, pages: Vec<Found>) {
        let owner = self.id.as_bytes();
        let mut value = Vec::new();
        for page in pages {
            match &page.content {
                Some(content) => {
                    let sum = page_sum(page.index, content);
                    PageValue::encode_raw(&mut value, owner, sum, content);
                }
                None => PageValue::encode_absent(&mut value, owner, page.index),
            }
            self.put(txn, page.index, &value);
            self.usage.count += 1;
            self.usage.bytes += page.len();
        }
    }

    fn put(&self, txn: &mut dyn Transaction, index: PageIndex, value: &[u8]) {
        if active(Bug::FoldAtNewVersion) {
            // It would come back over what was committed since.
            let (key, offset) = self.ctx.keys.new_page(self.id, index);
            return txn.set_versionstamped_key(&key, offset, value);
        }
        let key = self.ctx.keys.page_at(self.id, index, self.layer.at);
        quietly(txn).set(&key, value);
    }

    /// The lowest page at or above an index that may have to be looked at: of which the namespace,
    /// or (for pages cut off) one below it, has anything.
    async fn next_page(
        &self,
        txn: &dyn Transaction,
        lineage: &Lineage,
        next: u64,
    ) -> Result<Option<PageIndex>, Failure> {
        let Ok(next) = PageIndex::try_from(next) else {
            return Ok(None);
        };
        let keys = &self.ctx.keys;
        let mut ranges: Vec<(KeyRange, bool)> = vec![(keys.pages(self.id, next, 1 << 32), false)];
        if matches!(self.layer.kind, LayerKind::Stage { .. }) {
            for (id, guard) in lineage.below() {
                ranges.push((keys.pages(id, next, 1 << 32), false));
                let stages = guard.layers.iter().filter_map(|layer| match layer.kind {
                    LayerKind::Stage { stage, .. } => stage,
                    LayerKind::Restore { .. } => None,
                });
                ranges.extend(stages.map(|stage| {
                    let last = PageIndex::MAX;
                    (keys.staged_pages(id, stage, next, last), true)
                }));
            }
        }
        let reads = ranges.iter().map(async |(range, is_staged)| {
            let pairs = txn.get_range(range, first(1)).await?;
            let parsed = pairs.first().map(|(key, _)| {
                if *is_staged {
                    keys.parse_staged(key)
                } else {
                    keys.parse_page(key).map(|(index, _)| index)
                }
            });
            Ok(parsed.transpose().map_err(corrupt_in("a page to fold"))?)
        });
        let found: Vec<Option<PageIndex>> = side_by_side(reads.collect()).await?;
        Ok(found.into_iter().flatten().min())
    }
}

/// The next write conflicts with nobody.
fn quietly(txn: &mut dyn Transaction) -> &mut dyn Transaction {
    txn.next_write_without_conflict();
    txn
}

fn first(limit: usize) -> RangeOptions {
    options(limit, Isolation::Snapshot)
}

fn options(limit: usize, isolation: Isolation) -> RangeOptions {
    RangeOptions {
        limit,
        reverse: false,
        isolation,
    }
}
