//! Layers: commits too large for one transaction, restores, forks; before, while and after they are
//! folded.

use std::sync::Arc;

use mvsqlite_protocol::v2::{BeginReply, CommitRequest, ReadRequest, StageRef};
use mvsqlite_protocol::{Code, NamespaceId, NamespaceKey, PageImage, PageIndex, Version};
use mvstore::error::StoreError;
use mvstore::kv::faults::{Fault, SeededFaults};
use mvstore::kv::memory::MemoryEngine;
use mvstore::store::Knobs;

use crate::support::{Fixture, PAGE_SIZE, filled, key, page_one};

type Pages = Vec<(PageIndex, Vec<u8>)>;

/// A store where each staged page makes a commit a large one, and folding goes page by page.
async fn fixture() -> Fixture {
    let knobs = Knobs {
        layer_bytes: Some(0),
        fold_pages: Some(1),
    };
    Fixture::with_options(Arc::new(MemoryEngine::new()), 1, |options| {
        options.knobs = knobs;
        // It would have the answer of before once everything is folded.
        options.page_cache_bytes = 0;
    })
    .await
}

/// A commit that brings page 1 inline and stages the other pages.
async fn large(f: &Fixture, base: &BeginReply, pages: &Pages) -> CommitRequest {
    let (first, others): (Pages, Pages) = pages.iter().cloned().partition(|(index, _)| *index == 0);
    let mut request = f.write(base, &first);
    if !others.is_empty() {
        let reply = f.stage(base, None, &others).await.unwrap();
        request.stage = Some(StageRef {
            stage: reply.stage,
            count: reply.count,
            sum: reply.sum,
        });
        request.read_version = request.read_version.max(reply.read_version);
    }
    request
}

async fn put_large(f: &Fixture, pages: &Pages) -> Version {
    let base = f.begin().await;
    let request = large(f, &base, pages).await;
    f.commit(&request).await.unwrap().version
}

async fn fold(f: &Fixture) {
    while f.store.fold_layers().await.unwrap().more {}
}

/// Folds for a while, until the engine fails; returns whether it is done.
async fn fold_a_little(f: &Fixture, seed: u64) -> bool {
    f.engine
        .set_plan(SeededFaults::new(seed, 300, [Fault::Unavailable]));
    let done = f.store.fold_layers().await.is_ok_and(|folded| !folded.more);
    f.faults([]);
    done
}

/// The first bytes of a run of pages, 0 where there is none; read as a run and one by one.
async fn bytes_of(f: &Fixture, key: &NamespaceKey, version: Version, count: u32) -> Vec<u8> {
    let request = Default::default();
    let base = f.store.begin(key, request).await.unwrap();
    let read = async |pages: Vec<PageIndex>| {
        let request = ReadRequest {
            namespace: base.namespace,
            version,
            read_version: base.read_version,
            pages: pages.into_iter().collect(),
            incarnation: None,
            stage: None,
        };
        f.store.read(key, request).await.unwrap()
    };
    let first = |image: &PageImage| image.data.as_ref().map_or(0, |data| data[PAGE_SIZE - 1]);
    let run = read((0..count).collect()).await;
    let run: Vec<u8> = run.iter().map(first).collect();
    let mut singles = Vec::new();
    for index in 0..count {
        singles.push(first(&read(vec![index]).await[0]));
    }
    assert_eq!(run, singles, "a run and its pages differ");
    // Scattered pages are gathered.
    let scattered = read((0..count).step_by(3).collect()).await;
    let expected: Vec<u8> = run.iter().copied().step_by(3).collect();
    assert_eq!(scattered.iter().map(first).collect::<Vec<_>>(), expected);
    run
}

/// Page 1 with a byte at the end, where the tests look.
fn head(count: u32, byte: u8) -> (PageIndex, Vec<u8>) {
    let mut page = page_one(count, 1);
    page[PAGE_SIZE - 1] = byte;
    (0, page)
}

