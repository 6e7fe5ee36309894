//! What connections may not do: be many, be slow, be silent, send too much.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Http1, get, raw, request, rest};
use crate::server::{PATIENCE, TestServer, eventually};

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_serves_many_requests_one_behind_the_other() {
    let server = TestServer::start(&[]).await;
    let mut connection = Http1::connect(server.data).await.unwrap();
    for path in ["/healthz", "/nowhere", "/readyz", "/healthz"] {
        connection
            .send(request("GET", path, &[], ""))
            .await
            .unwrap();
    }
    let three = [
        HEALTH,
        HEALTH,
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ];
    let text = raw(server.data, &three.concat()).await;
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
}

#[tokio::test]
async fn a_client_that_says_nothing_or_half_a_header_is_closed() {
    let server = TestServer::start(&["--header-timeout", "0.2"]).await;
    for bytes in [
        &b""[..],
        b"P",
        b"PRI * HTTP/2.0\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ",
    ] {
        assert_eq!(raw(server.data, bytes).await, "");
    }
}

#[tokio::test]
async fn a_header_sent_byte_by_byte_for_ever_is_closed() {
    let server = TestServer::start(&["--header-timeout", "0.3"]).await;
    let (mut reading, mut writing) = TcpStream::connect(server.data).await.unwrap().into_split();
    let dripping = tokio::spawn(async move {
        writing
            .write_all(b"GET /healthz HTTP/1.1\r\n")
            .await
            .unwrap();
        while writing.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    // It may end with a reset: the client is still sending.
    let mut text = Vec::new();
    let _ = timeout(PATIENCE, reading.read_to_end(&mut text))
        .await
        .expect("closed");
    assert_eq!(text, b"");
    timeout(PATIENCE, dripping).await.expect("closed").unwrap();
}

#[tokio::test]
async fn a_connection_that_is_idle_for_too_long_is_closed_after_its_reply() {
    let server = TestServer::start(&["--idle-timeout", "0.3"]).await;
    let text = raw(server.data, HEALTH).await;
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("ok\n"),
        "{text}"
    );
}

#[tokio::test]
async fn bytes_that_are_not_http_are_answered_with_400_and_closed() {
    let server = TestServer::start(&[]).await;
    let garbage: [&[u8]; 3] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /healthz HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /v2/ns/a/begin HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ];
    for bytes in garbage {
        let text = raw(server.data, bytes).await;
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
    }
}

#[tokio::test]
async fn a_header_that_is_too_large_or_has_too_many_fields_is_431() {
    let server = TestServer::start(&[]).await;
    let large = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(200 << 10)
    );
    let many = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "x: y\r\n".repeat(100)
    );
    for bytes in [large, many] {
        let text = raw(server.data, bytes.as_bytes()).await;
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending_its_body() {
    let server = TestServer::start(&[]).await;
    let mut stream = TcpStream::connect(server.data).await.unwrap();
    let size = 32 << 20;
    let head = format!("POST /v2/ns/a/begin HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // More than sockets buffer: without a reader at the other end this would be a reset.
    stream.write_all(&vec![0; size]).await.unwrap();
    let text = rest(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    assert!(text.contains("\"code\":\"too_large\""), "{text}");
}

#[tokio::test]
async fn a_body_without_a_length_is_limited_too() {
    let server = TestServer::start(&[]).await;
    let mut stream = TcpStream::connect(server.data).await.unwrap();
    let head = "POST /v2/ns/a/begin HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..64 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    let text = rest(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_the_next_is_served_when_one_ends() {
    let server = TestServer::start(&["--max-connections", "2"]).await;
    let first = Http1::connect(server.data).await.unwrap();
    let mut second = Http1::connect(server.data).await.unwrap();
    second
        .send(request("GET", "/healthz", &[], ""))
        .await
        .unwrap();
    let text = raw(server.admin, HEALTH).await;
    assert!(
        text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{text}"
    );
    assert!(text.contains("retry-after: 1\r\n"), "{text}");
    let body = text.split_once("\r\n\r\n").unwrap().1;
    let problem: mvsqlite_protocol::Problem = serde_json::from_str(body).unwrap();
    assert_eq!(problem.code, mvsqlite_protocol::Code::Unavailable);
    drop(first);
    eventually("a connection is free again", || async {
        raw(
            server.data,
            b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await
        .starts_with("HTTP/1.1 200 ")
    })
    .await;
    drop(second);
    eventually("both are free again", || async {
        get(server.data, "/healthz").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn bytes_of_any_kind_leave_the_server_serving() {
    let server = TestServer::with_namespace(&["--header-timeout", "2"]).await;
    let good = b"POST /v2/ns/test/commit HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n\x81\xa5pages\x91\x92\x00\x01";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let mut random = 0x5eed_u64;
    let mut draw = move || {
        // xorshift: the same bytes in every run.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..300 {
        let mut bytes = if round % 2 == 0 {
            good.to_vec()
        } else {
            preface.to_vec()
        };
        for _ in 0..draw() % 6 {
            let place = usize::try_from(draw()).unwrap() % bytes.len();
            bytes[place] = u8::try_from(draw() % 256).unwrap();
        }
        bytes.extend((0..draw() % 40).map(|_| u8::try_from(draw() % 256).unwrap()));
        let mut stream = TcpStream::connect(server.data).await.unwrap();
        // The server may close at the first wrong byte.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut reply = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut reply))
            .await
            .expect("the server closes in time");
    }
    assert_eq!(get(server.data, "/readyz").await.status, 200);
}
