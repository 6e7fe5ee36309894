//! An engine that lets other tasks run before and after each of its calls, by seed: on a runtime of
//! one thread the same seed interleaves the same way. And one thing may be put right before a commit,
//! behind all that its transaction has read.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use mvsqlite_protocol::{ReadVersion, Version};
use mvstore::kv::{
    Draft, Engine, EngineTime, Freshness, Isolation, KeyRange, KvError, Limits, Pair, RangeOptions,
    Transaction,
};
use tokio::task::yield_now;

use crate::support::Random;

#[derive(Clone)]
pub(crate) struct Interleaved {
    inner: Arc<dyn Engine>,
    random: Arc<Random>,
    ambush: Ambush,
    large: Arc<Large>,
}

/// Commits of more than [`LARGE_BYTES`].
#[derive(Default)]
struct Large {
    now: AtomicUsize,
    most: AtomicUsize,
}

const LARGE_BYTES: u64 = 1 << 20;

type Ambush = Arc<Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>>;

impl Interleaved {
    pub(crate) fn new(inner: Arc<dyn Engine>, random: Arc<Random>) -> Self {
        Self {
            inner,
            random,
            ambush: Ambush::default(),
            large: Arc::default(),
        }
    }

    /// How many large commits have been under way at once.
    pub(crate) fn most_large_commits(&self) -> usize {
        self.large.most.load(Ordering::SeqCst)
    }

    /// Runs this before the next commit.
    pub(crate) fn before_commit(&self, ambush: impl Future<Output = ()> + Send + 'static) {
        *self.ambush.lock().unwrap() = Some(Box::pin(ambush));
    }
}

async fn pause(random: &Random) {
    for _ in 0..random.below(3) {
        yield_now().await;
    }
}

#[async_trait]
impl Engine for Interleaved {
    fn begin(&self, freshness: Freshness) -> Box<dyn Transaction> {
        Box::new(Paused {
            inner: self.inner.begin(freshness),
            random: self.random.clone(),
            ambush: self.ambush.clone(),
            large: self.large.clone(),
        })
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn describe(&self) -> String {
        self.inner.describe()
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

struct Paused {
    inner: Box<dyn Transaction>,
    random: Arc<Random>,
    ambush: Ambush,
    large: Arc<Large>,
}

#[async_trait]
impl Transaction for Paused {
    async fn read_version(&self) -> Result<ReadVersion, KvError> {
        pause(&self.random).await;
        self.inner.read_version().await
    }

    async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, KvError> {
        pause(&self.random).await;
        self.inner.get(key, isolation).await
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<Vec<Pair>, KvError> {
        pause(&self.random).await;
        self.inner.get_range(range, options).await
    }

    fn draft(&self) -> &Draft {
        self.inner.draft()
    }

    fn draft_mut(&mut self) -> &mut Draft {
        self.inner.draft_mut()
    }

    async fn commit(self: Box<Self>) -> Result<Version, KvError> {
        let large = usize::from(self.inner.approximate_bytes() > LARGE_BYTES);
        let now = self.large.now.fetch_add(large, Ordering::SeqCst) + large;
        self.large.most.fetch_max(now, Ordering::SeqCst);
        pause(&self.random).await;
        let ambush = self
            .ambush
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(ambush) = ambush {
            ambush.await;
        }
        let version = self.inner.commit().await;
        pause(&self.random).await;
        self.large.now.fetch_sub(large, Ordering::SeqCst);
        version
    }
}
