//! The worked examples of the protocol's description, sent as bytes to a real server.

use crate::client::{Reply, request, send, send_over_h2};
use crate::server::TestServer;
use crate::v1::client::V1;

/// Hex with spaces. `H` is the toy page's hash.
fn hex(text: &str) -> Vec<u8> {
    let text = text.replace('H', HASH);
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

const HASH: &str = "63781d171425a36312fa058d8712d5d05135a991ec20351ce9d65cdb19a05432";

/// A version's text in hex.
fn digits(version: &str) -> String {
    version.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn read_page_7(version: &str, hash: &str, length: &str) -> Vec<u8> {
    hex(&format!(
        "{length} 84 aa 706167655f696e646578 07 a7 76657273696f6e b4 {} a4 68617368 {hash}
        ab 6163636570745f7a737464 c3",
        digits(version)
    ))
}

fn upload() -> Vec<u8> {
    hex("00000018 82 a4 64617461 c4 04 01020304 aa 64656c74615f62617365 07 00000000")
}

fn commit(version: &str) -> Vec<u8> {
    hex(&format!(
        "0000005d 84 af 6964656d706f74656e63795f6b6579 c4 10 000102030405060708090a0b0c0d0e0f
        bc 616c6c6f775f736b69705f6964656d706f74656e63795f636865636b c3
        ae 6e756d5f6e616d65737061636573 01 aa 6c6f636b5f6f776e6572 c0
        0000005c 86 a6 6e735f6b6579 a3 646231 b0 6e735f6b65795f6861736870726f6f66 c0
        a7 76657273696f6e b4 {} a8 6d65746164617461 c0
        a9 6e756d5f7061676573 01 a8 726561645f736574 92 00 07
        0000003a 83 aa 706167655f696e646578 07 a4 68617368 c4 20 H a4 64617461 c0",
        digits(version)
    ))
}

/// The whole conversation; `call` sends one request.
async fn conversation<F: Future<Output = Reply>>(
    call: impl Fn(&'static str, String, Vec<u8>, bool) -> F,
) {
    let stat = call("GET", "/stat".to_owned(), Vec::new(), true).await;
    let first: serde_json::Value = serde_json::from_slice(&stat.body).unwrap();
    let base = first["version"].as_str().unwrap().to_owned();
    let expected =
        format!(r#"{{"version":"{base}","metadata":"","read_only":false,"interval":null}}"#);
    assert_eq!(stat.text(), expected);

    let none = hex("00000017 83 a7 76657273696f6e a0 a4 64617461 c4 00 a4 7a737464 c2");
    let read = read_page_7(&base, "c0", "0000003d");
    let reply = call("POST", "/batch/read".to_owned(), read, true).await;
    assert_eq!((reply.status, &reply.body[..]), (200, &none[..]));
    assert_eq!(reply.header("content-type"), None);

    let reply = call("POST", "/batch/write".to_owned(), upload(), true).await;
    let written = hex("00000028 81 a4 68617368 c4 20 H 00000008 81 a4 68617368 c4 00");
    assert_eq!((reply.status, &reply.body[..]), (200, &written[..]));

    let read = read_page_7(&base, "c4 20 H", "0000005e");
    let reply = call("POST", "/batch/read".to_owned(), read, true).await;
    let found = |version: &str| {
        hex(&format!(
            "0000002f 83 a7 76657273696f6e b4 {} a4 64617461 c4 04 01020304 a4 7a737464 c2",
            digits(version)
        ))
    };
    assert_eq!((reply.status, &reply.body[..]), (200, &found(&base)[..]));

    let reply = call("POST", "/batch/commit".to_owned(), commit(&base), false).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let version = reply.header("x-committed-version").unwrap().to_owned();
    assert_eq!(reply.header("x-last-version"), Some("ffffffffffffffffffff"));
    // From the namespace's id on nobody else wrote.
    assert_eq!(reply.body, hex("81 a9 6368616e67656c6f67 81 a3 646231 90"));

    let read = read_page_7(&version, "c0", "0000003d");
    let reply = call("POST", "/batch/read".to_owned(), read, true).await;
    assert_eq!((reply.status, &reply.body[..]), (200, &found(&version)[..]));
    let path = format!("/stat?from_version={version}");
    let stat = call("GET", path, Vec::new(), true).await;
    let expected =
        format!(r#"{{"version":"{version}","metadata":"","read_only":false,"interval":[]}}"#);
    assert_eq!(stat.text(), expected);
}

async fn start() -> TestServer {
    let server = TestServer::start(&[]).await;
    crate::server::create(server.admin, "db1").await;
    server
}

fn headers(with_key: bool) -> &'static [(&'static str, &'static str)] {
    match with_key {
        true => &[("x-namespace-key", "db1")],
        false => &[],
    }
}

#[tokio::test]
async fn the_worked_examples_are_answered_byte_for_byte() {
    let server = start().await;
    conversation(|method, path, body, key| async move {
        send(server.data, request(method, &path, headers(key), body)).await
    })
    .await;
}

#[tokio::test]
async fn they_are_over_http_2_with_prior_knowledge_too() {
    let server = start().await;
    conversation(|method, path, body, key| async move {
        let request = request(method, &path, headers(key), body);
        send_over_h2(server.data, vec![request]).await.remove(0)
    })
    .await;
}

#[tokio::test]
async fn the_method_is_not_looked_at() {
    let server = start().await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
        let v1 = V1::new(server.data, "db1");
        assert_eq!(v1.send(method, "/stat", Vec::new()).await.status, 200);
        let reply = v1.send(method, "/batch/write", upload()).await;
        assert_eq!(reply.status, 200, "{method}: {}", reply.text());
    }
}
