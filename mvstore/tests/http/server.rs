//! A server in this process, on free ports, with the flags a test wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mvsqlite_protocol::v2::{BeginReply, BeginRequest, CommitRequest, decode, encode, path};
use mvsqlite_protocol::{IdempotencyKey, NamespaceKey, PageData, PageSet, Problem};
use mvstore::config::Config;
use mvstore::http::{Listener, Server};
use mvstore::kv::Engine;
use mvstore::kv::memory::MemoryEngine;
use mvstore::store::Store;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{Reply, post};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PAGE_SIZE: usize = 4096;

pub(crate) struct TestServer {
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) server: Server,
}

impl TestServer {
    /// With the memory engine and these flags.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::on(Arc::new(MemoryEngine::new()), flags).await
    }

    pub(crate) async fn on(engine: Arc<dyn Engine>, flags: &[&str]) -> Self {
        let config = Config::read(std::iter::once(&"mvstore").chain(flags)).unwrap();
        let store = Store::open(engine, config.store_options()).await.unwrap();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut data_plane = vec![Listener::tcp(any_port, "--data-plane").await.unwrap()];
        let admin_api = Listener::tcp(any_port, "--admin-api").await.unwrap();
        let (data, admin) = (
            data_plane[0].address().unwrap(),
            admin_api.address().unwrap(),
        );
        if let Some(path) = &config.unix_socket {
            data_plane.push(Listener::unix(path, "--unix-socket").await.unwrap());
        }
        let server = Server::start(
            Arc::new(store),
            config.limits,
            config.original,
            data_plane,
            vec![admin_api],
        );
        Self {
            data,
            admin,
            server,
        }
    }

    /// With one empty namespace `test`.
    pub(crate) async fn with_namespace(flags: &[&str]) -> Self {
        let server = Self::start(flags).await;
        create(server.admin, "test").await;
        server
    }

    pub(crate) async fn call<Q: Serialize>(&self, name: &str, message: &Q) -> Reply {
        call(self.data, "test", name, message).await
    }
}

/// Makes a namespace.
pub(crate) async fn create(admin: SocketAddr, key: &str) {
    let body = format!("{{\"key\":\"{key}\"}}");
    let reply = post(admin, "/api/create_namespace", body).await;
    assert_eq!((reply.status, reply.text()), (201, "created\n"));
}

/// One call of data plane v2.
pub(crate) async fn call<Q: Serialize>(
    data: SocketAddr,
    key: &str,
    name: &str,
    message: &Q,
) -> Reply {
    let key: NamespaceKey = key.parse().unwrap();
    post(data, &path(&key, name), encode(message).unwrap()).await
}

/// The message of a reply that must not be a refusal.
pub(crate) fn message<R: DeserializeOwned>(reply: &Reply) -> R {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(
        reply.header("content-type"),
        Some("application/vnd.mvsqlite.v2+msgpack")
    );
    decode(&reply.body).unwrap()
}

/// The problem of a reply that must be a refusal.
pub(crate) fn problem(reply: &Reply) -> Problem {
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{}",
        reply.text()
    );
    let problem: Problem = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(problem.status, reply.status);
    problem
}

pub(crate) async fn begin(data: SocketAddr, key: &str) -> BeginReply {
    message(&call(data, key, "begin", &BeginRequest::default()).await)
}

/// A page 1 that says how many pages there are.
pub(crate) fn page_1(pages: u32) -> PageData {
    let mut data = vec![0; PAGE_SIZE];
    data[..16].copy_from_slice(b"SQLite format 3\0");
    data[16..18].copy_from_slice(&(PAGE_SIZE as u16).to_be_bytes());
    data[28..32].copy_from_slice(&pages.to_be_bytes());
    PageData {
        index: 0,
        data: data.into(),
    }
}

/// A page full of one byte.
pub(crate) fn page(index: u32, byte: u8) -> PageData {
    PageData {
        index,
        data: vec![byte; PAGE_SIZE].into(),
    }
}

/// A commit of these pages on a snapshot, which read just them.
pub(crate) fn commit_of(begun: &BeginReply, key: u128, pages: Vec<PageData>) -> CommitRequest {
    let read: PageSet = pages
        .iter()
        .map(|page| page.index)
        .filter(|i| *i > 0)
        .collect();
    CommitRequest {
        namespace: begun.namespace,
        base: begun.version,
        read_version: begun.read_version,
        key: IdempotencyKey::from_bytes(key.to_be_bytes()),
        retry: false,
        read,
        pages,
        stage: None,
        incarnation: None,
        lease: None,
    }
}

/// Waits until something is so, up to [`PATIENCE`].
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
