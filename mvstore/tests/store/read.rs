//! Snapshots and reads.

use mvsqlite_protocol::v2::{BeginRequest, KnownState, ReadRequest};
use mvsqlite_protocol::{Code, Incarnation, PageImage, PageSet, Version};
use mvstore::kv::{Engine, Freshness, Isolation, KeyRange, RangeOptions};

use crate::support::{Fixture, filled, page_one};

fn bytes(images: &[PageImage]) -> Vec<Option<u8>> {
    let first = |image: &PageImage| image.data.as_ref().map(|data| data[0]);
    images.iter().map(first).collect()
}

#[tokio::test]
async fn a_call_meant_for_another_incarnation_of_the_store_is_refused() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    let request = |incarnation| ReadRequest {
        namespace: base.namespace,
        version: base.version,
        read_version: base.read_version,
        pages: [1].into_iter().collect(),
        incarnation: Some(incarnation),
        stage: None,
    };
    let read = async |incarnation| f.store.read(&f.key, request(incarnation)).await;
    read(base.incarnation).await.unwrap();
    let refusal = read(Incarnation::from_bytes([0xee; 8])).await.unwrap_err();
    assert_eq!(refusal.code(), Code::NamespaceChanged);
}

#[tokio::test]
async fn a_new_namespace_stands_at_its_id_and_has_no_pages() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    assert_eq!(base.version, base.namespace.as_version());
    assert_eq!((base.page_size, base.pages.len()), (0, 0));
    let images = f.read(&base, base.version, [0, 5]).await.unwrap();
    assert_eq!(bytes(&images), [None, None]);
    assert!(images.iter().all(|image| image.from == base.version));
}

#[tokio::test]
async fn each_version_keeps_its_pages() {
    let f = Fixture::new().await;
    let mut versions = vec![f.begin().await.version];
    for round in 1..=9 {
        let pages = [(3, filled(round)), (u32::from(round) + 10, filled(round))];
        versions.push(f.put(&pages).await.version);
    }
    let base = f.begin().await;
    for (round, version) in versions.iter().enumerate() {
        // Scattered, and as a run with history in it.
        for pages in [vec![3, 11, 13, 15], (3..20).collect()] {
            let images = f.read(&base, *version, pages.clone()).await.unwrap();
            for (image, index) in images.iter().zip(pages) {
                let expected = match index {
                    3 if round > 0 => Some((round, versions[round])),
                    11..20 if index as usize - 10 <= round => {
                        let writer = index as usize - 10;
                        Some((writer, versions[writer]))
                    }
                    _ => None,
                };
                assert_eq!(image.index, index);
                let found = image
                    .data
                    .as_ref()
                    .map(|data| (data[0] as usize, image.from));
                assert_eq!(found, expected, "page {index} in round {round}");
            }
        }
    }
}

#[tokio::test]
async fn a_run_with_much_history_is_read_whole() {
    let f = Fixture::new().await;
    let run: Vec<_> = (0..100).map(|index| (index, filled(index as u8))).collect();
    f.put(&run).await;
    for round in 0..300 {
        f.put(&[(50, filled(round as u8)), (51, filled(1))]).await;
    }
    let base = f.begin().await;
    let images = f.read(&base, base.version, 0..120).await.unwrap();
    assert_eq!(images.len(), 120);
    let expected: Vec<_> = (0..120u32)
        .map(|index| match index {
            50 => Some((299 % 256) as u8),
            51 => Some(1),
            0..100 => Some(index as u8),
            _ => None,
        })
        .collect();
    assert_eq!(bytes(&images), expected);
}

#[tokio::test]
async fn a_read_ends_early_when_its_bytes_are_used_up_and_is_resumed() {
    let f = Fixture::new().await;
    let large: Vec<_> = (1..400)
        .map(|index| (index, vec![index as u8; 32_768]))
        .collect();
    f.put(&large).await;
    let base = f.begin().await;
    let mut next = 0;
    while next < 400 {
        let images = f.read(&base, base.version, next..400).await.unwrap();
        let budget = base.limits.read_bytes as usize / 32_768;
        assert!(!images.is_empty() && images.len() <= budget + 1);
        for image in images {
            assert_eq!(image.index, next);
            next += 1;
        }
    }
    let refusal = f.read(&base, base.version, 0..2000).await.unwrap_err();
    assert_eq!(refusal.code(), Code::TooLarge);
    assert!(f.read(&base, base.version, []).await.unwrap().is_empty());
}

#[tokio::test]
async fn only_versions_that_exist_can_be_read() {
    let f = Fixture::new().await;
    let first = f.put(&[(1, filled(1))]).await.version;
    f.store.record_time().await.unwrap();
    f.put(&[(1, filled(2))]).await;
    let base = f.begin().await;
    let between = Version::new(first.commit() + 1, 0);
    let above = Version::new(base.version.commit() + 1000, 0);
    for version in [between, above] {
        let refusal = f.read(&base, version, [1]).await.unwrap_err();
        assert_eq!(refusal.code(), Code::VersionUnknown);
    }
    let below = Version::new(base.namespace.as_version().commit() - 1, 0);
    let refusal = f.read(&base, below, [1]).await.unwrap_err();
    assert_eq!(refusal.code(), Code::SnapshotTooOld);
}

#[tokio::test]
async fn begin_brings_page_1_and_what_its_header_says() {
    let f = Fixture::new().await;
    let version = f.put(&[(0, page_one(7, 1)), (1, filled(1))]).await.version;
    f.put(&[(1, filled(2))]).await;
    let request = BeginRequest {
        known: None,
        want_pages: true,
        as_of: None,
    };
    let base = f.store.begin(&f.key, request).await.unwrap();
    assert_eq!(base.page_size, 512);
    let [image] = &base.pages[..] else {
        panic!("page 1 must come along");
    };
    assert_eq!((image.index, image.from), (0, version));
    assert_eq!(image.data.as_ref().unwrap().as_ref(), page_one(7, 1));
    let stat = f.store.stat_namespace(&f.key).await.unwrap();
    assert_eq!((stat.page_size, stat.page_count), (512, 7));
}

