//! A transaction that takes its time.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use mvsqlite_protocol::{ReadVersion, Version};
use mvstore::kv::{
    Draft, Engine, Freshness, Isolation, KeyRange, KvError, Pair, RangeOptions, Transaction,
};

use super::{MOST_SPARES, STALE, Shared};

pub(super) struct SimTransaction {
    inner: Box<dyn Transaction>,
    engine: Arc<Shared>,
    freshness: Freshness,
    /// It has its read version.
    begun: Mutex<bool>,
}

impl SimTransaction {
    pub(super) fn new(engine: &Arc<Shared>, freshness: Freshness) -> Self {
        let spare = match freshness {
            Freshness::Strict => None,
            Freshness::AtLeast(least) => engine.spare(least),
        };
        Self {
            begun: Mutex::new(spare.is_some()),
            inner: spare.unwrap_or_else(|| engine.durable.begin(freshness)),
            engine: Arc::clone(engine),
            freshness,
        }
    }

    /// The read version is chosen when the first call begins; then time passes.
    async fn pass(&self) -> Result<(), KvError> {
        self.engine.expect_running()?;
        let read_version = self.inner.read_version().await?;
        let first = {
            let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            !std::mem::replace(&mut *begun, true)
        };
        if first && self.freshness == Freshness::Strict {
            self.engine.keep_spare(read_version).await;
        }
        self.engine.take(&self.engine.plan.read).await;
        let faults = self.engine.plan.faults.engine;
        if self.engine.strikes(faults.unavailable) {
            return Err(KvError::Unavailable {
                reason: "a read that failed, simulated".to_owned(),
            });
        }
        self.engine.expect_running()
    }
}

impl Shared {
    /// A transaction whose read version is a little old, at or above the one asked for.
    fn spare(&self, least: ReadVersion) -> Option<Box<dyn Transaction>> {
        if !self.strikes(self.plan.faults.engine.stale) {
            return None;
        }
        let now = self.scheduler.now();
        let state = &mut *self.lock();
        state
            .spares
            .retain(|(since, _, _)| now.saturating_sub(*since) < STALE);
        let fits: Vec<usize> = (state.spares.iter().enumerate())
            .filter(|(_, (_, at, _))| *at >= least)
            .map(|(index, _)| index)
            .collect();
        if fits.is_empty() {
            return None;
        }
        let chosen = *state.random.pick(&fits);
        Some(state.spares.swap_remove(chosen).2)
    }

    async fn keep_spare(&self, read_version: ReadVersion) {
        if !self.strikes(self.plan.faults.engine.stale / 2.0) {
            return;
        }
        let spare = self.durable.begin(Freshness::Strict);
        if spare.read_version().await == Ok(read_version) {
            let now = self.scheduler.now();
            let state = &mut *self.lock();
            if state.spares.len() == MOST_SPARES {
                state.spares.remove(0);
            }
            state.spares.push((now, read_version, spare));
        }
    }
}

#[async_trait]
impl Transaction for SimTransaction {
    async fn read_version(&self) -> Result<ReadVersion, KvError> {
        self.pass().await?;
        self.inner.read_version().await
    }

    async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, KvError> {
        self.pass().await?;
        self.inner.get(key, isolation).await
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<Vec<Pair>, KvError> {
        self.pass().await?;
        self.inner.get_range(range, options).await
    }

    fn draft(&self) -> &Draft {
        self.inner.draft()
    }

    fn draft_mut(&mut self) -> &mut Draft {
        self.inner.draft_mut()
    }

    async fn commit(self: Box<Self>) -> Result<Version, KvError> {
        if self.inner.draft().is_read_only() {
            return self.inner.commit().await;
        }
        self.engine.commit(self.inner).await
    }
}
