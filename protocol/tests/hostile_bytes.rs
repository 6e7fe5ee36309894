//! Bytes from a hostile peer: every decoder answers with a message or an error, none panics, and
//! none takes memory for a length that is only claimed.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use mvsqlite_protocol::page::{MAX_PAGES, MAX_RUNS};
use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, CommitReply, CommitRequest, KnownState, ReadRequest, ResolveReply,
    ResolveRequest, SettleReply, SettleRequest, StageRef, StageReply, StageRequest, decode,
    decode_next, encode,
};
use mvsqlite_protocol::{
    DatabaseName, IdempotencyKey, Incarnation, Moment, NamespaceId, NamespaceKey, PageData,
    PageImage, PageSet, Problem, ReadVersion, StageId, Version, admin,
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

/// Decodes the bytes as every message there is.
fn decode_as_everything(bytes: &[u8]) {
    fn as_message<T: DeserializeOwned>(bytes: &[u8]) {
        let _ = decode::<T>(bytes);
        let mut rest = bytes;
        let _ = decode_next::<T>(&mut rest);
    }
    as_message::<BeginRequest>(bytes);
    as_message::<BeginReply>(bytes);
    as_message::<ResolveRequest>(bytes);
    as_message::<ResolveReply>(bytes);
    as_message::<ReadRequest>(bytes);
    as_message::<PageImage>(bytes);
    as_message::<StageRequest>(bytes);
    as_message::<StageReply>(bytes);
    as_message::<CommitRequest>(bytes);
    as_message::<CommitReply>(bytes);
    as_message::<SettleRequest>(bytes);
    as_message::<SettleReply>(bytes);
    as_message::<Problem>(bytes);

    let _ = serde_json::from_slice::<Problem>(bytes);
    let _ = serde_json::from_slice::<admin::CreateNamespace>(bytes);
    let _ = serde_json::from_slice::<admin::RenameNamespace>(bytes);
    let _ = serde_json::from_slice::<admin::NamespaceByKey>(bytes);
    let _ = serde_json::from_slice::<admin::ListedNamespace>(bytes);
    let _ = serde_json::from_slice::<admin::NamespaceStat>(bytes);
}

fn valid_messages() -> Vec<Vec<u8>> {
    let namespace = NamespaceId::from_bytes([7; 10]);
    let version = Version::new(9, 1);
    let pages: PageSet = [1, 2, 3, 70_000].into_iter().collect();
    let page = PageData {
        index: 2,
        data: ByteBuf::from(vec![5; 64]),
    };
    let known = KnownState {
        incarnation: Incarnation::from_bytes([1; 8]),
        namespace,
        version,
        own: vec![version; 3],
    };
    let key = IdempotencyKey::from_bytes([3; 16]);
    let stage = StageRef {
        stage: StageId::from_bytes([4; 16]),
        count: 1,
        sum: 2,
    };
    let image = PageImage {
        index: 3,
        from: version,
        data: Some(page.data.clone()),
    };
    let commit = CommitRequest {
        namespace,
        base: version,
        read_version: ReadVersion(9),
        key,
        retry: false,
        read: pages.clone(),
        pages: vec![page.clone(), page.clone()],
        stage: Some(stage),
        incarnation: None,
        lease: None,
    };
    let upload = StageRequest {
        namespace,
        read_version: ReadVersion(9),
        stage: Some(stage.stage),
        pages: vec![page],
        unstage: pages.clone(),
        incarnation: None,
    };
    let moment = Moment::Version(version);
    let read = ReadRequest {
        namespace,
        version,
        read_version: ReadVersion(9),
        pages,
        incarnation: None,
        stage: None,
    };
    let begin = BeginRequest {
        known: Some(known),
        want_pages: true,
        as_of: None,
    };
    vec![
        encode(&begin).unwrap(),
        encode(&ResolveRequest { moment }).unwrap(),
        encode(&read).unwrap(),
        encode(&image).unwrap(),
        encode(&upload).unwrap(),
        encode(&commit).unwrap(),
        encode(&SettleRequest { namespace, key }).unwrap(),
    ]
}

proptest! {
    #[test]
    fn any_bytes_give_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        decode_as_everything(&bytes);
    }

    #[test]
    fn a_message_with_some_bytes_changed_gives_a_message_or_an_error(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let messages = valid_messages();
        let mut bytes = which.get(&messages).clone();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        decode_as_everything(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        decode_as_everything(&bytes);
    }

    #[test]
    fn any_runs_give_a_page_set_of_ascending_disjoint_runs_or_an_error(
        runs in prop::collection::vec((any::<u32>(), any::<u32>()), 0..20),
    ) {
        let bytes = rmp_serde::to_vec(&runs).unwrap();
        if let Ok(set) = decode::<PageSet>(&bytes) {
            for pair in set.runs().windows(2) {
                prop_assert!(pair[0].end() < u64::from(pair[1].first));
            }
            for (first, _) in &runs {
                prop_assert!(set.contains(*first));
            }
        }
    }

    #[test]
    fn any_text_gives_a_name_or_an_error(text in any::<String>()) {
        let _ = text.parse::<Version>();
        let _ = text.parse::<Moment>();
        if let Ok(key) = text.parse::<NamespaceKey>() {
            prop_assert_eq!(key.as_str(), &text);
        }
        if let Ok(name) = text.parse::<DatabaseName>() {
            prop_assert!(text.contains(name.namespace.as_str()));
        }
    }
}

#[test]
fn a_length_that_is_only_claimed_takes_no_memory() {
    // 4 GiB of bytes, text, array and map announced, three bytes there.
    for head in [0xc6, 0xdb, 0xdd, 0xdf] {
        let claimed = [head, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        decode_as_everything(&claimed);
        let page = [b"\x82\xa5index\x05\xa4data".as_slice(), &claimed].concat();
        decode::<PageData>(&page).expect_err("the page is not there");
        let read = [b"\x81\xa5pages".as_slice(), &claimed].concat();
        decode::<ReadRequest>(&read).expect_err("the runs are not there");
    }
}

#[test]
fn a_field_nested_a_million_deep_is_an_error_and_not_a_stack_overflow() {
    for opening in [&[0x91][..], &[0x81, 0xa1, b'x'], &[0x81]] {
        let mut body = b"\x81\xa6colour".to_vec();
        body.extend(opening.repeat(1_000_000));
        decode_as_everything(&body);
        decode::<BeginRequest>(&body).expect_err("nested too deep");
    }
    let json = "[".repeat(1_000_000);
    decode_as_everything(json.as_bytes());
    decode_as_everything(format!("{{\"key\":\"a\",\"metadata\":{json}").as_bytes());
}

#[test]
fn a_malformed_body_says_what_is_wrong() {
    let error = decode::<SettleRequest>(b"\x81\xa9namespace\xc4\x02ab").unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed message: invalid length 2, expected a namespace id"
    );
    let error = decode::<ReadRequest>(b"\x81\xa5pages\x91\x92\x05\x00").unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed message: the page run of 0 pages from 5 is empty or reaches beyond the last page index"
    );
}

