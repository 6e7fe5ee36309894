//! A check of a store in use: by transactions that are too old after a few reads, so that nearly
//! everything is read at several versions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use mvsqlite_protocol::{ReadVersion, Version};
use mvstore::fsck::{self, FsckOptions};
use mvstore::kv::{
    Draft, Engine, EngineTime, Freshness, Isolation, KeyRange, KvError, Limits, Pair, RangeOptions,
    Transaction,
};

use super::World;
use crate::support::Random;

/// An engine whose transactions are too old after a few reads.
struct Impatient {
    engine: Arc<dyn Engine>,
    random: Random,
    most: u64,
}

#[async_trait]
impl Engine for Impatient {
    fn begin(&self, freshness: Freshness) -> Box<dyn Transaction> {
        Box::new(ShortLived {
            txn: self.engine.begin(freshness),
            left: AtomicU64::new(1 + self.random.below(self.most)),
        })
    }

    fn limits(&self) -> Limits {
        self.engine.limits()
    }

    fn describe(&self) -> String {
        self.engine.describe()
    }

    async fn check(&self) -> Result<(), KvError> {
        self.engine.check().await
    }

    fn physical_bytes(&self) -> Option<u64> {
        self.engine.physical_bytes()
    }

    fn time(&self, read_version: ReadVersion) -> EngineTime {
        self.engine.time(read_version)
    }
}

struct ShortLived {
    txn: Box<dyn Transaction>,
    left: AtomicU64,
}

impl ShortLived {
    fn grow_older(&self) -> Result<(), KvError> {
        let older = |left: u64| left.checked_sub(1);
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, older);
        left.map(drop).map_err(|_| KvError::TooOld)
    }
}

#[async_trait]
impl Transaction for ShortLived {
    async fn read_version(&self) -> Result<ReadVersion, KvError> {
        self.txn.read_version().await
    }

    async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, KvError> {
        self.grow_older()?;
        self.txn.get(key, isolation).await
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<Vec<Pair>, KvError> {
        self.grow_older()?;
        self.txn.get_range(range, options).await
    }

    fn draft(&self) -> &Draft {
        self.txn.draft()
    }

    fn draft_mut(&mut self) -> &mut Draft {
        self.txn.draft_mut()
    }

    async fn commit(self: Box<Self>) -> Result<Version, KvError> {
        panic!("a check commits nothing")
    }
}

/// Checks by transactions that live for some reads; nothing may be found.
pub(crate) async fn expect_sound_in_use(engine: Arc<dyn Engine>, seed: u64) {
    let random = Random::new(seed);
    // A guard and all that is compared with it are read in one transaction.
    let most = 20 + random.below(300);
    let engine = Impatient {
        engine,
        random,
        most,
    };
    let options = FsckOptions::new("mvstore-test", "m");
    let checked = fsck::check(Arc::new(engine), options).await;
    let found = match checked {
        Ok(found) => found,
        Err(fsck::FsckError::Engine(KvError::TooOld)) => return,
        Err(error) => panic!("{error}"),
    };
    let lines: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    assert!(found.is_clean(), "{}", lines.join("\n"));
}

#[tokio::test]
async fn a_check_by_transactions_that_are_too_old_soon_comes_to_its_end_and_finds_nothing() {
    let world = World::new().await;
    for seed in 0..20 {
        let engine = Impatient {
            engine: world.engine(),
            random: Random::new(seed),
            most: 60,
        };
        let options = FsckOptions::new("mvstore-test", "m");
        let found = fsck::check(Arc::new(engine), options).await.unwrap();
        assert!(found.is_clean());
        // Nothing moved, so the counters were judged all the same.
        assert_eq!(found.counts.counters_not_judged, 0);
        assert!(found.counts.namespaces == 8);
    }
}
