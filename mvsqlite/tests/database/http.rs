//! The real transport: sockets, connections kept alive, what a dead or silent server does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mvsqlite::client::{HttpTransport, Request, Transport};
use mvsqlite::config::Server;
use mvsqlite::system::{Os, System};
use mvsqlite::{Config, Environment};

use crate::model::Model;
use crate::pager::page_with;
use crate::system::SimSystem;
use crate::{World, create, open};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

/// Serves the model over HTTP until the process ends; counts connections and those that closed.
#[derive(Default)]
struct Front {
    connections: AtomicUsize,
    closed: AtomicUsize,
}

impl Front {
    fn tcp(model: Arc<Model>) -> (Arc<Self>, Server) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let front = Arc::new(Self::default());
        let shared = Arc::clone(&front);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let (front, model) = (Arc::clone(&shared), Arc::clone(&model));
                thread::spawn(move || front.serve(&stream, &stream, &model));
            }
        });
        let host = "127.0.0.1".to_owned();
        (front, Server::Tcp { host, port })
    }

    fn unix(model: Arc<Model>, path: &std::path::Path) -> (Arc<Self>, Server) {
        let listener = UnixListener::bind(path).unwrap();
        let front = Arc::new(Self::default());
        let shared = Arc::clone(&front);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let (front, model) = (Arc::clone(&shared), Arc::clone(&model));
                thread::spawn(move || front.serve(&stream, &stream, &model));
            }
        });
        (front, Server::Unix(path.to_owned()))
    }

    fn serve(&self, input: impl Read, mut output: impl Write, model: &Model) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut input = BufReader::new(input);
        while let Some((path, body)) = read_request(&mut input) {
            if path == "/silence" {
                continue;
            }
            let request = Request {
                path: &path,
                body: &body,
            };
            let reply = model.call(0, request, LONG).unwrap();
            let head = format!(
                "HTTP/1.1 {} Whatever\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
                reply.status,
                reply.content_type.unwrap(),
                reply.body.len()
            );
            if output.write_all(head.as_bytes()).is_err() || output.write_all(&reply.body).is_err()
            {
                break;
            }
        }
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn counts(&self) -> (usize, usize) {
        let count = |n: &AtomicUsize| n.load(Ordering::SeqCst);
        (count(&self.connections), count(&self.closed))
    }
}

fn read_request(input: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        input.read_line(&mut line).ok()?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    Some((path, body))
}

/// A port that nothing listens on.
fn dead_server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = "127.0.0.1".to_owned();
    Server::Tcp { host, port }
}

fn environment(servers: Vec<Server>) -> Arc<Environment> {
    Environment::new(Config {
        servers,
        page_size: 512,
        ..Config::default()
    })
}

#[test]
fn a_database_works_over_tcp_and_over_a_unix_socket_with_one_connection() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::new();
    let (tcp, tcp_server) = Front::tcp(Arc::clone(&world.model));
    let path = directory.path().join("socket");
    let (unix, unix_server) = Front::unix(Arc::clone(&world.model), &path);
    let mut writer = open(&environment(vec![tcp_server]));
    create(&mut writer, 300);
    let mut reader = open(&environment(vec![unix_server]));
    reader.begin().unwrap();
    for page in 1..300 {
        assert_eq!(reader.page(page).unwrap(), page_with(u64::from(page)));
    }
    reader.end();
    assert_eq!((tcp.counts(), unix.counts()), ((1, 0), (1, 0)));
}

#[test]
fn a_dead_server_is_passed_over() {
    let world = World::new();
    let (_, live) = Front::tcp(Arc::clone(&world.model));
    let gone = Server::Unix("/nonexistent/socket".into());
    let mut pager = open(&environment(vec![dead_server(), gone, live]));
    create(&mut pager, 3);
}

#[test]
fn without_a_connection_nothing_was_sent_and_a_silent_server_may_have_got_it() {
    let world = World::new();
    let (_, live) = Front::tcp(Arc::clone(&world.model));
    let gone = Server::Unix("/nonexistent/socket".into());
    let servers = [dead_server(), gone, live];
    let transport = HttpTransport::new(&servers, Arc::new(Os::new()));
    let request = Request {
        path: "/silence",
        body: b"x",
    };
    for (server, maybe_sent) in [(0, false), (1, false), (2, true)] {
        let error = transport.call(server, request, SHORT).unwrap_err();
        assert_eq!(error.maybe_sent, maybe_sent, "{error}");
    }
    let error = transport.call(2, request, SHORT).unwrap_err();
    assert_eq!(error.reason, "no answer in time");
}

#[test]
fn a_forked_child_has_connections_of_its_own_and_leaves_its_parents_open() {
    let world = World::new();
    let (front, server) = Front::tcp(Arc::clone(&world.model));
    let system = Arc::new(SimSystem::new(1));
    let process: Arc<dyn System> = Arc::<SimSystem>::clone(&system);
    let transport = HttpTransport::new(&[server], process);
    let body = mvsqlite_protocol::v2::encode(&mvsqlite_protocol::v2::BeginRequest::default());
    let body = body.unwrap();
    let request = Request {
        path: "/v2/ns/test/begin",
        body: &body,
    };
    let call = || transport.call(0, request, LONG).unwrap();
    call();
    call();
    assert_eq!(front.counts(), (1, 0));
    system.fork();
    call();
    call();
    assert_eq!(front.counts(), (2, 0));
}

#[test]
fn an_answer_that_is_not_a_data_planes_says_what_to_check() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_request(&mut BufReader::new(&stream)).unwrap();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi";
        stream.write_all(answer).unwrap();
    });
    let host = "127.0.0.1".to_owned();
    let env = environment(vec![Server::Tcp { host, port }]);
    let error = crate::try_open(&env, "test").err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("status 200") && text.contains("MVSQLITE_DATA_PLANE"),
        "{text}"
    );
}
