//! Layers: commits too large for one transaction, before, while and after they are folded.

use std::sync::Arc;

use mvsqlite_protocol::v2::{
    BeginReply, CommitRequest, GroupCommitRequest, GroupMember, ReadRequest, StageRef, StageRequest,
};
use mvsqlite_protocol::{Code, IdempotencyKey, NamespaceKey, PageImage, PageIndex, Version};
use mvstore::error::StoreError;
use mvstore::kv::Limits;
use mvstore::kv::faults::{Fault, SeededFaults};
use mvstore::kv::memory::MemoryEngine;
use mvstore::store::Knobs;

use crate::support::{Fixture, PAGE_SIZE, filled, key, page, page_one};

type Pages = Vec<(PageIndex, Vec<u8>)>;

/// A store where each staged page makes a commit a large one, and folding goes page by page.
pub(crate) async fn fixture() -> Fixture {
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

pub(crate) async fn put_large(f: &Fixture, pages: &Pages) -> Version {
    let base = f.begin().await;
    let request = large(f, &base, pages).await;
    f.commit(&request).await.unwrap().version
}

pub(crate) async fn fold(f: &Fixture) {
    while f.store.fold_layers().await.unwrap().more {}
}

/// Folds for a while, until the engine fails; returns whether it is done.
pub(crate) async fn fold_a_little(f: &Fixture, seed: u64) -> bool {
    f.engine
        .set_plan(SeededFaults::new(seed, 300, [Fault::Unavailable]));
    let done = f.store.fold_layers().await.is_ok_and(|folded| !folded.more);
    f.faults([]);
    done
}

/// The first bytes of a run of pages, 0 where there is none; read as a run and one by one.
pub(crate) async fn bytes_of(
    f: &Fixture,
    key: &NamespaceKey,
    version: Version,
    count: u32,
) -> Vec<u8> {
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
pub(crate) fn head(count: u32, byte: u8) -> (PageIndex, Vec<u8>) {
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

pub(crate) async fn begin_on(f: &Fixture, key: &NamespaceKey) -> BeginReply {
    f.store.begin(key, Default::default()).await.unwrap()
}

/// Each namespace of a group that needs a layer gets one of its own, at the version of all.
#[tokio::test]
async fn a_group_of_large_commits_is_one_commit() {
    let f = fixture().await;
    let other = key("other");
    f.store.create_namespace(&other).await.unwrap();
    let mut members = Vec::new();
    let mut read_version = Default::default();
    for (byte, name) in [(1, &f.key), (2, &other)] {
        let base = begin_on(&f, name).await;
        let request = StageRequest {
            namespace: base.namespace,
            read_version: base.read_version,
            stage: None,
            pages: (1..6).map(|index| page(index, &filled(byte))).collect(),
            unstage: Default::default(),
            incarnation: None,
        };
        let reply = f.store.stage(name, request).await.unwrap();
        read_version = reply.read_version.max(read_version);
        let (index, first) = head(6, byte);
        members.push(GroupMember {
            ns: name.clone(),
            namespace: base.namespace,
            base: base.version,
            read: Default::default(),
            pages: vec![page(index, &first)],
            stage: Some(StageRef {
                stage: reply.stage,
                count: reply.count,
                sum: reply.sum,
            }),
            lease: None,
        });
    }
    let request = GroupCommitRequest {
        key: IdempotencyKey::from_bytes([5; 16]),
        retry: false,
        incarnation: None,
        read_version,
        members,
    };
    let version = f.store.commit_group(request).await.unwrap().version;
    for _ in 0..2 {
        assert_eq!(
            bytes_of(&f, &f.key, version, 7).await,
            [1, 1, 1, 1, 1, 1, 0]
        );
        assert_eq!(
            bytes_of(&f, &other, version, 7).await,
            [2, 2, 2, 2, 2, 2, 0]
        );
        fold(&f).await;
    }
}

/// Stages tiny pages, in as many batches as it takes.
async fn stage_many(
    f: &Fixture,
    key: &NamespaceKey,
    base: &BeginReply,
    pages: impl IntoIterator<Item = PageIndex>,
) -> StageRef {
    let pages: Vec<PageIndex> = pages.into_iter().collect();
    let mut stage = None;
    for some in pages.chunks(200) {
        let request = StageRequest {
            namespace: base.namespace,
            read_version: base.read_version,
            stage: stage.map(|stage: StageRef| stage.stage),
            pages: some.iter().map(|index| page(*index, &[7])).collect(),
            unstage: Default::default(),
            incarnation: None,
        };
        let reply = f.store.stage(key, request).await.unwrap();
        stage = Some(StageRef {
            stage: reply.stage,
            count: reply.count,
            sum: reply.sum,
        });
    }
    stage.unwrap()
}

/// Symptom: a transaction that filled a large table and dropped it again could never be committed on
/// FoundationDB: "transaction too large". Cause: staged pages behind the new end of the database were
/// cleared one by one in the commit's own transaction, however many they were. Fix: they are one range.
#[tokio::test]
async fn any_number_of_staged_pages_may_lie_behind_the_new_end() {
    let limits = Limits {
        transaction_bytes: 140_000,
        ..Limits::FOUNDATIONDB
    };
    let f = Fixture::with_limits(limits).await;
    let base = f.begin().await;
    let stage = stage_of_size(&f, &base, 2000).await;
    let mut request = f.write(&base, &[head(3, 1)]);
    request.stage = Some(stage);
    let version = f.commit(&request).await.unwrap().version;
    assert_eq!(bytes_of(&f, &f.key, version, 5).await, [1, 7, 7, 0, 0]);
    let usage = f.store.usage(&f.key).await.unwrap();
    assert_eq!((usage.page_versions, usage.staged_pages), (3, 0));
}

/// Symptom: a commit over many databases with scattered changes in each could never be made: the engine
/// found it too large. Cause: each database's changelog was allowed what is meant for a transaction.
/// Fix: they share it, as they share everything else.
#[tokio::test]
async fn databases_of_one_commit_share_the_room_for_their_changelogs() {
    let limits = Limits {
        transaction_bytes: 300_000,
        ..Limits::FOUNDATIONDB
    };
    let f = Fixture::with_limits(limits).await;
    let mut members = Vec::new();
    let mut read_version = Default::default();
    for number in 0..16 {
        let name = key(&format!("db{number}"));
        f.store.create_namespace(&name).await.unwrap();
        let base = begin_on(&f, &name).await;
        let scattered = (1..4000).map(|number| number * 50_000);
        let stage = stage_many(&f, &name, &base, scattered).await;
        read_version = f.begin().await.read_version.max(read_version);
        members.push(GroupMember {
            ns: name,
            namespace: base.namespace,
            base: base.version,
            read: Default::default(),
            pages: (0..4)
                .map(|index| page(2 + index, &vec![1; 1500]))
                .collect(),
            stage: Some(stage),
            lease: None,
        });
    }
    let request = GroupCommitRequest {
        key: IdempotencyKey::from_bytes([6; 16]),
        retry: false,
        incarnation: None,
        read_version,
        members,
    };
    f.store.commit_group(request).await.unwrap();
}

/// Symptom: on FoundationDB a transaction of some 16,000 pages was refused for ever as too large, while
/// smaller and larger ones went through. Cause: what a commit may write page by page and from where on it
/// makes a layer were two bounds, and the first was the lower one; pages inline counted for one of them
/// only. Fix: a commit makes a layer of what the transaction has no room for.
#[tokio::test]
async fn no_number_of_staged_pages_is_too_large_for_pages_and_too_small_for_a_layer() {
    let limits = Limits {
        transaction_bytes: 140_000,
        ..Limits::FOUNDATIONDB
    };
    let f = Fixture::with_limits(limits).await;
    for (staged, inline, removed) in (170..260).step_by(3).map(|staged| (staged, 0, 0)).chain([
        (100, 100, 0),
        (150, 90, 60),
        (200, 0, 150),
        (220, 0, 220),
    ]) {
        let end = 1 + staged + inline + removed;
        f.put(&[head(end, 1)]).await;
        let base = f.begin().await;
        let stage = stage_of_size(&f, &base, staged).await;
        let mut pages: Pages = (0..inline)
            .map(|index| (1 + staged + index, filled(8)))
            .collect();
        pages.push(head(end - removed, 2));
        let mut request = f.write(&base, &pages);
        request.stage = Some(stage);
        let case = (staged, inline, removed);
        if let Err(error) = f.commit(&request).await {
            panic!("{case:?}: {error}");
        }
        fold(&f).await;
    }
}

/// A stage with pages from the second on.
async fn stage_of_size(f: &Fixture, base: &BeginReply, count: u32) -> StageRef {
    let pages: Pages = (1..=count).map(|index| (index, filled(7))).collect();
    let mut stage = None;
    for some in pages.chunks(50) {
        let reply = f.stage(base, stage.map(|stage: StageRef| stage.stage), some);
        let reply = reply.await.unwrap();
        stage = Some(StageRef {
            stage: reply.stage,
            count: reply.count,
            sum: reply.sum,
        });
    }
    stage.unwrap()
}
