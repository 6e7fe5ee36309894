//! Each call of data plane v2, over HTTP/1.1, h2c and a Unix socket.

use mvsqlite_protocol::v2::{
    BeginRequest, CommitReply, LeaseAction, LeaseReply, LeaseRequest, ReadRequest, ResolveReply,
    ResolveRequest, SettleReply, SettleRequest, StageReply, StageRequest, decode_next, encode,
};
use mvsqlite_protocol::{Code, IdempotencyKey, LeaseNonce, Moment, PageImage, PageSet};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::client::{get, post, request, send_over_h2};
use crate::server::{
    PAGE_SIZE, PATIENCE, TestServer, begin, call, commit_of, create, message, page, page_1, problem,
};

fn images(body: &[u8]) -> Vec<PageImage> {
    let mut rest = body;
    let mut images = Vec::new();
    while !rest.is_empty() {
        images.push(decode_next(&mut rest).unwrap());
    }
    images
}

#[tokio::test]
async fn a_commit_is_read_back_at_its_version() {
    let server = TestServer::with_namespace(&[]).await;
    let begun = begin(server.data, "test").await;
    assert_eq!(begun.version, begun.namespace.as_version());
    let pages = vec![page_1(3), page(1, 0xaa), page(2, 0xbb)];
    let committed: CommitReply =
        message(&server.call("commit", &commit_of(&begun, 1, pages)).await);
    assert!(committed.version > begun.version);

    let again = begin(server.data, "test").await;
    assert_eq!(again.version, committed.version);
    assert_eq!(again.page_size as usize, PAGE_SIZE);
    let read = ReadRequest {
        namespace: again.namespace,
        version: again.version,
        read_version: again.read_version,
        pages: [2, 1, 7].into_iter().collect(),
        incarnation: None,
        stage: None,
    };
    let reply = server.call("read", &read).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let found: Vec<_> = images(&reply.body)
        .into_iter()
        .map(|image| (image.index, image.data.map(|data| data[0])))
        .collect();
    assert_eq!(found, [(1, Some(0xaa)), (2, Some(0xbb)), (7, None)]);
}

#[tokio::test]
async fn a_moment_is_resolved_and_a_commit_settled() {
    let server = TestServer::with_namespace(&[]).await;
    let begun = begin(server.data, "test").await;
    let commit = commit_of(&begun, 7, vec![page_1(1)]);
    let committed: CommitReply = message(&server.call("commit", &commit).await);

    let moment = Moment::Version(committed.version);
    let resolved: ResolveReply = message(&server.call("resolve", &ResolveRequest { moment }).await);
    assert_eq!(resolved.version, committed.version);

    let settle = |key: IdempotencyKey| SettleRequest {
        namespace: begun.namespace,
        key,
    };
    let known = message(&server.call("settle", &settle(commit.key)).await);
    assert!(
        matches!(known, SettleReply::Committed { version, .. } if version == committed.version)
    );
    let unknown = IdempotencyKey::from_bytes([9; 16]);
    let reply: SettleReply = message(&server.call("settle", &settle(unknown)).await);
    assert_eq!(reply, SettleReply::Aborted);
}

#[tokio::test]
async fn pages_are_staged_ahead() {
    let server = TestServer::with_namespace(&[]).await;
    let begun = begin(server.data, "test").await;
    let batch = StageRequest {
        namespace: begun.namespace,
        read_version: begun.read_version,
        stage: None,
        pages: vec![page(1, 1), page(2, 2)],
        unstage: PageSet::new(),
        incarnation: None,
    };
    let staged: StageReply = message(&server.call("stage", &batch).await);
    assert_eq!(staged.count, 2);
}

#[tokio::test]
async fn a_large_read_arrives_whole_in_pieces() {
    let server = TestServer::with_namespace(&[]).await;
    let begun = begin(server.data, "test").await;
    let count = 200;
    let mut pages = vec![page_1(count)];
    pages.extend((1..count).map(|index| page(index, index as u8)));
    let committed: CommitReply =
        message(&server.call("commit", &commit_of(&begun, 1, pages)).await);
    let read = ReadRequest {
        namespace: begun.namespace,
        version: committed.version,
        read_version: committed.read_version,
        pages: (0..count).collect(),
        incarnation: None,
        stage: None,
    };
    let reply = server.call("read", &read).await;
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    let images = images(&reply.body);
    assert_eq!(images.len(), count as usize);
    for (index, image) in (0u32..).zip(&images) {
        assert_eq!(image.index, index);
        let data = image.data.as_ref().unwrap();
        assert_eq!(
            (data.len(), data[4000]),
            (PAGE_SIZE, if index == 0 { 0 } else { index as u8 })
        );
    }
}

#[tokio::test]
async fn a_key_with_slashes_is_one_path_segment() {
    let server = TestServer::start(&[]).await;
    create(server.admin, "var/lib/app.db").await;
    let direct = begin(server.data, "var/lib/app.db").await;
    let encoded = "/v2/ns/var%2Flib%2f%61pp%2Edb/begin";
    let reply = post(
        server.data,
        encoded,
        encode(&BeginRequest::default()).unwrap(),
    )
    .await;
    assert_eq!(
        message::<mvsqlite_protocol::v2::BeginReply>(&reply).namespace,
        direct.namespace
    );
    let reply = post(server.data, "/v2/ns/var/lib/app.db/begin", "").await;
    assert_eq!((reply.status, problem(&reply).code), (404, Code::NotFound));
}

