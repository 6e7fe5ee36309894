//! What goes to which server: tokens, names that begin with a URL, owners of namespace locks.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mvsqlite::client::{Request, Transport};
use mvsqlite::config::{Secret, Server, Token};
use mvsqlite::{Config, DatabaseFile, Environment, LockError, LockLevel, OpenOptions, Release};

use crate::World;
use crate::model::{KEY, Model};

/// What a server was sent.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Serves the model, and the lock calls with what it is told to answer; notes all it is sent.
struct Front {
    model: Arc<Model>,
    seen: Mutex<Vec<Seen>>,
    /// Status line and headers for the next lock calls; nothing cuts the connection.
    lock_answers: Mutex<Vec<&'static str>>,
    port: u16,
}

impl Front {
    fn new(model: &Arc<Model>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = Arc::new(Self {
            model: Arc::clone(model),
            seen: Mutex::default(),
            lock_answers: Mutex::default(),
            port: listener.local_addr().unwrap().port(),
        });
        let shared = Arc::clone(&front);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let front = Arc::clone(&shared);
                thread::spawn(move || front.serve(&stream));
            }
        });
        front
    }

    fn serve(&self, mut stream: &TcpStream) {
        let mut input = BufReader::new(stream);
        while let Some((seen, body)) = read_request(&mut input) {
            let path = seen.path.clone();
            self.seen.lock().unwrap().push(seen);
            let answer = if path.starts_with("/v2/") {
                let request = Request {
                    path: &path,
                    body: &body,
                };
                let reply = self.model.call(0, request, Duration::MAX).unwrap();
                let head = format!(
                    "HTTP/1.1 {} -\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
                    reply.status,
                    reply.content_type.unwrap(),
                    reply.body.len()
                );
                [head.as_bytes(), &reply.body].concat()
            } else {
                match self.lock_answers.lock().unwrap().pop() {
                    Some("") | None => return,
                    Some(head) => {
                        format!("HTTP/1.1 {head}\r\ncontent-length: 5\r\n\r\nwords").into_bytes()
                    }
                }
            };
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    }

    fn server(&self) -> Server {
        Server::Tcp {
            host: "127.0.0.1".to_owned(),
            port: self.port,
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Has the next lock calls answered so, in this order.
    fn answer_locks(&self, answers: &[&'static str]) {
        *self.lock_answers.lock().unwrap() = answers.iter().rev().copied().collect();
    }
}

fn read_request(input: &mut impl BufRead) -> Option<(Seen, Vec<u8>)> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        input.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, length)| length.parse().unwrap());
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    let text = String::from_utf8_lossy(&body).into_owned();
    Some((
        Seen {
            path,
            headers,
            body: text,
        },
        body,
    ))
}

fn config(front: &Front) -> Config {
    Config {
        servers: vec![front.server()],
        page_size: 512,
        timeout: Duration::from_secs(2),
        ..Config::default()
    }
}

fn open(env: &Arc<Environment>, name: &str) -> DatabaseFile {
    let (env, name) = env.locate(name).unwrap().unwrap();
    DatabaseFile::open(env, name, OpenOptions::default()).unwrap()
}

