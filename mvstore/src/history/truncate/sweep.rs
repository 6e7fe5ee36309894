//! Sweeping pages: removing the versions that no readable moment needs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mvsqlite_protocol::{PageIndex, PageRun, StageId, Version};

use super::holds::Holds;
use super::judge::{Judge, PageVersion};
use super::{Progress, Run};
use crate::context::{Failure, Reruns, corrupt_in, side_by_side};
use crate::error::StoreError;
use crate::failpoint;
use crate::kv::{Atomic, Freshness, Isolation, Pair, RangeOptions, Transaction};
use crate::layout::{Holding, PageValue, StageState, Usage, UsageKind};
use crate::page::stage_record;

/// Page versions that one transaction looks at. They are read with their content.
const VERSIONS_A_STEP: usize = 256;
/// Stretches of pages that one transaction looks at, side by side.
const STRETCHES_A_STEP: usize = 32;

/// Steps that removed nothing between two signs of life.
const STEPS_A_SIGN: u32 = 64;

/// Pages still to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    /// The next version to look at.
    from: (PageIndex, Version),
    /// The last older version of that page that stays.
    kept: Option<PageVersion>,
    last: PageIndex,
}

/// A page version that goes.
#[derive(Debug)]
struct Doomed {
    index: PageIndex,
    version: Version,
    holding: Holding,
}

/// What a step found.
#[derive(Debug, Default)]
struct Found {
    doomed: Vec<Doomed>,
    /// What is left of the stretches.
    rest: Vec<Stretch>,
}

