//! A store to test with, and the least client that can talk to it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, CommitReply, CommitRequest, ReadRequest, StageReply, StageRequest,
};
use mvsqlite_protocol::{
    IdempotencyKey, NamespaceKey, PageData, PageImage, PageIndex, PageSet, StageId, Version,
};
use mvstore::environment::{Clock, Entropy};
use mvstore::error::StoreError;
use mvstore::fsck::{self, Findings, FsckOptions};
use mvstore::kv::faults::{Fault, FaultyEngine};
use mvstore::kv::memory::{MemoryEngine, MemoryOptions};
use mvstore::kv::{Engine, Limits};
use mvstore::store::{Store, StoreOptions};

pub(crate) const PAGE_SIZE: usize = 512;
/// What the clock shows when a store is made: 2026-01-01.
pub(crate) const START_MILLIS: u64 = 1_767_225_600_000;

/// A clock that moves when told.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    pub(crate) fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_millis(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// SplitMix64: the same numbers for the same seed.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let mut bits = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(crate) fn below(&self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

impl Entropy for Random {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        buffer
            .chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&self.next().to_be_bytes()[..chunk.len()]));
        Ok(())
    }
}

/// A store over the memory engine, with one namespace `db`.
pub(crate) struct Fixture {
    pub(crate) store: Arc<Store>,
    pub(crate) engine: FaultyEngine,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) random: Arc<Random>,
    pub(crate) key: NamespaceKey,
}

pub(crate) fn key(name: &str) -> NamespaceKey {
    name.parse().unwrap()
}

pub(crate) fn options(clock: Arc<TestClock>, random: Arc<Random>) -> StoreOptions {
    StoreOptions {
        clock,
        entropy: random,
        ..StoreOptions::new("mvstore-test", "m")
    }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with_limits(Limits::EMBEDDED).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        let memory = MemoryEngine::with_options(MemoryOptions {
            limits,
            ..MemoryOptions::default()
        });
        Self::over(Arc::new(memory), 1).await
    }

    pub(crate) async fn over(engine: Arc<dyn Engine>, seed: u64) -> Self {
        Self::with_options(engine, seed, |_| ()).await
    }

    pub(crate) async fn with_options(
        engine: Arc<dyn Engine>,
        seed: u64,
        change: impl FnOnce(&mut StoreOptions),
    ) -> Self {
        let engine = FaultyEngine::new(engine, VecDeque::new());
        let clock = Arc::new(TestClock(AtomicU64::new(START_MILLIS)));
        let random = Arc::new(Random::new(seed));
        let mut options = options(clock.clone(), random.clone());
        change(&mut options);
        let store = Store::open(Arc::new(engine.clone()), options)
            .await
            .unwrap();
        let key = key("db");
        store.create_namespace(&key).await.unwrap();
        Self {
            store: Arc::new(store),
            engine,
            clock,
            random,
            key,
        }
    }

    /// The next commits of the engine meet these fates.
    pub(crate) fn faults(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.engine
            .set_plan(faults.into_iter().collect::<VecDeque<_>>());
    }

    pub(crate) async fn begin(&self) -> BeginReply {
        let request = BeginRequest::default();
        self.store.begin(&self.key, request).await.unwrap()
    }

    /// A commit on this snapshot that writes these pages and read nothing else.
    pub(crate) fn write(&self, base: &BeginReply, pages: &[(PageIndex, Vec<u8>)]) -> CommitRequest {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).unwrap();
        CommitRequest {
            namespace: base.namespace,
            base: base.version,
            read_version: base.read_version,
            key: IdempotencyKey::from_bytes(bytes),
            retry: false,
            read: PageSet::new(),
            pages: pages
                .iter()
                .map(|(index, data)| page(*index, data))
                .collect(),
            stage: None,
            incarnation: None,
            lease: None,
        }
    }

    pub(crate) async fn commit(&self, request: &CommitRequest) -> Result<CommitReply, StoreError> {
        self.store.commit(&self.key, request.clone()).await
    }

    /// Begins, writes and commits.
    pub(crate) async fn put(&self, pages: &[(PageIndex, Vec<u8>)]) -> CommitReply {
        let base = self.begin().await;
        let request = self.write(&base, pages);
        self.commit(&request).await.unwrap()
    }

    pub(crate) async fn read(
        &self,
        base: &BeginReply,
        version: Version,
        pages: impl IntoIterator<Item = PageIndex>,
    ) -> Result<Vec<PageImage>, StoreError> {
        let request = ReadRequest {
            namespace: base.namespace,
            version,
            read_version: base.read_version,
            pages: pages.into_iter().collect(),
            incarnation: None,
            stage: None,
        };
        self.store.read(&self.key, request).await
    }

    /// The content of one page; `None` if it does not exist.
    pub(crate) async fn content(&self, version: Version, index: PageIndex) -> Option<Vec<u8>> {
        let base = self.begin().await;
        let mut images = self.read(&base, version, [index]).await.unwrap();
        images.remove(0).data.map(|data| data.into_vec())
    }

    pub(crate) async fn stage(
        &self,
        base: &BeginReply,
        stage: Option<StageId>,
        pages: &[(PageIndex, Vec<u8>)],
    ) -> Result<StageReply, StoreError> {
        let request = StageRequest {
            namespace: base.namespace,
            read_version: base.read_version,
            stage,
            pages: pages
                .iter()
                .map(|(index, data)| page(*index, data))
                .collect(),
            unstage: PageSet::new(),
            incarnation: None,
        };
        self.store.stage(&self.key, request).await
    }
}

pub(crate) fn page(index: PageIndex, data: &[u8]) -> PageData {
    PageData {
        index,
        data: data.to_vec().into(),
    }
}

pub(crate) fn filled(byte: u8) -> Vec<u8> {
    vec![byte; PAGE_SIZE]
}

/// Page 1 of a database with this many pages and this schema.
pub(crate) fn page_one(count: u32, schema: u8) -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&512u16.to_be_bytes());
    page[28..32].copy_from_slice(&count.to_be_bytes());
    page[200] = schema;
    page
}

/// What a check of the whole store finds.
pub(crate) async fn findings(engine: Arc<dyn Engine>) -> Findings {
    let options = FsckOptions::new("mvstore-test", "m");
    fsck::check(engine, options).await.unwrap()
}

/// Nothing is wrong with the store, whatever was done to it.
pub(crate) async fn expect_sound(engine: Arc<dyn Engine>) {
    let found = findings(engine).await;
    let lines: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    assert!(found.is_clean(), "{}", lines.join("\n"));
    let counts = found.counts;
    assert_eq!(counts.counters_not_judged + counts.expiries_not_judged, 0);
}
