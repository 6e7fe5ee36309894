//! Requests that take too long, clients that go away, and what becomes of their commits.

use std::sync::Arc;

use mvsqlite_protocol::v2::{BeginRequest, CommitReply, SettleReply, SettleRequest, encode};
use mvsqlite_protocol::{Code, NamespaceKey, v2};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{get, rest};
use crate::server::{
    TestServer, begin, call, commit_of, create, eventually, message, page_1, problem,
};
use crate::stalled::{Stall, StalledEngine};

async fn stalled(flags: &[&str]) -> (StalledEngine, TestServer) {
    let engine = StalledEngine::new();
    let server = TestServer::on(Arc::new(engine.clone()), flags).await;
    create(server.admin, "test").await;
    (engine, server)
}

fn begin_request() -> BeginRequest {
    BeginRequest::default()
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_408() {
    let server = TestServer::start(&["--body-timeout", "0.2"]).await;
    let mut stream = TcpStream::connect(server.data).await.unwrap();
    let head = "POST /v2/ns/a/begin HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n\x01";
    stream.write_all(head.as_bytes()).await.unwrap();
    let text = rest(&mut stream).await;
    assert!(
        text.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{text}"
    );
    assert!(
        text.contains("the body did not arrive within 200ms"),
        "{text}"
    );
}

#[tokio::test]
async fn a_read_past_its_deadline_is_504_and_given_up() {
    let (engine, server) = stalled(&["--request-timeout", "0.3"]).await;
    engine.stall(Stall::Reads);
    let reply = server.call("begin", &begin_request()).await;
    assert_eq!((reply.status, problem(&reply).code), (504, Code::Timeout));
    eventually("the read is given up", || async { engine.waiting() == 0 }).await;
}

#[tokio::test]
async fn a_read_whose_client_goes_away_is_given_up() {
    let (engine, server) = stalled(&[]).await;
    engine.stall(Stall::Reads);
    let data = server.data;
    let client = tokio::spawn(async move { call(data, "test", "begin", &begin_request()).await });
    eventually("the read waits", || async { engine.waiting() > 0 }).await;
    client.abort();
    eventually("the read is given up", || async { engine.waiting() == 0 }).await;
}

#[tokio::test]
async fn a_commit_past_its_deadline_is_an_unknown_outcome_and_goes_on() {
    let (engine, server) = stalled(&["--request-timeout", "0.5"]).await;
    let begun = begin(server.data, "test").await;
    let commit = commit_of(&begun, 5, vec![page_1(1)]);
    engine.stall(Stall::Commits);
    let reply = server.call("commit", &commit).await;
    assert_eq!(
        (reply.status, problem(&reply).code),
        (503, Code::OutcomeUnknown)
    );
    assert_eq!(
        reply.header("retry-after"),
        None,
        "it is not simply to be sent again"
    );
    engine.stall(Stall::Nothing);
    eventually("the commit is there", || async {
        begin(server.data, "test").await.version > begun.version
    })
    .await;
    let settle = SettleRequest {
        namespace: begun.namespace,
        key: commit.key,
    };
    let settled: SettleReply = message(&server.call("settle", &settle).await);
    assert!(matches!(settled, SettleReply::Committed { .. }));
}

#[tokio::test]
async fn a_commit_whose_client_goes_away_runs_to_its_end() {
    let (engine, server) = stalled(&[]).await;
    let begun = begin(server.data, "test").await;
    let commit = commit_of(&begun, 6, vec![page_1(1)]);
    engine.stall(Stall::Commits);
    // Over a bare socket that is closed with a commit under way.
    let key: NamespaceKey = "test".parse().unwrap();
    let body = encode(&commit).unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        v2::path(&key, "commit"),
        body.len()
    );
    let mut stream = TcpStream::connect(server.data).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    eventually("the commit waits", || async { engine.waiting() > 0 }).await;
    drop(stream);
    engine.stall(Stall::Nothing);
    eventually("the commit is there", || async {
        begin(server.data, "test").await.version > begun.version
    })
    .await;
}

