//! Transactions far larger than what they may keep in memory: 256 KiB of pages and 64 KiB of journal,
//! under a cache of SQLite's of a few pages.

use rusqlite::Connection;
use rusqlite::ffi::SQLITE_BUSY_SNAPSHOT;

use crate::host::{code, create, open, store, text};

/// 5 MB in a table, and an index whose order has nothing to do with it.
const FILL: &str = "CREATE TABLE t(k INTEGER PRIMARY KEY, v, body);
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000)
     INSERT INTO t SELECT i, i * 7919 % 5003, randomblob(1000) FROM n;
     CREATE INDEX by_v ON t(v)";

/// A database whose connection keeps ten pages.
fn small_cache(name: &str) -> Connection {
    let db = create(name);
    db.execute_batch("PRAGMA cache_size=10").unwrap();
    db
}

fn filled(name: &str) -> Connection {
    let db = small_cache(name);
    db.execute_batch(&format!("BEGIN; {FILL}; COMMIT")).unwrap();
    db
}

/// What an ordinary SQLite says about the database as a file.
fn check_of_export(name: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), store().export(name)).unwrap();
    let plain = Connection::open(file.path()).unwrap();
    text(&plain, "PRAGMA integrity_check")
}

#[track_caller]
fn expect(name: &str, rows: &str) {
    assert_eq!(check_of_export(name), "ok");
    let fresh = open(name);
    assert_eq!(text(&fresh, "SELECT count(*) FROM t"), rows);
    assert_eq!(text(&fresh, "PRAGMA integrity_check"), "ok");
}

#[test]
fn a_table_and_its_index_are_made_in_one_commit() {
    filled("large-fill");
    assert_eq!(store().versions("large-fill").len(), 1);
    expect("large-fill", "5000");
}

#[test]
fn a_transaction_reads_what_it_wrote_by_table_and_by_index() {
    let db = small_cache("large-read");
    db.execute_batch(&format!("BEGIN; {FILL}")).unwrap();
    let sum = "SELECT sum(v) FROM t NOT INDEXED";
    let by_index = "SELECT sum(length(body)) FROM t INDEXED BY by_v WHERE v BETWEEN 10 AND 4000";
    assert_eq!(
        text(&db, sum),
        (1..=5000_u32)
            .map(|i| i * 7919 % 5003)
            .sum::<u32>()
            .to_string()
    );
    let rows = (1..=5000_u32)
        .filter(|i| (10..=4000).contains(&(i * 7919 % 5003)))
        .count();
    assert_eq!(text(&db, by_index), (rows * 1000).to_string());
    assert_eq!(text(&db, "PRAGMA integrity_check"), "ok");
    db.execute_batch("UPDATE t SET v = v + 1; COMMIT").unwrap();
    expect("large-read", "5000");
}

#[test]
fn savepoints_are_rolled_back_after_spill_and_upload() {
    let db = filled("large-savepoint");
    let hash = "SELECT sum(k * v) FROM t";
    let before = text(&db, hash);
    db.execute_batch("BEGIN; SAVEPOINT a; UPDATE t SET v = v + 1, body = randomblob(900)")
        .unwrap();
    db.execute_batch("SAVEPOINT b; DELETE FROM t WHERE k % 2; ROLLBACK TO b")
        .unwrap();
    assert_eq!(text(&db, "SELECT count(*) FROM t"), "5000");
    db.execute_batch("INSERT INTO t SELECT k + 10000, v, body FROM t; ROLLBACK TO a")
        .unwrap();
    assert_eq!(text(&db, hash), before);
    db.execute_batch("UPDATE t SET v = -v WHERE k <= 2500; COMMIT")
        .unwrap();
    assert_ne!(text(&db, hash), before);
    expect("large-savepoint", "5000");
}

#[test]
fn a_statement_that_fails_after_its_upload_is_undone_alone() {
    let db = filled("large-statement");
    db.execute_batch("BEGIN; DELETE FROM t WHERE k = 1")
        .unwrap();
    // The last row collides with one that is there.
    let insert =
        "INSERT INTO t SELECT CASE k WHEN 5000 THEN 4999 ELSE k + 5000 END, v, body FROM t";
    assert!(db.execute_batch(insert).is_err());
    assert_eq!(text(&db, "SELECT count(*) FROM t"), "4999");
    db.execute_batch("COMMIT").unwrap();
    expect("large-statement", "4999");
}

#[test]
fn a_rollback_leaves_the_database_as_it_was() {
    let db = filled("large-rollback");
    let before = store().export("large-rollback");
    for change in [
        "DELETE FROM t",
        "UPDATE t SET body = randomblob(2000)",
        FILL,
    ] {
        let change = change
            .replace("TABLE t(", "TABLE u(")
            .replace("INTO t", "INTO u");
        let change = change.replace("by_v ON t(", "u_by_v ON u(");
        db.execute_batch(&format!("BEGIN; {change}; ROLLBACK"))
            .unwrap();
        assert_eq!(text(&db, "PRAGMA integrity_check"), "ok");
    }
    assert!(store().export("large-rollback") == before);
    expect("large-rollback", "5000");
}

#[test]
fn a_conflict_after_the_upload_rolls_everything_back() {
    let db = filled("large-conflict");
    let other = open("large-conflict");
    db.execute_batch("BEGIN; UPDATE t SET body = randomblob(1000)")
        .unwrap();
    other
        .execute_batch("UPDATE t SET v = 0 WHERE k = 77")
        .unwrap();
    assert_eq!(code(db.execute_batch("COMMIT")), SQLITE_BUSY_SNAPSHOT);
    assert_eq!(text(&db, "SELECT v FROM t WHERE k = 77"), "0");
    db.execute_batch("BEGIN; UPDATE t SET v = 1; COMMIT")
        .unwrap();
    assert_eq!(
        text(&open("large-conflict"), "SELECT sum(v) FROM t"),
        "5000"
    );
    expect("large-conflict", "5000");
}

#[test]
fn everything_is_deleted_and_the_file_shrinks_by_vacuum() {
    let db = filled("large-vacuum");
    let before = store().export("large-vacuum").len();
    db.execute_batch("VACUUM").unwrap();
    expect("large-vacuum", "5000");
    db.execute_batch("DELETE FROM t WHERE k > 100; VACUUM")
        .unwrap();
    expect("large-vacuum", "100");
    assert!(store().export("large-vacuum").len() < before / 8);
    db.execute_batch("BEGIN; DELETE FROM t; INSERT INTO t SELECT 1, 2, randomblob(300000); COMMIT")
        .unwrap();
    expect("large-vacuum", "1");
}

#[test]
fn a_statement_that_is_still_reading_goes_on_over_a_large_commit() {
    let db = filled("large-shared");
    let mut reader = db.prepare("SELECT k FROM t ORDER BY k").unwrap();
    let mut rows = reader.query([]).unwrap();
    let first: i64 = rows.next().unwrap().unwrap().get(0).unwrap();
    db.execute_batch("UPDATE t SET body = randomblob(1100)")
        .unwrap();
    let mut count = 1;
    while let Some(row) = rows.next().unwrap() {
        count += 1;
        let k: i64 = row.get(0).unwrap();
        assert_eq!(k, first + count - 1);
    }
    assert_eq!(count, 5000);
    expect("large-shared", "5000");
}
