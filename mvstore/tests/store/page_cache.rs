//! The page cache: an answer with it is the answer without it, whatever happens in between, on this
//! server or on another one.

use std::sync::Arc;

use mvsqlite_protocol::v2::{BeginReply, BeginRequest, KnownState, ReadRequest};
use mvsqlite_protocol::{NamespaceId, PageImage, PageIndex, Version};
use mvstore::kv::{Engine, Freshness, Isolation, KeyRange, RangeOptions};
use mvstore::store::{Store, StoreOptions};

use crate::support::{Fixture, filled, options, page_one};
use crate::truncate::truncate;

const PAGES: u64 = 40;

/// Another server on the fixture's engine, with so much cache.
async fn server(f: &Fixture, page_cache_bytes: u64) -> Store {
    let options = StoreOptions {
        page_cache_bytes,
        ..options(f.clock.clone(), f.random.clone())
    };
    let engine = Arc::new(f.engine.clone());
    Store::open(engine, options).await.unwrap()
}

fn read_request(
    base: &BeginReply,
    version: Version,
    pages: impl IntoIterator<Item = PageIndex>,
) -> ReadRequest {
    ReadRequest {
        namespace: base.namespace,
        version,
        read_version: base.read_version,
        pages: pages.into_iter().collect(),
        incarnation: None,
        stage: None,
    }
}

