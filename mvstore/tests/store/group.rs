//! Commits over several namespaces: in all of them or in none, at one version.

use std::sync::Arc;

use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, GroupCommitReply, GroupCommitRequest, GroupMember, GroupName,
    GroupSettleRequest, KnownState, SettleReply, StageRef, StageRequest,
};
use mvsqlite_protocol::{Code, IdempotencyKey, PageIndex, PageSet, ReadVersion, Version};
use mvstore::environment::Entropy;
use mvstore::error::StoreError;
use mvstore::kv::faults::Fault;
use mvstore::kv::memory::MemoryEngine;

use crate::interleave::Interleaved;
use crate::support::{Fixture, Random, filled, key, page, page_one};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Namespaces `a`, `b` and `c`, each with ten pages.
async fn fixture() -> Fixture {
    let f = Fixture::new().await;
    fill(&f).await;
    f
}

async fn fill(f: &Fixture) {
    for name in NAMES {
        f.store.create_namespace(&key(name)).await.unwrap();
        let pages: Vec<_> = (1..10).map(|index| (index, filled(1))).collect();
        let member = member(name, &begin(f, name).await, [], &pages);
        commit(f, vec![member]).await.unwrap();
    }
}

async fn begin(f: &Fixture, name: &str) -> BeginReply {
    let request = BeginRequest::default();
    f.store.begin(&key(name), request).await.unwrap()
}

async fn begin_as_of(f: &Fixture, name: &str, moment: ReadVersion) -> BeginReply {
    let request = BeginRequest {
        as_of: Some(moment),
        ..BeginRequest::default()
    };
    f.store.begin(&key(name), request).await.unwrap()
}

fn member(
    name: &str,
    base: &BeginReply,
    read: impl IntoIterator<Item = PageIndex>,
    pages: &[(PageIndex, Vec<u8>)],
) -> GroupMember {
    GroupMember {
        ns: key(name),
        namespace: base.namespace,
        base: base.version,
        read: read.into_iter().collect(),
        pages: pages
            .iter()
            .map(|(index, data)| page(*index, data))
            .collect(),
        stage: None,
        lease: None,
    }
}

fn group(f: &Fixture, members: Vec<GroupMember>) -> GroupCommitRequest {
    let mut bytes = [0; 16];
    f.random.fill(&mut bytes).unwrap();
    GroupCommitRequest {
        key: IdempotencyKey::from_bytes(bytes),
        retry: false,
        incarnation: Some(f.store.incarnation()),
        read_version: ReadVersion(0),
        members,
    }
}

async fn commit(f: &Fixture, members: Vec<GroupMember>) -> Result<GroupCommitReply, StoreError> {
    f.store.commit_group(group(f, members)).await
}

async fn settle(f: &Fixture, request: &GroupCommitRequest) -> Result<SettleReply, StoreError> {
    let names = request.members.iter().rev().map(|member| GroupName {
        ns: member.ns.clone(),
        namespace: member.namespace,
    });
    let request = GroupSettleRequest {
        key: request.key,
        members: names.collect(),
    };
    f.store.settle_group(request).await
}

/// The first byte of a page as of now.
async fn byte(f: &Fixture, name: &str, index: PageIndex) -> u8 {
    let base = begin(f, name).await;
    let request = mvsqlite_protocol::v2::ReadRequest {
        namespace: base.namespace,
        version: base.version,
        read_version: base.read_version,
        pages: [index].into_iter().collect(),
        incarnation: None,
        stage: None,
    };
    let images = f.store.read(&key(name), request).await.unwrap();
    images[0].data.as_ref().unwrap()[0]
}

fn writing(name: &str, base: &BeginReply, index: PageIndex, value: u8) -> GroupMember {
    member(name, base, [], &[(index, filled(value))])
}

