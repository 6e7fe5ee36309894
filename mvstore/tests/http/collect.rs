//! Truncation and unreferenced content over HTTP: the lines, the statuses, and callers who leave.

use std::collections::VecDeque;
use std::sync::Arc;

use mvsqlite_protocol::Version;
use mvsqlite_protocol::v2::CommitReply;
use mvstore::kv::faults::{Fault, FaultyEngine};
use mvstore::kv::memory::MemoryEngine;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{get, post};
use crate::server::{TestServer, begin, commit_of, create, eventually, message, page, page_1};
use crate::stalled::{Stall, StalledEngine};

async fn admin(server: &TestServer, call: &str, body: String) -> (u16, String) {
    let reply = post(server.admin, &format!("/api/{call}"), body).await;
    (reply.status, reply.text().to_owned())
}

async fn truncate(server: &TestServer, before: Version, apply: bool) -> (u16, String) {
    let body = format!(r#"{{"key":"test","before_version":"{before}","apply":{apply}}}"#);
    admin(server, "truncate_namespace", body).await
}

fn lines(text: &str) -> (u16, String) {
    (200, text.to_owned())
}

/// Writes page 1 once and another page three times; returns the last version.
async fn history(server: &TestServer) -> Version {
    let begun = begin(server.data, "test").await;
    let first = commit_of(&begun, 1, vec![page_1(2), page(1, 1)]);
    let _: CommitReply = message(&server.call("commit", &first).await);
    let mut last = begun.version;
    for n in 2..4 {
        let begun = begin(server.data, "test").await;
        let commit = commit_of(&begun, n, vec![page(1, n as u8)]);
        let reply: CommitReply = message(&server.call("commit", &commit).await);
        last = reply.version;
    }
    last
}

async fn truncated_before(server: &TestServer) -> Option<String> {
    let (_, stat) = admin(server, "stat_namespace", r#"{"key":"test"}"#.to_owned()).await;
    let stat: serde_json::Value = serde_json::from_str(&stat).unwrap();
    let before = &stat["metadata"]["truncated_before"];
    before.as_str().map(str::to_owned)
}

#[tokio::test]
async fn truncation_tells_running_counts_and_then_done() {
    let server = TestServer::with_namespace(&[]).await;
    let last = history(&server).await;
    // Without "apply" it is a dry run.
    let dry = format!(r#"{{"key":"test","before_version":"{last}"}}"#);
    let told = admin(&server, "truncate_namespace", dry).await;
    assert_eq!(told, lines("2\nDONE\n"));
    assert_eq!(truncated_before(&server).await, None);
    assert_eq!(truncate(&server, last, true).await, lines("2\nDONE\n"));
    assert_eq!(truncated_before(&server).await, Some(last.to_string()));
    assert_eq!(truncate(&server, last, true).await, lines("DONE\n"));
}

#[tokio::test]
async fn what_cannot_be_truncated_is_refused_before_the_first_line() {
    let server = TestServer::with_namespace(&[]).await;
    let zero = "0".repeat(20);
    let unknown = format!(r#"{{"key":"nothing","before_version":"{zero}"}}"#);
    assert_eq!(admin(&server, "truncate_namespace", unknown).await.0, 404);
    let bad = r#"{"key":"test","before_version":"xyz"}"#.to_owned();
    assert_eq!(admin(&server, "truncate_namespace", bad).await.0, 400);
    let short = r#"{"key":"test"}"#.to_owned();
    assert_eq!(admin(&server, "truncate_namespace", short).await.0, 500);
    let unknown = r#"{"key":"nothing","apply":true}"#.to_owned();
    let answer = admin(&server, "delete_unreferenced_content", unknown).await;
    assert_eq!(answer, (400, "this key does not exist".to_owned()));
}

#[tokio::test]
async fn truncation_that_fails_or_meets_another_ends_in_error() {
    let engine = FaultyEngine::new(Arc::new(MemoryEngine::new()), VecDeque::new());
    let server = TestServer::on(Arc::new(engine.clone()), &[]).await;
    create(server.admin, "test").await;
    let last = history(&server).await;
    // Its mark is written, and nothing after that: not even that it has ended.
    let down = std::iter::once(None).chain((0..3).map(|_| Some(Fault::Unavailable)));
    engine.set_plan(down.collect::<VecDeque<_>>());
    assert_eq!(truncate(&server, last, true).await, lines("ERROR\n"));
    engine.set_plan(VecDeque::new());
    assert_eq!(truncate(&server, last, true).await, lines("ERROR\n"));
    assert_eq!(truncate(&server, last, false).await, lines("2\nDONE\n"));
}

#[tokio::test]
async fn truncation_stops_when_its_caller_leaves() {
    let engine = StalledEngine::new();
    let server = TestServer::on(Arc::new(engine.clone()), &[]).await;
    create(server.admin, "test").await;
    let last = history(&server).await;
    engine.stall(Stall::Commits);
    let body = format!(r#"{{"key":"test","before_version":"{last}","apply":true}}"#);
    let head = "POST /api/truncate_namespace HTTP/1.1\r\nhost: x\r\ncontent-length: ";
    let mut stream = TcpStream::connect(server.admin).await.unwrap();
    let request = format!("{head}{}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    eventually("the truncation waits", || async { engine.waiting() > 0 }).await;
    drop(stream);
    // By the time that later connections were served, the server has seen that this one is closed.
    for _ in 0..3 {
        assert_eq!(get(server.admin, "/healthz").await.status, 200);
    }
    engine.stall(Stall::Nothing);
    eventually("the horizon is raised", || async {
        truncated_before(&server).await == Some(last.to_string())
    })
    .await;
    // Nothing was removed, and nothing keeps the next one from it.
    eventually("another one may begin", || async {
        let told = truncate(&server, last, true).await;
        assert!(
            ["2\nDONE\n", "ERROR\n"].contains(&told.1.as_str()),
            "{told:?}"
        );
        told == lines("2\nDONE\n")
    })
    .await;
}

#[tokio::test]
async fn a_minimum_age_keeps_young_history_even_from_being_counted() {
    let flags = ["--truncate-min-age-seconds", "3600"];
    let server = TestServer::with_namespace(&flags).await;
    let last = history(&server).await;
    for apply in [false, true] {
        let (status, text) = truncate(&server, last, apply).await;
        assert_eq!(status, 403);
        assert!(text.starts_with("truncate_min_age policy: "), "{text}");
    }
    assert_eq!(truncated_before(&server).await, None);
}

#[tokio::test]
async fn a_mode_is_given_at_creation_or_set_later() {
    let server = TestServer::start(&[]).await;
    let exclusive = r#"{"key":"test","concurrency":"exclusive"}"#.to_owned();
    let made = admin(&server, "create_namespace", exclusive.clone()).await;
    assert_eq!(made, (201, "created\n".to_owned()));
    let mode = async || begin(server.data, "test").await.mode;
    assert_eq!(mode().await, mvsqlite_protocol::v2::Concurrency::Exclusive);
    let optimistic = r#"{"key":"test","concurrency":"optimistic"}"#.to_owned();
    assert_eq!(
        admin(&server, "set_concurrency", optimistic).await,
        lines("set\n")
    );
    assert_eq!(mode().await, mvsqlite_protocol::v2::Concurrency::Optimistic);
    assert_eq!(
        admin(&server, "set_concurrency", exclusive).await,
        lines("set\n")
    );
    assert_eq!(mode().await, mvsqlite_protocol::v2::Concurrency::Exclusive);
    let missing = r#"{"key":"other","concurrency":"exclusive"}"#.to_owned();
    assert_eq!(admin(&server, "set_concurrency", missing).await.0, 404);
    let wrong = r#"{"key":"test","concurrency":"sometimes"}"#.to_owned();
    assert_eq!(admin(&server, "set_concurrency", wrong).await.0, 500);
}
