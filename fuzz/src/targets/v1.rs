//! Protocol v1: what a server takes from clients of the original, and what such a client gets.

use mvsqlite_protocol::v1::{
    CommitBody, CommitGlobalInit, CommitNamespaceInit, CommitPage, CommitReply, Frames, MAX_FRAME,
    MAX_INLINE_PAGES, MAX_NAMESPACES, ReadReply, ReadRequest, WriteReply, WriteRequest, decode,
    encode, push,
};

/// Frames of a request or a reply, each message of them, and whole commits.
///
/// - frames never reach beyond the body, and the bytes of all of them with their heads are the body;
/// - messages survive encoding;
/// - a commit that is taken is within the limits, and what it encodes to is the same commit.
pub(super) fn v1_frames(bytes: &[u8]) {
    walk(Frames::of_request(bytes), bytes, MAX_FRAME);
    walk(Frames::of_reply(bytes), bytes, u32::MAX as usize);
    message(bytes);
    commit(bytes);
}

fn walk(mut frames: Frames<'_>, bytes: &[u8], most: usize) {
    let mut read = 0;
    while !frames.is_empty() {
        let Ok(frame) = frames.bytes() else {
            return;
        };
        assert!(frame.len() <= most);
        read += 4 + frame.len();
        message(frame);
    }
    assert_eq!(read, bytes.len());
}

macro_rules! survives {
    ($bytes:expr, $($message:ty),*) => {
        $(if let Ok(message) = decode::<$message>($bytes) {
            let encoded = encode(&message).expect("a message that was decoded can be encoded");
            assert_eq!(decode::<$message>(&encoded).expect("what was encoded decodes"), message);
        })*
    };
}

fn message(bytes: &[u8]) {
    survives!(
        bytes,
        ReadRequest<'_>,
        ReadReply<'_>,
        WriteRequest<'_>,
        WriteReply<'_>,
        CommitGlobalInit<'_>,
        CommitNamespaceInit<'_>,
        CommitPage<'_>,
        CommitReply
    );
}

fn commit(bytes: &[u8]) {
    let Ok(body) = CommitBody::decode(bytes) else {
        return;
    };
    assert!((1..=MAX_NAMESPACES).contains(&body.namespaces.len()));
    let inline = |page: &&_| is_inline(page);
    let pages = body.namespaces.iter().flat_map(|ns| &ns.pages);
    assert!(pages.filter(inline).count() <= MAX_INLINE_PAGES);
    let encoded = encode_commit(&body);
    let again = CommitBody::decode(&encoded).expect("what was encoded decodes");
    assert_eq!(again, body);
}

fn is_inline(page: &mvsqlite_protocol::v1::WrittenPage<'_>) -> bool {
    page.data.is_some()
}

/// The body of a commit.
fn encode_commit(commit: &CommitBody<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    let init = CommitGlobalInit {
        idempotency_key: commit.key.as_bytes(),
        allow_skip_idempotency_check: !commit.retry,
        num_namespaces: commit.namespaces.len() as u64,
        lock_owner: commit.lock_owner,
    };
    push(&mut body, &init).expect("a message of ours");
    for namespace in &commit.namespaces {
        push(&mut body, &namespace.init).expect("a message of ours");
        for page in &namespace.pages {
            let page = CommitPage {
                page_index: page.index,
                hash: &page.hash,
                data: page.data,
            };
            push(&mut body, &page).expect("a message of ours");
        }
    }
    body
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let version = "000000000001e2400000";
    let read = ReadRequest {
        page_index: 7,
        version,
        hash: None,
        accept_zstd: true,
    };
    let by_hash = ReadRequest {
        hash: Some(&[0x63; 32]),
        ..read
    };
    let mut reads = Vec::new();
    push(&mut reads, &read).expect("a message of ours");
    push(&mut reads, &by_hash).expect("a message of ours");
    let mut writes = Vec::new();
    let write = WriteRequest {
        data: &[1, 2, 3, 4],
        delta_base: Some(7),
    };
    push(&mut writes, &write).expect("a message of ours");
    writes.extend([0; 4]);
    let mut replies = Vec::new();
    let reply = ReadReply {
        version,
        data: &[1, 2, 3, 4],
        zstd: false,
    };
    push(&mut replies, &reply).expect("a message of ours");
    push(&mut replies, &WriteReply { hash: &[] }).expect("a message of ours");
    let changelog = [("db1".to_owned(), vec![1, 2, 70_000])].into();
    let committed = encode(&CommitReply { changelog }).expect("a message of ours");
    vec![
        ("reads", reads),
        ("writes", writes),
        ("replies", replies),
        ("commit-reply", committed),
        ("commit-of-two", commit_of_two()),
    ]
}

fn commit_of_two() -> Vec<u8> {
    let mut body = Vec::new();
    let init = CommitGlobalInit {
        idempotency_key: &[9; 16],
        allow_skip_idempotency_check: true,
        num_namespaces: 2,
        lock_owner: Some("me"),
    };
    push(&mut body, &init).expect("a message of ours");
    for (ns_key, read_set) in [("db1", Some(vec![0, 5])), ("db2", None)] {
        let namespace = CommitNamespaceInit {
            ns_key,
            ns_key_hashproof: None,
            version: "000000000001e2400000",
            metadata: None,
            num_pages: 1,
            read_set,
        };
        push(&mut body, &namespace).expect("a message of ours");
        let page = CommitPage {
            page_index: 5,
            hash: &[0x63; 32],
            data: Some(&[1, 2, 3, 4]),
        };
        push(&mut body, &page).expect("a message of ours");
    }
    body
}
