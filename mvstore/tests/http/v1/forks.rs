//! Forks over HTTP: how they are made and refused, forks of forks, and what they hold.

use crate::client::post;
use crate::server::{TestServer, create};
use crate::v1::client::{V1, committed};

async fn admin(server: &TestServer, call: &str, body: String) -> (u16, String) {
    let reply = post(server.admin, &format!("/api/{call}"), body).await;
    (reply.status, reply.text().to_owned())
}

fn told(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

async fn nsid(server: &TestServer, key: &str) -> String {
    let (_, stat) = admin(server, "stat_namespace", format!(r#"{{"key":"{key}"}}"#)).await;
    let stat: serde_json::Value = serde_json::from_str(&stat).unwrap();
    stat["nsid"].as_str().unwrap().to_owned()
}

async fn fork(server: &TestServer, key: &str, base: &str, at: &str) -> (u16, String) {
    let base = format!(r#"{{"ns_id":"{base}","snapshot_version":"{at}"}}"#);
    let body = format!(r#"{{"key":"{key}","overlay_base":{base}}}"#);
    admin(server, "create_namespace", body).await
}

async fn truncate(server: &TestServer, key: &str, before: &str) -> String {
    let body = format!(r#"{{"key":"{key}","before_version":"{before}","apply":true}}"#);
    admin(server, "truncate_namespace", body).await.1
}

async fn put(v1: &V1, pages: &[(u32, &[u8])]) -> String {
    let head = v1.head().await;
    committed(&v1.commit(&head, None, pages).await).version
}

/// The content of pages 1 to 4 at the head.
async fn contents(v1: &V1) -> Vec<Option<Vec<u8>>> {
    let head = v1.head().await;
    let pages = v1.read(&head, &[1, 2, 3, 4]).await;
    pages
        .into_iter()
        .map(|page| page.map(|(_, data)| data))
        .collect()
}

fn expected(pages: [&str; 4]) -> Vec<Option<Vec<u8>>> {
    let content = |page: &&str| (!page.is_empty()).then(|| page.as_bytes().to_vec());
    pages.iter().map(content).collect()
}

#[tokio::test]
async fn forks_of_forks_read_right_through_changes_and_truncation_of_their_bases() {
    let server = TestServer::start(&[]).await;
    create(server.admin, "a").await;
    let a = V1::new(server.data, "a");
    put(&a, &[(1, b"a1"), (2, b"a2")]).await;
    let base = put(&a, &[(2, b"a2 again"), (3, b"a3")]).await;
    let a_id = nsid(&server, "a").await;
    assert_eq!(
        fork(&server, "b", &a_id, &base).await,
        told(201, "created\n")
    );
    let b = V1::new(server.data, "b");
    let b_base = put(&b, &[(1, b"b1")]).await;
    let b_id = nsid(&server, "b").await;
    assert_eq!(
        fork(&server, "c", &b_id, &b_base).await,
        told(201, "created\n")
    );
    let c = V1::new(server.data, "c");
    put(&c, &[(4, b"c4")]).await;

    // Each goes its own way.
    put(&a, &[(1, b"x"), (2, b"x"), (3, b"x")]).await;
    let a_head = put(&a, &[(1, b"y"), (2, b"y"), (3, b"y")]).await;
    let b_head = put(&b, &[(1, b"b1 again"), (3, b"b3")]).await;
    let seen = async || {
        assert_eq!(contents(&a).await, expected(["y", "y", "y", ""]));
        assert_eq!(
            contents(&b).await,
            expected(["b1 again", "a2 again", "b3", ""])
        );
        assert_eq!(contents(&c).await, expected(["b1", "a2 again", "a3", "c4"]));
    };
    seen().await;
    // A base is truncated up to what its forks see, and no further.
    assert_eq!(truncate(&server, "a", &a_head).await, "1\nDONE\n");
    assert_eq!(truncate(&server, "b", &b_head).await, "DONE\n");
    seen().await;
    let (_, stat) = admin(&server, "stat_namespace", r#"{"key":"b"}"#.to_owned()).await;
    let stat: serde_json::Value = serde_json::from_str(&stat).unwrap();
    let overlay = serde_json::json!({"ns_id": a_id, "snapshot_version": base});
    assert_eq!(stat["metadata"]["overlay_base"], overlay);
    assert_eq!(stat["metadata"]["truncated_before"], b_base.as_str());

    // What has forks is not deleted, and a lock does not go back below what they see.
    for key in ["a", "b"] {
        let (status, text) =
            admin(&server, "delete_namespace", format!(r#"{{"key":"{key}"}}"#)).await;
        assert_eq!(status, 409);
        assert!(
            text.starts_with(&format!("the namespace '{key}' has forks")),
            "{text}"
        );
    }
    let delete =
        async |key| admin(&server, "delete_namespace", format!(r#"{{"key":"{key}"}}"#)).await;
    assert_eq!(delete("c").await, told(200, "deleted\n"));
    // Nothing holds b's history any more, and then nothing a's.
    assert_eq!(truncate(&server, "b", &b_head).await, "1\nDONE\n");
    assert_eq!(
        contents(&b).await,
        expected(["b1 again", "a2 again", "b3", ""])
    );
    assert_eq!(delete("b").await, told(200, "deleted\n"));
    assert_eq!(truncate(&server, "a", &a_head).await, "6\nDONE\n");
    assert_eq!(contents(&a).await, expected(["y", "y", "y", ""]));
}

#[tokio::test]
async fn a_fork_that_cannot_be_made_is_refused_as_the_document_says() {
    let server = TestServer::with_namespace(&[]).await;
    let v1 = V1::new(server.data, "test");
    let id = nsid(&server, "test").await;
    let first = put(&v1, &[(1, b"1")]).await;
    let second = put(&v1, &[(1, b"2")]).await;
    // Between two commits means the one before.
    let between = format!("{}ffff", &first[..16]);
    assert_eq!(fork(&server, "between", &id, &between).await.0, 201);
    assert_eq!(
        contents(&V1::new(server.data, "between")).await,
        expected(["1", "", "", ""])
    );
    assert_eq!(
        fork(&server, "between", &id, &second).await,
        told(422, "this key already exists\n")
    );
    let delete = r#"{"key":"between"}"#.to_owned();
    assert_eq!(admin(&server, "delete_namespace", delete).await.0, 200);

    assert_eq!(fork(&server, "f", &id, "xyz").await.0, 400);
    let (status, text) = fork(&server, "f", "00000000000000000001", &first).await;
    assert_eq!(status, 404);
    assert!(
        text.contains("there is no namespace '00000000000000000001'"),
        "{text}"
    );
    assert_eq!(fork(&server, "f", &id, &"f".repeat(20)).await.0, 404);
    truncate(&server, "test", &second).await;
    let (status, text) = fork(&server, "f", &id, &first).await;
    assert_eq!(status, 409);
    assert!(text.contains("no longer kept"), "{text}");
    let lock = r#"{"owner":"w1"}"#;
    assert_eq!(
        v1.send("POST", "/nslock/acquire", lock.into()).await.status,
        201
    );
    let (status, text) = fork(&server, "f", &id, &second).await;
    assert_eq!(status, 409);
    assert!(text.contains("namespace lock is held"), "{text}");
    let release = r#"{"owner":"w1","mode":"commit"}"#;
    assert_eq!(
        v1.send("POST", "/nslock/release", release.into())
            .await
            .status,
        201
    );
    // A lock below what a fork sees.
    assert_eq!(fork(&server, "f", &id, &second).await.0, 201);
    let third = put(&v1, &[(1, b"3")]).await;
    assert!(third > second);
    let fork_above = fork(&server, "g", &id, &third).await;
    assert_eq!(fork_above.0, 201);
    let below = format!(r#"{{"owner":"w1","version":"{second}"}}"#);
    let reply = v1.send("POST", "/nslock/acquire", below.into()).await;
    assert_eq!((reply.status, reply.header("x-lock-owner")), (409, None));
    assert!(
        reply.text().contains("which a fork of the namespace sees"),
        "{}",
        reply.text()
    );
}

#[tokio::test]
async fn a_chain_of_forks_has_eight_links() {
    let server = TestServer::start(&[]).await;
    create(server.admin, "f0").await;
    put(&V1::new(server.data, "f0"), &[(1, b"bottom")]).await;
    for n in 1..=8 {
        let below = format!("f{}", n - 1);
        let at = V1::new(server.data, &below).head().await;
        let made = fork(&server, &format!("f{n}"), &nsid(&server, &below).await, &at).await;
        assert_eq!(made, told(201, "created\n"), "link {n}");
    }
    let top = V1::new(server.data, "f8");
    assert_eq!(contents(&top).await, expected(["bottom", "", "", ""]));
    let at = top.head().await;
    let (status, text) = fork(&server, "f9", &nsid(&server, "f8").await, &at).await;
    assert_eq!(status, 409);
    assert!(text.contains("limit is 8"), "{text}");
}
