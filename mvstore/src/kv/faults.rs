//! Faults injected at commit, by script or by seed, in front of any engine. For tests.
//!
//! An engine's rare answers are what its callers get wrong: a lost reply to a commit that happened,
//! one to a commit that did not, a conflict out of nothing. [`FaultyEngine`] makes them as often as
//! a test likes. A [`FaultPlan`] is asked once for each commit that writes something, in the order
//! of the calls, so a plan replays exactly in a test that runs its commits in a fixed order.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use mvsqlite_protocol::{ReadVersion, Version};

use super::{
    Draft, Engine, EngineTime, Freshness, Isolation, KeyRange, KvError, Limits, Pair, RangeOptions,
    Transaction,
};

/// What goes wrong with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// [`KvError::Conflict`]; nothing is written.
    Conflict,
    /// [`KvError::MaybeCommitted`], and it was committed (unless the engine itself refuses).
    UnknownCommitted,
    /// [`KvError::MaybeCommitted`], and it was not.
    UnknownNotCommitted,
    /// [`KvError::TooOld`]; nothing is written.
    TooOld,
    /// [`KvError::Unavailable`]; nothing is written.
    Unavailable,
    /// [`KvError::StorageFull`]; nothing is written.
    StorageFull,
}

/// Decides the fate of each commit.
pub trait FaultPlan: Send + 'static {
    /// What goes wrong with the next commit; `None`: it goes to the engine.
    fn next_commit(&mut self) -> Option<Fault>;
}

/// The fates of the next commits, one by one; after the last, all goes well.
impl FaultPlan for VecDeque<Option<Fault>> {
    fn next_commit(&mut self) -> Option<Fault> {
        self.pop_front().flatten()
    }
}

/// Faults drawn at random; the same seed draws the same ones.
#[derive(Debug, Clone)]
pub struct SeededFaults {
    state: u64,
    faults: Vec<Fault>,
    per_thousand: u64,
}

impl SeededFaults {
    /// One of `faults` (not empty) befalls about `per_thousand` of 1,000 commits.
    pub fn new(seed: u64, per_thousand: u64, faults: impl Into<Vec<Fault>>) -> Self {
        Self {
            state: seed,
            faults: faults.into(),
            per_thousand,
        }
    }

    /// SplitMix64: small, and the same everywhere.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

impl FaultPlan for SeededFaults {
    fn next_commit(&mut self) -> Option<Fault> {
        if self.faults.is_empty() || self.draw() % 1_000 >= self.per_thousand {
            return None;
        }
        let choice = self.draw() % self.faults.len() as u64;
        usize::try_from(choice)
            .ok()
            .and_then(|choice| self.faults.get(choice).copied())
    }
}

/// An engine whose commits meet with a plan's faults. Clones share engine and plan.
#[derive(Clone)]
pub struct FaultyEngine {
    inner: Arc<dyn Engine>,
    plan: Arc<Mutex<Box<dyn FaultPlan>>>,
}

impl FaultyEngine {
    /// Puts the plan in front of the engine.
    pub fn new(inner: Arc<dyn Engine>, plan: impl FaultPlan) -> Self {
        Self {
            inner,
            plan: Arc::new(Mutex::new(Box::new(plan))),
        }
    }

    /// Goes on with another plan.
    pub fn set_plan(&self, plan: impl FaultPlan) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(plan);
    }
}

impl fmt::Debug for FaultyEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyEngine")
            .field("inner", &self.inner.describe())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Engine for FaultyEngine {
    fn begin(&self, freshness: Freshness) -> Box<dyn Transaction> {
        Box::new(FaultyTransaction {
            inner: self.inner.begin(freshness),
            plan: self.plan.clone(),
        })
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn describe(&self) -> String {
        format!("{} with injected faults", self.inner.describe())
    }

    async fn check(&self) -> Result<(), KvError> {
        self.inner.check().await
    }

    fn physical_bytes(&self) -> Option<u64> {
        self.inner.physical_bytes()
    }

    fn time(&self, read_version: ReadVersion) -> EngineTime {
        self.inner.time(read_version)
    }
}

struct FaultyTransaction {
    inner: Box<dyn Transaction>,
    plan: Arc<Mutex<Box<dyn FaultPlan>>>,
}

#[async_trait]
impl Transaction for FaultyTransaction {
    async fn read_version(&self) -> Result<ReadVersion, KvError> {
        self.inner.read_version().await
    }

    async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, KvError> {
        self.inner.get(key, isolation).await
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<Vec<Pair>, KvError> {
        self.inner.get_range(range, options).await
    }

    fn draft(&self) -> &Draft {
        self.inner.draft()
    }

    fn draft_mut(&mut self) -> &mut Draft {
        self.inner.draft_mut()
    }

    async fn commit(self: Box<Self>) -> Result<Version, KvError> {
        // Reading transactions take no part in the plan.
        let fault = if self.inner.draft().is_read_only() {
            None
        } else {
            let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
            plan.next_commit()
        };
        let injected = || "an injected fault".to_owned();
        match fault {
            None => self.inner.commit().await,
            Some(Fault::Conflict) => Err(KvError::Conflict),
            Some(Fault::UnknownCommitted) => {
                self.inner.commit().await?;
                Err(KvError::MaybeCommitted { reason: injected() })
            }
            Some(Fault::UnknownNotCommitted) => Err(KvError::MaybeCommitted { reason: injected() }),
            Some(Fault::TooOld) => Err(KvError::TooOld),
            Some(Fault::Unavailable) => Err(KvError::Unavailable { reason: injected() }),
            Some(Fault::StorageFull) => Err(KvError::StorageFull { reason: injected() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::memory::MemoryEngine;

    async fn commit(engine: &FaultyEngine, key: &[u8]) -> Result<Version, KvError> {
        let mut transaction = engine.begin(Freshness::Strict);
        transaction.set(key, b"value");
        transaction.commit().await
    }

    async fn exists(engine: &FaultyEngine, key: &[u8]) -> bool {
        let transaction = engine.begin(Freshness::Strict);
        transaction
            .get(key, Isolation::Snapshot)
            .await
            .unwrap()
            .is_some()
    }

    #[tokio::test]
    async fn a_script_decides_commit_by_commit_what_fails_and_what_is_written() {
        let script = VecDeque::from([
            Some(Fault::Conflict),
            Some(Fault::UnknownCommitted),
            Some(Fault::UnknownNotCommitted),
            None,
        ]);
        let engine = FaultyEngine::new(Arc::new(MemoryEngine::new()), script);
        assert_eq!(commit(&engine, b"a").await, Err(KvError::Conflict));
        for key in [b"b", b"c"] {
            let error = commit(&engine, key).await.unwrap_err();
            assert!(matches!(error, KvError::MaybeCommitted { .. }), "{error}");
        }
        commit(&engine, b"d").await.unwrap();
        commit(&engine, b"e").await.unwrap();
        let mut present = Vec::new();
        for key in [b"a", b"b", b"c", b"d", b"e"] {
            present.push(exists(&engine, key).await);
        }
        assert_eq!(present, [false, true, false, true, true]);
    }

    #[test]
    fn the_same_seed_draws_the_same_faults() {
        let draw = |seed| {
            let mut plan = SeededFaults::new(seed, 500, [Fault::Conflict, Fault::TooOld]);
            (0..200).map(|_| plan.next_commit()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((60..140).contains(&draw(7).iter().flatten().count()));
    }
}
