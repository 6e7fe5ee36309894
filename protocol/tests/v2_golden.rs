//! The bytes of every data-plane v2 message, written down by hand.
//!
//! These bytes are what clients of other builds send and expect. A test here that fails means that
//! the wire format changed: add a field with a default instead, or make a new message.
//!
//! MessagePack in short: `\x8N` a map of N entries, `\x9N` an array of N, `\xaN` a string of N
//! bytes, `\xc0` nil, `\xc2` false, `\xc3` true, `\xc4 len` bytes, `\xcc`/`\xcd`/`\xce`/`\xcf`
//! unsigned integers of 1/2/4/8 bytes big-endian, `\x00`-`\x7f` a small integer as itself.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fmt::Debug;

use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, CommitReply, CommitRequest, Concurrency, KnownState, LeaseAction,
    LeaseReply, LeaseRequest, Limits, ReadRequest, ResolveReply, ResolveRequest, SettleReply,
    SettleRequest, StageRef, StageReply, StageRequest, decode, decode_next, encode,
};
use mvsqlite_protocol::{
    IdempotencyKey, Incarnation, LeaseNonce, Moment, NamespaceId, PageData, PageImage, PageSet,
    ReadVersion, StageId, Version,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

/// Checks both directions, that no shorter body passes for the message, and that a longer one is
/// refused.
fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T, bytes: &[u8]) {
    let encoded = encode(message).unwrap();
    assert_eq!(
        encoded.escape_ascii().to_string(),
        bytes.escape_ascii().to_string(),
        "{message:?}"
    );
    assert_eq!(&decode::<T>(bytes).unwrap(), message);
    for length in 0..bytes.len() {
        decode::<T>(&bytes[..length]).expect_err("a body cut short");
    }
    let longer = [bytes, b"\xc0"].concat();
    decode::<T>(&longer).expect_err("a body with something behind the message");
}

fn incarnation() -> Incarnation {
    Incarnation::from_bytes(*b"INCARNAT")
}

fn namespace() -> NamespaceId {
    NamespaceId::from_bytes(*b"NAMESPACE!")
}

fn version() -> Version {
    Version::new(0x0102_0304_0506_0708, 0x090a)
}

fn stage() -> StageId {
    StageId::from_bytes(*b"STAGESTAGESTAGE!")
}

fn limits() -> Limits {
    Limits {
        inline_bytes: 4_000_000,
        stage_batch_bytes: 65_536,
        commit_pages: 0x1_0000_0000,
        read_pages: 1024,
        read_bytes: 200,
    }
}

/// [`limits`] on the wire.
const LIMITS: &[u8] = b"\x85\
    \xacinline_bytes\xce\x00\x3d\x09\x00\
    \xb1stage_batch_bytes\xce\x00\x01\x00\x00\
    \xaccommit_pages\xcf\x00\x00\x00\x01\x00\x00\x00\x00\
    \xaaread_pages\xcd\x04\x00\
    \xaaread_bytes\xcc\xc8";

/// Pages 3, 4, 5 and 300 on the wire: runs as `[first, count]`.
const PAGES_3_TO_5_AND_300: &[u8] = b"\x92\x92\x03\x03\x92\xcd\x01\x2c\x01";

fn pages_3_to_5_and_300() -> PageSet {
    [300, 4, 3, 5].into_iter().collect()
}

#[test]
fn begin_request() {
    golden(
        &BeginRequest {
            known: None,
            want_pages: true,
            as_of: None,
        },
        b"\x82\xa5known\xc0\xaawant_pages\xc3",
    );
    golden(
        &BeginRequest {
            known: Some(KnownState {
                incarnation: incarnation(),
                namespace: namespace(),
                version: version(),
                own: vec![Version::new(1, 0)],
            }),
            want_pages: false,
            as_of: None,
        },
        b"\x82\
        \xa5known\x84\
            \xabincarnation\xc4\x08INCARNAT\
            \xa9namespace\xc4\x0aNAMESPACE!\
            \xa7version\xc4\x0a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\
            \xa3own\x91\xc4\x0a\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\
        \xaawant_pages\xc2",
    );
}

#[test]
fn begin_reply() {
    let bytes = [
        b"\x89\
        \xabincarnation\xc4\x08INCARNAT\
        \xa9namespace\xc4\x0aNAMESPACE!\
        \xa7version\xc4\x0a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\
        \xacread_version\xcf\x01\x02\x03\x04\x05\x06\x07\x08\
        \xa9page_size\xcd\x20\x00\
        \xa4mode\xaaoptimistic\
        \xa6limits",
        LIMITS,
        b"\xa7changed",
        PAGES_3_TO_5_AND_300,
        b"\xa5pages\x91\x83\
            \xa5index\x00\
            \xa4from\xc4\x0aNAMESPACE!\
            \xa4data\xc4\x03abc",
    ]
    .concat();
    golden(
        &BeginReply {
            incarnation: incarnation(),
            namespace: namespace(),
            version: version(),
            read_version: ReadVersion(0x0102_0304_0506_0708),
            page_size: 8192,
            mode: Concurrency::Optimistic,
            limits: limits(),
            changed: Some(pages_3_to_5_and_300()),
            pages: vec![PageImage {
                index: 0,
                from: namespace().as_version(),
                data: Some(ByteBuf::from(*b"abc")),
            }],
        },
        &bytes,
    );
}

