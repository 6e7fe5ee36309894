//! Protocol v2: what a server takes from its clients, and what a client takes from its server.

use mvsqlite_protocol::page::{MAX_PAGES, MAX_RUNS};
use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, CommitReply, CommitRequest, Concurrency, GroupChanges,
    GroupCommitReply, GroupCommitRequest, GroupMember, GroupName, GroupSettleRequest, KnownState,
    LeaseAction, LeaseReply, LeaseRequest, Limits, ReadRequest, ResolveReply, ResolveRequest,
    SettleReply, SettleRequest, StageRef, StageReply, StageRequest, decode_next, encode,
};
use mvsqlite_protocol::{
    IdempotencyKey, Incarnation, LeaseNonce, Moment, NamespaceId, NamespaceKey, PageData,
    PageImage, PageSet, ReadVersion, StageId, Version,
};
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::property::message_survives;

/// Requests survive encoding, and are within the limits of a message.
pub(super) fn v2_requests(bytes: &[u8]) {
    message_survives::<BeginRequest>(bytes);
    message_survives::<ResolveRequest>(bytes);
    message_survives::<SettleRequest>(bytes);
    message_survives::<LeaseRequest>(bytes);
    message_survives::<GroupSettleRequest>(bytes);
    message_survives::<Moment>(bytes);
    if let Some(read) = message_survives::<ReadRequest>(bytes) {
        assert!(read.pages.runs().len() <= MAX_RUNS);
    }
    if let Some(stage) = message_survives::<StageRequest>(bytes) {
        assert!(stage.pages.len() <= MAX_PAGES);
    }
    if let Some(commit) = message_survives::<CommitRequest>(bytes) {
        assert!(commit.pages.len() <= MAX_PAGES && commit.read.runs().len() <= MAX_RUNS);
    }
    if let Some(group) = message_survives::<GroupCommitRequest>(bytes) {
        assert!(group.members.iter().all(|one| one.pages.len() <= MAX_PAGES));
    }
}

/// Replies survive encoding; a sequence of images ends where its body does.
pub(super) fn v2_replies(bytes: &[u8]) {
    message_survives::<BeginReply>(bytes);
    message_survives::<ResolveReply>(bytes);
    message_survives::<StageReply>(bytes);
    message_survives::<CommitReply>(bytes);
    message_survives::<GroupCommitReply>(bytes);
    message_survives::<SettleReply>(bytes);
    message_survives::<LeaseReply>(bytes);
    let mut rest = bytes;
    while !rest.is_empty() {
        let before = rest.len();
        let Ok(image) = decode_next::<PageImage>(&mut rest) else {
            break;
        };
        assert!(rest.len() < before, "an image of no bytes");
        assert!(image.data.is_none_or(|data| data.len() < before));
    }
}

const NAMESPACE: NamespaceId = NamespaceId::from_bytes([7; 10]);
const VERSION: Version = Version::from_bytes([0, 0, 0, 0, 0, 1, 0xe2, 0x40, 0, 0]);
const READ_VERSION: ReadVersion = ReadVersion(123_456);
const KEY: IdempotencyKey = IdempotencyKey::from_bytes([3; 16]);
const STAGE: StageRef = StageRef {
    stage: StageId::from_bytes([4; 16]),
    count: 1,
    sum: 2,
};

fn bytes_of<T: Serialize>(message: &T) -> Vec<u8> {
    encode(message).expect("a message of ours")
}

fn pages() -> PageSet {
    [1, 2, 3, 70_000].into_iter().collect()
}

fn page() -> PageData {
    PageData {
        index: 2,
        data: ByteBuf::from(vec![5; 64]),
    }
}

fn incarnation() -> Incarnation {
    Incarnation::from_bytes([1; 8])
}

fn commit() -> CommitRequest {
    CommitRequest {
        namespace: NAMESPACE,
        base: VERSION,
        read_version: READ_VERSION,
        key: KEY,
        retry: false,
        read: pages(),
        pages: vec![page()],
        stage: Some(STAGE),
        incarnation: Some(incarnation()),
        lease: Some(LeaseNonce::from_bytes([8; 16])),
    }
}

fn group() -> GroupCommitRequest {
    let member = |ns: &str| GroupMember {
        ns: ns.parse::<NamespaceKey>().expect("a key"),
        namespace: NAMESPACE,
        base: VERSION,
        read: pages(),
        pages: vec![page()],
        stage: None,
        lease: None,
    };
    GroupCommitRequest {
        key: KEY,
        retry: true,
        incarnation: None,
        read_version: READ_VERSION,
        members: vec![member("a"), member("b/c")],
    }
}

