//! A transaction of 5 MB, and a store that ends at every named point of its way: while it is staged,
//! committed as a layer, and folded. After each restart the content is that of before or behind it,
//! never in between; what was acknowledged is there; and the folding that was cut short comes to its
//! end. `mvstore fsck` finds nothing wrong with what a crash left, nor in the end.

use std::net::SocketAddr;
use std::path::Path;

use mvsqlite_protocol::admin::NamespaceStat;
use mvsqlite_protocol::v2::{
    CommitReply, CommitRequest, ReadRequest, SettleReply, SettleRequest, StageRef, StageReply,
    StageRequest, decode, decode_next, encode, path,
};
use mvsqlite_protocol::{PageImage, PageSet, Version};
use mvstore::failpoint::{LARGE_TRANSACTION, VARIABLE};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{Http1, post, request};
use crate::fsck::expect_sound;
use crate::process::{Store, mvstore};
use crate::server::{PAGE_SIZE, begin, call, commit_of, create, eventually, message, page, page_1};

/// 5 MB in pages of 4 KiB, the first of which is written before.
const PAGES: u32 = 1280;
/// Pages of the first state; the transaction makes more of them and cuts nothing off.
const PAGES_BEFORE: u32 = 640;
const BATCH: usize = 256;
/// The transaction folds in some steps.
const KNOBS: [&str; 4] = ["--knob-layer-bytes", "4096", "--knob-fold-pages", "200"];

fn start(directory: &Path, crash_at: Option<&str>) -> Store {
    let words = [&["--data-dir", directory.to_str().unwrap()], &KNOBS[..]].concat();
    let armed = |words: &[&str]| {
        let mut command = mvstore(words);
        if let Some(point) = crash_at {
            command.env(VARIABLE, point);
        }
        command
    };
    Store::of(armed, &words)
}

/// A call that may meet the end of the store.
async fn try_call<Q: Serialize, R: DeserializeOwned>(
    data: SocketAddr,
    name: &str,
    message: &Q,
) -> Option<R> {
    let mut connection = Http1::connect(data).await.ok()?;
    let path = path(&"test".parse().unwrap(), name);
    let request = request("POST", &path, &[], encode(message).unwrap());
    let reply = connection.send(request).await.ok()?;
    assert_eq!(reply.status, 200, "{}", reply.text());
    Some(decode(&reply.body).unwrap())
}

/// The transaction: all pages get this byte.
async fn transaction(data: SocketAddr, byte: u8) -> (CommitRequest, Option<CommitReply>) {
    let begun = begin(data, "test").await;
    let mut commit = commit_of(&begun, u128::from(byte), vec![page_1(PAGES)]);
    let indexes: Vec<u32> = (1..PAGES).collect();
    for batch in indexes.chunks(BATCH) {
        let batch = StageRequest {
            namespace: begun.namespace,
            read_version: begun.read_version,
            stage: commit.stage.map(|stage: StageRef| stage.stage),
            pages: batch.iter().map(|index| page(*index, byte)).collect(),
            unstage: PageSet::new(),
            incarnation: None,
        };
        let reply: Option<StageReply> = try_call(data, "stage", &batch).await;
        let Some(reply) = reply else {
            return (commit, None);
        };
        commit.read_version = commit.read_version.max(reply.read_version);
        commit.stage = Some(StageRef {
            stage: reply.stage,
            count: reply.count,
            sum: reply.sum,
        });
    }
    let reply = try_call(data, "commit", &commit).await;
    (commit, reply)
}

/// The bytes of all pages but the first at a version, 0 for those that do not exist.
async fn content(data: SocketAddr, version: Version) -> Vec<u8> {
    let begun = begin(data, "test").await;
    let mut bytes = Vec::new();
    while bytes.len() < PAGES as usize - 1 {
        let read = ReadRequest {
            namespace: begun.namespace,
            version,
            read_version: begun.read_version,
            pages: (1 + bytes.len() as u32..PAGES).take(1000).collect(),
            incarnation: None,
            stage: None,
        };
        let reply = call(data, "test", "read", &read).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let mut rest = &reply.body[..];
        while !rest.is_empty() {
            let image: PageImage = decode_next(&mut rest).unwrap();
            bytes.push(image.data.map_or(0, |data| {
                assert_eq!(data.len(), PAGE_SIZE);
                assert!(data.iter().all(|byte| *byte == data[0]), "a torn page");
                data[0]
            }));
        }
    }
    bytes
}

fn state(byte: u8, pages: u32) -> Vec<u8> {
    let exists = |index: u32| if index < pages { byte } else { 0 };
    (1..PAGES).map(exists).collect()
}

/// Runs the transaction against a store that ends at this point, and a second one behind it.
async fn crash_at(point: &str, passes: u32) {
    let directory = tempfile::tempdir().unwrap();
    let store = start(directory.path(), None);
    create(store.admin, "test").await;
    let begun = begin(store.data, "test").await;
    let mut pages = vec![page_1(PAGES_BEFORE)];
    pages.extend((1..PAGES_BEFORE).map(|index| page(index, 1)));
    let first = commit_of(&begun, 100, pages);
    let first: CommitReply = message(&call(store.data, "test", "commit", &first).await);
    store.signal("KILL");
    store.ended();

    let store = start(directory.path(), Some(&format!("{point}:{passes}")));
    let (commit, reply) = transaction(store.data, 2).await;
    // What comes after the reply comes by itself.
    let (code, log) = store.ended();
    assert_eq!(code, None, "{point}: it ended by itself");
    let told = log.iter().any(|line| line["point"] == point);
    assert!(told, "{point}: it ended elsewhere: {log:?}");
    expect_sound(directory.path(), point);

    let store = start(directory.path(), None);
    let data = store.data;
    let settle = SettleRequest {
        namespace: commit.namespace,
        key: commit.key,
    };
    let settled: SettleReply = message(&call(data, "test", "settle", &settle).await);
    assert_eq!(content(data, first.version).await, state(1, PAGES_BEFORE));
    let head = begin(data, "test").await.version;
    match settled {
        SettleReply::Committed { version, .. } => {
            assert_eq!(version, head, "{point}");
            assert_eq!(content(data, head).await, state(2, PAGES), "{point}");
        }
        SettleReply::Aborted => {
            assert!(reply.is_none(), "{point}: an acknowledged commit is gone");
            assert_eq!(head, first.version, "{point}");
        }
    }
    let (_, reply) = transaction(data, 3).await;
    let last = reply.expect("nothing ends this store").version;
    eventually("all layers are folded", || async {
        layers(store.admin).await == 0
    })
    .await;
    assert_eq!(content(data, last).await, state(3, PAGES), "{point}");
    assert_eq!(
        content(data, first.version).await,
        state(1, PAGES_BEFORE),
        "{point}"
    );
    if let SettleReply::Committed { version, .. } = settled {
        assert_eq!(content(data, version).await, state(2, PAGES), "{point}");
    }
    store.signal("KILL");
    store.ended();
    expect_sound(directory.path(), point);
}

/// How many layers are left to fold.
async fn layers(admin: SocketAddr) -> u32 {
    let reply = post(admin, "/api/stat_namespace", "{\"key\":\"test\"}").await;
    let stat: NamespaceStat = serde_json::from_str(reply.text()).unwrap();
    stat.layers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_survives_the_end_of_the_store_at_every_point() {
    for point in LARGE_TRANSACTION {
        crash_at(point, 1).await;
    }
    // In the middle of what happens more than once.
    crash_at("staged", 3).await;
    crash_at("fold-step", 4).await;
}
