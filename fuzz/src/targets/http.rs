//! HTTP: what a server makes of a connection, and what a client makes of an answer.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use mvsqlite::client::{HttpTransport, PlainRequest, Request, Transport};
use mvsqlite::config::Server as Place;
use mvsqlite::system::Os;
use mvstore::config::Config;
use mvstore::http::{Listener, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::honest;

/// How long a peer that has all it was waiting for may take; far below what it may take for the rest.
const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    static DIRECTORY: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// A path for a socket of this thread's.
fn socket(name: &str) -> PathBuf {
    DIRECTORY.with_borrow_mut(|directory| {
        let made = || tempfile::tempdir().expect("a temporary directory can be made");
        directory.get_or_insert_with(made).path().join(name)
    })
}

/// A connection to the data plane or the admin API, with any bytes or with requests that are well
/// framed. The server ends it, and has no failure of its own to report.
///
/// The first byte: 1 the admin API, 2 requests by lines: path, namespace key, and a body up to the
/// next line of a NUL.
pub(super) fn http_requests(bytes: &[u8]) {
    let (how, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let sent = match how & 2 {
        0 => bytes.to_vec(),
        _ => requests(bytes),
    };
    let answer = converse(how & 1 != 0, &sent);
    let begins = answer.is_empty() || answer.starts_with(b"HTTP/1.1 ") || is_http2(&sent);
    assert!(begins, "{:?}", String::from_utf8_lossy(&answer));
    for code in ["internal", "corrupt"] {
        let code = format!("\"code\":\"{code}\"");
        let found = answer
            .windows(code.len())
            .any(|part| part == code.as_bytes());
        assert!(!found, "{:?}", String::from_utf8_lossy(&answer));
    }
}

fn is_http2(sent: &[u8]) -> bool {
    sent.starts_with(b"PRI * ")
}

fn requests(bytes: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    for request in bytes.split(|byte| *byte == 0) {
        let mut parts = request.splitn(3, |byte| *byte == b'\n');
        let mut next = || parts.next().unwrap_or_default();
        let (path, key, body) = (next(), next(), next());
        sent.extend(b"POST ");
        sent.extend(path);
        sent.extend(b" HTTP/1.1\r\nhost: a\r\n");
        if !key.is_empty() {
            sent.extend(b"x-namespace-key: ");
            sent.extend(key);
            sent.extend(b"\r\n");
        }
        sent.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
        sent.extend(body);
    }
    sent
}

fn converse(admin: bool, sent: &[u8]) -> Vec<u8> {
    let store = Arc::new(honest::store());
    let flags = ["mvstore", "--auto-create-namespace", "--wire-zstd"];
    let config = Config::read(flags).expect("flags of the server's");
    let path = socket("server");
    let _ = std::fs::remove_file(&path);
    honest::wait(async {
        let listener = Listener::unix(&path, "--unix-socket").await;
        let listeners = vec![listener.expect("a free path")];
        let (data, admin) = match admin {
            true => (Vec::new(), listeners),
            false => (listeners, Vec::new()),
        };
        let server = Server::start(store, config.limits, config.original, data, admin);
        let mut client = UnixStream::connect(&path)
            .await
            .expect("the server listens");
        let (mut from, mut to) = client.split();
        let mut answer = Vec::new();
        let send = async {
            // It may have heard enough.
            let _ = to.write_all(sent).await;
            let _ = to.shutdown().await;
        };
        let receive = from.read_to_end(&mut answer);
        let both = async { tokio::join!(send, receive) };
        let done = tokio::time::timeout(PATIENCE, both).await;
        assert!(done.is_ok(), "the server does not end the connection");
        server.shutdown().await;
        answer
    })
}

/// Serves each connection with what is put up, and closes it.
struct Canned {
    path: PathBuf,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Canned {
    fn start() -> Self {
        let path = socket("client");
        let listener = UnixListener::bind(&path).expect("a free path");
        let answer = Arc::<Mutex<Vec<u8>>>::default();
        let to_give = Arc::clone(&answer);
        thread::spawn(move || {
            for mut connection in listener.incoming().map_while(Result::ok) {
                // One request, which is shorter than this.
                let mut request = [0; 4096];
                let _ = connection.read(&mut request);
                let answer = to_give.lock().map(|answer| answer.clone());
                // The client may have heard enough.
                let _ = connection.write_all(&answer.unwrap_or_default());
            }
        });
        Self { path, answer }
    }

    /// A client without a connection: whether an old one is closed already is a matter of time.
    fn client(&self) -> HttpTransport {
        HttpTransport::new(&[Place::Unix(self.path.clone())], Arc::new(Os::new()))
    }
}

thread_local! {
    static CANNED: RefCell<Option<Canned>> = const { RefCell::new(None) };
}

/// An answer of any bytes to each kind of request. The client takes it or reports an error, and what
/// it takes is no longer than what came.
pub(super) fn http_replies(bytes: &[u8]) {
    CANNED.with_borrow_mut(|canned| {
        let canned = canned.get_or_insert_with(Canned::start);
        if let Ok(mut answer) = canned.answer.lock() {
            *answer = bytes.to_vec();
        }
        let request = Request {
            path: "/v2/ns/a/begin",
            body: b"\x80",
        };
        if let Ok(reply) = canned.client().call(0, request, PATIENCE) {
            assert!(reply.status >= 100 && reply.body.len() <= bytes.len());
        }
        let request = PlainRequest {
            path: "/nslock/acquire",
            headers: &[("x-namespace-key", "a")],
            body: b"{}",
        };
        if let Ok(reply) = canned.client().plain_call(0, request, PATIENCE) {
            assert!(reply.body.len() <= bytes.len());
            let lower = |name: &str| name.chars().all(|c| !c.is_ascii_uppercase());
            assert!(reply.headers.iter().all(|(name, _)| lower(name)));
        }
    });
}

pub(super) fn request_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let of = |how: u8, text: &str| [&[how][..], text.as_bytes()].concat();
    let plain = |text: &str| of(0, &text.replace('\n', "\r\n"));
    vec![
        (
            "begin",
            of(2, "/v2/ns/a/begin\n\n\u{0}/v2/ns/%61%2Fb/read\n\n\u{1}"),
        ),
        (
            "begin-empty-map",
            [&b"\x02/v2/ns/a/begin\n\n"[..], b"\x80"].concat(),
        ),
        (
            "stat",
            plain(
                "GET /stat?from_version=000000000001e2400000&lock_owner=me HTTP/1.1\nhost: a\nx-namespace-key: a\n\n",
            ),
        ),
        (
            "time",
            plain("GET /time2version?t=1700000000 HTTP/1.1\nhost: a\n\n"),
        ),
        (
            "chunked",
            plain(
                "POST /v2/commit HTTP/1.1\nhost: a\ntransfer-encoding: chunked\n\n1\n\u{1}\n0\n\n",
            ),
        ),
        (
            "two",
            plain(
                "GET /healthz HTTP/1.1\nhost: a\n\nGET /nowhere HTTP/1.1\nhost: a\nconnection: close\n\n",
            ),
        ),
        (
            "origin",
            plain("POST /v2/ns/a/begin HTTP/1.1\nhost: a\norigin: http://x\ncontent-length: 0\n\n"),
        ),
        (
            "large",
            plain("POST /v2/ns/a/commit HTTP/1.1\nhost: a\ncontent-length: 99999999999\n\n"),
        ),
        (
            "http2",
            [&b"\0PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0; 9]].concat(),
        ),
        (
            "v1-read",
            [&b"\x02/batch/read\na\n"[..], &v1_read()].concat(),
        ),
        ("v1-lock", of(2, "/nslock/acquire\na\n{\"owner\":\"me\"}")),
        (
            "v1-unlock",
            of(
                2,
                "/nslock/acquire\na\n{\"owner\":\"me\"}\u{0}/nslock/release\na\n{\"owner\":\"me\",\"mode\":\"rollback\"}",
            ),
        ),
        (
            "create",
            of(
                3,
                "/api/create_namespace\n\n{\"key\":\"c\"}\u{0}/api/stat_namespace\n\n{\"key\":\"c\"}",
            ),
        ),
        ("list", of(3, "/api/list_namespace?prefix=%61\n\n")),
        (
            "rename",
            of(
                3,
                "/api/rename_namespace\n\n{\"old_key\":\"a\",\"new_key\":\"c\"}",
            ),
        ),
        (
            "truncate",
            of(
                3,
                "/api/truncate_namespace\n\n{\"key\":\"a\",\"before_version\":\"000000000001e2400000\",\"apply\":true}",
            ),
        ),
        (
            "collect",
            of(
                3,
                "/api/delete_unreferenced_content\n\n{\"key\":\"a\",\"apply\":true}",
            ),
        ),
        (
            "concurrency",
            of(
                3,
                "/api/set_concurrency\n\n{\"key\":\"a\",\"concurrency\":\"exclusive\"}\u{0}/api/delete_namespace\n\n{\"key\":\"a\"}",
            ),
        ),
    ]
}

/// A frame that asks for a page.
fn v1_read() -> Vec<u8> {
    let mut frame = b"\x82\xaapage_index\x07\xa7version\xb4".to_vec();
    frame.extend(b"000000000001e2400000");
    let mut body = (frame.len() as u32).to_be_bytes().to_vec();
    body.extend(frame);
    body
}

pub(super) fn reply_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let of = |text: &str| text.replace('\n', "\r\n").into_bytes();
    vec![
        (
            "reply",
            of(
                "HTTP/1.1 200 OK\ncontent-type: application/vnd.mvsqlite.v2+msgpack\ncontent-length: 3\n\nabc",
            ),
        ),
        (
            "chunked",
            of("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n3\nabc\n0\n\n"),
        ),
        (
            "to-the-end",
            of("HTTP/1.0 404 Not Found\nx-lock-owner: me\n\nnamespace not found"),
        ),
        (
            "continue",
            of("HTTP/1.1 100 Continue\n\nHTTP/1.1 204 No Content\n\n"),
        ),
        (
            "redirect",
            of("HTTP/1.1 302 Found\nlocation: http://elsewhere/\ncontent-length: 0\n\n"),
        ),
        (
            "long-claim",
            of("HTTP/1.1 200 OK\ncontent-length: 99999999999\n\nabc"),
        ),
        ("closed", Vec::new()),
    ]
}
