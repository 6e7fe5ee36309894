//! The original's commit groups: `mv_commit_group_begin`, `_commit`, `_rollback`.

use rusqlite::Connection;
use rusqlite::ffi::{SQLITE_BUSY, SQLITE_ERROR, SQLITE_PERM};

use crate::host::{code, create, open, store, text};

const BEGIN: &str = "SELECT mv_commit_group_begin()";
const COMMIT: &str = "SELECT mv_commit_group_commit('main')";
const ROLLBACK: &str = "SELECT mv_commit_group_rollback('main')";

fn with_table(name: &str) -> Connection {
    let db = create(name);
    db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(0)")
        .unwrap();
    db
}

fn value(name: &str) -> String {
    text(&open(name), "SELECT v FROM t")
}

fn failure(db: &Connection, sql: &str) -> (i32, String) {
    match db.query_row(sql, [], |_| Ok(())).unwrap_err() {
        rusqlite::Error::SqliteFailure(error, message) => {
            (error.extended_code, message.unwrap_or_default())
        }
        other => panic!("not an error of SQLite: {other}"),
    }
}

fn newest(name: &str) -> String {
    store().versions(name).pop().unwrap().to_string()
}

#[test]
fn commits_over_attached_databases_are_kept_back_until_the_group_commits() {
    let db = with_table("cg-a");
    drop(with_table("cg-b"));
    db.execute_batch("ATTACH 'cg-b' AS b").unwrap();
    assert_eq!(text(&db, BEGIN), "NULL");
    db.execute_batch("BEGIN; UPDATE t SET v=1; UPDATE b.t SET v=1; COMMIT")
        .unwrap();
    std::thread::spawn(|| assert_eq!((value("cg-a"), value("cg-b")), ("0".into(), "0".into())))
        .join()
        .unwrap();
    let version = text(&db, COMMIT);
    assert_eq!(version, newest("cg-a"));
    assert_eq!(version, newest("cg-b"));
    assert_eq!(text(&db, "SELECT mv_last_known_version('b')"), version);
    assert_eq!(text(&db, "SELECT t.v + u.v FROM t, b.t u"), "2");
    db.execute_batch("UPDATE t SET v=v+1").unwrap();
    assert_eq!((value("cg-a"), value("cg-b")), ("2".into(), "1".into()));
}

#[test]
fn commits_of_several_connections_of_a_thread_make_one_group() {
    let (a, b) = (with_table("cg-c"), with_table("cg-d"));
    text(&a, BEGIN);
    a.execute_batch("BEGIN; UPDATE t SET v=1").unwrap();
    b.execute_batch("BEGIN; UPDATE t SET v=1").unwrap();
    a.execute_batch("COMMIT").unwrap();
    b.execute_batch("COMMIT").unwrap();
    let version = text(&b, COMMIT);
    assert_eq!((newest("cg-c"), newest("cg-d")), (version.clone(), version));
}

#[test]
fn nothing_begins_while_commits_are_kept_back() {
    let db = with_table("cg-e");
    text(&db, BEGIN);
    db.execute_batch("UPDATE t SET v=1").unwrap();
    db.busy_timeout(std::time::Duration::ZERO).unwrap();
    assert_eq!(code(db.execute_batch("SELECT * FROM t")), SQLITE_BUSY);
    assert_eq!(text(&db, ROLLBACK), "NULL");
    // What was forgotten is not in SQLite's cache either.
    assert_eq!(text(&db, "SELECT v FROM t"), "0");
    db.execute_batch("UPDATE t SET v=v+5").unwrap();
    assert_eq!(value("cg-e"), "5");
}

#[test]
fn a_group_that_conflicts_commits_nothing_and_ends() {
    let db = with_table("cg-f");
    drop(with_table("cg-g"));
    db.execute_batch("ATTACH 'cg-g' AS g").unwrap();
    text(&db, BEGIN);
    db.execute_batch("BEGIN; UPDATE t SET v=1; UPDATE g.t SET v=1; COMMIT")
        .unwrap();
    let other = std::thread::spawn(|| open("cg-g").execute_batch("UPDATE t SET v=10"));
    other.join().unwrap().unwrap();
    assert_eq!(
        failure(&db, COMMIT),
        (SQLITE_PERM, "commit group conflict".to_owned())
    );
    assert_eq!((value("cg-f"), value("cg-g")), ("0".into(), "10".into()));
    assert_eq!(text(&db, "SELECT t.v + u.v FROM t, g.t u"), "10");
    text(&db, BEGIN);
    assert_eq!(text(&db, COMMIT), "NULL");
}

#[test]
fn the_functions_refuse_in_the_words_of_the_original() {
    let db = with_table("cg-h");
    let none = |function: &str| format!("{function} called without a commit group open");
    assert_eq!(
        failure(&db, COMMIT),
        (SQLITE_ERROR, none("mv_commit_group_commit"))
    );
    assert_eq!(
        failure(&db, ROLLBACK),
        (SQLITE_ERROR, none("mv_commit_group_rollback"))
    );
    text(&db, BEGIN);
    let recursive = "mv_commit_group_begin called recursively in a commit group";
    assert_eq!(failure(&db, BEGIN), (SQLITE_ERROR, recursive.to_owned()));
    let unknown = "SELECT mv_commit_group_commit('nowhere')";
    assert_eq!(failure(&db, unknown).0, SQLITE_ERROR);
    text(&db, ROLLBACK);
}

#[test]
fn a_lost_reply_to_a_group_is_settled() {
    let db = with_table("cg-i");
    drop(with_table("cg-j"));
    db.execute_batch("ATTACH 'cg-j' AS j").unwrap();
    text(&db, BEGIN);
    db.execute_batch("BEGIN; UPDATE t SET v=1; UPDATE j.t SET v=1; COMMIT")
        .unwrap();
    store().lose_replies("cg-i", "group commit", 1000);
    assert_eq!(text(&db, COMMIT), newest("cg-i"));
    store().lose_replies("cg-i", "group commit", 0);
    assert_eq!(text(&db, "SELECT t.v + u.v FROM t, j.t u"), "2");
}

/// Each COMMIT brought as much content inline as one commit may, and all of them together were refused.
#[test]
fn commits_that_are_large_together_are_uploaded_like_one_that_is() {
    let names: Vec<_> = (0..12).map(|n| format!("cg-many-{n}")).collect();
    let connections: Vec<_> = names.iter().map(|name| with_table(name)).collect();
    text(&connections[0], BEGIN);
    for db in &connections {
        db.execute_batch("BEGIN; UPDATE t SET v=zeroblob(110000)")
            .unwrap();
    }
    for db in &connections {
        db.execute_batch("COMMIT").unwrap();
    }
    let version = text(&connections[0], COMMIT);
    for (name, db) in names.iter().zip(&connections) {
        assert_eq!(newest(name), version);
        assert_eq!(text(db, "SELECT length(v) FROM t"), "110000");
        assert_eq!(text(db, "PRAGMA integrity_check"), "ok");
    }
}