#[tokio::test]
async fn one_request_too_many_is_503_and_health_is_still_answered() {
    let (engine, server) = stalled(&["--max-requests", "2"]).await;
    engine.stall(Stall::Reads);
    let data = server.data;
    let waiting: Vec<_> = (0..2)
        .map(|_| tokio::spawn(async move { call(data, "test", "begin", &begin_request()).await }))
        .collect();
    eventually("two requests are in work", || async {
        engine.waiting() == 2
    })
    .await;
    let reply = server.call("begin", &begin_request()).await;
    assert_eq!(
        (reply.status, problem(&reply).code),
        (503, Code::Unavailable)
    );
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(get(data, "/healthz").await.status, 200);
    engine.stall(Stall::Nothing);
    for client in waiting {
        assert_eq!(client.await.unwrap().status, 200);
    }
    assert_eq!(server.call("begin", &begin_request()).await.status, 200);
}

#[tokio::test]
async fn a_commit_that_its_client_has_left_still_counts_as_in_work() {
    let (engine, server) = stalled(&["--max-requests", "1"]).await;
    let begun = begin(server.data, "test").await;
    let commit = commit_of(&begun, 6, vec![page_1(1)]);
    engine.stall(Stall::Commits);
    let data = server.data;
    let client = tokio::spawn(async move { call(data, "test", "commit", &commit).await });
    eventually("the commit waits", || async { engine.waiting() > 0 }).await;
    client.abort();
    let _ = client.await;
    let reply = server.call("begin", &begin_request()).await;
    assert_eq!(
        (reply.status, problem(&reply).code),
        (503, Code::Unavailable)
    );
    engine.stall(Stall::Nothing);
    eventually("its place is free", || async {
        server.call("begin", &begin_request()).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn readyz_says_when_the_engine_does_not_answer() {
    let (engine, server) = stalled(&[]).await;
    engine.stall(Stall::Checks);
    for address in [server.data, server.admin] {
        let reply = get(address, "/readyz").await;
        assert_eq!(reply.status, 503);
        assert!(
            reply.text().contains("did not answer within 2s"),
            "{}",
            reply.text()
        );
        assert_eq!(get(address, "/healthz").await.status, 200);
    }
    engine.stall(Stall::Nothing);
    assert_eq!(get(server.data, "/readyz").await.status, 200);
}

/// Symptom: when the disk was full, `/readyz` was 503; an orchestrator took the only replica out of
/// service, and its databases could not even be read. Cause: ready meant "can commit". Fix: ready
/// means "can be read"; the text says that writing is refused, and why.
#[tokio::test]
async fn a_store_whose_disk_is_full_is_ready_and_says_that_it_is_full() {
    let (engine, server) = stalled(&[]).await;
    engine.stall(Stall::FullDisk);
    for address in [server.data, server.admin] {
        let reply = get(address, "/readyz").await;
        assert_eq!(reply.status, 200);
        for words in ["writing is refused", "disk is full", "7 bytes are free"] {
            assert!(reply.text().contains(words), "{}", reply.text());
        }
    }
}

#[tokio::test]
async fn body_memory_that_is_used_up_makes_requests_wait_and_not_fail() {
    // The budget is as small as the largest body allows, so two large ones do not fit at once.
    let (engine, server) = stalled(&["--max-body-memory", "1"]).await;
    let begun = begin(server.data, "test").await;
    let pages = usize::try_from(begun.limits.inline_bytes).unwrap() / crate::server::PAGE_SIZE;
    let count = u32::try_from(pages).unwrap().min(900);
    let large = |key: u128| {
        let mut pages = vec![page_1(count)];
        pages.extend((1..count).map(|index| crate::server::page(index, 1)));
        commit_of(&begun, key, pages)
    };
    let _: CommitReply = message(&server.call("commit", &large(1)).await);
    let begun = begin(server.data, "test").await;
    engine.stall(Stall::Commits);
    let data = server.data;
    let clients: Vec<_> = [2u32, 3, 4]
        .map(|n| {
            let pages = (100 * n..100 * n + 100).map(|index| crate::server::page(index, 2));
            let commit = commit_of(&begun, n.into(), pages.collect());
            tokio::spawn(async move { call(data, "test", "commit", &commit).await })
        })
        .into();
    eventually("a commit waits", || async { engine.waiting() > 0 }).await;
    engine.stall(Stall::Nothing);
    for client in clients {
        let reply = client.await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}