#[test]
fn the_concurrency_modes() {
    golden(&Concurrency::Optimistic, b"\xaaoptimistic");
    golden(&Concurrency::Exclusive, b"\xa9exclusive");
}

#[test]
fn resolve_request() {
    golden(
        &ResolveRequest {
            moment: Moment::Version(version()),
        },
        b"\x81\xa6moment\x81\xa7version\xc4\x0a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a",
    );
    golden(
        &ResolveRequest {
            moment: Moment::UnixMillis(1_795_000_000_000),
        },
        b"\x81\xa6moment\x81\xabunix_millis\xcf\x00\x00\x01\xa1\xee\x56\x5e\x00",
    );
}

#[test]
fn resolve_reply() {
    let bytes = [
        b"\x86\
        \xabincarnation\xc4\x08INCARNAT\
        \xa9namespace\xc4\x0aNAMESPACE!\
        \xa7version\xc4\x0aNAMESPACE!\
        \xacread_version\x7f\
        \xa9page_size\x00\
        \xa6limits",
        LIMITS,
    ]
    .concat();
    golden(
        &ResolveReply {
            incarnation: incarnation(),
            namespace: namespace(),
            version: namespace().as_version(),
            read_version: ReadVersion(127),
            page_size: 0,
            limits: limits(),
        },
        &bytes,
    );
}

#[test]
fn read_request() {
    let bytes = [
        b"\x84\
        \xa9namespace\xc4\x0aNAMESPACE!\
        \xa7version\xc4\x0a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\
        \xacread_version\xcc\x80\
        \xa5pages",
        PAGES_3_TO_5_AND_300,
    ]
    .concat();
    golden(
        &ReadRequest {
            namespace: namespace(),
            version: version(),
            read_version: ReadVersion(128),
            pages: pages_3_to_5_and_300(),
            incarnation: None,
            stage: None,
        },
        &bytes,
    );
}

#[test]
fn a_read_reply_is_page_images_one_behind_the_other() {
    let bytes: &[u8] = b"\
        \x83\xa5index\x03\xa4from\xc4\x0aNAMESPACE!\xa4data\xc4\x02hi\
        \x83\xa5index\xcd\x01\x2c\xa4from\xc4\x0aNAMESPACE!\xa4data\xc0";
    let images = [
        PageImage {
            index: 3,
            from: namespace().as_version(),
            data: Some(ByteBuf::from(*b"hi")),
        },
        PageImage {
            index: 300,
            from: namespace().as_version(),
            data: None,
        },
    ];
    let encoded: Vec<u8> = images
        .iter()
        .flat_map(|image| encode(image).unwrap())
        .collect();
    assert_eq!(encoded, bytes);
    let mut rest = bytes;
    for image in &images {
        assert_eq!(&decode_next::<PageImage>(&mut rest).unwrap(), image);
    }
    assert!(rest.is_empty());
}

#[test]
fn stage_request() {
    golden(
        &StageRequest {
            namespace: namespace(),
            read_version: ReadVersion(1),
            stage: Some(stage()),
            pages: vec![PageData {
                index: 7,
                data: ByteBuf::from(vec![0xee; 300]),
            }],
            unstage: [8].into_iter().collect(),
            incarnation: None,
        },
        &[
            b"\x85\
            \xa9namespace\xc4\x0aNAMESPACE!\
            \xacread_version\x01\
            \xa5stage\xc4\x10STAGESTAGESTAGE!\
            \xa5pages\x91\x82\xa5index\x07\xa4data\xc5\x01\x2c",
            [0xee; 300].as_slice(),
            b"\xa7unstage\x91\x92\x08\x01",
        ]
        .concat(),
    );
    golden(
        &StageRequest {
            namespace: namespace(),
            read_version: ReadVersion(1),
            stage: None,
            pages: vec![],
            unstage: PageSet::new(),
            incarnation: None,
        },
        b"\x85\
        \xa9namespace\xc4\x0aNAMESPACE!\
        \xacread_version\x01\
        \xa5stage\xc0\
        \xa5pages\x90\
        \xa7unstage\x90",
    );
}

#[test]
fn stage_reply() {
    golden(
        &StageReply {
            stage: stage(),
            count: 2,
            sum: u64::MAX,
            read_version: ReadVersion(3),
        },
        b"\x84\
        \xa5stage\xc4\x10STAGESTAGESTAGE!\
        \xa5count\x02\
        \xa3sum\xcf\xff\xff\xff\xff\xff\xff\xff\xff\
        \xacread_version\x03",
    );
}

