//! The changelog in a truncation: first it says which pages to look at, in the end it is forgotten.

use mvsqlite_protocol::{PageRun, PageSet, Version};

use super::{Progress, Run};
use crate::context::{Failure, Reruns, corrupt_in};
use crate::error::StoreError;
use crate::failpoint;
use crate::kv::{Freshness, Isolation, KeyRange, RangeOptions};
use crate::layout::Pages;
use crate::page::{read_batch, successor};

/// More runs of pages than this are not kept count of: then all pages are looked at.
const MOST_RUNS: usize = 1 << 17;
/// Most chunks of the changelog that one transaction forgets. More than an entry can have.
const CHUNKS_A_STEP: usize = 1024;
/// Batches of the changelog that are read between two signs of life.
const BATCHES_A_SIGN: usize = 64;

/// All pages there can be.
const ALL: PageRun = PageRun {
    first: 0,
    count: u32::MAX,
};

impl Run<'_> {
    /// The pages of which a version may have been superseded; `None` if the caller left.
    pub(super) async fn gather(
        &mut self,
        progress: &mut impl Progress,
    ) -> Result<Option<Vec<PageRun>>, StoreError> {
        let mut gathered = Gathered::default();
        let mut next = Version::ZERO;
        let mut reruns = Reruns::new();
        for count in 1.. {
            let txn = self.ctx.begin(Freshness::Strict);
            let read = read_batch(self.ctx, &*txn, self.id, next, Some(self.horizon)).await;
            let batch = match read {
                Ok(batch) => batch,
                Err(failure) => {
                    reruns.after(failure)?;
                    continue;
                }
            };
            for (version, entry) in &batch.entries {
                gathered.add(&entry.pages);
                next = successor(*version);
            }
            if batch.is_last || gathered.is_everything {
                break;
            }
            if progress(self.removed).is_break() {
                return Ok(None);
            }
            if count % BATCHES_A_SIGN == 0 {
                self.give_sign().await?;
            }
        }
        Ok(Some(gathered.finish()))
    }

    /// Shows other truncations that this one is at work.
    pub(super) async fn give_sign(&self) -> Result<(), StoreError> {
        if self.running.is_none() {
            return Ok(());
        }
        let mut reruns = Reruns::new();
        loop {
            let mut txn = self.ctx.begin(Freshness::Strict);
            let signed = async {
                self.holds(&mut *txn).await?;
                Ok::<_, Failure>(txn.commit().await?)
            };
            match signed.await {
                Ok(_) => return Ok(()),
                Err(failure) => reruns.after(failure)?,
            }
        }
    }

    /// Forgets the entries below the horizon, in transactions of whole entries; `false` if the
    /// caller left. Moments resolve to entries, so those at pins stay.
    pub(super) async fn forget_changelog(
        &mut self,
        progress: &mut impl Progress,
    ) -> Result<bool, StoreError> {
        if self.running.is_none() {
            return Ok(true);
        }
        let mut next = Some(Version::ZERO);
        let mut reruns = Reruns::new();
        while let Some(from) = next {
            if progress(self.removed).is_break() {
                return Ok(false);
            }
            match self.try_forget(from).await {
                Ok(onward) => next = onward,
                Err(failure) => reruns.after(failure)?,
            }
        }
        Ok(true)
    }

    /// Forgets entries from a version on; returns where to go on.
    async fn try_forget(&self, from: Version) -> Result<Option<Version>, Failure> {
        let (keys, id) = (&self.ctx.keys, self.id);
        let mut txn = self.ctx.begin(Freshness::Strict);
        let holds = self.holds(&mut *txn).await?;
        let range = KeyRange::new(
            keys.change(id, from, 0),
            keys.change(id, holds.horizon(), 0),
        );
        if range.is_empty() {
            return Ok(None);
        }
        let options = RangeOptions {
            limit: CHUNKS_A_STEP,
            reverse: false,
            isolation: Isolation::Snapshot,
        };
        let pairs = txn.get_range(&range, options).await?;
        let parse = |key: &[u8]| {
            let parsed = keys.parse_change(key);
            parsed.map_err(corrupt_in(format_args!("the changelog of namespace {id}")))
        };
        // The last entry may go on behind the cut; it waits for the next step.
        let cut = match pairs.last() {
            Some((key, _)) if pairs.len() == CHUNKS_A_STEP => Some(parse(key)?.0),
            _ => None,
        };
        for (key, _) in &pairs {
            let (version, _) = parse(key)?;
            if Some(version) == cut {
                break;
            }
            if holds.pins().binary_search(&version).is_err() {
                txn.next_write_without_conflict();
                txn.clear(key);
            }
        }
        txn.commit().await?;
        failpoint::pass(failpoint::TRUNCATE_STEP);
        Ok(cut)
    }
}

/// Pages named by the changelog.
#[derive(Debug, Default)]
struct Gathered {
    runs: Vec<PageRun>,
    is_everything: bool,
}

impl Gathered {
    fn add(&mut self, pages: &Pages) {
        match pages {
            Pages::Everything => self.is_everything = true,
            Pages::Listed(pages) => self.runs.extend_from_slice(pages.runs()),
        }
        if self.runs.len() > 2 * MOST_RUNS {
            self.compact();
            self.is_everything |= self.runs.len() > MOST_RUNS;
        }
    }

    fn compact(&mut self) {
        // The runs come from page sets, so they make one.
        let joined = PageSet::try_from(std::mem::take(&mut self.runs));
        match joined {
            Ok(set) => self.runs = set.into(),
            Err(_) => self.is_everything = true,
        }
    }

    fn finish(mut self) -> Vec<PageRun> {
        self.compact();
        if self.is_everything {
            return vec![ALL];
        }
        self.runs
    }
}
