//! Shutdown in the middle of things.

use std::sync::Arc;

use mvsqlite_protocol::v2::{BeginRequest, CommitReply};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{Http1, request, rest};
use crate::server::{TestServer, begin, call, commit_of, create, eventually, message, page_1};
use crate::stalled::{Stall, StalledEngine};

#[tokio::test]
async fn requests_in_work_end_and_idle_connections_close() {
    let engine = StalledEngine::new();
    let server = TestServer::on(Arc::new(engine.clone()), &[]).await;
    create(server.admin, "test").await;
    let data = server.data;
    let begun = begin(data, "test").await;
    let mut idle = Http1::connect(data).await.unwrap();
    idle.send(request("GET", "/healthz", &[], ""))
        .await
        .unwrap();
    let mut silent = TcpStream::connect(data).await.unwrap();

    engine.stall(Stall::Commits);
    let commit = commit_of(&begun, 1, vec![page_1(1)]);
    let client = tokio::spawn(async move { call(data, "test", "commit", &commit).await });
    eventually("the commit waits", || async { engine.waiting() > 0 }).await;
    let stopping = tokio::spawn(server.server.shutdown());
    eventually("the listener is closed", || async {
        TcpStream::connect(data).await.is_err()
    })
    .await;
    assert!(!stopping.is_finished(), "a commit is in work");
    idle.send(request("GET", "/healthz", &[], ""))
        .await
        .unwrap_err();
    assert_eq!(rest(&mut silent).await, "");

    engine.stall(Stall::Nothing);
    let _: CommitReply = message(&client.await.unwrap());
    assert!(stopping.await.unwrap(), "everything ended by itself");
}

#[tokio::test]
async fn a_commit_that_its_client_has_left_is_waited_for() {
    let engine = StalledEngine::new();
    let server = TestServer::on(Arc::new(engine.clone()), &[]).await;
    create(server.admin, "test").await;
    let data = server.data;
    let begun = begin(data, "test").await;
    engine.stall(Stall::Commits);
    let commit = commit_of(&begun, 1, vec![page_1(1)]);
    let client = tokio::spawn(async move { call(data, "test", "commit", &commit).await });
    eventually("the commit waits", || async { engine.waiting() > 0 }).await;
    client.abort();
    let stopping = tokio::spawn(server.server.shutdown());
    eventually("the listener is closed", || async {
        TcpStream::connect(data).await.is_err()
    })
    .await;
    assert!(!stopping.is_finished(), "a commit is in work");
    engine.stall(Stall::Nothing);
    assert!(stopping.await.unwrap(), "everything ended by itself");
}

#[tokio::test]
async fn what_does_not_end_in_time_is_dropped() {
    let engine = StalledEngine::new();
    let flags = ["--shutdown-timeout", "0.3"];
    let server = TestServer::on(Arc::new(engine.clone()), &flags).await;
    create(server.admin, "test").await;
    let data = server.data;
    engine.stall(Stall::Reads);
    let client = tokio::spawn(async move {
        let mut stream = TcpStream::connect(data).await.unwrap();
        let head = b"POST /v2/ns/test/begin HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n\x80";
        stream.write_all(head).await.unwrap();
        rest(&mut stream).await
    });
    eventually("the read waits", || async { engine.waiting() > 0 }).await;
    assert!(!server.server.shutdown().await);
    assert_eq!(client.await.unwrap(), "");
}

#[tokio::test]
async fn an_h2_connection_is_told_and_its_streams_end() {
    let engine = StalledEngine::new();
    let server = TestServer::on(Arc::new(engine.clone()), &[]).await;
    create(server.admin, "test").await;
    let data = server.data;
    engine.stall(Stall::Reads);
    let body = mvsqlite_protocol::v2::encode(&BeginRequest::default()).unwrap();
    let begin = request("POST", "/v2/ns/test/begin", &[], body);
    let client = tokio::spawn(crate::client::send_over_h2(data, vec![begin]));
    eventually("the read waits", || async { engine.waiting() > 0 }).await;
    let stopping = tokio::spawn(server.server.shutdown());
    eventually("the listener is closed", || async {
        TcpStream::connect(data).await.is_err()
    })
    .await;
    engine.stall(Stall::Nothing);
    assert_eq!(client.await.unwrap()[0].status, 200);
    assert!(stopping.await.unwrap());
}
