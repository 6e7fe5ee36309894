//! Restores and forks: constant time to make, read through until they are folded or for good.

use mvsqlite_protocol::v2::ReadRequest;
use mvsqlite_protocol::{Code, NamespaceId, NamespaceKey, PageIndex, Version};
use mvstore::kv::faults::Fault;

use crate::layers::{begin_on, bytes_of, fixture, fold_a_little, head, put_large};
use crate::support::{Fixture, filled, key};

#[tokio::test]
async fn a_restore_brings_every_page_back_and_can_be_undone() {
    let f = fixture().await;
    let first = f
        .put(&[head(6, 1), (1, filled(1)), (5, filled(1))])
        .await
        .version;
    let second = put_large(&f, &vec![head(3, 2), (1, filled(2)), (2, filled(2))]).await;
    let restored = f.store.restore_namespace(&f.key, first).await.unwrap();
    let third = put_large(&f, &vec![(2, filled(3))]).await;
    let undone = f.store.restore_namespace(&f.key, second).await.unwrap();
    let redone = f.store.restore_namespace(&f.key, third).await.unwrap();
    let expect = async || {
        assert_eq!(bytes_of(&f, &f.key, first, 7).await, [1, 1, 0, 0, 0, 1, 0]);
        assert_eq!(bytes_of(&f, &f.key, second, 7).await, [2, 2, 2, 0, 0, 0, 0]);
        assert_eq!(
            bytes_of(&f, &f.key, restored, 7).await,
            [1, 1, 0, 0, 0, 1, 0]
        );
        assert_eq!(bytes_of(&f, &f.key, third, 7).await, [1, 1, 3, 0, 0, 1, 0]);
        assert_eq!(bytes_of(&f, &f.key, undone, 7).await, [2, 2, 2, 0, 0, 0, 0]);
        assert_eq!(bytes_of(&f, &f.key, redone, 7).await, [1, 1, 3, 0, 0, 1, 0]);
    };
    expect().await;
    let mut seed = 0;
    while !fold_a_little(&f, seed).await {
        expect().await;
        seed += 1;
    }
    expect().await;
    assert_eq!(
        f.store.restore_namespace(&f.key, redone).await.unwrap(),
        redone
    );
}

#[tokio::test]
async fn a_restore_conflicts_with_everybody_and_happens_once() {
    let f = fixture().await;
    let first = f.put(&[head(6, 1), (1, filled(1))]).await.version;
    f.put(&[(1, filled(2))]).await;
    let base = f.begin().await;
    for fault in [
        Fault::Conflict,
        Fault::UnknownCommitted,
        Fault::UnknownNotCommitted,
    ] {
        f.faults([Some(fault)]);
        let before = f.begin().await.version;
        let restored = f.store.restore_namespace(&f.key, first).await.unwrap();
        assert!(restored > before);
        assert_eq!(f.begin().await.version, restored);
    }
    let refusal = f
        .commit(&f.write(&base, &[(4, filled(4))]))
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::Conflict);
    let elsewhere = Version::new(first.commit() + 1, 7);
    let refusal = f
        .store
        .restore_namespace(&f.key, elsewhere)
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::VersionUnknown);
}

async fn fork(f: &Fixture, name: &str, base: NamespaceId, at: Version) -> NamespaceKey {
    let fork = key(name);
    f.store.fork_namespace(&fork, base, at).await.unwrap();
    fork
}

async fn put_on(f: &Fixture, key: &NamespaceKey, pages: &[(PageIndex, Vec<u8>)]) -> Version {
    let base = begin_on(f, key).await;
    let request = f.write(&base, pages);
    f.store.commit(key, request).await.unwrap().version
}

