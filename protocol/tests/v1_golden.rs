//! The bytes of data plane v1: each worked example of its description, byte for byte, and what hostile
//! peers may make of them.
//!
//! These bytes are the original's. A test here that fails means that its programs are not served any
//! more.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeMap;
use std::fmt::Debug;

use mvsqlite_protocol::IdempotencyKey;
use mvsqlite_protocol::v1::{
    CommitBody, CommitError, CommitGlobalInit, CommitNamespaceInit, CommitPage, CommitReply,
    FrameError, Frames, MAX_FRAME, ReadReply, ReadRequest, StatReply, WriteReply, WriteRequest,
    WrittenPage, decode, encode, push,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

const VERSION: &str = "000000000001e2400000";
const PAGE: &[u8] = &[1, 2, 3, 4];
const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Hex with spaces, as the description has it.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn hash() -> Vec<u8> {
    hex("63781d171425a36312fa058d8712d5d05135a991ec20351ce9d65cdb19a05432")
}

/// Puts the toy page's hash where the description has `H`.
fn with_hash(text: &str) -> Vec<u8> {
    let digits: String = hash().iter().map(|byte| format!("{byte:02x}")).collect();
    hex(&text.replace('H', &digits))
}

/// Both directions, and that nothing shorter passes.
fn framed<'a, T>(message: &T, bytes: &'a [u8])
where
    T: Serialize + Deserialize<'a> + PartialEq + Debug,
{
    let mut body = Vec::new();
    push(&mut body, message).unwrap();
    assert_eq!(body, bytes, "{message:?}");
    let mut frames = Frames::of_request(bytes);
    assert_eq!(&frames.message::<T>().unwrap(), message);
    assert!(frames.is_empty());
    for length in 0..bytes.len() {
        let cut = Frames::of_request(&bytes[..length]).message::<T>();
        assert!(matches!(cut, Err(FrameError::Short)), "{cut:?}");
    }
}