async fn changed(f: &Fixture, known: KnownState) -> Option<PageSet> {
    let request = BeginRequest {
        known: Some(known),
        want_pages: false,
        as_of: None,
    };
    f.store.begin(&f.key, request).await.unwrap().changed
}

#[tokio::test]
async fn begin_tells_what_others_changed() {
    let f = Fixture::new().await;
    let created = f.begin().await;
    let a = f.put(&[(1, filled(1)), (2, filled(1))]).await.version;
    let b = f.put(&[(2, filled(2)), (3, filled(2))]).await.version;
    let c = f.put(&[(4, filled(3))]).await.version;
    let known = |version, own: &[Version]| KnownState {
        incarnation: created.incarnation,
        namespace: created.namespace,
        version,
        own: own.to_vec(),
    };
    let set = |pages: &[u32]| Some(pages.iter().copied().collect::<PageSet>());
    assert_eq!(
        changed(&f, known(created.version, &[])).await,
        set(&[1, 2, 3, 4])
    );
    assert_eq!(changed(&f, known(a, &[])).await, set(&[2, 3, 4]));
    assert_eq!(changed(&f, known(c, &[])).await, set(&[]));
    // A client's own commits do not count, unless others changed the same pages.
    assert_eq!(
        changed(&f, known(created.version, &[a])).await,
        set(&[2, 3, 4])
    );
    assert_eq!(
        changed(&f, known(created.version, &[a, b])).await,
        set(&[4])
    );
    assert_eq!(changed(&f, known(a, &[c])).await, set(&[2, 3]));
    let mut elsewhere = known(a, &[]);
    elsewhere.incarnation = mvsqlite_protocol::Incarnation::from_bytes([1; 8]);
    assert_eq!(changed(&f, elsewhere).await, None);
    let mut other = known(a, &[]);
    other.namespace = a.into();
    assert_eq!(changed(&f, other).await, None);
}

#[tokio::test]
async fn changes_are_unknown_from_a_version_at_which_nothing_was_committed() {
    let f = Fixture::new().await;
    let a = f.put(&[(1, filled(1))]).await.version;
    f.store.record_time().await.unwrap();
    f.put(&[(2, filled(2))]).await;
    let base = f.begin().await;
    let between = Version::new(a.commit() + 1, 0);
    let above = Version::new(base.version.commit() + 1, 0);
    for version in [between, above, Version::ZERO] {
        let known = KnownState {
            incarnation: base.incarnation,
            namespace: base.namespace,
            version,
            own: Vec::new(),
        };
        assert_eq!(changed(&f, known).await, None);
    }
}

/// The pair whose key contains this, found by walking the engine: tests of damage need it.
async fn find(f: &Fixture, wanted: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let options = RangeOptions {
        limit: 1000,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let all = KeyRange::new([], [0xff]);
    let txn = f.engine.begin(Freshness::Strict);
    let pairs = txn.get_range(&all, options).await.unwrap();
    let hit = pairs
        .into_iter()
        .find(|(key, _)| key.windows(wanted.len()).any(|part| part == wanted));
    let (key, value) = hit.unwrap();
    (key.to_vec(), value.to_vec())
}

#[tokio::test]
async fn damaged_bytes_are_reported_with_their_place_and_never_served() {
    let f = Fixture::new().await;
    f.put(&[(7, filled(1))]).await;
    let base = f.begin().await;
    let mut page = base.namespace.as_bytes().to_vec();
    page.extend_from_slice(b"p\0\0\0\x07");
    let (key, mut value) = find(&f, &page).await;
    *value.last_mut().unwrap() ^= 1;
    let mut txn = f.engine.begin(Freshness::Strict);
    txn.set(&key, &value);
    txn.commit().await.unwrap();
    for pages in [vec![7], vec![6, 7, 8]] {
        let refusal = f.read(&base, base.version, pages).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Corrupt);
        assert!(refusal.to_string().contains("page 8 at"), "{refusal}");
    }
}

/// A changelog entry whose chunks never end must not keep a server busy for ever.
#[tokio::test]
async fn a_changelog_entry_that_misses_chunks_or_has_no_end_is_reported() {
    for chunks in [0, 1, 600] {
        let f = Fixture::new().await;
        let base = f.begin().await;
        f.put(&[(7, filled(1))]).await;
        let mut entry = base.namespace.as_bytes().to_vec();
        entry.push(b'l');
        let (key, mut value) = find(&f, &entry).await;
        value[18..20].copy_from_slice(&u16::MAX.to_be_bytes());
        let mut txn = f.engine.begin(Freshness::Strict);
        txn.set(&key, &value);
        for chunk in 1..=chunks {
            let mut key = key.clone();
            let end = key.len() - 2;
            key[end..].copy_from_slice(&u16::to_be_bytes(chunk));
            txn.set(&key, &[]);
        }
        txn.commit().await.unwrap();
        let known = KnownState {
            incarnation: base.incarnation,
            namespace: base.namespace,
            version: base.version,
            own: Vec::new(),
        };
        let request = BeginRequest {
            known: Some(known),
            want_pages: false,
            as_of: None,
        };
        let refusal = f.store.begin(&f.key, request).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Corrupt);
        let refusal = f
            .commit(&f.write(&base, &[(1, filled(1))]))
            .await
            .unwrap_err();
        assert_eq!(refusal.code(), Code::Corrupt);
    }
}
