//! Namespace locks: the document's tables, row by row.

use std::collections::VecDeque;
use std::sync::Arc;

use mvsqlite_protocol::Code;
use mvsqlite_protocol::v1::{CommitGlobalInit, push};
use mvstore::kv::faults::{Fault, FaultyEngine};
use mvstore::kv::memory::MemoryEngine;

use crate::client::{Reply, post, request, send};
use crate::server::{TestServer, begin, commit_of, create, page, problem};
use crate::v1::client::{Intent, V1, commit_body, committed, fresh_key, hash};

async fn start() -> (TestServer, V1) {
    let server = TestServer::with_namespace(&[]).await;
    let v1 = V1::new(server.data, "test");
    (server, v1)
}

/// Status, body and `x-lock-owner`.
type Answer<'a> = (u16, &'a str, Option<&'a str>);

fn answer(reply: &Reply) -> Answer<'_> {
    (reply.status, reply.text(), reply.header("x-lock-owner"))
}

impl V1 {
    async fn acquire(&self, body: &str) -> Reply {
        self.send("POST", "/nslock/acquire", body.into()).await
    }

    async fn lock(&self, owner: &str) {
        let reply = self.acquire(&format!(r#"{{"owner":"{owner}"}}"#)).await;
        assert_eq!(answer(&reply), (201, "", None));
    }

    async fn release(&self, owner: &str, mode: &str) -> Reply {
        let body = format!(r#"{{"owner":"{owner}","mode":"{mode}"}}"#);
        self.send("POST", "/nslock/release", body.into()).await
    }

    async fn commit_as(&self, owner: Option<&str>, version: &str, content: &[u8]) -> Reply {
        let intent = Intent {
            key: &self.key,
            version,
            read_set: Some(vec![]),
            pages: vec![(1, hash(content), Some(content))],
        };
        let key = fresh_key();
        let plain = commit_body(key, false, &[intent]);
        let init = CommitGlobalInit {
            idempotency_key: &key,
            allow_skip_idempotency_check: true,
            num_namespaces: 1,
            lock_owner: owner,
        };
        let mut body = Vec::new();
        push(&mut body, &init).unwrap();
        let length = u32::from_be_bytes(plain[..4].try_into().unwrap());
        body.extend_from_slice(&plain[4 + length as usize..]);
        send(self.data, request("POST", "/batch/commit", &[], body)).await
    }

    async fn stat_as(&self, owner: &str) -> Reply {
        self.send("GET", &format!("/stat?lock_owner={owner}"), vec![])
            .await
    }

    async fn content(&self, version: &str) -> Vec<u8> {
        self.read(version, &[1]).await[0].clone().unwrap().1
    }
}

#[tokio::test]
async fn acquire_answers_row_by_row() {
    let (_server, v1) = start().await;
    let id = v1.head().await;
    let head = committed(&v1.commit(&id, None, &[(1, b"1")]).await).version;
    for invalid in [
        r#"{"owner":""}"#.to_owned(),
        format!(r#"{{"owner":"{}"}}"#, "x".repeat(257)),
    ] {
        assert_eq!(
            answer(&v1.acquire(&invalid).await),
            (400, "invalid owner\n", None)
        );
    }
    let above = r#"{"owner":"w1","version":"ffffffffffffffffffff"}"#;
    let reply = v1.acquire(above).await;
    assert_eq!((reply.status, reply.header("x-lock-owner")), (409, None));
    assert!(
        reply.text().contains("above the namespace's last version"),
        "{}",
        reply.text()
    );
    // An owner with an escape in its JSON, which the original cannot read.
    let escaped = r#"{"owner":"w\u0031"}"#;
    assert_eq!(answer(&v1.acquire(escaped).await), (201, "", None));
    // Again, with another version: nothing changes.
    let again = format!(r#"{{"owner":"w1","version":"{id}"}}"#);
    assert_eq!(answer(&v1.acquire(&again).await), (201, "", None));
    assert_eq!(v1.head().await, head);
    let other = r#"{"owner":"w2"}"#;
    assert_eq!(answer(&v1.acquire(other).await), (409, "", Some("w1")));
    let unknown = V1 {
        key: "nothing".to_owned(),
        ..v1.clone()
    };
    assert_eq!(unknown.acquire(other).await.status, 404);
    for hopeless in [
        "",
        "{",
        r#"{"owner":7}"#,
        r#"{"owner":"w3","version":"xyz"}"#,
    ] {
        assert_eq!(v1.acquire(hopeless).await.status, 400, "{hopeless}");
    }
}

#[tokio::test]
async fn a_version_below_the_truncation_mark_cannot_be_locked() {
    let (server, v1) = start().await;
    let id = v1.head().await;
    let first = committed(&v1.commit(&id, None, &[(1, b"1")]).await).version;
    let second = committed(&v1.commit(&first, None, &[(1, b"2")]).await).version;
    let body = format!(r#"{{"key":"test","before_version":"{second}","apply":true}}"#);
    post(server.admin, "/api/truncate_namespace", body).await;
    let reply = v1
        .acquire(&format!(r#"{{"owner":"w1","version":"{first}"}}"#))
        .await;
    assert_eq!((reply.status, reply.header("x-lock-owner")), (409, None));
    assert!(reply.text().contains("truncated"), "{}", reply.text());
    // And a lock holds truncation back.
    v1.lock("w1").await;
    let third = committed(&v1.commit_as(Some("w1"), &second, b"3").await).version;
    let body = format!(r#"{{"key":"test","before_version":"{third}","apply":true}}"#);
    let reply = post(server.admin, "/api/truncate_namespace", body).await;
    assert_eq!(reply.text(), "DONE\n");
    assert_eq!(v1.content(&second).await, b"2");
}

#[tokio::test]
async fn release_answers_row_by_row() {
    let (_server, v1) = start().await;
    let id = v1.head().await;
    assert_eq!(answer(&v1.release("w1", "commit").await), (422, "", None));
    assert_eq!(answer(&v1.release("w1", "rollback").await), (422, "", None));
    v1.lock("w1").await;
    assert_eq!(
        answer(&v1.release("w2", "commit").await),
        (422, "", Some("w1"))
    );
    assert_eq!(
        answer(&v1.release("w2", "rollback").await),
        (422, "", Some("w1"))
    );
    assert_eq!(v1.release("", "commit").await.status, 400);
    assert_eq!(v1.release("w1", "sideways").await.status, 400);
    let written = committed(&v1.commit_as(Some("w1"), &id, b"1").await).version;
    assert_eq!(answer(&v1.release("w1", "commit").await), (201, "", None));
    assert_eq!(v1.head().await, written);
    v1.lock("w1").await;
    let undone = committed(&v1.commit_as(Some("w1"), &written, b"2").await).version;
    assert_eq!(answer(&v1.release("w1", "rollback").await), (200, "", None));
    let head = v1.head().await;
    assert!(head > undone, "a version names one state for ever");
    assert_eq!(v1.content(&head).await, b"1");
    assert_eq!(answer(&v1.release("w1", "commit").await), (422, "", None));
}

/// What the four kinds of callers may do while a namespace is locked.
#[tokio::test]
async fn a_lock_means_to_each_caller_what_the_table_says() {
    let engine = FaultyEngine::new(Arc::new(MemoryEngine::new()), VecDeque::new());
    let server = TestServer::on(Arc::new(engine.clone()), &[]).await;
    create(server.admin, "test").await;
    let v1 = V1::new(server.data, "test");
    let id = v1.head().await;
    let snapshot = committed(&v1.commit(&id, None, &[(1, b"1")]).await).version;
    // Not locked: whoever names an owner is mistaken.
    assert_eq!(answer(&v1.stat_as("w1").await), (410, "", None));
    let reply = v1.commit_as(Some("w1"), &snapshot, b"x").await;
    assert_eq!(answer(&reply), (410, "", None));

    v1.lock("w1").await;
    let live = committed(&v1.commit_as(Some("w1"), &snapshot, b"2").await).version;
    // No owner: the snapshot, and no commit.
    assert_eq!(v1.head().await, snapshot);
    assert_eq!(v1.interval(&snapshot).await, Some(vec![]));
    assert_eq!(v1.interval(&live).await, None);
    assert_eq!(v1.commit_as(None, &snapshot, b"x").await.status, 409);
    // The owner: everything.
    let stat = v1
        .stat(&format!("?lock_owner=w1&from_version={snapshot}"))
        .await;
    assert_eq!((stat.version, stat.interval), (live.clone(), Some(vec![1])));
    // Another owner: nothing.
    assert_eq!(answer(&v1.stat_as("w2").await), (410, "", None));
    assert_eq!(v1.commit_as(Some("w2"), &live, b"x").await.status, 410);
    // Whoever: reads and uploads.
    assert_eq!(v1.content(&live).await, b"2");
    v1.upload(&[b"waiting"]).await;
    // Our own clients: the snapshot, and a refusal that says why.
    let begun = begin(server.data, "test").await;
    assert_eq!(begun.version.to_string(), snapshot);
    let refusal = server
        .call("commit", &commit_of(&begun, 1, vec![page(2, 2)]))
        .await;
    let problem = problem(&refusal);
    assert_eq!((refusal.status, problem.code), (423, Code::Locked));
    assert!(
        problem.detail.contains("namespace lock is held"),
        "{}",
        problem.detail
    );

    // A rollback that was cut short behind its first step.
    engine.set_plan(VecDeque::from([None, Some(Fault::Unavailable)]));
    assert_eq!(v1.release("w1", "rollback").await.status, 503);
    engine.set_plan(VecDeque::new());
    assert_eq!(v1.head().await, snapshot);
    assert_eq!(v1.commit_as(None, &snapshot, b"x").await.status, 409);
    assert_eq!(answer(&v1.stat_as("w1").await), (410, "", None));
    assert_eq!(v1.commit_as(Some("w1"), &live, b"x").await.status, 410);
    assert_eq!(answer(&v1.stat_as("w2").await), (410, "", None));
    assert_eq!(v1.content(&live).await, b"2");
    let reply = v1.release("w1", "commit").await;
    assert_eq!((reply.status, reply.header("x-lock-owner")), (409, None));
    assert_eq!(v1.release("w1", "rollback").await.status, 200);
    let head = v1.head().await;
    assert_eq!(v1.content(&head).await, b"1");
}

/// What existing clients meet after a rollback, where the head is a new version and not the old one.
#[tokio::test]
async fn clients_from_before_a_rollback_find_their_way() {
    let (_server, v1) = start().await;
    let id = v1.head().await;
    let first = committed(&v1.commit(&id, None, &[(1, b"1")]).await).version;
    let second = committed(&v1.commit(&first, None, &[(1, b"2")]).await).version;
    let back = format!(r#"{{"owner":"w1","version":"{first}"}}"#);
    assert_eq!(v1.acquire(&back).await.status, 201);
    assert_eq!(v1.release("w1", "rollback").await.status, 200);
    // A cache filled at a version that was rolled back is dropped as a whole; so is one from before.
    assert_eq!(v1.interval(&second).await, None);
    assert_eq!(v1.interval(&first).await, None);
    // A transaction on such a version conflicts, even one that read nothing.
    assert_eq!(
        v1.commit(&second, Some(&[]), &[(5, b"x")]).await.status,
        409
    );
    assert_eq!(v1.commit(&second, None, &[(5, b"x")]).await.status, 409);
    // One under way reads on.
    assert_eq!(v1.content(&second).await, b"2");
    let head = v1.head().await;
    let next = committed(&v1.commit(&head, Some(&[1]), &[(1, b"3")]).await);
    assert_eq!(v1.content(&next.version).await, b"3");
    assert_eq!(v1.interval(&head).await, Some(vec![1]));
}

#[tokio::test]
async fn several_namespaces_are_committed_under_a_lock_of_all_of_them() {
    let (server, v1) = start().await;
    create(server.admin, "other").await;
    let other = V1::new(server.data, "other");
    v1.lock("w1").await;
    let (a, b) = (v1.head().await, other.head().await);
    let both = async |owner| {
        let intents = [("test", a.as_str()), ("other", b.as_str())].map(|(key, version)| Intent {
            key,
            version,
            read_set: Some(vec![]),
            pages: vec![(1, hash(b"x"), Some(&b"x"[..]))],
        });
        let key = fresh_key();
        let plain = commit_body(key, false, &intents);
        let init = CommitGlobalInit {
            idempotency_key: &key,
            allow_skip_idempotency_check: true,
            num_namespaces: 2,
            lock_owner: Some(owner),
        };
        let mut body = Vec::new();
        push(&mut body, &init).unwrap();
        let length = u32::from_be_bytes(plain[..4].try_into().unwrap());
        body.extend_from_slice(&plain[4 + length as usize..]);
        send(server.data, request("POST", "/batch/commit", &[], body)).await
    };
    assert_eq!(both("w1").await.status, 410);
    other.lock("w1").await;
    committed(&both("w1").await);
}
