//! An engine that a test can make wait: commits, reads or checks stand until they are let go on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use mvsqlite_protocol::{ReadVersion, Version};
use mvstore::kv::memory::MemoryEngine;
use mvstore::kv::{
    Draft, Engine, EngineTime, Freshness, Isolation, KeyRange, KvError, Limits, Pair, RangeOptions,
    Transaction,
};
use tokio::sync::watch;

/// What stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stall {
    Nothing,
    Commits,
    Reads,
    Checks,
    /// Nothing stands still: checks say that the disk is full.
    FullDisk,
}

/// The memory engine behind a gate. Clones share both.
#[derive(Clone)]
pub(crate) struct StalledEngine {
    inner: MemoryEngine,
    gate: Arc<watch::Sender<Stall>>,
    waiting: Arc<AtomicUsize>,
}

impl StalledEngine {
    pub(crate) fn new() -> Self {
        Self {
            inner: MemoryEngine::new(),
            gate: Arc::new(watch::Sender::new(Stall::Nothing)),
            waiting: Arc::default(),
        }
    }

    pub(crate) fn stall(&self, what: Stall) {
        self.gate.send_replace(what);
    }

    /// How many calls stand still now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    async fn pass(&self, what: Stall) {
        if *self.gate.borrow() != what {
            return;
        }
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        let mut gate = self.gate.subscribe();
        let _ = gate.wait_for(|stalled| *stalled != what).await;
    }
}

impl fmt::Debug for StalledEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StalledEngine").finish_non_exhaustive()
    }
}

#[async_trait]
impl Engine for StalledEngine {
    fn begin(&self, freshness: Freshness) -> Box<dyn Transaction> {
        Box::new(StalledTransaction {
            inner: self.inner.begin(freshness),
            engine: self.clone(),
        })
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn check(&self) -> Result<(), KvError> {
        self.pass(Stall::Checks).await;
        if *self.gate.borrow() == Stall::FullDisk {
            let reason = "7 bytes are free".to_owned();
            return Err(KvError::StorageFull { reason });
        }
        self.inner.check().await
    }

    fn physical_bytes(&self) -> Option<u64> {
        self.inner.physical_bytes()
    }

    fn time(&self, read_version: ReadVersion) -> EngineTime {
        self.inner.time(read_version)
    }
}

struct StalledTransaction {
    inner: Box<dyn Transaction>,
    engine: StalledEngine,
}

#[async_trait]
impl Transaction for StalledTransaction {
    async fn read_version(&self) -> Result<ReadVersion, KvError> {
        self.engine.pass(Stall::Reads).await;
        self.inner.read_version().await
    }

    async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, KvError> {
        self.engine.pass(Stall::Reads).await;
        self.inner.get(key, isolation).await
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<Vec<Pair>, KvError> {
        self.engine.pass(Stall::Reads).await;
        self.inner.get_range(range, options).await
    }

    fn draft(&self) -> &Draft {
        self.inner.draft()
    }

    fn draft_mut(&mut self) -> &mut Draft {
        self.inner.draft_mut()
    }

    async fn commit(self: Box<Self>) -> Result<Version, KvError> {
        self.engine.pass(Stall::Commits).await;
        self.inner.commit().await
    }
}