#[tokio::test]
async fn a_fork_begins_as_its_base_was_and_goes_its_own_way() {
    let f = fixture().await;
    let first = put_large(&f, &vec![head(6, 1), (1, filled(1)), (5, filled(1))]).await;
    let second = f.put(&[(1, filled(2)), (2, filled(2))]).await.version;
    let base = f.begin().await.namespace;
    let old = fork(&f, "old", base, first).await;
    let new = fork(&f, "new", base, second).await;
    let begun = begin_on(&f, &old).await;
    assert_eq!(begun.page_size, 512);
    assert_eq!(begun.version, begun.namespace.as_version());
    let changed = put_on(&f, &old, &[(2, filled(3))]).await;
    let cut = put_on(&f, &new, &[head(2, 4)]).await;
    f.put(&[(5, filled(9))]).await;
    let expect = async || {
        assert_eq!(
            bytes_of(&f, &old, begun.version, 7).await,
            [1, 1, 0, 0, 0, 1, 0]
        );
        assert_eq!(bytes_of(&f, &old, changed, 7).await, [1, 1, 3, 0, 0, 1, 0]);
        assert_eq!(bytes_of(&f, &new, cut, 7).await, [4, 2, 0, 0, 0, 0, 0]);
        assert_eq!(bytes_of(&f, &f.key, second, 7).await, [1, 2, 2, 0, 0, 1, 0]);
    };
    expect().await;
    let mut seed = 0;
    while !fold_a_little(&f, seed).await {
        expect().await;
        seed += 1;
    }
    expect().await;
    // The content of the base is older than the fork, and a client's cache must not think so.
    let request = ReadRequest {
        namespace: begun.namespace,
        version: begun.version,
        read_version: begun.read_version,
        pages: (0..3).collect(),
        incarnation: None,
        stage: None,
    };
    let images = f.store.read(&old, request).await.unwrap();
    assert!(images.iter().all(|image| image.from == begun.version));
}

#[tokio::test]
async fn a_base_goes_with_the_last_namespace_that_reads_through_it() {
    let f = fixture().await;
    let at = f.put(&[head(3, 1), (1, filled(1))]).await.version;
    let id = f.begin().await.namespace;
    let one = fork(&f, "one", id, at).await;
    let one_id = begin_on(&f, &one).await.namespace;
    let two = fork(&f, "two", one_id, one_id.as_version()).await;
    let collect = async || {
        let mut removed = 0;
        loop {
            let collected = f.store.collect_expired().await.unwrap();
            removed += collected.namespaces_removed;
            if !collected.more {
                return removed;
            }
        }
    };
    f.store.delete_namespace(&f.key).await.unwrap();
    f.store.delete_namespace(&one).await.unwrap();
    assert_eq!(collect().await, 0);
    for gone in [&f.key, &one] {
        let refusal = f.store.begin(gone, Default::default()).await.unwrap_err();
        assert_eq!(refusal.code(), Code::NamespaceNotFound);
    }
    let version = put_on(&f, &two, &[(2, filled(2))]).await;
    assert_eq!(bytes_of(&f, &two, version, 3).await, [1, 1, 2]);
    // Its name is free.
    f.store.create_namespace(&f.key).await.unwrap();
    f.faults([Some(Fault::UnknownCommitted)]);
    f.store.delete_namespace(&two).await.unwrap();
    assert_eq!(collect().await, 3);
}

#[tokio::test]
async fn forks_that_cannot_be_made_are_refused_by_name() {
    let f = fixture().await;
    let at = f.put(&[head(3, 1)]).await.version;
    let id = f.begin().await.namespace;
    let refusal = async |name: &str, base, at| {
        let refused = f.store.fork_namespace(&key(name), base, at).await;
        refused.unwrap_err()
    };
    assert_eq!(refusal("db", id, at).await.code(), Code::NamespaceExists);
    let nobody = NamespaceId::from_bytes([9; 10]);
    assert_eq!(
        refusal("x", nobody, at).await.code(),
        Code::NamespaceNotFound
    );
    let nowhere = Version::new(at.commit() + 50, 0);
    assert_eq!(refusal("x", id, nowhere).await.code(), Code::VersionUnknown);
    let mut last = id;
    for depth in 0..8 {
        let fork = fork(
            &f,
            &format!("fork{depth}"),
            last,
            if depth == 0 { at } else { last.as_version() },
        )
        .await;
        last = begin_on(&f, &fork).await.namespace;
    }
    assert_eq!(
        bytes_of(&f, &key("fork7"), last.as_version(), 2).await,
        [1, 0]
    );
    let ninth = refusal("fork8", last, last.as_version()).await;
    assert!(ninth.to_string().contains("forks of forks"), "{ninth}");
    // Lost replies make one fork.
    f.faults([Some(Fault::UnknownCommitted)]);
    let x = fork(&f, "x", id, at).await;
    assert_eq!(
        bytes_of(&f, &x, begin_on(&f, &x).await.version, 1).await,
        [1]
    );
}