#[test]
fn a_read_of_page_7() {
    let request = ReadRequest {
        page_index: 7,
        version: VERSION,
        hash: None,
        accept_zstd: true,
    };
    let bytes = hex("0000003d 84 aa 706167655f696e646578 07
        a7 76657273696f6e b4 3030303030303030303030316532343030303030
        a4 68617368 c0 ab 6163636570745f7a737464 c3");
    framed(&request, &bytes);

    let page = ReadReply {
        version: "000000000001d4c00000",
        data: PAGE,
        zstd: false,
    };
    let bytes = hex(
        "0000002f 83 a7 76657273696f6e b4 3030303030303030303030316434633030303030
        a4 64617461 c4 04 01020304 a4 7a737464 c2",
    );
    framed(&page, &bytes);

    let none = ReadReply {
        version: "",
        data: &[],
        zstd: false,
    };
    let bytes = hex("00000017 83 a7 76657273696f6e a0 a4 64617461 c4 00 a4 7a737464 c2");
    framed(&none, &bytes);
}

#[test]
fn an_upload() {
    let request = WriteRequest {
        data: PAGE,
        delta_base: Some(7),
    };
    let bytes = hex("00000018 82 a4 64617461 c4 04 01020304 aa 64656c74615f62617365 07");
    framed(&request, &bytes);
    let end = [bytes, hex("00000000")].concat();
    let mut frames = Frames::of_request(&end);
    assert_eq!(frames.message::<WriteRequest<'_>>().unwrap(), request);
    assert!(frames.bytes().unwrap().is_empty());

    let hash = hash();
    let bytes = with_hash("00000028 81 a4 68617368 c4 20 H");
    framed(&WriteReply { hash: &hash }, &bytes);
    let bytes = hex("00000008 81 a4 68617368 c4 00");
    framed(&WriteReply { hash: &[] }, &bytes);
}

#[test]
fn a_read_by_hash() {
    let hash = hash();
    let request = ReadRequest {
        page_index: 7,
        version: VERSION,
        hash: Some(&hash),
        accept_zstd: true,
    };
    let bytes = with_hash(
        "0000005e 84 aa 706167655f696e646578 07
        a7 76657273696f6e b4 3030303030303030303030316532343030303030
        a4 68617368 c4 20 H ab 6163636570745f7a737464 c3",
    );
    framed(&request, &bytes);
}

/// The worked example of a commit, its page by reference.
fn commit() -> Vec<u8> {
    [global_init(), namespace_init(), page_by_reference()].concat()
}

fn global_init() -> Vec<u8> {
    hex("0000005d 84
        af 6964656d706f74656e63795f6b6579 c4 10 000102030405060708090a0b0c0d0e0f
        bc 616c6c6f775f736b69705f6964656d706f74656e63795f636865636b c3
        ae 6e756d5f6e616d65737061636573 01
        aa 6c6f636b5f6f776e6572 c0")
}

fn namespace_init() -> Vec<u8> {
    hex("0000005c 86
        a6 6e735f6b6579 a3 646231
        b0 6e735f6b65795f6861736870726f6f66 c0
        a7 76657273696f6e b4 3030303030303030303030316532343030303030
        a8 6d65746164617461 c0
        a9 6e756d5f7061676573 01
        a8 726561645f736574 92 00 07")
}

fn page_by_reference() -> Vec<u8> {
    with_hash("0000003a 83 aa 706167655f696e646578 07 a4 68617368 c4 20 H a4 64617461 c0")
}

#[test]
fn a_commit() {
    let hash = hash();
    let init = CommitGlobalInit {
        idempotency_key: &KEY,
        allow_skip_idempotency_check: true,
        num_namespaces: 1,
        lock_owner: None,
    };
    framed(&init, &global_init());
    let namespace = CommitNamespaceInit {
        ns_key: "db1",
        ns_key_hashproof: None,
        version: VERSION,
        metadata: None,
        num_pages: 1,
        read_set: Some(vec![0, 7]),
    };
    framed(&namespace, &namespace_init());
    let page = CommitPage {
        page_index: 7,
        hash: &hash,
        data: None,
    };
    framed(&page, &page_by_reference());
    let inline = CommitPage {
        data: Some(PAGE),
        ..page
    };
    let bytes = with_hash(
        "0000003f 83 aa 706167655f696e646578 07 a4 68617368 c4 20 H a4 64617461 c4 04 01020304",
    );
    framed(&inline, &bytes);

    let body = commit();
    let decoded = CommitBody::decode(&body).unwrap();
    assert_eq!(decoded.key, IdempotencyKey::from_bytes(KEY));
    assert!(!decoded.retry);
    assert_eq!(decoded.lock_owner, None);
    assert_eq!(decoded.namespaces.len(), 1);
    assert_eq!(decoded.namespaces[0].init, namespace);
    let written = WrittenPage {
        index: 7,
        hash: hash.try_into().unwrap(),
        data: None,
    };
    assert_eq!(decoded.namespaces[0].pages, [written]);

    let reply = CommitReply {
        changelog: BTreeMap::from([("db1".to_owned(), vec![3, 5])]),
    };
    let bytes = hex("81 a9 6368616e67656c6f67 81 a3 646231 92 03 05");
    assert_eq!(encode(&reply).unwrap(), bytes);
    assert_eq!(decode::<CommitReply>(&bytes).unwrap(), reply);
}

#[test]
fn a_stat() {
    let reply = StatReply {
        version: VERSION.to_owned(),
        metadata: String::new(),
        read_only: false,
        interval: Some(vec![0, 7]),
    };
    let json =
        r#"{"version":"000000000001e2400000","metadata":"","read_only":false,"interval":[0,7]}"#;
    assert_eq!(serde_json::to_string(&reply).unwrap(), json);
    assert_eq!(serde_json::from_str::<StatReply>(json).unwrap(), reply);
}

#[test]
fn fields_come_in_any_order_with_others_among_them_or_as_an_array() {
    let expected = ReadRequest {
        page_index: 300,
        version: "v",
        hash: None,
        accept_zstd: false,
    };
    let shuffled =
        b"\x83\xa7version\xa1v\xa7unknown\x93\x01\xc0\x81\xa1x\xa1y\xaapage_index\xcd\x01\x2c";
    assert_eq!(decode::<ReadRequest<'_>>(shuffled).unwrap(), expected);
    let array = b"\x94\xcd\x01\x2c\xa1v\xc0\xc2";
    assert_eq!(decode::<ReadRequest<'_>>(array).unwrap(), expected);
}

#[test]
fn bytes_are_not_taken_from_arrays_of_integers() {
    decode::<WriteRequest<'_>>(b"\x81\xa4data\x92\x01\x02").expect_err("an array");
    decode::<WriteRequest<'_>>(b"\x81\xa4data\xc4\x02\x01\x02").unwrap();
}

#[test]
fn a_frame_longer_than_the_limit_is_refused_in_requests_only() {
    let mut body = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes().to_vec();
    body.resize(4 + MAX_FRAME + 1, 0xc0);
    let refusal = Frames::of_request(&body).bytes().unwrap_err();
    assert!(matches!(refusal, FrameError::TooLong(length) if length == MAX_FRAME + 1));
    assert_eq!(
        Frames::of_reply(&body).bytes().unwrap().len(),
        MAX_FRAME + 1
    );
}

/// A commit of so many pages in so many namespaces.
fn commit_of(namespaces: u64, pages: u32, page: &CommitPage<'_>, same_name: bool) -> Vec<u8> {
    let mut body = Vec::new();
    let init = CommitGlobalInit {
        idempotency_key: &KEY,
        allow_skip_idempotency_check: false,
        num_namespaces: namespaces,
        lock_owner: Some("me"),
    };
    push(&mut body, &init).unwrap();
    for number in 0..namespaces.min(20) {
        let name = if same_name { 0 } else { number };
        let namespace = CommitNamespaceInit {
            ns_key: &format!("db{name}"),
            ns_key_hashproof: None,
            version: VERSION,
            metadata: None,
            num_pages: pages,
            read_set: None,
        };
        push(&mut body, &namespace).unwrap();
        let mut frame = Vec::new();
        push(&mut frame, page).unwrap();
        (0..pages.min(200)).for_each(|_| body.extend_from_slice(&frame));
    }
    body
}

#[test]
fn commits_beyond_the_limits_are_refused_by_name() {
    let hash = hash();
    let large = vec![0; 32_769];
    let page = |data| CommitPage {
        page_index: 1,
        hash: &hash,
        data,
    };
    let short_hash = CommitPage {
        hash: &hash[..31],
        ..page(None)
    };
    let refusal = |body: Vec<u8>| CommitBody::decode(&body).unwrap_err().to_string();
    let reference = page(None);
    assert!(CommitBody::decode(&commit_of(16, 1, &reference, false)).is_ok());
    for count in [0, 17, u64::MAX] {
        let body = commit_of(count, 1, &reference, false);
        assert_eq!(refusal(body), "num_namespaces out of bound");
    }
    let body = commit_of(2, 1, &reference, true);
    assert_eq!(refusal(body), "namespace not distinct");
    for pages in [50_001, u32::MAX] {
        let body = commit_of(1, pages, &reference, false);
        assert_eq!(refusal(body), "too many pages in commit");
    }
    let body = commit_of(2, 60, &page(Some(PAGE)), false);
    assert_eq!(refusal(body), "too many fast writes");
    let body = commit_of(1, 1, &page(Some(&large)), false);
    assert_eq!(refusal(body), "fast write page too large");
    assert_eq!(refusal(commit_of(1, 1, &short_hash, false)), "invalid hash");
    // Pages that are only claimed.
    let body = commit_of(1, 49_000, &reference, false);
    assert_eq!(refusal(body), "the body ends before the frame does");
    assert!(
        CommitBody::decode(&commit_of(1, 1, &reference, false))
            .unwrap()
            .retry
    );
}

#[test]
fn what_follows_a_commit_is_not_looked_at() {
    let body = [commit(), hex("ffffffff")].concat();
    CommitBody::decode(&body).unwrap();
}

proptest! {
    #[test]
    fn a_commit_with_changed_bytes_decodes_or_is_refused(
        at in 0usize..300, bytes in prop::collection::vec(any::<u8>(), 0..12), cut in 0usize..300,
    ) {
        let mut body = commit();
        for (offset, byte) in bytes.iter().enumerate() {
            if let Some(place) = body.get_mut(at + offset) {
                *place = *byte;
            }
        }
        body.truncate(cut);
        match CommitBody::decode(&body) {
            Ok(decoded) => prop_assert!((1..=16).contains(&decoded.namespaces.len())),
            Err(CommitError::Frame(error)) => prop_assert!(!error.to_string().is_empty()),
            Err(_) => (),
        }
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<ReadRequest<'_>>(&bytes);
        let _ = decode::<ReadReply<'_>>(&bytes);
        let _ = decode::<WriteRequest<'_>>(&bytes);
        let _ = decode::<WriteReply<'_>>(&bytes);
        let _ = decode::<CommitGlobalInit<'_>>(&bytes);
        let _ = decode::<CommitNamespaceInit<'_>>(&bytes);
        let _ = decode::<CommitPage<'_>>(&bytes);
        let _ = decode::<CommitReply>(&bytes);
        let mut frames = Frames::of_request(&bytes);
        while frames.message::<ReadRequest<'_>>().is_ok() {}
    }
}
