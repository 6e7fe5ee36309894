//! `namespace@version`: read-only, and never changing.

use rusqlite::ffi::{SQLITE_CANTOPEN, SQLITE_READONLY};

use crate::host::{code, create, open, store, text, try_open};

#[test]
fn a_past_version_is_what_the_database_was_then() {
    let db = create("past");
    let mut versions = Vec::new();
    for value in 1..=3 {
        let sql = format!("CREATE TABLE IF NOT EXISTS t(v); INSERT INTO t VALUES({value})");
        db.execute_batch(&sql).unwrap();
        versions.push(*store().versions("past").last().unwrap());
    }
    for (index, version) in versions.iter().enumerate() {
        let past = open(&format!("past@{version}"));
        assert_eq!(
            text(&past, "SELECT count(*) FROM t"),
            (index + 1).to_string()
        );
        assert_eq!(text(&past, "PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn a_past_version_stays_as_it_is_while_others_commit() {
    let db = create("pinned");
    db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
        .unwrap();
    let version = *store().versions("pinned").last().unwrap();
    let past = open(&format!("pinned@{version}"));
    db.execute_batch("UPDATE t SET v=2; CREATE TABLE u(v)")
        .unwrap();
    assert_eq!(text(&past, "SELECT v FROM t"), "1");
    assert_eq!(text(&past, "SELECT count(*) FROM sqlite_schema"), "1");
}

#[test]
fn writing_to_a_past_version_is_readonly_and_temporary_tables_are_not_a_write() {
    let db = create("past-write");
    db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
        .unwrap();
    let version = *store().versions("past-write").last().unwrap();
    let past = open(&format!("past-write@{version}"));
    assert!(past.is_readonly(rusqlite::MAIN_DB).unwrap());
    assert_eq!(
        code(past.execute_batch("UPDATE t SET v=2")),
        SQLITE_READONLY
    );
    past.execute_batch("BEGIN IMMEDIATE; CREATE TEMP TABLE w AS SELECT * FROM t; COMMIT")
        .unwrap();
    assert_eq!(text(&past, "SELECT v FROM w"), "1");
}

#[test]
fn a_moment_that_is_none_or_was_never_reached_cannot_be_opened() {
    let db = create("no-moment");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    for moment in ["yesterday", "12", "ffffffffffffffffffff"] {
        let opened = try_open(&format!("no-moment@{moment}"));
        assert_eq!(code(opened), SQLITE_CANTOPEN, "{moment}");
    }
}
