//! Servers with options of their own.

use std::sync::Arc;

use mvsqlite_protocol::Code;
use mvstore::kv::Engine;
use mvstore::kv::memory::MemoryEngine;

use crate::client::{get, post, request, send};
use crate::server::{TestServer, begin, commit_of, create, page, problem};
use crate::v1::client::{Intent, V1, committed, fresh_key, upload_body};

#[tokio::test]
async fn a_namespace_is_made_when_its_key_comes_in_a_header_if_that_was_asked_for() {
    let server = TestServer::start(&["--auto-create-namespace"]).await;
    let v1 = V1::new(server.data, "a key with spaces!");
    let stats = (0..8).map(|_| v1.head());
    let heads = futures_util::future::join_all(stats).await;
    assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");
    committed(&v1.commit(&heads[0], None, &[(1, b"x")]).await);
    for (key, path, body) in [
        ("by write", "/batch/write", upload_body(&[b"x"])),
        ("by read", "/batch/read", vec![]),
        ("by time", "/time2version?t=0", vec![]),
    ] {
        let reply = V1::new(server.data, key).send("POST", path, body).await;
        assert_eq!(reply.status, 200, "{key}: {}", reply.text());
    }
    // Not by a commit's body, nor where the proof is missing.
    let reply = V1::new(server.data, "by commit")
        .commit(&heads[0], None, &[])
        .await;
    assert_eq!((reply.status, reply.text()), (404, "namespace not found"));
    let key = format!("app:{}", blake3::hash(b"secret").to_hex());
    let mut protected = V1::new(server.data, &key);
    assert_eq!(protected.send("GET", "/stat", vec![]).await.status, 404);
    protected.proof = Some("736563726574".to_owned());
    assert_eq!(protected.send("GET", "/stat", vec![]).await.status, 200);
}

#[tokio::test]
async fn a_server_that_only_reads_writes_nothing() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let writer = TestServer::on(Arc::clone(&engine), &[]).await;
    create(writer.admin, "test").await;
    let v1 = V1::new(writer.data, "test");
    let id = v1.head().await;
    let version = committed(&v1.commit(&id, None, &[(1, b"x")]).await).version;

    let flags = [
        "--read-only",
        "--dr-tag",
        "default",
        "--auto-create-namespace",
    ];
    let reader = TestServer::on(engine, &flags).await;
    let v1 = V1::new(reader.data, "test");
    let stat = v1.stat("").await;
    assert!(stat.read_only && stat.version == version);
    assert_eq!(v1.read(&version, &[1]).await[0].as_ref().unwrap().1, b"x");
    let reply = v1.send("POST", "/batch/write", upload_body(&[b"x"])).await;
    assert_eq!((reply.status, reply.text()), (403, ""));
    let reply = v1.commit(&version, None, &[(1, b"y")]).await;
    assert_eq!((reply.status, reply.text()), (403, ""));
    assert_eq!(
        V1::new(reader.data, "new")
            .send("GET", "/stat", vec![])
            .await
            .status,
        404
    );
    let reply = post(reader.admin, "/api/create_namespace", "{\"key\":\"k\"}").await;
    assert_eq!(reply.status, 404);
    assert_eq!(get(reader.admin, "/healthz").await.status, 200);

    let begun = begin(reader.data, "test").await;
    let reply = reader
        .call("commit", &commit_of(&begun, 1, vec![page(1, 1)]))
        .await;
    assert_eq!((reply.status, problem(&reply).code), (403, Code::ReadOnly));
}

#[tokio::test]
async fn the_thresholds_decide_when_the_whole_namespace_counts() {
    let flags = [
        "--knob-commit-multi-phase-threshold",
        "2",
        "--knob-plcc-read-set-size-threshold",
        "3",
    ];
    let server = TestServer::with_namespace(&flags).await;
    let v1 = V1::new(server.data, "test");
    let base = v1.head().await;
    committed(&v1.commit(&base, None, &[(9, b"other")]).await);
    let pages = [(1, b"1".as_slice()), (2, b"2")];
    assert_eq!(v1.commit(&base, Some(&[]), &pages).await.status, 409);
    assert_eq!(
        v1.commit(&base, Some(&[1, 2, 3, 4]), &pages[..1])
            .await
            .status,
        409
    );
    committed(&v1.commit(&base, Some(&[1, 2, 3]), &pages[..1]).await);
}

#[tokio::test]
async fn intervals_are_exact_or_unknown() {
    let server = TestServer::with_namespace(&[]).await;
    let v1 = V1::new(server.data, "test");
    let id = v1.head().await;
    let first = committed(&v1.commit(&id, None, &[(7, b"1"), (0, b"0")]).await).version;
    let second = committed(&v1.commit(&first, None, &[(3, b"1"), (7, b"2")]).await).version;
    assert_eq!(v1.interval(&id).await, Some(vec![0, 3, 7]));
    assert_eq!(v1.interval(&first).await, Some(vec![3, 7]));
    assert_eq!(v1.interval(&second).await, Some(vec![]));
    assert_eq!(v1.interval("ffffffffffffffffffff").await, None);
    let between = format!("{}ffff", &first[..16]);
    assert_eq!(v1.interval(&between).await, None);
    // More pages than are told.
    let mut head = second.clone();
    for chunk in 0..11u32 {
        let data = b"many".as_slice();
        let pages: Vec<_> = (0..100).map(|i| (100 + chunk * 100 + i, data)).collect();
        head = committed(&v1.commit(&head, None, &pages).await).version;
    }
    assert_eq!(v1.interval(&second).await, None);
}

#[tokio::test]
async fn time2version_is_answered_with_and_without_a_namespace() {
    let server = TestServer::with_namespace(&[]).await;
    let v1 = V1::new(server.data, "test");
    let head = v1.head().await;
    for reply in [
        get(server.data, "/time2version?t=0").await,
        v1.send("GET", "/time2version?t=0", vec![]).await,
    ] {
        let bracket: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let after = bracket["after"]["version"].as_str().unwrap();
        assert!(after >= head.as_str() && after.ends_with("ffff"));
        // It can be read at.
        assert_eq!(v1.read(after, &[1]).await, [None]);
    }
    let reply = get(server.data, "/time2version").await;
    assert_eq!(reply.status, 500);
}

#[tokio::test]
async fn a_commit_group_through_a_header_less_request_needs_no_namespace_header() {
    let server = TestServer::with_namespace(&[]).await;
    let v1 = V1::new(server.data, "test");
    let version = v1.head().await;
    let intent = Intent {
        key: "test",
        version: &version,
        read_set: Some(vec![]),
        pages: vec![],
    };
    let body = crate::v1::client::commit_body(fresh_key(), false, &[intent]);
    committed(&send(server.data, request("PUT", "/batch/commit", &[], body)).await);
}