/// Makes every stored page of a namespace unreadable.
async fn damage_pages(f: &Fixture, id: NamespaceId) {
    let pages = [b"m\0d", &id.as_bytes()[..], b"p"].concat();
    let options = RangeOptions {
        limit: 10_000,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let mut txn = f.engine.begin(Freshness::Strict);
    let pairs = txn.get_range(&KeyRange::prefix(&pages), options).await;
    let pairs = pairs.unwrap();
    assert!(!pairs.is_empty());
    for (key, _) in pairs {
        txn.set(&key, b"damaged");
    }
    txn.commit().await.unwrap();
}

async fn random_commit(f: &Fixture, versions: &mut Vec<Version>) {
    let count = f.random.below(6) + 1;
    let mut pages: Vec<PageIndex> = (0..count)
        .map(|_| 1 + f.random.below(PAGES - 1) as PageIndex)
        .collect();
    pages.sort_unstable();
    pages.dedup();
    let mut pages: Vec<_> = pages
        .into_iter()
        .map(|page| (page, filled(f.random.below(250) as u8)))
        .collect();
    if f.random.chance(30) {
        // Grows and shrinks.
        let size = 20 + f.random.below(PAGES - 20) as u32;
        pages.retain(|(page, _)| *page < size);
        pages.insert(0, (0, page_one(size, f.random.below(3) as u8)));
    }
    versions.push(f.put(&pages).await.version);
}

/// An image is the page at each version from its "from" on, up to the one it was read at.
async fn expect_valid(
    f: &Fixture,
    plain: &Store,
    base: &BeginReply,
    versions: &[Version],
    read_at: Version,
    image: &PageImage,
) {
    assert!(image.from <= read_at);
    for version in versions
        .iter()
        .filter(|v| (image.from..=read_at).contains(v))
    {
        let request = read_request(base, *version, [image.index]);
        // Where history was truncated nothing is left to compare with.
        if let Ok(there) = plain.read(&f.key, request).await {
            assert_eq!(there[0].data, image.data, "{image:?} read at {read_at}");
        }
    }
}

#[tokio::test]
async fn an_answer_with_a_cache_is_the_answer_without_one() {
    for seed in 0..24 {
        let f = Fixture::over(Arc::new(mvstore::kv::memory::MemoryEngine::new()), seed).await;
        let plain = server(&f, 0).await;
        // One that keeps everything, and one that evicts all the time.
        let mut caching = [server(&f, 1 << 20).await, server(&f, 12_000).await];
        let mut versions = vec![f.begin().await.version];
        for _ in 0..120 {
            if f.random.chance(25) {
                random_commit(&f, &mut versions).await;
            }
            if f.random.chance(3) {
                let cut = versions[f.random.below(versions.len() as u64) as usize];
                let _ = truncate(&f, cut, true).await;
            }
            if f.random.chance(2) {
                caching[0] = server(&f, 1 << 20).await;
            }
            let base = f.begin().await;
            // Mostly the newest, now and then one of long ago.
            let back = if f.random.chance(70) { 1 } else { 8 };
            let back = 1 + f.random.below(back.min(versions.len() as u64)) as usize;
            let version = versions[versions.len() - back];
            let first = f.random.below(PAGES + 4) as PageIndex;
            let pages = match f.random.below(3) {
                0 => vec![first],
                1 => (first..first + 9).collect(),
                _ => vec![first / 3, first / 2 + 1, first + 2],
            };
            let request = read_request(&base, version, pages);
            let expected = plain.read(&f.key, request.clone()).await;
            for store in &caching {
                let answer = store.read(&f.key, request.clone()).await;
                match (&answer, &expected) {
                    (Ok(answer), Ok(expected)) => {
                        let content = |images: &[PageImage]| -> Vec<_> {
                            images.iter().map(|i| (i.index, i.data.clone())).collect()
                        };
                        assert_eq!(content(answer), content(expected), "seed {seed}");
                        expect_valid(&f, &plain, &base, &versions, version, &answer[0]).await;
                    }
                    (Err(answer), Err(expected)) => assert_eq!(answer.code(), expected.code()),
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn pages_that_did_not_change_are_not_read_again_after_a_commit() {
    let f = Fixture::new().await;
    let pages: Vec<_> = (1..30).map(|page| (page, filled(page as u8))).collect();
    f.put(&pages).await;
    let base = f.begin().await;
    f.read(&base, base.version, 1..30).await.unwrap();
    // By another server: this one learns of it from the changelog.
    let other = server(&f, 0).await;
    let request = f.write(&base, &[(7, filled(200))]);
    other.commit(&f.key, request).await.unwrap();
    let base = f.begin().await;
    // What lies below the cache is damaged: whoever looks there says so.
    damage_pages(&f, base.namespace).await;
    let read = async |pages: std::ops::Range<u32>| f.read(&base, base.version, pages).await;
    assert_eq!(read(1..7).await.unwrap().len(), 6);
    assert_eq!(read(8..30).await.unwrap().len(), 22);
    read(7..8).await.unwrap_err();
}

#[tokio::test]
async fn cold_clients_are_given_what_cold_clients_ask_for_first() {
    let f = Fixture::new().await;
    let mut pages: Vec<_> = (1..300).map(|page| (page, filled(page as u8))).collect();
    pages.insert(0, (0, page_one(300, 1)));
    f.put(&pages).await;
    let begin = async |known| {
        let request = BeginRequest {
            known,
            want_pages: true,
            ..BeginRequest::default()
        };
        f.store.begin(&f.key, request).await.unwrap()
    };
    let given = |base: &BeginReply| -> Vec<PageIndex> {
        base.pages.iter().map(|image| image.index).collect()
    };
    for client in 0..20u32 {
        let base = begin(None).await;
        // A root, an interior page, and then leaves, others each time.
        for page in [5, 17]
            .into_iter()
            .chain((0..20).map(|n| 30 + client * 13 + n))
        {
            if !given(&base).contains(&page) {
                f.read(&base, base.version, [page]).await.unwrap();
            }
        }
    }
    let base = loop {
        let base = begin(None).await;
        // Now and then a client is listened to instead.
        if base.pages.len() > 1 {
            break base;
        }
    };
    assert_eq!(given(&base)[..3], [0, 5, 17]);
    assert!(given(&base).len() < 10, "{:?}", given(&base));
    for image in &base.pages[1..] {
        assert_eq!(image.data.as_ref().unwrap()[0], image.index as u8);
    }
    // Who knows something gets page 1 alone.
    let known = KnownState {
        incarnation: base.incarnation,
        namespace: base.namespace,
        version: base.version,
        own: Vec::new(),
    };
    assert_eq!(given(&begin(Some(known)).await), [0]);
    // After a commit they are given as they are now.
    f.put(&[(17, filled(222))]).await;
    let mut seen = false;
    for _ in 0..20 {
        let base = begin(None).await;
        let stale =
            |image: &&PageImage| image.index == 17 && image.data.as_ref().unwrap()[0] != 222;
        assert_eq!(base.pages.iter().find(stale), None);
        seen |= given(&base).contains(&5);
    }
    assert!(seen);
}