#[test]
fn commit_request() {
    let bytes = [
        b"\x88\
        \xa9namespace\xc4\x0aNAMESPACE!\
        \xa4base\xc4\x0a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\
        \xacread_version\x05\
        \xa3key\xc4\x10IDEMPOTENCY-KEY!\
        \xa5retry\xc3\
        \xa4read",
        PAGES_3_TO_5_AND_300,
        b"\xa5pages\x91\x82\xa5index\x05\xa4data\xc4\x04page\
        \xa5stage\x83\
            \xa5stage\xc4\x10STAGESTAGESTAGE!\
            \xa5count\x02\
            \xa3sum\x09",
    ]
    .concat();
    golden(
        &CommitRequest {
            namespace: namespace(),
            base: version(),
            read_version: ReadVersion(5),
            key: IdempotencyKey::from_bytes(*b"IDEMPOTENCY-KEY!"),
            retry: true,
            read: pages_3_to_5_and_300(),
            pages: vec![PageData {
                index: 5,
                data: ByteBuf::from(*b"page"),
            }],
            stage: Some(StageRef {
                stage: stage(),
                count: 2,
                sum: 9,
            }),
            incarnation: None,
            lease: None,
        },
        &bytes,
    );
}

#[test]
fn commit_reply() {
    golden(
        &CommitReply {
            version: version(),
            seen: namespace().as_version(),
            read_version: ReadVersion(6),
            changed: None,
        },
        b"\x84\
        \xa7version\xc4\x0a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\
        \xa4seen\xc4\x0aNAMESPACE!\
        \xacread_version\x06\
        \xa7changed\xc0",
    );
}

#[test]
fn settle_request() {
    golden(
        &SettleRequest {
            namespace: namespace(),
            key: IdempotencyKey::from_bytes(*b"IDEMPOTENCY-KEY!"),
        },
        b"\x82\xa9namespace\xc4\x0aNAMESPACE!\xa3key\xc4\x10IDEMPOTENCY-KEY!",
    );
}

#[test]
fn settle_reply() {
    golden(
        &SettleReply::Committed {
            version: version(),
            read_version: ReadVersion(6),
        },
        b"\x81\xa9committed\x82\
        \xa7version\xc4\x0a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\
        \xacread_version\x06",
    );
    golden(&SettleReply::Aborted, b"\xa7aborted");
}

#[test]
fn fields_of_a_newer_minor_version_are_ignored() {
    let body = b"\x83\xa5known\xc0\xaawant_pages\xc3\xa6colour\x81\xa3red\x92\x01\xc4\x01x";
    let request: BeginRequest = decode(body).unwrap();
    assert!(request.want_pages);
}

#[test]
fn fields_that_an_older_minor_version_does_not_send_take_their_defaults() {
    assert_eq!(
        decode::<BeginRequest>(b"\x80").unwrap(),
        BeginRequest::default()
    );
    let body = b"\x86\
        \xa9namespace\xc4\x0aNAMESPACE!\
        \xa4base\xc4\x0aNAMESPACE!\
        \xacread_version\x05\
        \xa3key\xc4\x10IDEMPOTENCY-KEY!\
        \xa4read\x90\
        \xa5pages\x90";
    let request: CommitRequest = decode(body).unwrap();
    assert!(!request.retry);
    assert_eq!(request.stage, None);
}

#[test]
fn a_lease_request_is_these_bytes() {
    let request = |action| LeaseRequest {
        namespace: namespace(),
        incarnation: None,
        nonce: LeaseNonce::from_bytes(*b"LEASELEASELEASE!"),
        action,
    };
    let bytes = |action: &[u8]| {
        let fixed =
            b"\x83\xa9namespace\xc4\x0aNAMESPACE!\xa5nonce\xc4\x10LEASELEASELEASE!\xa6action";
        [fixed.as_slice(), action].concat()
    };
    golden(
        &request(LeaseAction::Acquire { place: Some(9) }),
        &bytes(b"\x81\xa7acquire\x81\xa5place\x09"),
    );
    golden(&request(LeaseAction::Renew), &bytes(b"\xa5renew"));
    golden(
        &request(LeaseAction::Release { place: None }),
        &bytes(b"\x81\xa7release\x81\xa5place\xc0"),
    );
}

#[test]
fn a_lease_reply_is_these_bytes() {
    let granted = LeaseReply::Granted {
        ttl_millis: 5000,
        head: version(),
        read_version: ReadVersion(7),
    };
    golden(
        &granted,
        b"\x81\xa7granted\x83\
            \xaattl_millis\xcd\x13\x88\
            \xa4head\xc4\x0a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\
            \xacread_version\x07",
    );
    let busy = LeaseReply::Busy {
        place: 9,
        retry_millis: 3,
        place_millis: 1000,
    };
    golden(
        &busy,
        b"\x81\xa4busy\x83\
            \xa5place\x09\
            \xacretry_millis\x03\
            \xacplace_millis\xcd\x03\xe8",
    );
    golden(&LeaseReply::Released, b"\xa8released");
}
