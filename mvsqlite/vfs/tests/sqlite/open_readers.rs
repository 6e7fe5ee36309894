//! COMMIT while another statement of the connection still reads: the lock goes back to SHARED only,
//! the snapshot stays, and what was committed lies over it.

use rusqlite::Connection;
use rusqlite::ffi::SQLITE_BUSY_SNAPSHOT;

use crate::host::{code, create, open, text};

/// A table `t(k, v)` of rows on leaves of their own, with `v` zero.
fn table(name: &str) -> Connection {
    let db = create(name);
    db.execute_batch(
        "PRAGMA page_size=1024;
         CREATE TABLE t(k INTEGER PRIMARY KEY, v INT, pad);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<40)
         INSERT INTO t SELECT i, 0, randomblob(700) FROM n;",
    )
    .unwrap();
    db
}

fn set(db: &Connection, k: u32, v: u32) -> rusqlite::Result<usize> {
    db.execute("UPDATE t SET v=?2 WHERE k=?1", (k, v))
}

fn get(db: &Connection, k: u32) -> String {
    text(db, &format!("SELECT v FROM t WHERE k={k}"))
}

#[test]
fn without_foreign_commits_a_connection_goes_on_writing_and_sees_what_it_wrote() {
    let db = table("reader-alone");
    let mut reading = db.prepare("SELECT k FROM t").unwrap();
    let mut rows = reading.query([]).unwrap();
    rows.next().unwrap().unwrap();
    for v in 1..4 {
        assert_eq!(set(&db, 30, v), Ok(1));
        assert_eq!(get(&db, 30), v.to_string());
        assert_eq!(get(&open("reader-alone"), 30), v.to_string());
    }
    let mut left = 0;
    while rows.next().unwrap().is_some() {
        left += 1;
    }
    assert_eq!(left, 39);
    drop(rows);
    drop(reading);
    assert_eq!(text(&db, "SELECT sum(v) FROM t"), "3");
    assert_eq!(text(&db, "PRAGMA integrity_check"), "ok");
}

#[test]
fn after_a_foreign_commit_the_reader_stays_where_it_was_and_only_writing_is_refused() {
    let (db, other) = (table("reader-overtaken"), open("reader-overtaken"));
    let mut reading = db.prepare("SELECT k FROM t").unwrap();
    let mut rows = reading.query([]).unwrap();
    rows.next().unwrap().unwrap();
    // Between this connection's snapshot and its commit, on a page that it does not read.
    assert_eq!(set(&other, 5, 50), Ok(1));
    assert_eq!(set(&db, 30, 3), Ok(1));
    assert_eq!(get(&db, 30), "3", "what it committed itself");
    assert_eq!(
        get(&db, 5),
        "0",
        "what the other did lies beyond its snapshot"
    );
    for _ in 0..2 {
        assert_eq!(code(set(&db, 31, 1)), SQLITE_BUSY_SNAPSHOT);
    }
    // The reader goes on unharmed, and with its end the snapshot goes.
    let mut left = 0;
    while rows.next().unwrap().is_some() {
        left += 1;
    }
    assert_eq!(left, 39);
    drop(rows);
    drop(reading);
    assert_eq!((get(&db, 5), get(&db, 30)), ("50".into(), "3".into()));
    assert_eq!(set(&db, 31, 1), Ok(1));
    assert_eq!(get(&other, 31), "1");
    assert_eq!(text(&db, "PRAGMA integrity_check"), "ok");
}

#[test]
fn a_foreign_commit_after_the_own_one_is_a_conflict_only_where_it_was_read() {
    let (db, other) = (table("reader-followed"), open("reader-followed"));
    let mut reading = db.prepare("SELECT k FROM t WHERE k<3").unwrap();
    let mut rows = reading.query([]).unwrap();
    rows.next().unwrap().unwrap();
    assert_eq!(set(&db, 30, 3), Ok(1));
    assert_eq!(set(&other, 5, 50), Ok(1));
    // The snapshot moves to the own commit, and what the other did since is on another page.
    assert_eq!(set(&db, 31, 4), Ok(1));
    assert_eq!(set(&other, 31, 60), Ok(1));
    assert_eq!(code(set(&db, 31, 5)), SQLITE_BUSY_SNAPSHOT);
    drop(rows);
    drop(reading);
    let all = "SELECT group_concat(v) FROM t WHERE v>0";
    assert_eq!(text(&db, all), "50,3,60");
    assert_eq!(text(&open("reader-followed"), all), "50,3,60");
}