impl Run<'_> {
    /// Sweeps the pages; `false` if the caller left.
    pub(super) async fn sweep(
        &mut self,
        pages: Vec<PageRun>,
        progress: &mut impl Progress,
    ) -> Result<bool, StoreError> {
        let stretch = |run: &PageRun| Stretch {
            from: (run.first, Version::ZERO),
            kept: None,
            last: run.first + (run.count - 1),
        };
        let left: VecDeque<Stretch> = pages.iter().map(stretch).collect();
        let mut emptied = BTreeSet::new();
        let swept = self.sweep_stretches(left, &mut emptied, progress).await;
        // Also if that was cut short: no later truncation meets a stage whose pages are gone.
        for stage in emptied {
            self.forget_stage(stage).await?;
        }
        // The last step's count.
        Ok(swept? && progress(self.removed).is_continue())
    }

    async fn sweep_stretches(
        &mut self,
        mut left: VecDeque<Stretch>,
        emptied: &mut BTreeSet<StageId>,
        progress: &mut impl Progress,
    ) -> Result<bool, StoreError> {
        let mut reruns = Reruns::new();
        let mut idle_steps = 0;
        while !left.is_empty() {
            if progress(self.removed).is_break() {
                return Ok(false);
            }
            if idle_steps == STEPS_A_SIGN {
                self.give_sign().await?;
                idle_steps = 0;
            }
            let step: Vec<Stretch> = left.iter().take(STRETCHES_A_STEP).copied().collect();
            match self.try_sweep(&step, emptied).await {
                Ok((removed, rest)) => {
                    self.removed += removed;
                    idle_steps = if removed == 0 { idle_steps + 1 } else { 0 };
                    left.drain(..step.len());
                    rest.into_iter()
                        .rev()
                        .for_each(|rest| left.push_front(rest));
                    reruns = Reruns::new();
                }
                Err(failure) => reruns.after(failure)?,
            }
        }
        Ok(true)
    }

    /// Looks at some stretches in one transaction and removes what may go. Done again after an
    /// unknown outcome it finds what is left, and counts that.
    async fn try_sweep(
        &self,
        step: &[Stretch],
        emptied: &mut BTreeSet<StageId>,
    ) -> Result<(u64, Vec<Stretch>), Failure> {
        let mut txn = self.ctx.begin(Freshness::Strict);
        let holds = self.holds(&mut *txn).await?;
        let limit = (VERSIONS_A_STEP / step.len()).max(2);
        let looks = step
            .iter()
            .map(|stretch| self.look(&*txn, &holds, *stretch, limit))
            .collect();
        let mut doomed = Vec::new();
        let mut rest = Vec::new();
        for found in side_by_side(looks).await? {
            doomed.extend(found.doomed);
            rest.extend(found.rest);
        }
        if self.running.is_some() && !doomed.is_empty() {
            self.remove(&mut *txn, &doomed, emptied).await?;
            txn.commit().await?;
            failpoint::pass(failpoint::TRUNCATE_STEP);
        }
        Ok((doomed.len() as u64, rest))
    }

    /// Reads up to `limit` versions of a stretch and judges them.
    async fn look(
        &self,
        txn: &dyn Transaction,
        holds: &Holds,
        stretch: Stretch,
        limit: usize,
    ) -> Result<Found, Failure> {
        let horizon = holds.horizon();
        let range = (self.ctx.keys).page_versions(self.id, stretch.from, stretch.last, horizon);
        let options = RangeOptions {
            limit,
            reverse: false,
            isolation: Isolation::Snapshot,
        };
        let pairs = txn.get_range(&range, options).await?;
        let is_cut = pairs.len() == limit;
        Ok(self.judge(holds, stretch, pairs, is_cut)?)
    }

    fn judge(
        &self,
        holds: &Holds,
        stretch: Stretch,
        pairs: Vec<Pair>,
        is_cut: bool,
    ) -> Result<Found, StoreError> {
        let place = || corrupt_in(format!("namespace {}", self.id));
        let mut versions = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let (index, version) = self.ctx.keys.parse_page(&key).map_err(place())?;
            let holding = PageValue::holding(&value).map_err(place())?;
            versions.push((index, version, holding));
        }
        let mut found = Found::default();
        let mut versions = versions.into_iter().peekable();
        let mut judge = Judge::new(holds, stretch.kept);
        let mut current = stretch.from.0;
        while let Some((index, version, holding)) = versions.next() {
            if index != current {
                judge = Judge::new(holds, None);
                current = index;
            }
            let follower = versions
                .peek()
                .map(|(index, version, _)| (*index, *version));
            if follower.is_none() && is_cut {
                // What follows is behind the cut; this one is looked at again with it.
                let kept = judge.kept();
                found.rest = Stretch::after(stretch, index, version, kept, holds.horizon());
                break;
            }
            if version > holds.horizon() {
                continue;
            }
            let next = follower
                .filter(|(next, above)| *next == index && *above <= holds.horizon())
                .map(|(_, above)| above);
            let this = PageVersion {
                version,
                is_absent: holding == Holding::Nothing,
            };
            if judge.may_go(this, next) {
                found.doomed.push(Doomed {
                    index,
                    version,
                    holding,
                });
            }
        }
        Ok(found)
    }

    /// Removes page versions with the staged content they own, and takes them off the counter.
    async fn remove(
        &self,
        txn: &mut dyn Transaction,
        doomed: &[Doomed],
        emptied: &mut BTreeSet<StageId>,
    ) -> Result<(), Failure> {
        let (keys, id) = (&self.ctx.keys, self.id);
        let mut sizes = BTreeMap::new();
        let mut usage = Usage::default();
        for page in doomed {
            usage.count += 1;
            match page.holding {
                Holding::Nothing => (),
                Holding::Content(bytes) => usage.bytes += bytes,
                Holding::Staged(stage) => {
                    if let std::collections::btree_map::Entry::Vacant(size) = sizes.entry(stage) {
                        size.insert(self.staged_size(txn, stage).await?);
                        emptied.insert(stage);
                    }
                    usage.bytes += sizes[&stage];
                    txn.next_write_without_conflict();
                    txn.clear(&keys.staged_page(id, stage, page.index));
                }
            }
            txn.next_write_without_conflict();
            txn.clear(&keys.page_at(id, page.index, page.version));
        }
        let change = Usage::default().minus(&usage);
        txn.atomic(Atomic::Add, &keys.usage(id, UsageKind::Pages), &change);
        Ok(())
    }

    /// The size that a stage's pages were counted with.
    async fn staged_size(&self, txn: &dyn Transaction, stage: StageId) -> Result<u64, Failure> {
        let record = stage_record(self.ctx, txn, self.id, stage).await?;
        let record = record.ok_or_else(|| StoreError::Corrupt {
            reason: format!("stage {stage} of namespace {} has no record", self.id),
        })?;
        Ok(record.page_size.into())
    }

    /// Removes the record of a stage whose last page went.
    async fn forget_stage(&self, stage: StageId) -> Result<(), StoreError> {
        let mut reruns = Reruns::new();
        loop {
            match self.try_forget_stage(stage).await {
                Ok(()) => return Ok(()),
                Err(failure) => reruns.after(failure)?,
            }
        }
    }

    async fn try_forget_stage(&self, stage: StageId) -> Result<(), Failure> {
        let (keys, id) = (&self.ctx.keys, self.id);
        let mut txn = self.ctx.begin(Freshness::Strict);
        let holds = self.holds(&mut *txn).await?;
        let options = RangeOptions {
            limit: 1,
            reverse: false,
            isolation: Isolation::Snapshot,
        };
        let pages = txn
            .get_range(&keys.staged_pages(id, stage, 0, PageIndex::MAX), options)
            .await?;
        let record = stage_record(self.ctx, &*txn, id, stage).await?;
        let is_committed = record.is_some_and(|record| record.state == StageState::Committed);
        if pages.is_empty() && is_committed && !holds.stages.contains(&stage) {
            txn.clear(&keys.stage(id, stage));
            txn.commit().await?;
        }
        Ok(())
    }
}

impl Stretch {
    /// What is left of a stretch when the last version that was read is not judged yet.
    fn after(
        stretch: Self,
        index: PageIndex,
        version: Version,
        kept: Option<PageVersion>,
        horizon: Version,
    ) -> Vec<Self> {
        if version <= horizon {
            return vec![Self {
                from: (index, version),
                kept,
                last: stretch.last,
            }];
        }
        // What follows of this page lies above the horizon too.
        if index >= stretch.last {
            return Vec::new();
        }
        vec![Self {
            from: (index + 1, Version::ZERO),
            kept: None,
            last: stretch.last,
        }]
    }
}