#[tokio::test]
async fn all_namespaces_written_get_one_version_and_those_only_read_none() {
    let f = fixture().await;
    let (a, b, c) = (
        begin(&f, "a").await,
        begin(&f, "b").await,
        begin(&f, "c").await,
    );
    let other = commit(&f, vec![writing("b", &b, 9, 5)]).await.unwrap();
    let members = vec![
        writing("c", &c, 1, 7),
        member("a", &a, [2], &[]),
        writing("b", &b, 1, 8),
    ];
    let reply = commit(&f, members).await.unwrap();
    assert_eq!(begin(&f, "a").await.version, a.version);
    assert_eq!(begin(&f, "b").await.version, reply.version);
    assert_eq!(begin(&f, "c").await.version, reply.version);
    assert_eq!((byte(&f, "c", 1).await, byte(&f, "b", 1).await), (7, 8));
    // What others did, in the order of the members.
    let seen: Vec<_> = reply.members.iter().map(|member| member.seen).collect();
    assert_eq!(seen, [c.version, a.version, other.version]);
    let changed: Vec<_> = reply
        .members
        .into_iter()
        .map(|m| m.changed.unwrap())
        .collect();
    assert_eq!(changed[0], PageSet::new());
    assert_eq!(changed[2], [9].into_iter().collect());
}

#[tokio::test]
async fn a_conflict_in_either_namespace_leaves_both_untouched() {
    for loser in ["a", "b"] {
        let f = fixture().await;
        let (a, b) = (begin(&f, "a").await, begin(&f, "b").await);
        let stale = begin(&f, loser).await;
        commit(&f, vec![writing(loser, &stale, 1, 3)])
            .await
            .unwrap();
        let before = (begin(&f, "a").await.version, begin(&f, "b").await.version);
        let members = vec![writing("a", &a, 1, 7), writing("b", &b, 1, 8)];
        let refusal = commit(&f, members).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Conflict, "{refusal}");
        let after = (begin(&f, "a").await.version, begin(&f, "b").await.version);
        assert_eq!(before, after);
    }
}

#[tokio::test]
async fn write_skew_across_namespaces_is_a_conflict() {
    let f = fixture().await;
    let (a, b) = (begin(&f, "a").await, begin(&f, "b").await);
    let one = vec![writing("a", &a, 1, 7), member("b", &b, [1], &[])];
    let two = vec![member("a", &a, [1], &[]), writing("b", &b, 1, 8)];
    commit(&f, one).await.unwrap();
    let refusal = commit(&f, two).await.unwrap_err();
    assert!(
        matches!(
            refusal,
            StoreError::Conflict {
                page: Some(1),
                version: Some(_)
            }
        ),
        "{refusal}"
    );
    assert_eq!(byte(&f, "b", 1).await, 1);
}

/// The other half of the skew commits behind all that the first has read: only the engine sees it.
#[tokio::test]
async fn write_skew_at_the_last_moment_is_a_conflict_too() {
    for (reads_what_is_written, expected) in [(true, false), (false, true)] {
        let random = Arc::new(Random::new(1));
        let engine = Interleaved::new(Arc::new(MemoryEngine::new()), random);
        let f = Arc::new(Fixture::over(Arc::new(engine.clone()), 1).await);
        fill(&f).await;
        let (a, b) = (begin(&f, "a").await, begin(&f, "b").await);
        let read = if reads_what_is_written { 1 } else { 2 };
        let mine = vec![writing("a", &a, 1, 7), member("b", &b, [read], &[])];
        let theirs = vec![member("a", &a, [3], &[]), writing("b", &b, 1, 8)];
        let other = f.clone();
        engine.before_commit(async move {
            commit(&other, theirs).await.unwrap();
        });
        assert_eq!(commit(&f, mine).await.is_ok(), expected);
        assert_eq!(byte(&f, "b", 1).await, 8);
    }
}

#[tokio::test]
async fn page_1_is_judged_by_its_class_in_each_namespace() {
    let f = fixture().await;
    for name in ["a", "b"] {
        let base = begin(&f, name).await;
        let first = member(name, &base, [], &[(0, page_one(10, 1))]);
        commit(&f, vec![first]).await.unwrap();
    }
    let (a, b) = (begin(&f, "a").await, begin(&f, "b").await);
    // Growth of one that is only read elsewhere is no conflict, a schema change is.
    let grows = member("b", &b, [], &[(0, page_one(11, 1)), (10, filled(1))]);
    commit(&f, vec![grows]).await.unwrap();
    let reads = || vec![writing("a", &a, 1, 2), member("b", &b, [0, 1], &[])];
    commit(&f, reads()).await.unwrap();
    let a = begin(&f, "a").await;
    let now = begin(&f, "b").await;
    let alters = member("b", &now, [], &[(0, page_one(11, 2))]);
    commit(&f, vec![alters]).await.unwrap();
    let reads = vec![writing("a", &a, 1, 2), member("b", &now, [0, 1], &[])];
    assert_eq!(commit(&f, reads).await.unwrap_err().code(), Code::Conflict);
}