pub(super) fn request_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let begin = BeginRequest {
        known: Some(KnownState {
            incarnation: incarnation(),
            namespace: NAMESPACE,
            version: VERSION,
            own: vec![VERSION; 3],
        }),
        want_pages: true,
        as_of: Some(READ_VERSION),
    };
    let resolve = |moment| bytes_of(&ResolveRequest { moment });
    let read = ReadRequest {
        namespace: NAMESPACE,
        version: VERSION,
        read_version: READ_VERSION,
        pages: pages(),
        incarnation: Some(incarnation()),
        stage: Some(STAGE.stage),
    };
    let stage = StageRequest {
        namespace: NAMESPACE,
        read_version: READ_VERSION,
        stage: Some(STAGE.stage),
        pages: vec![page()],
        unstage: pages(),
        incarnation: None,
    };
    let settle = SettleRequest {
        namespace: NAMESPACE,
        key: KEY,
    };
    let name = GroupName {
        ns: "a".parse().expect("a key"),
        namespace: NAMESPACE,
    };
    let settle_group = GroupSettleRequest {
        key: KEY,
        members: vec![name],
    };
    let lease = |action| {
        bytes_of(&LeaseRequest {
            namespace: NAMESPACE,
            incarnation: None,
            nonce: LeaseNonce::from_bytes([8; 16]),
            action,
        })
    };
    vec![
        ("begin", bytes_of(&begin)),
        ("begin-cold", bytes_of(&BeginRequest::default())),
        ("resolve-version", resolve(Moment::Version(VERSION))),
        (
            "resolve-time",
            resolve(Moment::UnixMillis(1_700_000_000_000)),
        ),
        ("read", bytes_of(&read)),
        ("stage", bytes_of(&stage)),
        ("commit", bytes_of(&commit())),
        ("commit-group", bytes_of(&group())),
        ("settle", bytes_of(&settle)),
        ("settle-group", bytes_of(&settle_group)),
        (
            "lease-acquire",
            lease(LeaseAction::Acquire { place: Some(5) }),
        ),
        ("lease-renew", lease(LeaseAction::Renew)),
        ("lease-release", lease(LeaseAction::Release { place: None })),
    ]
}

/// What a server of ours answers to `begin`.
pub(super) fn begin_reply(page_one: Option<Vec<u8>>) -> BeginReply {
    let image = page_one.map(|data| PageImage {
        index: 0,
        from: VERSION,
        data: Some(ByteBuf::from(data)),
    });
    BeginReply {
        incarnation: incarnation(),
        namespace: NAMESPACE,
        version: VERSION,
        read_version: READ_VERSION,
        page_size: if image.is_some() { 512 } else { 0 },
        mode: Concurrency::Optimistic,
        limits: limits(),
        changed: Some(pages()),
        pages: image.into_iter().collect(),
    }
}

fn limits() -> Limits {
    Limits {
        inline_bytes: 4 << 20,
        stage_batch_bytes: 4 << 20,
        commit_pages: u64::from(u32::MAX),
        read_pages: 200,
        read_bytes: 4 << 20,
    }
}

pub(super) fn reply_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let resolve = ResolveReply {
        incarnation: incarnation(),
        namespace: NAMESPACE,
        version: VERSION,
        read_version: READ_VERSION,
        page_size: 512,
        limits: limits(),
    };
    let image = |index, data: Option<usize>| PageImage {
        index,
        from: VERSION,
        data: data.map(|size| ByteBuf::from(vec![5; size])),
    };
    let images = [image(1, Some(64)), image(2, None), image(9, Some(64))];
    let stage = StageReply {
        stage: STAGE.stage,
        count: 1,
        sum: 2,
        read_version: READ_VERSION,
    };
    let commit = CommitReply {
        version: VERSION,
        seen: VERSION,
        read_version: READ_VERSION,
        changed: Some(pages()),
    };
    let changes = GroupChanges {
        seen: VERSION,
        changed: None,
    };
    let group = GroupCommitReply {
        version: VERSION,
        read_version: READ_VERSION,
        members: vec![changes.clone(), changes],
    };
    let settled = SettleReply::Committed {
        version: VERSION,
        read_version: READ_VERSION,
    };
    let granted = LeaseReply::Granted {
        ttl_millis: 10_000,
        head: VERSION,
        read_version: READ_VERSION,
    };
    let busy = LeaseReply::Busy {
        place: 5,
        retry_millis: 20,
        place_millis: 2000,
    };
    vec![
        ("begin", bytes_of(&begin_reply(Some(vec![0; 512])))),
        ("begin-empty", bytes_of(&begin_reply(None))),
        ("resolve", bytes_of(&resolve)),
        ("images", images.iter().flat_map(bytes_of).collect()),
        ("stage", bytes_of(&stage)),
        ("commit", bytes_of(&commit)),
        ("commit-group", bytes_of(&group)),
        ("settled", bytes_of(&settled)),
        ("aborted", bytes_of(&SettleReply::Aborted)),
        ("lease-granted", bytes_of(&granted)),
        ("lease-busy", bytes_of(&busy)),
        ("lease-released", bytes_of(&LeaseReply::Released)),
    ]
}
