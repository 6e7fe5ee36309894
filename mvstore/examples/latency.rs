//! How long requests take against a running `mvstore`, one at a time over one connection.
//!
//! `cargo run --release -p mvstore --example latency -- 127.0.0.1:7000 127.0.0.1:7001 [ROUNDS]`
//!
//! `/healthz` is the floor: a request that does nothing. The other lines are the calls of a small
//! transaction, and their ratio to the floor.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, CommitReply, CommitRequest, KnownState, ReadRequest, decode, encode,
    path,
};
use mvsqlite_protocol::{IdempotencyKey, NamespaceKey, PageData, PageSet};

const PAGE_SIZE: u16 = 8192;
const PAGES: u32 = 64;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A connection with one request under way at a time.
struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// The status and body of a request's reply, which must come with its length.
    fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Outcome<(u16, Vec<u8>)> {
        let length = body.len();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")
                .into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.get(..3).unwrap_or_default().parse()?;
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, body))
    }

    fn call(&mut self, key: &NamespaceKey, name: &str, body: &[u8]) -> Outcome<Vec<u8>> {
        match self.send("POST", &path(key, name), body)? {
            (200, body) => Ok(body),
            (status, body) => {
                Err(format!("{name}: {status} {}", String::from_utf8_lossy(&body)).into())
            }
        }
    }
}

/// The durations of one kind of request.
#[derive(Default)]
struct Samples(Vec<Duration>);

impl Samples {
    fn time<T>(&mut self, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let started = Instant::now();
        let done = work()?;
        self.0.push(started.elapsed());
        Ok(done)
    }

    fn print(&mut self, name: &str, floor: Option<Duration>) -> Duration {
        self.0.sort_unstable();
        let at = |per_mille: usize| self.0[self.0.len() * per_mille / 1000].as_secs_f64();
        let ratio = at(500) / floor.map_or(at(500), |floor| floor.as_secs_f64());
        let (p50, p99) = (at(500) * 1e6, at(990) * 1e6);
        println!("{name:<28} p50 {p50:>7.0} us   p99 {p99:>7.0} us   {ratio:>5.2} x floor");
        Duration::from_secs_f64(at(500))
    }
}

fn page(index: u32, fill: u8) -> PageData {
    let mut data = vec![fill; PAGE_SIZE.into()];
    if index == 0 {
        data[..100].fill(0);
        data[..16].copy_from_slice(b"SQLite format 3\0");
        data[16..18].copy_from_slice(&PAGE_SIZE.to_be_bytes());
        data[28..32].copy_from_slice(&PAGES.to_be_bytes());
    }
    PageData {
        index,
        data: data.into(),
    }
}

fn commit(begun: &BeginReply, pages: Vec<PageData>) -> Outcome<CommitRequest> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| error.to_string())?;
    let read: PageSet = pages
        .iter()
        .map(|page| page.index)
        .filter(|index| *index > 0)
        .collect();
    Ok(CommitRequest {
        namespace: begun.namespace,
        base: begun.version,
        read_version: begun.read_version,
        key: IdempotencyKey::from_bytes(key),
        retry: false,
        read,
        pages,
        stage: None,
        incarnation: None,
        lease: None,
    })
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, admin, rest @ ..] = &arguments[..] else {
        return Err("usage: latency DATA_PLANE ADMIN_API [ROUNDS]".into());
    };
    let rounds: u32 = rest.first().map_or(Ok(2000), |rounds| rounds.parse())?;
    let key: NamespaceKey = format!("latency-{}", std::process::id()).parse()?;
    let body = format!("{{\"key\":\"{key}\"}}");
    let mut control = Connection::open(admin)?;
    control.send("POST", "/api/create_namespace", body.as_bytes())?;

    let mut connection = Connection::open(data)?;
    let fresh = encode(&BeginRequest::default())?;
    let begun: BeginReply = decode(&connection.call(&key, "begin", &fresh)?)?;
    let pages = (0..PAGES).map(|index| page(index, 1)).collect();
    connection.call(&key, "commit", &encode(&commit(&begun, pages)?)?)?;

    let [mut floor, mut begins, mut warm, mut reads, mut commits] =
        [const { Samples(Vec::new()) }; 5];
    for round in 0..rounds {
        floor.time(|| connection.send("GET", "/healthz", b""))?;
        let begun = begins.time(|| connection.call(&key, "begin", &fresh))?;
        let begun: BeginReply = decode(&begun)?;
        let known = KnownState {
            incarnation: begun.incarnation,
            namespace: begun.namespace,
            version: begun.version,
            own: Vec::new(),
        };
        let known = encode(&BeginRequest {
            known: Some(known),
            want_pages: false,
            as_of: None,
        })?;
        warm.time(|| connection.call(&key, "begin", &known))?;
        let index = 1 + round % (PAGES - 1);
        let read = encode(&ReadRequest {
            namespace: begun.namespace,
            version: begun.version,
            read_version: begun.read_version,
            pages: [index].into_iter().collect(),
            incarnation: None,
            stage: None,
        })?;
        reads.time(|| connection.call(&key, "read", &read))?;
        let fill = u8::try_from(round % 256)?;
        let body = encode(&commit(&begun, vec![page(index, fill)])?)?;
        let reply = commits.time(|| connection.call(&key, "commit", &body))?;
        let _: CommitReply = decode(&reply)?;
    }
    let p50 = floor.print("floor (GET /healthz)", None);
    begins.print("begin, nothing known", Some(p50));
    warm.print("begin, everything known", Some(p50));
    reads.print("read one page of 8 KiB", Some(p50));
    commits.print("commit one page of 8 KiB", Some(p50));
    control.send("POST", "/api/delete_namespace", body.as_bytes())?;
    Ok(())
}