#[tokio::test]
async fn a_group_sent_again_is_done_once_in_whatever_order_it_names_its_members() {
    let f = fixture().await;
    let (a, b) = (begin(&f, "a").await, begin(&f, "b").await);
    let request = group(&f, vec![writing("a", &a, 1, 7), writing("b", &b, 1, 8)]);
    let first = f.store.commit_group(request.clone()).await.unwrap();
    let mut again = request.clone();
    again.retry = true;
    again.members.reverse();
    let reply = f.store.commit_group(again).await.unwrap();
    assert_eq!(reply.version, first.version);
    assert_eq!(begin(&f, "a").await.version, first.version);
    let mut other = request.clone();
    other.members.pop();
    let refusal = f.store.commit_group(other).await.unwrap_err();
    assert_eq!(refusal.code(), Code::KeyReused);
}

#[tokio::test]
async fn settling_a_group_finds_it_or_makes_it_impossible() {
    let f = fixture().await;
    let (a, b) = (begin(&f, "a").await, begin(&f, "b").await);
    let done = group(&f, vec![writing("a", &a, 1, 7), writing("b", &b, 1, 8)]);
    let reply = f.store.commit_group(done.clone()).await.unwrap();
    let settled = settle(&f, &done).await.unwrap();
    assert!(matches!(settled, SettleReply::Committed { version, .. } if version == reply.version));

    let never = group(
        &f,
        vec![
            writing("b", &begin(&f, "b").await, 2, 8),
            writing("c", &begin(&f, "c").await, 2, 8),
        ],
    );
    assert_eq!(settle(&f, &never).await.unwrap(), SettleReply::Aborted);
    let refusal = f.store.commit_group(never.clone()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Aborted);
    assert_eq!(byte(&f, "b", 2).await, 1);
    assert_eq!(settle(&f, &never).await.unwrap(), SettleReply::Aborted);
}

/// The namespace of the smallest id holds the outcome, even if it was only read.
#[tokio::test]
async fn the_outcome_is_found_where_only_reading_was_done() {
    let f = fixture().await;
    let (a, c) = (begin(&f, "a").await, begin(&f, "c").await);
    let request = group(&f, vec![writing("c", &c, 1, 7), member("a", &a, [1], &[])]);
    let reply = f.store.commit_group(request.clone()).await.unwrap();
    let settled = settle(&f, &request).await.unwrap();
    assert!(matches!(settled, SettleReply::Committed { version, .. } if version == reply.version));
    let again = f.store.commit_group(request).await.unwrap();
    assert_eq!(again.members[1].seen, a.version);
    assert_eq!(again.members[0].seen, reply.version);
}

#[tokio::test]
async fn outcomes_that_the_engine_does_not_know_are_found_out_for_all_members() {
    let f = fixture().await;
    for (value, fault) in [
        (11, Fault::UnknownCommitted),
        (12, Fault::UnknownNotCommitted),
    ] {
        let (a, b) = (begin(&f, "a").await, begin(&f, "b").await);
        f.faults([Some(fault)]);
        let members = vec![writing("a", &a, 1, value), writing("b", &b, 1, value)];
        let reply = commit(&f, members).await.unwrap();
        assert_eq!(begin(&f, "a").await.version, reply.version);
        assert_eq!(begin(&f, "b").await.version, reply.version);
        assert_eq!(
            (byte(&f, "a", 1).await, byte(&f, "b", 1).await),
            (value, value)
        );
    }
}

#[tokio::test]
async fn groups_that_make_no_sense_are_refused() {
    let f = fixture().await;
    let a = begin(&f, "a").await;
    let many = (0..17).map(|_| writing("a", &a, 1, 2)).collect();
    for members in [
        vec![],
        vec![member("a", &a, [1], &[])],
        vec![writing("a", &a, 1, 2), writing("a", &a, 2, 2)],
        many,
    ] {
        let refusal = commit(&f, members).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Malformed, "{refusal}");
    }
    let empty = GroupSettleRequest {
        key: IdempotencyKey::from_bytes([1; 16]),
        members: vec![],
    };
    let refusal = f.store.settle_group(empty).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Malformed);
    assert_eq!(begin(&f, "a").await.version, a.version);
}

