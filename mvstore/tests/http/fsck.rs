//! `mvstore fsck`: exit codes, lines, directories that cannot be checked, and the check of a running
//! server's store over HTTP.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use mvsqlite_protocol::v2::CommitReply;
use mvstore::fsck_command::Line;
use mvstore::kv::embedded::{EmbeddedEngine, EmbeddedOptions};
use mvstore::kv::memory::MemoryEngine;
use mvstore::kv::{Engine, Freshness};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{get, post};
use crate::process::{Store, mvstore};
use crate::server::{
    TestServer, begin, call, commit_of, create, eventually, message, page, page_1,
};
use crate::stalled::{Stall, StalledEngine};

/// Runs the command to its end: exit code, stdout, stderr.
pub(crate) fn fsck(words: &[&str]) -> (Option<i32>, String, String) {
    let output = mvstore(&[&["fsck"], words].concat()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Nothing is wrong with the store of a directory that no server has.
pub(crate) fn expect_sound(directory: &Path, when: &str) {
    let (code, found, said) = fsck(&["--data-dir", directory.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{when}:\n{found}{said}");
}

/// Runs it in a thread, so that servers in this process go on.
async fn fsck_aside(words: Vec<String>) -> (Option<i32>, String, String) {
    let run = move || fsck(&words.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// A few commits to a namespace.
async fn fill(data: std::net::SocketAddr) {
    for n in 1..4 {
        let begun = begin(data, "test").await;
        let commit = commit_of(&begun, n, vec![page_1(3), page(1, n as u8), page(2, 7)]);
        let _: CommitReply = message(&call(data, "test", "commit", &commit).await);
    }
}

async fn write(directory: &Path, key: &[u8], value: &[u8]) {
    let engine = EmbeddedEngine::open(directory, EmbeddedOptions::default()).unwrap();
    let mut txn = engine.begin(Freshness::Strict);
    txn.set(key, value);
    txn.commit().await.unwrap();
    engine.close();
}

fn lines(text: &str) -> Vec<Line> {
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// Symptom: a check of a freshly made file system made a store there and called it clean. Cause: only a
/// directory with nothing at all counted as one without a store. Fix: so does one with no more in it than a
/// new store may find.
#[test]
fn a_directory_without_a_store_is_told_and_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::create_dir(scratch.path().join("lost+found")).unwrap();
    let (code, found, said) = fsck(&["--data-dir", scratch.path().to_str().unwrap()]);
    assert_eq!((code, found.as_str()), (Some(3), ""));
    assert!(said.contains("there is no store in"), "{said}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_says_whether_anything_is_wrong_with_a_directory() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("data");
    let words = ["--data-dir", path.to_str().unwrap()];
    let store = Store::of(mvstore, &words);
    create(store.admin, "test").await;
    fill(store.data).await;

    let (code, found, said) = fsck(&words);
    assert_eq!((code, found.as_str()), (Some(3), ""));
    assert!(said.contains("in use by another mvstore"), "{said}");
    assert!(said.contains("--url http://127.0.0.1:7001"), "{said}");
    let url = format!("http://{}", store.admin);
    let (code, found, said) = fsck(&["--url", &url, "--json"]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{found}");
    let Some(Line::Done(done)) = lines(&found).pop() else {
        panic!("no end: {found}");
    };
    assert_eq!((done.counts.namespaces, done.counts.commits), (1, 3));
    store.signal("TERM");
    store.ended();

    let (code, found, said) = fsck(&words);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(
        found.starts_with("clean: 1 namespaces, 3 commits, 7 page versions"),
        "{found}"
    );
    let (code, _, said) = fsck(
        &[
            &words[..],
            &["--metadata-prefix", "a", "--raw-data-prefix", "b"],
        ]
        .concat(),
    );
    assert_eq!(code, Some(3));
    assert!(said.contains("no store has these prefixes"), "{said}");
    // A leftover counts if that is asked for.
    write(
        &path,
        &[&b"mvstore\0mu"[..], &[3; 10], b"p"].concat(),
        &[0; 16],
    )
    .await;
    let (code, found, _) = fsck(&words);
    assert_eq!(code, Some(0));
    assert!(
        found.starts_with("leftover metadata-of-nobody: "),
        "{found}"
    );
    let (code, ..) = fsck(&[&words[..], &["--strict"]].concat());
    assert_eq!(code, Some(1));
    // Anything else always does.
    write(&path, b"mvstore\0mzebra", b"").await;
    let (code, found, _) = fsck(&[&words[..], &["--json"]].concat());
    assert_eq!(code, Some(1));
    let kinds = lines(&found).into_iter().filter_map(|line| match line {
        Line::Finding(finding) => Some(finding.kind.name()),
        _ => None,
    });
    let kinds: Vec<_> = kinds.collect();
    assert_eq!(kinds, ["metadata-of-nobody", "unknown-key"]);
}

#[test]
fn what_cannot_be_checked_is_told_and_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let refused = |path: &Path| {
        let (code, found, said) = fsck(&["--data-dir", path.to_str().unwrap()]);
        assert_eq!((code, found.as_str()), (Some(3), ""), "{said}");
        assert!(
            said.starts_with("mvstore fsck: ") && said.lines().count() == 1,
            "{said}"
        );
        assert!(!said.contains("panic"), "{said}");
        said
    };
    let nothing = path("nothing");
    assert!(refused(&nothing).contains("there is no store in"));
    assert!(!nothing.exists(), "a directory was made");
    let empty = path("empty");
    fs::create_dir(&empty).unwrap();
    assert!(refused(&empty).contains("there is no store in"));
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    let garbage = path("garbage");
    fs::create_dir(&garbage).unwrap();
    fs::write(garbage.join("letter.txt"), "Dear all").unwrap();
    assert!(refused(&garbage).contains("is not an mvstore data directory"));
    let format = path("format");
    fs::create_dir(&format).unwrap();
    fs::write(format.join("FORMAT"), "what").unwrap();
    assert!(refused(&format).contains("has a format that this mvstore does not know"));
    let (code, _, said) = fsck(&["--no-such-flag"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("see 'mvstore fsck --help'"), "{said}");
    let (code, _, said) = fsck(&["--url", "127.0.0.1:1"]);
    assert_eq!(code, Some(3));
    assert!(said.contains("such as http://127.0.0.1:7001"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_cut_short_never_count_as_sound() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("data");
    let store = Store::of(mvstore, &["--data-dir", path.to_str().unwrap()]);
    create(store.admin, "test").await;
    for n in 1..60u128 {
        let begun = begin(store.data, "test").await;
        let pages = (1..20).map(|index| page(index, (n as u8).wrapping_add(index as u8)));
        let commit = commit_of(&begun, n, [page_1(20)].into_iter().chain(pages).collect());
        let _: CommitReply = message(&call(store.data, "test", "commit", &commit).await);
    }
    store.signal("TERM");
    store.ended();
    expect_sound(&path, "before");
    let mut files = Vec::new();
    collect(&path, &mut files);
    let largest = files
        .into_iter()
        .max_by_key(|file| fs::metadata(file).unwrap().len());
    let largest = largest.unwrap();
    let file = fs::OpenOptions::new().write(true).open(&largest).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    // What the engine keeps in a journal it may take for cut off by a crash, and say so; whole
    // transactions are missing then, and the store is that of before.
    let (code, found, said) = fsck(&["--data-dir", path.to_str().unwrap()]);
    assert!(!said.contains("panicked"), "{said}");
    let whole = found.contains(" 59 commits");
    assert!(
        code != Some(0) || !whole,
        "{}: {found}{said}",
        largest.display()
    );
}

fn collect(directory: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_checks_its_store_and_says_what_is_wrong() {
    let engine = MemoryEngine::new();
    let server = TestServer::on(Arc::new(engine.clone()), &[]).await;
    create(server.admin, "test").await;
    fill(server.data).await;
    let reply = get(server.admin, "/v2/admin/fsck?sqlite=false").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    assert!(
        matches!(lines(reply.text())[..], [Line::Done(_)]),
        "{}",
        reply.text()
    );

    let mut txn = engine.begin(Freshness::Strict);
    txn.set(b"mvstore\0mzebra", b"");
    txn.commit().await.unwrap();
    let reply = post(server.admin, "/v2/admin/fsck", "").await;
    let found = lines(reply.text());
    assert!(
        matches!(found[..], [Line::Finding(_), Line::Done(_)]),
        "{found:?}"
    );
    let url = format!("http://{}/", server.admin);
    let (code, found, said) = fsck_aside(vec!["--url".to_owned(), url]).await;
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(found.starts_with("unknown unknown-key: "), "{found}");
    assert!(
        found.contains("1 findings and 0 leftovers: 1 namespaces"),
        "{found}"
    );
    let wrong = get(server.admin, "/v2/admin/fsck?sqlite=perhaps").await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn one_check_at_a_time_and_it_ends_when_its_client_goes() {
    let engine = StalledEngine::new();
    let server = TestServer::on(Arc::new(engine.clone()), &[]).await;
    create(server.admin, "test").await;
    fill(server.data).await;
    engine.stall(Stall::Reads);
    let mut first = TcpStream::connect(server.admin).await.unwrap();
    let request = b"GET /v2/admin/fsck HTTP/1.1\r\nhost: test\r\n\r\n";
    first.write_all(request).await.unwrap();
    eventually("the check reads", || async { engine.waiting() > 0 }).await;
    let second = get(server.admin, "/v2/admin/fsck").await;
    assert_eq!(second.status, 503, "{}", second.text());
    drop(first);
    engine.stall(Stall::Nothing);
    eventually("another check is let in", || async {
        get(server.admin, "/v2/admin/fsck").await.status == 200
    })
    .await;
}
