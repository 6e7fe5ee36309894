//! Transactions that are uploaded while they are written, 5 MB with 256 KiB of memory: all or
//! nothing, whoever dies at which point of the way.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mvsqlite_e2e::{Client, Fault, Proxy, Session, Store, code, copy_out, until};

const PATIENCE: Duration = Duration::from_secs(60);
const TABLE: &str = "CREATE TABLE t (k INTEGER PRIMARY KEY, v, body BLOB);
    CREATE INDEX by_v ON t (v);
    INSERT INTO t VALUES (0, 0, 'before');";
const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO t SELECT i, i * 7919 % 5003, randomblob(1000) FROM n";

fn store_with_table() -> Store {
    let store = Store::start();
    store.create_namespace("large");
    Client::of(&store).query("large", TABLE);
    store
}

/// Transactions that keep next to nothing in memory, in SQLite and in the library.
fn small(url: &str) -> Client {
    Client::at(url)
        .env("MVSQLITE_UPLOAD_BYTES", "262144")
        .env("MVSQLITE_JOURNAL_BYTES", "65536")
        .env("MVSQLITE_HTTP_TIMEOUT_SECS", "5")
}

fn open(client: &Client) -> Session {
    let mut session = Session::open(client, "large").unwrap();
    session.ok("PRAGMA cache_size = 20");
    session
}

/// How many rows an ordinary SQLite finds in a copy.
fn rows(store: &Store) -> u32 {
    copy_out(store, "large").value("SELECT count(*) FROM t")
}

/// Kills the client while a request is held at the proxy.
fn kill_client_at(fault: Fault, spared: u32) -> (Store, u32) {
    let store = store_with_table();
    let proxy = Proxy::before(&store);
    let mut session = open(&small(&proxy.url()));
    session.ok("BEGIN");
    proxy.set_after(fault, spared, 1);
    session.send(FILL);
    until("the request to be held", PATIENCE, || {
        if proxy.struck() == 0 && session.has_answered() {
            session.receive(FILL).unwrap();
            session.send("COMMIT");
        }
        (proxy.struck() > 0).then_some(())
    });
    drop(session);
    proxy.set(Fault::None);
    // Another one writes and reads as if nothing had been.
    Client::of(&store).query("large", "UPDATE t SET v = v + 1 WHERE k = 0;");
    let rows = rows(&store);
    (store, rows)
}

#[test]
fn a_client_killed_before_its_first_upload_leaves_nothing() {
    let (store, rows) = kill_client_at(Fault::Hold(&["stage"]), 0);
    assert_eq!(rows, 1);
    store.finish();
}

#[test]
fn a_client_killed_between_its_uploads_leaves_nothing() {
    let (store, rows) = kill_client_at(Fault::Hold(&["stage"]), 20);
    assert_eq!(rows, 1);
    store.finish();
}

#[test]
fn a_client_killed_when_everything_is_uploaded_leaves_nothing() {
    let (store, rows) = kill_client_at(Fault::Hold(&["commit"]), 0);
    assert_eq!(rows, 1);
    store.finish();
}

#[test]
fn a_client_killed_before_it_hears_of_its_commit_leaves_all_or_nothing() {
    let (store, rows) = kill_client_at(Fault::LoseReply(&["commit"]), 0);
    assert!(rows == 1 || rows == 5001, "{rows} rows");
    store.finish();
}

#[test]
fn a_store_killed_between_uploads_and_back_in_time_is_not_noticed() {
    let mut store = store_with_table();
    let proxy = Proxy::before(&store);
    let mut session = open(&small(&proxy.url()));
    session.ok("BEGIN");
    proxy.set_after(Fault::Hold(&["stage"]), 10, u32::MAX);
    session.send(FILL);
    until("an upload to be held", PATIENCE, || {
        (proxy.struck() > 0).then_some(())
    });
    store.kill();
    store.restart();
    proxy.set(Fault::None);
    session.receive(FILL).unwrap();
    session.ok("COMMIT");
    assert_eq!(rows(&store), 5001);
    store.finish();
}

#[test]
fn a_store_that_stays_away_between_uploads_fails_the_transaction_clearly() {
    let mut store = store_with_table();
    let client = small(&store.url()).env("MVSQLITE_HTTP_TIMEOUT_SECS", "1");
    let mut session = open(&client);
    session.ok("BEGIN");
    session.ok(FILL);
    store.kill();
    let update = "UPDATE t SET body = randomblob(999)";
    let failed = match session.run(update) {
        Ok(_) => session.run("COMMIT").expect_err("there is no store"),
        Err(error) => error,
    };
    let codes = [code::IOERR_WRITE, code::IOERR_READ, code::IOERR_FSYNC];
    assert!(codes.contains(&failed.code), "{failed:?}");
    session.reported(&["'large'", "no answer"]);
    session.run("ROLLBACK").ok();
    store.restart();
    assert_eq!(session.value("SELECT count(*) FROM t"), "1");
    session.ok("BEGIN");
    session.ok(FILL);
    session.ok("COMMIT");
    assert_eq!(rows(&store), 5001);
    store.finish();
}

