//! The real `mvstore`: its exit codes and messages, its log, signals, `kill -9` and restart.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use mvsqlite_protocol::v2::{CommitReply, ReadRequest, decode_next};
use mvsqlite_protocol::{Code, PageImage};
use serde_json::Value;

use crate::client::{Http1, get, request};
use crate::server::{begin, call, commit_of, create, eventually, message, page, page_1, problem};

pub(crate) fn mvstore(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mvstore"));
    // Should one serve against all expectations, its data lands nowhere near the sources.
    let directory = env!("CARGO_TARGET_TMPDIR");
    command
        .args(words)
        .current_dir(directory)
        .stdin(Stdio::null());
    // What the machine that runs the tests has set for its own stores.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("MVSTORE_")
            || name_text == "FDB_CLUSTER_FILE"
            || name_text == "RUST_LOG"
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs it to its end.
fn run(words: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = mvstore(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// The one line on stderr of a start that fails with exit code 1.
fn refusal(words: &[&str]) -> String {
    let (code, stdout, stderr) = run(words);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    // Lines of the log may stand before it.
    let line = stderr.lines().last().unwrap();
    assert!(line.starts_with("mvstore: "), "{stderr}");
    assert!(!stderr.contains("panic"), "{stderr}");
    line.to_owned()
}

/// A store on a directory, serving.
pub(crate) struct Store {
    child: Child,
    log: BufReader<ChildStderr>,
    first_line: Value,
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Store {
    fn start(directory: &Path) -> Self {
        Self::with(&["--data-dir", directory.to_str().unwrap()])
    }

    fn with(words: &[&str]) -> Self {
        Self::of(mvstore, words)
    }

    pub(crate) fn of(command: impl Fn(&[&str]) -> Command, words: &[&str]) -> Self {
        let ports = [
            "--data-plane",
            "127.0.0.1:0",
            "--admin-api",
            "127.0.0.1:0",
            "--json",
        ];
        let mut child = command(&[&ports, words].concat())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let first_line = next_line(&mut log).expect("a first line");
        let serving = std::iter::from_fn(|| next_line(&mut log))
            .find(|line| line["message"] == "serving")
            .expect("it serves");
        // A Unix socket stands behind the TCP address.
        let address = |name: &str| {
            let places = serving[name].as_str().unwrap();
            places.split(' ').next().unwrap().parse().unwrap()
        };
        Self {
            child,
            log,
            first_line,
            data: address("data_plane"),
            admin: address("admin_api"),
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(killed.unwrap().success());
    }

    /// Waits for its end: the exit code and the rest of the log.
    pub(crate) fn ended(mut self) -> (Option<i32>, Vec<Value>) {
        let rest = std::iter::from_fn(|| next_line(&mut self.log)).collect();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // It has ended already, or a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next_line(log: &mut BufReader<ChildStderr>) -> Option<Value> {
    let mut line = String::new();
    if log.read_line(&mut line).unwrap() == 0 {
        return None;
    }
    Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a line of JSON: {line}")))
}

#[test]
fn the_first_line_of_the_log_names_engine_and_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let store = Store::start(&path);
    let text = store.first_line["message"].as_str().unwrap();
    assert!(
        text.contains("embedded") && text.contains(path.to_str().unwrap()),
        "{text}"
    );
    store.signal("TERM");
    let (code, log) = store.ended();
    assert_eq!(code, Some(0));
    assert_eq!(log.last().unwrap()["message"], "shut down");
    assert!(log.iter().all(|line| line["level"] == "INFO"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_commit_survives_kill_9_and_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::start(directory.path());
    let data = store.data;
    create(store.admin, "test").await;
    let begun = begin(data, "test").await;
    let first = commit_of(&begun, 1, vec![page_1(5)]);
    let _: CommitReply = message(&call(data, "test", "commit", &first).await);
    // Each writer has a page of its own and writes ascending numbers into it until the end.
    let writers: Vec<_> = (1..5u32)
        .map(|writer| {
            tokio::spawn(async move {
                let mut acknowledged = 0u8;
                for n in 1..=255u8 {
                    let key = u128::from(writer) << 32 | u128::from(n);
                    let Some(reply) = try_commit(data, key, writer, n).await else {
                        break;
                    };
                    assert_eq!(reply, 200);
                    acknowledged = n;
                }
                (writer, acknowledged)
            })
        })
        .collect();
    eventually("there are some commits", || async {
        begin(data, "test").await.version.commit() > begun.version.commit() + 40
    })
    .await;
    store.signal("KILL");
    assert_eq!(store.ended().0, None, "it was killed");

    let store = Store::start(directory.path());
    let begun = begin(store.data, "test").await;
    let read = ReadRequest {
        namespace: begun.namespace,
        version: begun.version,
        read_version: begun.read_version,
        pages: (1..5).collect(),
        incarnation: None,
        stage: None,
    };
    let reply = call(store.data, "test", "read", &read).await;
    let mut rest = &reply.body[..];
    for writer in writers {
        let (writer, acknowledged) = writer.await.unwrap();
        let image: PageImage = decode_next(&mut rest).unwrap();
        assert_eq!(image.index, writer);
        let found = image.data.map_or(0, |data| data[0]);
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "writer {writer}: {acknowledged} was acknowledged, {found} is there"
        );
    }
    store.signal("INT");
    assert_eq!(store.ended().0, Some(0));
}

/// The status of a commit, or `None` when the store is gone.
async fn try_commit(data: SocketAddr, key: u128, index: u32, byte: u8) -> Option<u16> {
    let mut connection = Http1::connect(data).await.ok()?;
    let namespace = "test".parse().unwrap();
    let path = |name| mvsqlite_protocol::v2::path(&namespace, name);
    let body = mvsqlite_protocol::v2::encode(&mvsqlite_protocol::v2::BeginRequest::default());
    let begin = request("POST", &path("begin"), &[], body.unwrap());
    let begun = message(&connection.send(begin).await.ok()?);
    let commit = commit_of(&begun, key, vec![page(index, byte)]);
    let body = mvsqlite_protocol::v2::encode(&commit).unwrap();
    let commit = request("POST", &path("commit"), &[], body);
    Some(connection.send(commit).await.ok()?.status)
}

#[tokio::test]
async fn a_second_process_on_the_directory_is_refused_and_the_first_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let store = Store::start(directory.path());
    let ports = ["--data-plane", "127.0.0.1:0", "--admin-api", "127.0.0.1:0"];
    let line = refusal(&[&ports[..], &["--data-dir", path]].concat());
    assert!(line.contains("in use by another mvstore"), "{line}");
    assert!(line.contains(path) && line.contains("--data-dir"), "{line}");
    create(store.admin, "test").await;
}

#[test]
fn a_directory_of_an_unknown_format_or_with_foreign_files_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let ports = ["--data-plane", "127.0.0.1:0", "--admin-api", "127.0.0.1:0"];
    let words = [&ports[..], &["--data-dir", path]].concat();
    std::fs::write(directory.path().join("letter.txt"), "dear").unwrap();
    let line = refusal(&words);
    assert!(line.contains(path) && line.contains("letter.txt"), "{line}");
    std::fs::remove_file(directory.path().join("letter.txt")).unwrap();

    let store = Store::start(directory.path());
    store.signal("TERM");
    assert_eq!(store.ended().0, Some(0));
    let format = directory.path().join("FORMAT");
    let known = std::fs::read(&format).unwrap();
    std::fs::write(&format, "mvstore 999\n").unwrap();
    let line = refusal(&words);
    assert!(line.contains(path) && line.contains("format"), "{line}");
    std::fs::write(&format, known).unwrap();
    Store::start(directory.path()).signal("TERM");
}

#[test]
fn a_place_that_cannot_hold_data_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let inside = file.join("data");
    let ports = ["--data-plane", "127.0.0.1:0", "--admin-api", "127.0.0.1:0"];
    for place in [&file, &inside] {
        let place = place.to_str().unwrap();
        let line = refusal(&[&ports[..], &["--data-dir", place]].concat());
        assert!(line.contains(place), "{line}");
    }
}

#[test]
fn an_address_in_use_is_refused_before_anything_is_made() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    for flag in ["--data-plane", "--admin-api"] {
        let other = if flag == "--admin-api" {
            "--data-plane"
        } else {
            "--admin-api"
        };
        let words = [
            flag,
            &address,
            other,
            "127.0.0.1:0",
            "--data-dir",
            path.to_str().unwrap(),
        ];
        let line = refusal(&words);
        assert_eq!(
            line,
            format!(
                "mvstore: cannot listen on {address}: another process listens there; stop it or choose another one with {flag}"
            )
        );
    }
    let words = ["--data-plane", "192.0.2.1:7000", "--allow-open-access"];
    assert!(refusal(&words).starts_with("mvstore: cannot listen on 192.0.2.1:7000: "));
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_in_use_is_refused_and_a_stale_one_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data.sock");
    let path = path.to_str().unwrap();
    let words = ["--in-memory", "--unix-socket", path];
    let ports = ["--data-plane", "127.0.0.1:0", "--admin-api", "127.0.0.1:0"];
    let store = Store::with(&words);
    let line = refusal(&[&ports[..], &words].concat());
    assert!(
        line.contains(path) && line.contains("another process listens there"),
        "{line}"
    );
    store.signal("KILL");
    assert_eq!(store.ended().0, None);
    assert!(Path::new(path).exists());
    let store = Store::with(&words);
    store.signal("TERM");
    assert_eq!(store.ended().0, Some(0));
    std::fs::write(path, "a letter").unwrap();
    let line = refusal(&[&ports[..], &words].concat());
    assert!(line.contains("not a socket"), "{line}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "a letter");
}

#[test]
fn what_is_wrong_with_the_command_line_is_one_line_and_exit_code_2() {
    for words in [
        &["--data-plane", "0.0.0.0:7000"][..],
        &["--nonsense"],
        &["--idle-timeout", "soon"],
        &["--log", "mvstore=loud"],
        &["now"],
    ] {
        let (code, stdout, stderr) = run(words);
        assert_eq!(
            (code, stdout.as_str()),
            (Some(2), ""),
            "{words:?}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("mvstore: "), "{stderr}");
    }
    let (code, stdout, stderr) = run(&["--help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("--data-plane"));
    assert_eq!(
        run(&["--version"]).1,
        format!("mvstore {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn an_empty_environment_variable_counts_as_not_set_and_a_set_one_as_the_flag() {
    let empty = mvstore(&["--log", "mvstore=loud"])
        .env("FDB_CLUSTER_FILE", "")
        .env("MVSTORE_DATA_PLANE", "")
        .output()
        .unwrap();
    let text = String::from_utf8(empty.stderr).unwrap();
    assert!(text.starts_with("mvstore: --log 'mvstore=loud'"), "{text}");
    let set = mvstore(&[])
        .env("MVSTORE_DATA_PLANE", "nowhere")
        .output()
        .unwrap();
    assert_eq!(set.status.code(), Some(2));
    assert!(String::from_utf8(set.stderr).unwrap().contains("'nowhere'"));
}

#[tokio::test]
async fn requests_are_logged_at_debug_with_id_namespace_and_status_and_without_bodies() {
    let store = Store::with(&["--in-memory", "--log", "info,mvstore=debug"]);
    create(store.admin, "test").await;
    begin(store.data, "test").await;
    let secret = [
        ("x-request-id", "my-request"),
        ("authorization", "Bearer s3cret"),
    ];
    let body = "s3cret";
    let reply = crate::client::send(
        store.data,
        request("POST", "/v2/ns/other%2Fone/begin", &secret, body),
    )
    .await;
    assert_eq!(problem(&reply).code, Code::Malformed);
    assert_eq!(get(store.data, "/healthz").await.status, 200);
    store.signal("TERM");
    let (code, log) = store.ended();
    assert_eq!(code, Some(0));
    let line = |id: &str| log.iter().find(|line| line["request_id"] == id).unwrap();
    let mine = line("my-request");
    assert_eq!(mine["level"], "DEBUG");
    assert_eq!(mine["method"], "POST");
    assert_eq!(mine["namespace"], "other%2Fone");
    assert_eq!(mine["status"], 400);
    assert_eq!(mine["code"], "malformed");
    assert!(mine["duration_us"].is_u64());
    let created = log
        .iter()
        .find(|line| line["message"] == "namespace created")
        .unwrap();
    assert_eq!(created["key"], "test");
    assert!(!format!("{log:?}").contains("s3cret"));
}

/// A store whose disk failed once used to stay: it refused everything, while `/healthz` said that
/// all was well, so that nobody started it anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_writing_failed_ends_and_recovers_when_started_anew() {
    let directory = tempfile::tempdir().unwrap();
    // Files that may not grow fail a write as a broken disk does.
    let ignoring_the_signal = |words: &[&str]| {
        let script = "trap '' XFSZ; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(env!("CARGO_BIN_EXE_mvstore"));
        command.args(words).stdin(Stdio::null());
        command
    };
    let words = ["--data-dir", directory.path().to_str().unwrap()];
    let mut store = Store::of(ignoring_the_signal, &words);
    create(store.admin, "test").await;
    let begun = begin(store.data, "test").await;
    let kept = commit_of(&begun, 1, vec![page_1(2), page(1, 7)]);
    let kept: CommitReply = message(&call(store.data, "test", "commit", &kept).await);

    let pid = store.child.id().to_string();
    let mut limit = Command::new("prlimit");
    let limited = limit.args(["--fsize=0", "--pid", &pid]).status();
    assert!(limited.unwrap().success());
    let begun = begin(store.data, "test").await;
    let lost = commit_of(&begun, 2, vec![page(1, 8)]);
    let reply = call(store.data, "test", "commit", &lost).await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    let mut log = String::new();
    std::io::Read::read_to_string(&mut store.log, &mut log).unwrap();
    assert_eq!(store.child.wait().unwrap().code(), Some(1), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("mvstore: stopped serving: "), "{log}");

    let store = Store::start(directory.path());
    let begun = begin(store.data, "test").await;
    assert_eq!(begun.version, kept.version);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let store = Store::with(&["--in-memory", "--shutdown-timeout", "600"]);
    // A request that never ends keeps the shutdown waiting.
    let mut stream = std::net::TcpStream::connect(store.data).unwrap();
    std::io::Write::write_all(
        &mut stream,
        b"POST /v2/ns/test/begin HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n",
    )
    .unwrap();
    // The server has the request when it asks for the body.
    let mut asked = [0; 25];
    std::io::Read::read_exact(&mut stream, &mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    store.signal("TERM");
    let mut log = Vec::new();
    let mut store = store;
    while let Some(line) = next_line(&mut store.log) {
        let shutting_down = line["message"] == "shutting down";
        log.push(line);
        if shutting_down {
            break;
        }
    }
    store.signal("INT");
    let (code, rest) = store.ended();
    assert_eq!(code, Some(0));
    assert_eq!(rest.last().unwrap()["message"], "ended at once");
}
