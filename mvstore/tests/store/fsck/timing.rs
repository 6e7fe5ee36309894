//! A large store to measure a check by hand:
//!
//!     MVSTORE_FSCK_DIR=/tmp/large cargo test -p mvstore --test store -- --ignored a_large_store
//!     time target/release/mvstore fsck --data-dir /tmp/large

use std::env;
use std::sync::Arc;
use std::time::Instant;

use mvstore::fsck::{self, FsckOptions};
use mvstore::kv::Engine;
use mvstore::kv::embedded::{EmbeddedEngine, EmbeddedOptions};
use mvstore::store::{Store, StoreOptions};

use mvsqlite_protocol::v2::{BeginRequest, CommitRequest};
use mvsqlite_protocol::{IdempotencyKey, PageSet};

use crate::support::{Random, key, page};

const COMMITS: u64 = 400;
const PAGES_A_COMMIT: u32 = 250;
const PAGE: usize = 4096;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and 400 MB of disk: for figures"]
async fn a_large_store_is_checked_in_this_time() {
    let path = env::var("MVSTORE_FSCK_DIR").unwrap();
    let engine = EmbeddedEngine::open(&path, EmbeddedOptions::default()).unwrap();
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let options = StoreOptions::new("mvstore", "m");
    let store = Store::open(engine.clone(), options).await.unwrap();
    let (random, key) = (Random::new(1), key("large"));
    store.create_namespace(&key).await.unwrap();
    for number in 0..COMMITS {
        let base = store.begin(&key, BeginRequest::default()).await.unwrap();
        let first = random.below(20_000) as u32 + 1;
        let pages = (first..first + PAGES_A_COMMIT).map(|index| {
            let content: Vec<u8> = (0..PAGE / 8)
                .flat_map(|_| random.next().to_be_bytes())
                .collect();
            page(index, &content)
        });
        let request = CommitRequest {
            namespace: base.namespace,
            base: base.version,
            read_version: base.read_version,
            key: IdempotencyKey::from_bytes(u128::from(number).to_be_bytes()),
            retry: false,
            read: PageSet::new(),
            pages: pages.collect(),
            stage: None,
            incarnation: None,
            lease: None,
        };
        store.commit(&key, request).await.unwrap();
    }
    let since = Instant::now();
    let found = fsck::check(engine, FsckOptions::new("mvstore", "m"))
        .await
        .unwrap();
    assert!(found.is_clean());
    let (pages, took) = (found.counts.page_versions, since.elapsed().as_secs_f64());
    eprintln!(
        "{pages} page versions in {took:.2} s: {:.0} a second",
        pages as f64 / took
    );
}
