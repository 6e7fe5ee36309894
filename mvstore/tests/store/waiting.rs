//! How long pages that protocol v1 uploaded wait for their commit.

use mvsqlite_protocol::v1::{
    CommitBody, CommitNamespace, CommitNamespaceInit, PageHash, WrittenPage,
};
use mvsqlite_protocol::{IdempotencyKey, Version};
use mvstore::kv::Limits;
use mvstore::v1::{CommitError, CommitRules, Committed, ReadItem};

use crate::support::{Fixture, filled};

const HOUR: u64 = 3_600_000;
const RULES: CommitRules = CommitRules {
    whole_from_pages: 1000,
    most_read: 2000,
};

async fn upload(f: &Fixture, byte: u8) -> PageHash {
    let pages = [filled(byte)];
    let hashes = f.store.original().upload(&f.key, &[&pages[0]]).await;
    hashes.unwrap()[0]
}

async fn is_there(f: &Fixture, hash: PageHash) -> bool {
    let items = [ReadItem::Content { hash }];
    f.store.original().read(&f.key, &items).await.unwrap()[0].is_some()
}

/// Lets time pass, and what has expired go.
async fn pass(f: &Fixture, millis: u64) -> u64 {
    f.clock.advance(millis);
    let mut gone = 0;
    loop {
        let collected = f.store.collect_expired().await.unwrap();
        gone += collected.waiting_pages;
        if !collected.more {
            return gone;
        }
    }
}

async fn commit(
    f: &Fixture,
    version: Version,
    hash: PageHash,
    data: Option<&[u8]>,
) -> Result<Committed, CommitError> {
    let version = version.to_string();
    let body = CommitBody {
        key: IdempotencyKey::from_bytes(
            f.random.next().to_be_bytes().repeat(2).try_into().unwrap(),
        ),
        retry: false,
        lock_owner: None,
        namespaces: vec![CommitNamespace {
            init: CommitNamespaceInit {
                ns_key: f.key.as_str(),
                ns_key_hashproof: None,
                version: &version,
                metadata: None,
                num_pages: 1,
                read_set: None,
            },
            pages: vec![WrittenPage {
                index: 5,
                hash,
                data,
            }],
        }],
    };
    f.store.original().commit(RULES, &body).await
}

#[tokio::test]
async fn a_page_waits_for_an_hour_and_is_forgotten_soon_after() {
    let f = Fixture::new().await;
    let hash = upload(&f, 1).await;
    assert_eq!(pass(&f, HOUR).await, 0);
    assert!(is_there(&f, hash).await);
    assert_eq!(pass(&f, HOUR / 4).await, 1);
    assert!(!is_there(&f, hash).await);
    let base = f.begin().await.version;
    let refusal = commit(&f, base, hash, None).await.unwrap_err();
    assert_eq!(refusal, CommitError::BadReference);
    // Nothing of it is left to be looked at again.
    assert_eq!(pass(&f, 10 * HOUR).await, 0);
}

#[tokio::test]
async fn uploading_a_page_again_begins_its_time_anew() {
    let f = Fixture::new().await;
    let hash = upload(&f, 1).await;
    for _ in 0..3 {
        assert_eq!(pass(&f, HOUR).await, 0);
        assert_eq!(upload(&f, 1).await, hash);
    }
    assert_eq!(pass(&f, HOUR).await, 0);
    assert!(is_there(&f, hash).await);
    assert_eq!(pass(&f, HOUR).await, 1);
}

#[tokio::test]
async fn so_does_committing_it_and_the_commit_takes_nothing_away() {
    let f = Fixture::new().await;
    let hash = upload(&f, 1).await;
    assert_eq!(pass(&f, HOUR).await, 0);
    let base = f.begin().await.version;
    let first = commit(&f, base, hash, None).await.unwrap().version;
    assert_eq!(pass(&f, HOUR).await, 0);
    commit(&f, first, hash, None).await.unwrap();
    assert_eq!(pass(&f, 2 * HOUR).await, 1);
    assert_eq!(f.content(first, 5).await, Some(filled(1)));
}

#[tokio::test]
async fn content_that_a_commit_brought_along_is_known_for_as_long() {
    let f = Fixture::new().await;
    let page = filled(1);
    let hash = *blake3::hash(&page).as_bytes();
    let base = f.begin().await.version;
    let first = commit(&f, base, hash, Some(&page)).await.unwrap().version;
    assert_eq!(pass(&f, HOUR).await, 0);
    let second = commit(&f, first, hash, None).await.unwrap().version;
    assert_eq!(pass(&f, HOUR).await, 0);
    assert!(is_there(&f, hash).await);
    assert_eq!(pass(&f, HOUR).await, 1);
    assert!(!is_there(&f, hash).await);
    assert_eq!(f.content(second, 5).await, Some(page));
}

#[tokio::test]
async fn a_namespace_that_is_deleted_takes_its_pages_along() {
    let f = Fixture::new().await;
    upload(&f, 1).await;
    f.store.delete_namespace(&f.key).await.unwrap();
    pass(&f, 0).await;
    pass(&f, 10 * HOUR).await;
    let empty = f.store.list_namespaces("", None, 10).await.unwrap();
    assert!(empty.is_empty());
    assert_eq!(pass(&f, 10 * HOUR).await, 0, "no entry comes due for ever");
}

/// Symptom: on FoundationDB a commit of many tiny pages was refused as too large, which ends the process
/// of the original's client. Cause: how much comes inline went by bytes of content alone. Fix: by the
/// number of pages as well; the rest is staged.
#[tokio::test]
async fn many_tiny_pages_are_committed_whatever_the_engines_limits() {
    let f = Fixture::with_limits(Limits {
        transaction_bytes: 140_000,
        ..Limits::FOUNDATIONDB
    })
    .await;
    let contents: Vec<Vec<u8>> = (0..600u32).map(|n| n.to_be_bytes().to_vec()).collect();
    let mut hashes = Vec::new();
    for some in contents.chunks(100) {
        let some: Vec<&[u8]> = some.iter().map(Vec::as_slice).collect();
        hashes.extend(f.store.original().upload(&f.key, &some).await.unwrap());
    }
    let base = f.begin().await.version.to_string();
    let pages = (0..).zip(&hashes).map(|(index, hash)| WrittenPage {
        index,
        hash: *hash,
        data: None,
    });
    let body = CommitBody {
        key: IdempotencyKey::from_bytes([3; 16]),
        retry: false,
        lock_owner: None,
        namespaces: vec![CommitNamespace {
            init: CommitNamespaceInit {
                ns_key: f.key.as_str(),
                ns_key_hashproof: None,
                version: &base,
                metadata: None,
                num_pages: 600,
                read_set: None,
            },
            pages: pages.collect(),
        }],
    };
    let committed = f.store.original().commit(RULES, &body).await.unwrap();
    for index in [0, 1, 300, 599] {
        let found = f.content(committed.version, index).await;
        assert_eq!(found, Some(contents[index as usize].clone()));
    }
}