#[test]
fn a_token_is_shown_with_every_request() {
    let world = World::new();
    let front = Front::new(&world.model);
    let mut config = config(&front);
    open(&Environment::new(config.clone()), KEY);
    assert!(
        front
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
    config.token = Some(Token::Value(Secret::new("s3cret").unwrap()));
    let mut file = open(&Environment::new(config.clone()), KEY);
    file.lock(LockLevel::Shared).unwrap();
    let seen = front.seen();
    assert!(seen.len() >= 2, "{seen:?}");
    for request in seen {
        assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
    }
    config.token = Some(Token::File("/nonexistent/token".into()));
    let (env, name) = Environment::new(config).locate(KEY).unwrap().unwrap();
    let refused = DatabaseFile::open(env, name, OpenOptions::default());
    let error = refused.err().unwrap().to_string();
    assert!(
        error.contains("MVSQLITE_TOKEN_FILE /nonexistent/token"),
        "{error}"
    );
    assert!(front.seen().is_empty());
}

#[test]
fn a_name_that_begins_with_a_url_goes_to_that_server_and_its_neighbours_do_not() {
    let (here, there) = (World::new(), World::new());
    let (near, far) = (Front::new(&here.model), Front::new(&there.model));
    let env = Environment::new(config(&near));
    let name = format!("{}/{KEY}", far.url());
    let mut file = open(&env, &name);
    file.lock(LockLevel::Shared).unwrap();
    assert_eq!((near.seen().len(), far.seen().len()), (0, 2));
    open(&env, KEY);
    assert_eq!((near.seen().len(), far.seen().len()), (1, 0));
    assert_eq!(file.name().namespace.as_str(), KEY);
}

#[test]
fn malformed_urls_in_names_are_refused_with_what_is_expected() {
    let world = World::new();
    let env = Environment::new(config(&Front::new(&world.model)));
    for (name, message) in [
        ("http://host:port/a", "'port' is not a port"),
        ("http:///a", "expected http://host:port"),
        ("http://host:1/", "must not be empty"),
        ("http://host:1/a@b", "not a moment"),
    ] {
        let error = env.locate(name).unwrap().err().unwrap().to_string();
        assert!(error.contains(message), "{name}: {error}");
    }
}

#[test]
fn the_owner_of_a_lock_is_named_in_all_requests_until_it_is_given_back() {
    let world = World::new();
    let front = Front::new(&world.model);
    let mut file = open(&Environment::new(config(&front)), KEY);
    front.answer_locks(&["201 -", "201 -"]);
    front.seen();
    file.acquire_lock("w 1", Some("000000000001e2400000".parse().unwrap()))
        .unwrap();
    file.lock(LockLevel::Shared).unwrap();
    assert!(matches!(
        file.release_lock("w 1", Release::Commit),
        Err(LockError::InTransaction("release"))
    ));
    file.unlock(LockLevel::None);
    file.release_lock("w 1", Release::Rollback).unwrap();
    file.lock(LockLevel::Shared).unwrap();
    let seen = front.seen();
    let [acquire, held, release, free] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!(acquire.path, "/nslock/acquire");
    assert_eq!(acquire.header("x-namespace-key"), Some(KEY));
    assert_eq!(acquire.header("content-type"), Some("application/json"));
    assert_eq!(
        acquire.body,
        r#"{"owner":"w 1","version":"000000000001e2400000"}"#
    );
    assert_eq!(held.header("x-lock-owner"), Some("w 1"));
    assert_eq!(release.path, "/nslock/release");
    assert_eq!(release.body, r#"{"mode":"rollback","owner":"w 1"}"#);
    assert_eq!(free.header("x-lock-owner"), None);
}

#[test]
fn the_owner_in_the_configuration_is_named_from_the_first_request_on() {
    let world = World::new();
    let front = Front::new(&world.model);
    let mut config = config(&front);
    config.lock_owner = Some("w2".to_owned());
    open(&Environment::new(config), KEY);
    assert_eq!(front.seen()[0].header("x-lock-owner"), Some("w2"));
}

#[test]
fn refused_lock_calls_say_why_in_the_words_of_the_original() {
    let world = World::new();
    let front = Front::new(&world.model);
    let mut file = open(&Environment::new(config(&front)), KEY);
    for (answer, text) in [
        (
            "409 -\r\nx-lock-owner: w9",
            "nslock: held by other owner: w9",
        ),
        ("400 -", "nslock: invalid owner (empty or > 256 bytes)"),
        (
            "409 -",
            "nslock: server rejected acquire (status 409): words",
        ),
        (
            "404 -",
            "nslock: server rejected acquire (status 404): words",
        ),
    ] {
        front.answer_locks(&[answer]);
        let error = file.acquire_lock("w1", None).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    for (answer, text) in [
        (
            "410 -",
            "nslock: lock is gone (nonce mismatch during rollback)",
        ),
        (
            "422 -\r\nx-lock-owner: w9",
            "nslock: not locked or owner mismatch (current: w9)",
        ),
        (
            "422 -",
            "nslock: not locked or owner mismatch (current: none)",
        ),
        ("409 -", "nslock: rollback already in progress"),
        ("400 -", "nslock: invalid owner"),
        (
            "404 -",
            "nslock: server rejected release (status 404): words",
        ),
    ] {
        front.answer_locks(&[answer]);
        let error = file.release_lock("w1", Release::Commit).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    for owner in ["", "line\nbreak", &"x".repeat(257)] {
        let error = file.acquire_lock(owner, None).unwrap_err();
        assert!(matches!(error, LockError::InvalidOwner), "{error}");
    }
}

#[test]
fn a_release_whose_answer_was_lost_is_not_taken_for_a_lock_that_was_never_held() {
    let world = World::new();
    let front = Front::new(&world.model);
    let mut file = open(&Environment::new(config(&front)), KEY);
    front.answer_locks(&["", "422 -"]);
    file.release_lock("w1", Release::Commit).unwrap();
    front.answer_locks(&["500 -", "201 -"]);
    file.acquire_lock("w1", None).unwrap();
}

fn wait_for_renewals(world: &World) {
    let before = world.model.state().leases.renewed;
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.model.state().leases.renewed < before + 2 {
        assert!(Instant::now() < deadline, "nobody renews the lease");
        thread::yield_now();
    }
}

/// The thread that renews asked the server of whoever had begun it: a lease of another server's was
/// lost, and with it the transaction.
#[test]
fn leases_are_renewed_at_the_servers_that_granted_them() {
    let (here, there) = (World::new(), World::new());
    let (near, far) = (Front::new(&here.model), Front::new(&there.model));
    let mut config = config(&near);
    config.exclusive = true;
    let env = Environment::new(config);
    for world in [&here, &there] {
        world.model.state().leases.ttl_millis = 60;
    }
    let mut first = open(&env, KEY);
    first.lock(LockLevel::Reserved).unwrap();
    let mut second = open(&env, &format!("{}/{KEY}", far.url()));
    second.lock(LockLevel::Reserved).unwrap();
    wait_for_renewals(&there);
    wait_for_renewals(&here);
}

/// The thread that renews ended with the first database that had come in an owner's name, and took
/// itself for alive.
#[test]
fn leases_are_renewed_after_the_first_database_of_an_owner_was_closed() {
    let world = World::new();
    let front = Front::new(&world.model);
    world.model.state().leases.ttl_millis = 60;
    let mut config = config(&front);
    config.exclusive = true;
    config.lock_owner = Some("w3".to_owned());
    let env = Environment::new(config);
    let mut first = open(&env, KEY);
    first.lock(LockLevel::Reserved).unwrap();
    wait_for_renewals(&world);
    drop(first);
    let mut second = open(&env, KEY);
    second.lock(LockLevel::Reserved).unwrap();
    wait_for_renewals(&world);
}
