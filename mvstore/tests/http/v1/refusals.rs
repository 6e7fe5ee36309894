//! What is refused, with which status and words.

use mvsqlite_protocol::v1::{CommitGlobalInit, push};

use crate::client::{get, post, raw, request, send};
use crate::server::{TestServer, create};
use crate::v1::client::{
    Intent, V1, Written, commit_body, committed, fresh_key, hash, upload_body,
};

async fn start() -> (TestServer, V1) {
    let server = TestServer::with_namespace(&[]).await;
    let v1 = V1::new(server.data, "test");
    (server, v1)
}

#[tokio::test]
async fn a_namespace_is_named_in_a_header() {
    let (server, _) = start().await;
    for path in ["/stat", "/batch/read", "/batch/write"] {
        let reply = post(server.data, path, "").await;
        let expected = (400, "this operation requires x-namespace-key");
        assert_eq!((reply.status, reply.text()), expected, "{path}");
    }
    for path in [
        "/stat",
        "/batch/read",
        "/batch/write",
        "/time2version?t=0",
        "/nowhere",
    ] {
        let reply = V1::new(server.data, "nobody")
            .send("GET", path, vec![])
            .await;
        assert_eq!(
            (reply.status, reply.text()),
            (404, "namespace not found"),
            "{path}"
        );
        let invalid = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-namespace-key: caf\u{e9}\r\n\r\n"
        );
        let invalid = raw(server.data, invalid.as_bytes()).await;
        assert!(invalid.starts_with("HTTP/1.1 400 "), "{path}: {invalid}");
        assert!(
            invalid.ends_with("\r\n\r\ninvalid x-namespace-key"),
            "{invalid}"
        );
    }
}

#[tokio::test]
async fn what_lies_nowhere_is_404_in_plain_words() {
    let (server, _) = start().await;
    for path in ["/", "/batch", "/batch/nothing", "/api/list_namespace"] {
        let reply = get(server.data, path).await;
        assert_eq!((reply.status, reply.text()), (404, "not found"), "{path}");
    }
}

#[tokio::test]
async fn a_protected_key_wants_its_proof_and_says_nothing_without() {
    let server = TestServer::start(&[]).await;
    let key = format!("app:{}", blake3::hash(&[0, 0x11, 0x22, 0x33]).to_hex());
    create(server.admin, &key).await;
    let mut v1 = V1::new(server.data, &key);
    for proof in [None, Some("00112234"), Some("nonsense")] {
        v1.proof = proof.map(str::to_owned);
        let reply = v1.send("GET", "/stat", vec![]).await;
        assert_eq!((reply.status, reply.text()), (404, "namespace not found"));
    }
    v1.proof = Some("00112233".to_owned());
    let id = v1.head().await;
    // In a commit the proof stands in the body.
    let reply = v1.commit(&id, None, &[(1, b"x")]).await;
    assert_eq!((reply.status, reply.text()), (404, "namespace not found"));
}

#[tokio::test]
async fn a_stat_from_what_is_no_version_is_to_be_sent_again() {
    let (_server, v1) = start().await;
    for from in ["12", "zzzzzzzzzzzzzzzzzzzz"] {
        let reply = v1
            .send("GET", &format!("/stat?from_version={from}"), vec![])
            .await;
        assert_eq!(reply.status, 500);
    }
    // Empty is absent, and of several the last counts.
    assert_eq!(v1.stat("?from_version=").await.interval, None);
    let head = v1.head().await;
    let query = format!("?from_version=12&from_version={head}&causal_read_risky=1");
    assert_eq!(v1.stat(&query).await.interval, Some(vec![]));
}

#[tokio::test]
async fn a_lock_that_is_not_held_is_410() {
    let (_server, v1) = start().await;
    let reply = v1.send("GET", "/stat?lock_owner=me", vec![]).await;
    assert_eq!((reply.status, reply.text()), (410, ""));
    let id = v1.head().await;
    let mut body = Vec::new();
    let init = CommitGlobalInit {
        idempotency_key: &fresh_key(),
        allow_skip_idempotency_check: true,
        num_namespaces: 1,
        lock_owner: Some("me"),
    };
    push(&mut body, &init).unwrap();
    let plain = commit_body(fresh_key(), false, &[intent(&id, vec![])]);
    let head = 4 + u32::from_be_bytes(plain[..4].try_into().unwrap()) as usize;
    body.extend_from_slice(&plain[head..]);
    let reply = post(v1.data, "/batch/commit", body).await;
    assert_eq!((reply.status, reply.text()), (410, ""));
}