#[tokio::test]
async fn a_member_that_is_another_namespace_by_now_refuses_the_group() {
    let f = fixture().await;
    let (a, b) = (begin(&f, "a").await, begin(&f, "b").await);
    f.store.delete_namespace(&key("b")).await.unwrap();
    f.store.create_namespace(&key("b")).await.unwrap();
    for member_of_b in [writing("b", &b, 1, 2), member("b", &b, [1], &[])] {
        let members = vec![writing("a", &a, 1, 2), member_of_b];
        let refusal = commit(&f, members).await.unwrap_err();
        assert_eq!(refusal.code(), Code::NamespaceChanged, "{refusal}");
    }
    assert_eq!(begin(&f, "a").await.version, a.version);
}

#[tokio::test]
async fn members_may_bring_stages() {
    let f = fixture().await;
    let (a, b) = (begin(&f, "a").await, begin(&f, "b").await);
    let staged = f
        .store
        .stage(
            &key("b"),
            StageRequest {
                namespace: b.namespace,
                read_version: b.read_version,
                stage: None,
                pages: vec![page(3, &filled(9)), page(4, &filled(9))],
                unstage: PageSet::new(),
                incarnation: None,
            },
        )
        .await
        .unwrap();
    let mut with_stage = writing("b", &b, 5, 9);
    with_stage.stage = Some(StageRef {
        stage: staged.stage,
        count: staged.count,
        sum: staged.sum,
    });
    let mut request = group(&f, vec![with_stage, writing("a", &a, 1, 9)]);
    request.read_version = staged.read_version;
    f.store.commit_group(request).await.unwrap();
    for (name, index) in [("a", 1), ("b", 3), ("b", 4), ("b", 5)] {
        assert_eq!(byte(&f, name, index).await, 9);
    }
}

#[tokio::test]
async fn a_snapshot_as_of_a_moment_does_not_see_what_came_later() {
    let f = fixture().await;
    let a = begin(&f, "a").await;
    let b = begin(&f, "b").await;
    let members = vec![writing("a", &a, 1, 7), writing("b", &b, 1, 8)];
    let reply = commit(&f, members).await.unwrap();
    let then = begin_as_of(&f, "b", a.read_version).await;
    assert_eq!(then.version, b.version);
    assert!(then.read_version >= a.read_version);
    let now = begin_as_of(&f, "b", reply.read_version).await;
    assert_eq!(now.version, reply.version);
    // A namespace that was made later is empty at that moment.
    f.store.create_namespace(&key("late")).await.unwrap();
    let late = begin_as_of(&f, "late", a.read_version).await;
    assert_eq!(late.version, late.namespace.as_version());
    // Nobody has been there yet.
    let future = BeginRequest {
        as_of: Some(ReadVersion(u64::MAX)),
        ..BeginRequest::default()
    };
    let refusal = f.store.begin(&key("a"), future).await.unwrap_err();
    assert_eq!(refusal.code(), Code::VersionUnknown);
}

#[tokio::test]
async fn changes_are_told_up_to_the_moment_and_not_beyond() {
    let f = fixture().await;
    let first = begin(&f, "b").await;
    let mut base = first.clone();
    let mut versions = Vec::new();
    for index in 1..4 {
        versions.push(
            commit(&f, vec![writing("b", &base, index, 4)])
                .await
                .unwrap(),
        );
        base = begin(&f, "b").await;
    }
    let request = |version: Version| BeginRequest {
        known: Some(KnownState {
            incarnation: f.store.incarnation(),
            namespace: first.namespace,
            version,
            own: Vec::new(),
        }),
        as_of: Some(versions[1].read_version),
        ..BeginRequest::default()
    };
    let reply = f
        .store
        .begin(&key("b"), request(first.version))
        .await
        .unwrap();
    assert_eq!(reply.version, versions[1].version);
    assert_eq!(reply.changed, Some([1, 2].into_iter().collect()));
    // A client that knows more than the moment has to drop its cache, or keep it for later.
    let reply = f
        .store
        .begin(&key("b"), request(versions[2].version))
        .await
        .unwrap();
    assert_eq!(reply.version, versions[1].version);
    assert_eq!(reply.changed, None);
}