#[tokio::test]
async fn a_large_commit_reads_the_same_before_while_and_after_it_is_folded() {
    let f = fixture().await;
    let first = f
        .put(&[head(6, 1), (1, filled(1)), (2, filled(1)), (5, filled(1))])
        .await
        .version;
    let large = put_large(
        &f,
        &vec![head(9, 2), (2, filled(2)), (4, filled(2)), (8, filled(2))],
    )
    .await;
    let small = f.put(&[(4, filled(3)), (7, filled(3))]).await.version;
    let usage = f.store.usage(&f.key).await.unwrap();
    assert_eq!((usage.page_versions, usage.staged_pages), (4 + 4 + 2, 0));
    let expect = async || {
        assert_eq!(
            bytes_of(&f, &f.key, first, 10).await,
            [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
        );
        assert_eq!(
            bytes_of(&f, &f.key, large, 10).await,
            [2, 1, 2, 0, 2, 1, 0, 0, 2, 0]
        );
        assert_eq!(
            bytes_of(&f, &f.key, small, 10).await,
            [2, 1, 2, 0, 3, 1, 0, 3, 2, 0]
        );
    };
    expect().await;
    let mut seed = 0;
    while !fold_a_little(&f, seed).await {
        expect().await;
        seed += 1;
    }
    expect().await;
    let usage = f.store.usage(&f.key).await.unwrap();
    assert_eq!((usage.page_versions, usage.page_bytes), (10, 10 * 512));
    // It is gone: there is room for as many again.
    assert_eq!(f.store.fold_layers().await.unwrap().layers, 0);
}

#[tokio::test]
async fn the_version_that_a_page_is_valid_from_comes_with_it_through_every_layer() {
    let f = fixture().await;
    let first = f
        .put(&[head(6, 1), (1, filled(1)), (2, filled(1))])
        .await
        .version;
    let large = put_large(&f, &vec![(2, filled(2))]).await;
    let restored = f.store.restore_namespace(&f.key, first).await.unwrap();
    let base = f.begin().await;
    let froms = async |version| {
        let images = f.read(&base, version, 0..4).await.unwrap();
        images.iter().map(|image| image.from).collect::<Vec<_>>()
    };
    let id = base.namespace.as_version();
    assert_eq!(froms(large).await, [first, first, large, id]);
    assert_eq!(froms(restored).await, [restored; 4]);
    fold(&f).await;
    assert_eq!(froms(large).await, [first, first, large, id]);
    // Only page 2 had to be written out.
    assert_eq!(froms(restored).await, [first, first, restored, id]);
}

#[tokio::test]
async fn pages_cut_off_by_a_layer_stay_gone_until_they_are_written_again() {
    let f = fixture().await;
    let all: Pages = (1..8).map(|index| (index, filled(1))).collect();
    let first = put_large(&f, &[vec![head(8, 1)], all].concat()).await;
    let cut = f.put(&[head(3, 2)]).await.version;
    let base = f.begin().await;
    // It was staged, and cut off again before the commit.
    let grown_and_cut = large(&f, &base, &vec![(2, filled(3)), (5, filled(3))]).await;
    let shrunk = f.commit(&grown_and_cut).await.unwrap().version;
    let grown = put_large(&f, &vec![head(6, 4), (5, filled(4))]).await;
    let expect = async || {
        assert_eq!(
            bytes_of(&f, &f.key, first, 9).await,
            [1, 1, 1, 1, 1, 1, 1, 1, 0]
        );
        assert_eq!(
            bytes_of(&f, &f.key, cut, 9).await,
            [2, 1, 1, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            bytes_of(&f, &f.key, shrunk, 9).await,
            [2, 1, 3, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            bytes_of(&f, &f.key, grown, 9).await,
            [4, 1, 3, 0, 0, 4, 0, 0, 0]
        );
    };
    expect().await;
    let mut seed = 0;
    while !fold_a_little(&f, seed).await {
        expect().await;
        seed += 1;
    }
    expect().await;
    let usage = f.store.usage(&f.key).await.unwrap();
    // Eight pages; page 1 and five absent ones; one; two.
    assert_eq!(
        (usage.page_versions, usage.staged_pages),
        (8 + 6 + 1 + 2, 0)
    );
    assert_eq!(usage.page_bytes, 12 * 512);
}

/// A large update in place says nothing about the page count, or it would undo another's growth.
#[tokio::test]
async fn a_large_commit_that_allocates_nothing_leaves_anothers_growth_alone() {
    let f = fixture().await;
    f.put(&[head(4, 1), (1, filled(1)), (2, filled(1))]).await;
    let base = f.begin().await;
    let in_place = large(&f, &base, &vec![(2, filled(2))]).await;
    f.put(&[head(6, 1), (5, filled(3))]).await;
    let version = f.commit(&in_place).await.unwrap().version;
    let expected = [1, 1, 2, 0, 0, 3];
    assert_eq!(bytes_of(&f, &f.key, version, 6).await, expected);
    fold(&f).await;
    assert_eq!(bytes_of(&f, &f.key, version, 6).await, expected);
}

#[tokio::test]
async fn large_commits_conflict_like_any_others() {
    let f = fixture().await;
    f.put(&[head(6, 1), (1, filled(1)), (2, filled(1))]).await;
    let base = f.begin().await;
    let mine = large(&f, &base, &vec![(2, filled(2))]).await;
    let twin = large(&f, &base, &vec![(2, filled(3))]).await;
    let mut reader = f.write(&base, &[(4, filled(4))]);
    reader.read = [2].into_iter().collect();
    let other = f.write(&base, &[(5, filled(5))]);
    f.commit(&mine).await.unwrap();
    for loser in [&twin, &reader] {
        let refusal = f.commit(loser).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Conflict);
    }
    f.commit(&other).await.unwrap();
    // The same commit again is the same answer.
    let again = f.commit(&mine).await.unwrap();
    assert!(again.version < f.begin().await.version);
}

#[tokio::test]
async fn a_ninth_layer_waits_for_the_first_to_be_folded_or_is_refused() {
    let f = fixture().await;
    for byte in 1..30 {
        let pages = vec![(3, filled(byte)), (u32::from(byte) + 3, filled(byte))];
        let version = put_large(&f, &pages).await;
        assert_eq!(f.content(version, 3).await, Some(filled(byte)));
    }
    let head = f.begin().await.version;
    let many: Pages = (1..1000).map(|index| (index, filled(1))).collect();
    for _ in 0..8 {
        // Each takes more steps to fold than a commit helps with.
        put_large(&f, &many).await;
    }
    let base = f.begin().await;
    let request = large(&f, &base, &vec![(3, filled(99))]).await;
    let refusal = f.commit(&request).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
    assert!(
        refusal.to_string().contains("nothing was written"),
        "{refusal}"
    );
    assert_eq!(f.begin().await.version, base.version);
    fold(&f).await;
    f.commit(&request).await.unwrap();
    assert_eq!(f.content(head, 3).await, Some(filled(29)));
}

#[tokio::test]
async fn a_transaction_reads_its_own_staged_pages_and_nobody_else_does() {
    let f = fixture().await;
    f.put(&[head(9, 1), (1, filled(1)), (2, filled(1))]).await;
    let base = f.begin().await;
    let stage = f
        .stage(
            &base,
            None,
            &[(2, filled(7)), (4, filled(7)), (5, filled(7))],
        )
        .await
        .unwrap();
    let read = async |pages: Vec<PageIndex>, own: bool| {
        let request = ReadRequest {
            namespace: base.namespace,
            version: base.version,
            read_version: stage.read_version,
            pages: pages.into_iter().collect(),
            incarnation: None,
            stage: own.then_some(stage.stage),
        };
        let images = f.store.read(&f.key, request).await?;
        let bytes = images.iter().map(|image| {
            assert!(image.from <= base.version);
            image.data.as_ref().map_or(0, |data| data[PAGE_SIZE - 1])
        });
        Ok::<_, StoreError>(bytes.collect::<Vec<u8>>())
    };
    assert_eq!(
        read((0..7).collect(), true).await.unwrap(),
        [1, 1, 7, 0, 7, 7, 0]
    );
    assert_eq!(
        read((0..7).collect(), false).await.unwrap(),
        [1, 1, 1, 0, 0, 0, 0]
    );
    for (index, byte) in [(1, 1), (2, 7), (3, 0), (5, 7)] {
        assert_eq!(read(vec![index], true).await.unwrap(), [byte]);
    }
    let mut request = f.write(&base, &[]);
    request.stage = Some(StageRef {
        stage: stage.stage,
        count: stage.count,
        sum: stage.sum,
    });
    f.commit(&request).await.unwrap();
    let refusal = read(vec![1], true).await.unwrap_err();
    assert_eq!(refusal.code(), Code::StageInvalid);
}

/// A stage that a layer refers to holds what nothing else does.
#[tokio::test]
async fn time_does_not_touch_the_stage_of_a_layer() {
    let f = fixture().await;
    let version = put_large(&f, &vec![head(4, 1), (2, filled(2))]).await;
    f.clock.advance(100 * 3600 * 1000);
    while f.store.collect_expired().await.unwrap().more {}
    assert_eq!(f.content(version, 2).await, Some(filled(2)));
    fold(&f).await;
    while f.store.collect_expired().await.unwrap().more {}
    assert_eq!(f.content(version, 2).await, Some(filled(2)));
}

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

async fn begin_on(f: &Fixture, key: &NamespaceKey) -> BeginReply {
    f.store.begin(key, Default::default()).await.unwrap()
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