#[tokio::test]
async fn many_requests_share_one_h2_connection_on_the_same_port() {
    let server = TestServer::with_namespace(&[]).await;
    let body = encode(&BeginRequest::default()).unwrap();
    let requests = (0..100).map(|_| request("POST", "/v2/ns/test/begin", &[], body.clone()));
    let replies = send_over_h2(server.data, requests.collect()).await;
    assert_eq!(replies.len(), 100);
    assert!(replies.iter().all(|reply| reply.status == 200));
}

#[tokio::test]
async fn the_data_plane_listens_on_a_unix_socket_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data.sock");
    let server = TestServer::with_namespace(&["--unix-socket", path.to_str().unwrap()]).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    let reading = tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text);
    tokio::time::timeout(PATIENCE, reading)
        .await
        .unwrap()
        .unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(server.server.shutdown().await);
    assert!(!path.exists(), "the socket file goes with its listener");
}

#[tokio::test]
async fn concurrent_clients_all_commit_or_conflict() {
    let server = TestServer::with_namespace(&[]).await;
    let begun = begin(server.data, "test").await;
    let commit = commit_of(&begun, 1, vec![page_1(33)]);
    let _: CommitReply = message(&server.call("commit", &commit).await);
    let data = server.data;
    let writers = (0..32u32).map(|writer| {
        tokio::spawn(async move {
            let begun = begin(data, "test").await;
            let commit = commit_of(
                &begun,
                1000 + u128::from(writer),
                vec![page(1 + writer, writer as u8)],
            );
            call(data, "test", "commit", &commit).await.status
        })
    });
    for status in futures_util::future::join_all(writers).await {
        assert_eq!(
            status.unwrap(),
            200,
            "writers of distinct pages do not conflict"
        );
    }
}

#[tokio::test]
async fn time_to_version_answers_as_the_original_does() {
    let server = TestServer::with_namespace(&[]).await;
    let reply = get(server.data, "/time2version?t=0").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let bracket: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let after = bracket["after"]["version"].as_str().unwrap();
    assert_eq!((after.len(), &after[16..]), (20, "ffff"));
    assert!(bracket["after"]["time"].as_u64().unwrap() > 1_700_000_000);
    for path in ["/time2version", "/time2version?t=", "/time2version?t=soon"] {
        assert_eq!(get(server.data, path).await.status, 500, "{path}");
    }
}

#[tokio::test]
async fn health_is_answered_on_both_listeners() {
    let server = TestServer::start(&[]).await;
    for address in [server.data, server.admin] {
        let reply = get(address, "/healthz").await;
        assert_eq!((reply.status, reply.text()), (200, "ok\n"));
        let reply = get(address, "/readyz").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(
            reply.text().starts_with("ready: memory"),
            "{}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn a_request_id_is_taken_over_or_made() {
    let server = TestServer::start(&[]).await;
    let with_id = |id: &str| request("GET", "/healthz", &[("x-request-id", id)], "");
    let reply = crate::client::send(server.data, with_id("trace-1:2")).await;
    assert_eq!(reply.header("x-request-id"), Some("trace-1:2"));
    let long = "x".repeat(129);
    let mut made = Vec::new();
    for id in ["", "two words", &long] {
        let reply = crate::client::send(server.data, with_id(id)).await;
        made.push(reply.header("x-request-id").unwrap().to_owned());
    }
    assert!(
        made.iter()
            .all(|id| !id.is_empty() && id.len() < 30 && !id.contains(' '))
    );
    made.dedup();
    assert_eq!(made.len(), 3);
}

#[tokio::test]
async fn a_write_lease_is_granted_kept_and_given_back() {
    let server = TestServer::with_namespace(&[]).await;
    let begun = begin(server.data, "test").await;
    let ask = |nonce: u8, action| LeaseRequest {
        namespace: begun.namespace,
        incarnation: Some(begun.incarnation),
        nonce: LeaseNonce::from_bytes([nonce; 16]),
        action,
    };
    let acquire = LeaseAction::Acquire { place: None };
    let granted: LeaseReply = message(&server.call("lease", &ask(1, acquire)).await);
    assert!(
        matches!(granted, LeaseReply::Granted { ttl_millis: 5000, head, .. } if head == begun.version),
        "{granted:?}"
    );
    let busy: LeaseReply = message(&server.call("lease", &ask(2, acquire)).await);
    assert!(matches!(busy, LeaseReply::Busy { .. }), "{busy:?}");
    let stranger = commit_of(&begun, 1, vec![page_1(1)]);
    let refused = server.call("commit", &stranger).await;
    assert_eq!(refused.status, 423, "{}", refused.text());
    assert_eq!(problem(&refused).code, Code::Locked);
    let renewed = server.call("lease", &ask(2, LeaseAction::Renew)).await;
    assert_eq!(problem(&renewed).code, Code::Locked);
    let release = LeaseAction::Release { place: None };
    let released: LeaseReply = message(&server.call("lease", &ask(1, release)).await);
    assert_eq!(released, LeaseReply::Released);
    let committed = server.call("commit", &stranger).await;
    assert_eq!(committed.status, 200, "{}", committed.text());
}
