//! What the data plane refuses, with which status, code and words.

use std::sync::Arc;

use mvsqlite_protocol::v2::{BeginRequest, CommitReply, ReadRequest, encode, path};
use mvsqlite_protocol::{Code, ReadVersion, Version};
use mvstore::kv::Engine;
use mvstore::kv::faults::{Fault, FaultyEngine};
use mvstore::kv::memory::MemoryEngine;

use crate::client::{get, post, request, send};
use crate::server::{TestServer, begin, call, commit_of, create, message, page, page_1, problem};

#[tokio::test]
async fn a_path_that_is_not_there_is_404() {
    let server = TestServer::start(&[]).await;
    for path in ["/v2", "/v2/ns/test", "/v2/ns/test/nothing"] {
        let reply = post(server.data, path, "").await;
        assert_eq!(
            (reply.status, problem(&reply).code),
            (404, Code::NotFound),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_405_and_names_the_one_it_takes() {
    let server = TestServer::start(&[]).await;
    for (method, path, allowed) in [
        ("GET", "/v2/ns/test/begin", "POST"),
        ("DELETE", "/v2/ns/test/commit", "POST"),
        ("POST", "/healthz", "GET"),
    ] {
        let reply = send(server.data, request(method, path, &[], "")).await;
        assert_eq!(reply.status, 405, "{method} {path}");
        assert_eq!(reply.header("allow"), Some(allowed));
        assert_eq!(problem(&reply).hint.unwrap(), format!("use {allowed}"));
    }
}

#[tokio::test]
async fn malformed_bodies_and_keys_are_400_with_the_reason() {
    let server = TestServer::with_namespace(&[]).await;
    let cases: [(&str, &[u8], &str); 6] = [
        ("begin", b"", "malformed message"),
        ("begin", b"\xc1", "malformed message"),
        ("begin", b"{\"want_pages\":true}", "malformed message"),
        ("begin", b"\x80\x80", "1 bytes follow the message"),
        ("commit", b"\x80", "missing field `namespace`"),
        (
            "read",
            b"\x81\xa5pages\x91\x92\x00\x00",
            "the page run of 0 pages from 0",
        ),
    ];
    for (name, body, words) in cases {
        let reply = post(server.data, &format!("/v2/ns/test/{name}"), body).await;
        let problem = problem(&reply);
        assert_eq!(
            (reply.status, problem.code),
            (400, Code::Malformed),
            "{problem:?}"
        );
        assert!(problem.detail.contains(words), "{problem:?}");
    }
    for key in ["", "a%20b", "%ff", "%00", "a@b"] {
        let body = encode(&BeginRequest::default()).unwrap();
        let reply = post(server.data, &format!("/v2/ns/{key}/begin"), body).await;
        assert_eq!(
            (reply.status, problem(&reply).code),
            (400, Code::Malformed),
            "{key}"
        );
    }
}

#[tokio::test]
async fn what_the_store_refuses_has_its_code_and_a_way_out() {
    let server = TestServer::with_namespace(&[]).await;
    let missing = call(server.data, "missing", "begin", &BeginRequest::default()).await;
    let refusal = problem(&missing);
    assert_eq!(
        (missing.status, refusal.code),
        (404, Code::NamespaceNotFound)
    );
    assert!(refusal.detail.contains("'missing'"), "{refusal:?}");
    assert!(refusal.hint.unwrap().contains("create_namespace"));

    let before = begin(server.data, "test").await;
    post(server.admin, "/api/delete_namespace", r#"{"key":"test"}"#).await;
    create(server.admin, "test").await;
    let stale = ReadRequest {
        namespace: before.namespace,
        version: before.version,
        read_version: before.read_version,
        pages: [0].into_iter().collect(),
        incarnation: None,
        stage: None,
    };
    let reply = server.call("read", &stale).await;
    assert_eq!(
        (reply.status, problem(&reply).code),
        (410, Code::NamespaceChanged)
    );

    let begun = begin(server.data, "test").await;
    let future = ReadRequest {
        namespace: begun.namespace,
        version: Version::new(u64::MAX, 0),
        read_version: begun.read_version,
        pages: [0].into_iter().collect(),
        incarnation: None,
        stage: None,
    };
    let reply = server.call("read", &future).await;
    assert_eq!(
        (reply.status, problem(&reply).code),
        (404, Code::VersionUnknown)
    );
}

#[tokio::test]
async fn a_conflict_is_409_and_names_page_and_version() {
    let server = TestServer::with_namespace(&[]).await;
    let begun = begin(server.data, "test").await;
    let first = commit_of(&begun, 1, vec![page_1(3), page(1, 1), page(2, 1)]);
    let _: CommitReply = message(&server.call("commit", &first).await);
    let begun = begin(server.data, "test").await;
    let winner = commit_of(&begun, 2, vec![page(2, 2)]);
    let winner: CommitReply = message(&server.call("commit", &winner).await);
    let reply = server
        .call("commit", &commit_of(&begun, 3, vec![page(2, 3)]))
        .await;
    let refusal = problem(&reply);
    assert_eq!((reply.status, refusal.code), (409, Code::Conflict));
    assert_eq!(
        (refusal.page, refusal.version),
        (Some(2), Some(winner.version))
    );
}

#[tokio::test]
async fn a_body_above_its_calls_limit_is_413() {
    let server = TestServer::with_namespace(&[]).await;
    let reply = post(server.data, "/v2/ns/test/begin", vec![0; 1 << 20]).await;
    let refusal = problem(&reply);
    assert_eq!((reply.status, refusal.code), (413, Code::TooLarge));
    assert!(
        refusal.detail.contains("bytes this call takes"),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn more_pages_than_one_read_may_ask_for_are_refused() {
    let server = TestServer::with_namespace(&[]).await;
    let begun = begin(server.data, "test").await;
    let read = ReadRequest {
        namespace: begun.namespace,
        version: begun.version,
        read_version: ReadVersion(begun.read_version.0),
        pages: (0..begun.limits.read_pages + 1).collect(),
        incarnation: None,
        stage: None,
    };
    let reply = server.call("read", &read).await;
    assert_eq!((reply.status, problem(&reply).code), (413, Code::TooLarge));
}

#[tokio::test]
async fn a_full_disk_is_507_and_an_engine_out_of_reach_503_with_retry_after() {
    let engine = FaultyEngine::new(Arc::new(MemoryEngine::new()), Faults::default());
    let server = TestServer::on(Arc::new(engine.clone()) as Arc<dyn Engine>, &[]).await;
    create(server.admin, "test").await;
    let begun = begin(server.data, "test").await;
    let commit = commit_of(&begun, 1, vec![page_1(1)]);

    engine.set_plan(Faults(Some(Fault::StorageFull)));
    let reply = server.call("commit", &commit).await;
    assert_eq!(
        (reply.status, problem(&reply).code),
        (507, Code::StorageFull)
    );

    engine.set_plan(Faults(Some(Fault::Unavailable)));
    let reply = server.call("commit", &commit).await;
    assert_eq!(
        (reply.status, problem(&reply).code),
        (503, Code::Unavailable)
    );
    assert_eq!(reply.header("retry-after"), Some("1"));

    engine.set_plan(Faults(None));
    let _: CommitReply = message(&server.call("commit", &commit).await);
}

/// Each commit meets the same fault.
#[derive(Default)]
struct Faults(Option<Fault>);

impl mvstore::kv::faults::FaultPlan for Faults {
    fn next_commit(&mut self) -> Option<Fault> {
        self.0
    }
}

#[tokio::test]
async fn requests_from_web_pages_are_403_on_both_listeners() {
    let server = TestServer::start(&[]).await;
    let origin = [("origin", "http://example.com")];
    let create = request(
        "POST",
        "/api/create_namespace",
        &origin,
        r#"{"key":"evil"}"#,
    );
    assert_eq!(send(server.admin, create).await.status, 403);
    let key = "test".parse().unwrap();
    let reply = send(
        server.data,
        request("POST", &path(&key, "begin"), &origin, ""),
    )
    .await;
    assert_eq!((reply.status, problem(&reply).code), (403, Code::Forbidden));
    assert_eq!(get(server.admin, "/api/list_namespace").await.text(), "");
}
