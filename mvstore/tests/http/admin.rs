//! The admin API: the original's paths, status codes and bodies.

use mvsqlite_protocol::v2::{BeginReply, CommitReply};

use crate::client::{Http1, get, post, request, send};
use crate::server::{TestServer, begin, commit_of, create, message, page_1};

async fn admin(server: &TestServer, call: &str, body: &str) -> (u16, String) {
    let reply = post(server.admin, &format!("/api/{call}"), body.to_owned()).await;
    (reply.status, reply.text().to_owned())
}

fn answer(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

#[tokio::test]
async fn create_rename_delete_answer_word_for_word() {
    let server = TestServer::start(&[]).await;
    let create = r#"{"key":"test","metadata":""}"#;
    assert_eq!(
        admin(&server, "create_namespace", create).await,
        answer(201, "created\n")
    );
    assert_eq!(
        admin(&server, "create_namespace", create).await,
        answer(422, "this key already exists\n")
    );
    let rename = r#"{"old_key":"test","new_key":"live"}"#;
    assert_eq!(
        admin(&server, "rename_namespace", rename).await,
        answer(200, "renamed\n")
    );
    assert_eq!(admin(&server, "rename_namespace", rename).await.0, 422);
    let missing = r#"{"old_key":"test","new_key":"other"}"#;
    assert_eq!(admin(&server, "rename_namespace", missing).await.0, 404);
    let delete = r#"{"key":"live"}"#;
    assert_eq!(
        admin(&server, "delete_namespace", delete).await,
        answer(200, "deleted\n")
    );
    assert_eq!(admin(&server, "delete_namespace", delete).await.0, 404);
    assert_eq!(admin(&server, "stat_namespace", delete).await.0, 404);
}

#[tokio::test]
async fn method_and_content_type_are_ignored() {
    let server = TestServer::start(&[]).await;
    for (method, key) in [("GET", "a"), ("PUT", "b"), ("DELETE", "c")] {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let body = format!(r#"{{"key":"{key}","overlay_base":null}}"#);
        let reply = send(
            server.admin,
            request(method, "/api/create_namespace", &headers, body),
        )
        .await;
        assert_eq!((reply.status, reply.text()), (201, "created\n"), "{method}");
    }
}

#[tokio::test]
async fn a_list_is_one_line_each_in_byte_order() {
    let server = TestServer::start(&[]).await;
    assert_eq!(get(server.admin, "/api/list_namespace").await.text(), "");
    for key in ["b", "a/2", "a/1", "A"] {
        create(server.admin, key).await;
    }
    let keys = |text: &str| -> Vec<String> {
        let line = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines()
            .map(line)
            .map(|line| {
                assert_eq!(line["nsid"].as_str().unwrap().len(), 20);
                line["nskey"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let reply = get(server.admin, "/api/list_namespace").await;
    assert_eq!(reply.status, 200);
    assert_eq!(keys(reply.text()), ["A", "a/1", "a/2", "b"]);
    let reply = get(server.admin, "/api/list_namespace?prefix=a%2F").await;
    assert_eq!(keys(reply.text()), ["a/1", "a/2"]);
    assert!(
        reply
            .text()
            .lines()
            .all(|line| line.starts_with("{\"nsid\":\"") && line.ends_with("\"}"))
    );
}

#[tokio::test]
async fn a_list_longer_than_one_batch_has_every_namespace_once() {
    let server = TestServer::start(&[]).await;
    let mut connection = Http1::connect(server.admin).await.unwrap();
    for n in 0..1203 {
        let body = format!(r#"{{"key":"n{n:05}"}}"#);
        let create = request("POST", "/api/create_namespace", &[], body);
        assert_eq!(connection.send(create).await.unwrap().status, 201);
    }
    let reply = get(server.admin, "/api/list_namespace?prefix=n").await;
    let lines: Vec<_> = reply.text().lines().collect();
    assert_eq!(lines.len(), 1203);
    for (n, line) in lines.iter().enumerate() {
        assert!(line.contains(&format!("\"n{n:05}\"")), "{line}");
    }
}

#[tokio::test]
async fn stat_has_the_originals_keys_and_ours() {
    let server = TestServer::with_namespace(&[]).await;
    let begun: BeginReply = begin(server.data, "test").await;
    let commit = commit_of(&begun, 1, vec![page_1(1)]);
    let committed: CommitReply = message(&server.call("commit", &commit).await);
    let reply = post(server.admin, "/api/stat_namespace", r#"{"key":"test"}"#).await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let stat: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    let expected = serde_json::json!({
        "metadata": {"lock": null, "overlay_base": null, "truncated_before": null},
        "nsid": begun.namespace.to_string(),
        "nskey": "test",
        "version": committed.version.to_string(),
        "page_size": 4096,
        "page_count": 1,
        "layers": 0,
    });
    assert_eq!(stat, expected);
}

#[tokio::test]
async fn refusals_are_lines_of_text_that_say_what_is_wrong() {
    let server = TestServer::start(&[]).await;
    let cases = [
        (
            "create_namespace",
            r#"{"key":"a\tb"}"#,
            400,
            "visible ASCII characters",
        ),
        (
            "create_namespace",
            r#"{"key":""}"#,
            400,
            "1 to 1024 visible",
        ),
        (
            "rename_namespace",
            r#"{"old_key":"a","new_key":"é"}"#,
            400,
            "visible ASCII characters",
        ),
        ("create_namespace", "{", 500, "EOF while parsing"),
        (
            "create_namespace",
            r#"{"kee":"a"}"#,
            500,
            "missing field `key`",
        ),
        (
            "create_namespace",
            r#"{"key":"a","overlay_base":{"ns_id":"00","snapshot_version":"00"}}"#,
            400,
            "20 hex digits",
        ),
        ("truncate_namespace", "{}", 500, "missing field `key`"),
    ];
    for (call, body, status, words) in cases {
        let (found, text) = admin(&server, call, body).await;
        assert_eq!(found, status, "{call} {body}: {text}");
        assert!(
            text.contains(words) && text.ends_with('\n'),
            "{call} {body}: {text}"
        );
    }
    let large = format!(r#"{{"key":"{}"}}"#, "x".repeat(41_000));
    assert_eq!(admin(&server, "create_namespace", &large).await.0, 413);
    let reply = get(server.admin, "/api/unknown").await;
    assert_eq!((reply.status, reply.text()), (404, ""));
}