#[test]
fn savepoints_conflicts_deletion_and_vacuum_leave_a_whole_database() {
    let store = store_with_table();
    let mut session = open(&small(&store.url()));
    for sql in [
        "BEGIN",
        FILL,
        "SAVEPOINT a",
        "UPDATE t SET v = v + 1, body = randomblob(900)",
    ] {
        session.ok(sql);
    }
    for sql in ["SAVEPOINT b", "DELETE FROM t WHERE k % 2", "ROLLBACK TO b"] {
        session.ok(sql);
    }
    assert_eq!(session.value("SELECT count(*) FROM t"), "5001");
    assert_eq!(session.value("PRAGMA integrity_check"), "ok");
    session.ok("ROLLBACK TO a");
    let sum = "SELECT sum(v) FROM t NOT INDEXED";
    let before = session.value(sum);
    session.ok("COMMIT");
    let copy = copy_out(&store, "large");
    assert_eq!(copy.value::<i64>(sum).to_string(), before);

    session.ok("BEGIN");
    session.ok("UPDATE t SET body = randomblob(1000)");
    Client::of(&store).query("large", "UPDATE t SET v = -1 WHERE k = 2500;");
    session.fails("COMMIT", code::BUSY_SNAPSHOT);
    assert_eq!(session.value("SELECT v FROM t WHERE k = 2500"), "-1");

    session.ok("VACUUM");
    assert_eq!(rows(&store), 5001);
    session.ok("DELETE FROM t WHERE k > 50");
    session.ok("VACUUM");
    assert_eq!(rows(&store), 51);
    session.ok("DELETE FROM t");
    assert_eq!(rows(&store), 0);
    store.finish();
}

/// The largest that a process was, in MB.
fn peak(session: &mut Session) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", session.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.unwrap().parse::<u64>().unwrap() / 1000
}

#[test]
fn memory_does_not_grow_with_the_transaction() {
    let store = store_with_table();
    let client = small(&store.url()).env("MVSQLITE_PAGE_CACHE_SIZE", "100");
    let mut session = open(&client);
    let insert = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5)
        INSERT INTO t (body) SELECT randomblob(1000000) FROM n";
    session.ok("BEGIN");
    session.ok(insert);
    let small = peak(&mut session);
    for _ in 1..16 {
        session.ok(insert);
    }
    session.ok("COMMIT");
    let large = peak(&mut session);
    println!("{small} MB after 5 MB, {large} MB after 80 MB");
    assert!(large < small + 24, "{small} MB, then {large} MB");
    assert_eq!(rows(&store), 81);
    store.finish();
}

/// A small file system of the test's own, which takes root to mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "mvsqlite-e2e"]);
        let mounted = mount.arg(directory.path()).output().ok()?;
        mounted.status.success().then(|| Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        unmount.arg("-l").arg(self.path()).status().ok();
    }
}

#[test]
fn a_full_temporary_directory_rolls_the_transaction_back_and_says_so() {
    let Some(disk) = SmallDisk::mount() else {
        println!("not run: it takes root to mount a small tmpfs");
        return;
    };
    let store = store_with_table();
    let client = small(&store.url()).env("SQLITE_TMPDIR", disk.path().to_str().unwrap());
    let mut session = open(&client);
    session.ok("BEGIN");
    session.ok(FILL);
    session.ok("COMMIT");
    session.ok("BEGIN");
    session.ok("UPDATE t SET v = 7 WHERE k = 1");
    session.fails("UPDATE t SET body = randomblob(1000)", code::FULL);
    session.reported(&["temporary file", "SQLITE_TMPDIR"]);
    session.run("ROLLBACK").ok();
    assert_eq!(
        session.value("SELECT v = 7919 % 5003 FROM t WHERE k = 1"),
        "1"
    );
    session.ok("UPDATE t SET v = 8 WHERE k = 1");
    let copy = copy_out(&store, "large");
    assert_eq!(copy.value::<u32>("SELECT v FROM t WHERE k = 1"), 8);
    assert_eq!(copy.value::<u32>("SELECT count(*) FROM t"), 5001);
    store.finish();
}