/// Symptom: a body of 20 MB with five million pages of a byte each took ten times its size in memory
/// and held a thread of the server for seconds. Cause: a sequence was taken in whole before anybody
/// asked how long it may be. Fix: it is refused where it becomes too long.
#[test]
fn sequences_longer_than_any_call_takes_are_refused_before_they_are_taken_in() {
    const PAGE: &[u8] = b"\x92\x01\xc4\x01\x07";
    let message = |field: &str, claimed: usize, element: &[u8], elements: usize| {
        let mut bytes = vec![0x81, 0xa0 | u8::try_from(field.len()).unwrap()];
        bytes.extend_from_slice(field.as_bytes());
        bytes.push(0xdd);
        bytes.extend_from_slice(&u32::try_from(claimed).unwrap().to_be_bytes());
        bytes.extend(element.repeat(elements));
        bytes
    };
    let refusal = |body: &[u8]| decode::<CommitRequest>(body).unwrap_err().to_string();

    // Only the beginning is there: reading on would find the end of the body.
    let pages = refusal(&message("pages", MAX_PAGES + 1, PAGE, 1));
    assert!(pages.contains("at most 65536"), "{pages}");
    let read = refusal(&message("read", MAX_RUNS + 1, b"\x92\x01\x01", 1));
    assert!(read.contains("at most 1048576"), "{read}");
    let stage = decode::<StageRequest>(&message("pages", MAX_PAGES + 1, PAGE, 1)).unwrap_err();
    assert!(stage.to_string().contains("at most 65536"), "{stage}");

    // As many as may be are taken in; what is missing then is another field.
    let most = refusal(&message("pages", MAX_PAGES, PAGE, MAX_PAGES));
    assert!(most.contains("missing field"), "{most}");
}