fn intent<'a>(version: &'a str, pages: Vec<Written<'a>>) -> Intent<'a> {
    Intent {
        key: "test",
        version,
        read_set: Some(vec![]),
        pages,
    }
}

#[tokio::test]
async fn hopeless_reads_and_writes_are_refused_for_good() {
    let (_server, v1) = start().await;
    let version = v1.head().await;
    let too_many: Vec<_> = (0..201).map(|index| (index, None)).collect();
    assert_eq!(v1.try_read(&version, &too_many[..200]).await.status, 200);
    assert_eq!(v1.try_read(&version, &too_many).await.status, 400);
    assert_eq!(v1.try_read("nonsense", &[(1, None)]).await.status, 400);
    for body in [
        &b"\0\0\0\x01\xc1"[..],
        b"\0\0\0\x09x",
        b"\0\0",
        b"\xff\xff\xff\xff",
    ] {
        let reply = v1.send("POST", "/batch/read", body.to_vec()).await;
        assert_eq!(reply.status, 400, "{body:?}");
        let reply = v1.send("POST", "/batch/write", body.to_vec()).await;
        assert_eq!(reply.status, 400, "{body:?}");
    }
    assert_eq!(v1.send("POST", "/batch/read", vec![]).await.status, 200);
    let write = async |pages: &[&[u8]]| {
        let body = upload_body(pages);
        v1.send("POST", "/batch/write", body).await.status
    };
    assert_eq!(write(&[b"x".as_slice(); 101]).await, 400);
    assert_eq!(write(&[&[0; 32_769]]).await, 400);
    assert_eq!(write(&[b""]).await, 400);
    // Without the empty frame nothing is written, and what follows it is not looked at.
    let mut body = upload_body(&[b"unfinished"]);
    body.truncate(body.len() - 4);
    assert_eq!(v1.send("POST", "/batch/write", body).await.status, 400);
    assert_eq!(v1.read_hash(&version, &hash(b"unfinished")).await, None);
    let mut body = upload_body(&[b"finished"]);
    body.extend_from_slice(b"anything");
    assert_eq!(v1.send("POST", "/batch/write", body).await.status, 200);
}

#[tokio::test]
async fn commits_beyond_the_limits_have_the_originals_statuses_and_words() {
    let (server, v1) = start().await;
    let id = v1.head().await;
    let large = vec![1; 32_769];
    let send_all = |intents: Vec<Intent<'_>>| {
        let body = commit_body(fresh_key(), false, &intents);
        send(server.data, request("POST", "/batch/commit", &[], body))
    };
    let check = async |intents: Vec<Intent<'_>>, status: u16, text: &str| {
        let reply = send_all(intents).await;
        assert_eq!((reply.status, reply.text()), (status, text));
    };
    check(vec![], 412, "num_namespaces out of bound").await;
    check(
        vec![intent(&id, vec![]); 17],
        412,
        "num_namespaces out of bound",
    )
    .await;
    check(vec![intent(&id, vec![]); 2], 400, "namespace not distinct").await;
    let inline = |count: u32| {
        (0..count)
            .map(|i| (i, hash(b"x"), Some(b"x".as_slice())))
            .collect()
    };
    check(vec![intent(&id, inline(101))], 413, "too many fast writes").await;
    let page = (1, hash(&large), Some(large.as_slice()));
    check(
        vec![intent(&id, vec![page])],
        413,
        "fast write page too large",
    )
    .await;
    let unknown = Intent {
        key: "nobody",
        ..intent(&id, vec![])
    };
    check(vec![unknown], 404, "namespace not found").await;
    assert_eq!(send_all(vec![intent("nonsense", vec![])]).await.status, 500);
    for body in ["", "\0\0", "\0\0\0\x01\x7f"] {
        let reply = post(server.data, "/batch/commit", body).await;
        assert_eq!(reply.status, 500, "{body:?}");
    }
    assert_eq!(v1.head().await, id, "nothing of it was committed");
    committed(&send_all(vec![intent(&id, inline(100))]).await);
}
