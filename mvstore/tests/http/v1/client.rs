//! A client of protocol v1: the least that can talk to a server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use mvsqlite_protocol::v1::{
    CommitGlobalInit, CommitNamespaceInit, CommitPage, CommitReply, Frames, PageHash, ReadReply,
    ReadRequest, StatReply, WriteReply, WriteRequest, decode, push,
};

use crate::client::{Reply, request, send};

/// A server and a namespace of it.
#[derive(Debug, Clone)]
pub(crate) struct V1 {
    pub(crate) data: SocketAddr,
    pub(crate) key: String,
    /// With `x-namespace-key`: the secret of a protected key.
    pub(crate) proof: Option<String>,
}

/// A page that was read: its version and content; `None` if there is none.
pub(crate) type Page = Option<(String, Vec<u8>)>;

/// A page of a commit: its hash, and its content if it comes along.
pub(crate) type Written<'a> = (u32, PageHash, Option<&'a [u8]>);

/// What a commit changes in one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Intent<'a> {
    pub(crate) key: &'a str,
    pub(crate) version: &'a str,
    pub(crate) read_set: Option<Vec<u32>>,
    pub(crate) pages: Vec<Written<'a>>,
}

/// A commit that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) version: String,
    pub(crate) changelog: BTreeMap<String, Vec<u32>>,
}

pub(crate) fn hash(content: &[u8]) -> PageHash {
    *blake3::hash(content).as_bytes()
}

/// A key that no other commit has.
pub(crate) fn fresh_key() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut key = [0x5a; 16];
    key[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    key
}

impl V1 {
    pub(crate) fn new(data: SocketAddr, key: &str) -> Self {
        Self {
            data,
            key: key.to_owned(),
            proof: None,
        }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Vec<u8>) -> Reply {
        let mut headers = vec![("x-namespace-key", self.key.as_str())];
        if let Some(proof) = &self.proof {
            headers.push(("x-namespace-hashproof", proof));
        }
        send(self.data, request(method, path, &headers, body)).await
    }

    pub(crate) async fn stat(&self, query: &str) -> StatReply {
        let reply = self.send("GET", &format!("/stat{query}"), Vec::new()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/json"));
        serde_json::from_slice(&reply.body).unwrap()
    }

    pub(crate) async fn head(&self) -> String {
        self.stat("").await.version
    }

    /// Pages changed since a version.
    pub(crate) async fn interval(&self, from: &str) -> Option<Vec<u32>> {
        self.stat(&format!("?from_version={from}")).await.interval
    }

    pub(crate) async fn read(&self, version: &str, pages: &[u32]) -> Vec<Page> {
        let asked: Vec<_> = pages.iter().map(|page| (*page, None)).collect();
        let reply = self.try_read(version, &asked).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        read_pages(&reply)
    }

    pub(crate) async fn read_hash(&self, version: &str, hash: &PageHash) -> Page {
        let reply = self.try_read(version, &[(0, Some(hash))]).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        read_pages(&reply).remove(0)
    }

    pub(crate) async fn try_read(
        &self,
        version: &str,
        pages: &[(u32, Option<&PageHash>)],
    ) -> Reply {
        let mut body = Vec::new();
        for (page_index, hash) in pages {
            let request = ReadRequest {
                page_index: *page_index,
                version,
                hash: hash.map(|hash| &hash[..]),
                accept_zstd: true,
            };
            push(&mut body, &request).unwrap();
        }
        self.send("POST", "/batch/read", body).await
    }

    /// Uploads pages and returns their hashes.
    pub(crate) async fn upload(&self, pages: &[&[u8]]) -> Vec<PageHash> {
        let reply = self.send("POST", "/batch/write", upload_body(pages)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let mut frames = Frames::of_reply(&reply.body);
        let mut hashes = Vec::new();
        loop {
            let WriteReply { hash } = frames.message().unwrap();
            if hash.is_empty() {
                break;
            }
            hashes.push(hash.try_into().unwrap());
        }
        assert!(frames.is_empty());
        assert_eq!(hashes.len(), pages.len());
        hashes
    }

    /// Commits this namespace with a read set.
    pub(crate) async fn commit(
        &self,
        version: &str,
        read_set: Option<&[u32]>,
        pages: &[(u32, &[u8])],
    ) -> Reply {
        let pages = pages
            .iter()
            .map(|(index, data)| (*index, hash(data), Some(*data)));
        let intent = Intent {
            key: &self.key,
            version,
            read_set: read_set.map(<[u32]>::to_vec),
            pages: pages.collect(),
        };
        self.commit_all(fresh_key(), false, &[intent]).await
    }

    /// Commits whatever it is.
    pub(crate) async fn commit_all(
        &self,
        key: [u8; 16],
        retry: bool,
        intents: &[Intent<'_>],
    ) -> Reply {
        let body = commit_body(key, retry, intents);
        send(self.data, request("POST", "/batch/commit", &[], body)).await
    }
}

pub(crate) fn upload_body(pages: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for data in pages {
        let request = WriteRequest {
            data,
            delta_base: Some(1),
        };
        push(&mut body, &request).unwrap();
    }
    body.extend_from_slice(&[0; 4]);
    body
}

pub(crate) fn commit_body(key: [u8; 16], retry: bool, intents: &[Intent<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    let init = CommitGlobalInit {
        idempotency_key: &key,
        allow_skip_idempotency_check: !retry,
        num_namespaces: intents.len() as u64,
        lock_owner: None,
    };
    push(&mut body, &init).unwrap();
    for intent in intents {
        let init = CommitNamespaceInit {
            ns_key: intent.key,
            ns_key_hashproof: None,
            version: intent.version,
            metadata: None,
            num_pages: intent.pages.len().try_into().unwrap(),
            read_set: intent.read_set.clone(),
        };
        push(&mut body, &init).unwrap();
        for (page_index, hash, data) in &intent.pages {
            let page = CommitPage {
                page_index: *page_index,
                hash,
                data: *data,
            };
            push(&mut body, &page).unwrap();
        }
    }
    body
}

/// The pages of a reply to a read, uncompressed.
pub(crate) fn read_pages(reply: &Reply) -> Vec<Page> {
    let mut frames = Frames::of_reply(&reply.body);
    let mut pages = Vec::new();
    while !frames.is_empty() {
        let page: ReadReply<'_> = frames.message().unwrap();
        let data = match page.zstd {
            true => zstd::bulk::decompress(page.data, 1 << 20).unwrap(),
            false => page.data.to_vec(),
        };
        assert_eq!(page.version.is_empty(), data.is_empty());
        pages.push((!data.is_empty()).then(|| (page.version.to_owned(), data)));
    }
    pages
}

/// What a commit's reply says, which must be that it happened.
pub(crate) fn committed(reply: &Reply) -> Committed {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-last-version"), Some("ffffffffffffffffffff"));
    let version = reply.header("x-committed-version").unwrap().to_owned();
    assert_eq!(version.len(), 20);
    let body: CommitReply = decode(&reply.body).unwrap();
    Committed {
        version,
        changelog: body.changelog,
    }
}
