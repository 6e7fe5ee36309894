//! Several databases on one connection.

use rusqlite::Connection;
use rusqlite::ffi::{SQLITE_BUSY_SNAPSHOT, SQLITE_ERROR};

use crate::host::{code, create, open, text};

fn with_attached(main: &str, other: &str) -> Connection {
    create(other)
        .execute_batch("CREATE TABLE u(v); INSERT INTO u VALUES(0)")
        .unwrap();
    let db = create(main);
    db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(0)")
        .unwrap();
    db.execute_batch(&format!("ATTACH '{other}' AS other"))
        .unwrap();
    db
}

#[test]
fn a_transaction_may_read_two_databases_and_write_one() {
    let db = with_attached("att-main", "att-other");
    db.execute_batch("BEGIN; UPDATE t SET v=(SELECT v+1 FROM u); COMMIT")
        .unwrap();
    db.execute_batch("BEGIN; UPDATE u SET v=(SELECT v+1 FROM t); COMMIT")
        .unwrap();
    assert_eq!(text(&open("att-other"), "SELECT v FROM u"), "2");
}

#[test]
fn begin_immediate_over_two_databases_commits_the_one_that_was_written() {
    let db = with_attached("imm-main", "imm-other");
    for begin in ["IMMEDIATE", "EXCLUSIVE"] {
        db.execute_batch(&format!("BEGIN {begin}; UPDATE u SET v=v+1; COMMIT"))
            .unwrap();
        db.execute_batch(&format!("BEGIN {begin}; UPDATE t SET v=v+1; COMMIT"))
            .unwrap();
    }
    assert_eq!(text(&open("imm-main"), "SELECT v FROM t"), "2");
    assert_eq!(text(&open("imm-other"), "SELECT v FROM u"), "2");
}

#[test]
fn a_conflict_under_a_super_journal_is_busy_snapshot_and_rolls_back() {
    let db = with_attached("super-main", "super-other");
    db.execute_batch("BEGIN IMMEDIATE; UPDATE u SET v=1")
        .unwrap();
    open("super-other")
        .execute_batch("UPDATE u SET v=10")
        .unwrap();
    assert_eq!(code(db.execute_batch("COMMIT")), SQLITE_BUSY_SNAPSHOT);
    assert!(db.is_autocommit());
    assert_eq!(text(&db, "SELECT v FROM u"), "10");
    db.execute_batch("BEGIN IMMEDIATE; UPDATE u SET v=v+1; COMMIT")
        .unwrap();
    assert_eq!(text(&open("super-other"), "SELECT v FROM u"), "11");
}

#[test]
fn writing_a_second_database_under_an_in_memory_main_is_refused_when_it_begins() {
    let first = with_attached("mem-1", "mem-2");
    drop(first);
    let db = Connection::open_with_flags_and_vfs(
        ":memory:",
        rusqlite::OpenFlags::default(),
        c"mvsqlite",
    )
    .unwrap();
    db.execute_batch("ATTACH 'mem-1' AS one; ATTACH 'mem-2' AS two")
        .unwrap();
    db.execute_batch("UPDATE one.t SET v=1; UPDATE two.u SET v=1")
        .unwrap();
    db.execute_batch("BEGIN; UPDATE one.t SET v=2").unwrap();
    assert_eq!(code(db.execute_batch("UPDATE two.u SET v=2")), SQLITE_ERROR);
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(text(&open("mem-1"), "SELECT v FROM t"), "2");
    assert_eq!(text(&open("mem-2"), "SELECT v FROM u"), "1");
}

#[test]
fn temporary_tables_are_written_with_a_database_of_ours() {
    let db = create("temporary");
    for store in ["FILE", "MEMORY"] {
        db.execute_batch(&format!(
            "PRAGMA temp_store={store};
             CREATE TEMP TABLE w(v); CREATE TABLE IF NOT EXISTS t(v);
             BEGIN; INSERT INTO w VALUES(zeroblob(100000)), (2); INSERT INTO t SELECT 7 FROM w; COMMIT;
             BEGIN; INSERT INTO w VALUES(3); INSERT INTO t VALUES(8); ROLLBACK"
        ))
        .unwrap();
        assert_eq!(text(&db, "SELECT count(*) FROM w"), "2");
        db.execute_batch("DROP TABLE w").unwrap();
    }
    assert_eq!(text(&open("temporary"), "SELECT count(*) FROM t"), "4");
}

#[test]
fn an_ordinary_file_is_attached_by_naming_its_vfs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plain.db");
    let db = create("with-file");
    db.execute_batch(&format!(
        "CREATE TABLE t(v);
         ATTACH 'file:{}?vfs=unix' AS plain; CREATE TABLE plain.p(v);
         BEGIN; INSERT INTO t VALUES(1); INSERT INTO plain.p VALUES(2); COMMIT",
        file.display()
    ))
    .unwrap();
    assert_eq!(text(&open("with-file"), "SELECT v FROM t"), "1");
    assert_eq!(
        text(&Connection::open(&file).unwrap(), "SELECT v FROM p"),
        "2"
    );
}

/// Under `locking_mode=EXCLUSIVE` set through an ordinary main database, the second COMMIT brought no
/// change counter and looked like a rollback: SQLite refused it, refused the playback too, and then
/// reported every other one as done. Nothing of it was stored.
#[test]
fn no_commit_is_lost_when_an_ordinary_main_database_chose_the_modes_for_all() {
    for (number, pragma) in [
        "PRAGMA journal_mode=wal",
        "PRAGMA journal_mode=memory",
        "PRAGMA journal_mode=off",
        "PRAGMA locking_mode=EXCLUSIVE",
        "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=wal",
        "PRAGMA synchronous=off",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("under-file-{number}");
        create(&name).execute_batch("CREATE TABLE t(v)").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let db = Connection::open(directory.path().join("main.db")).unwrap();
        db.execute_batch(&format!(
            "CREATE TABLE p(v); ATTACH 'file:{name}?vfs=mvsqlite' AS o"
        ))
        .unwrap();
        for pragma in pragma.split(';') {
            db.query_row(pragma, [], |_| Ok(()))
                .or_else(no_rows)
                .unwrap();
        }
        // What is acknowledged must be there; what cannot be done must fail.
        let mut acknowledged = 0;
        for _ in 0..4 {
            acknowledged += usize::from(db.execute_batch("INSERT INTO o.t VALUES(1)").is_ok());
            if !db.is_autocommit() {
                db.execute_batch("ROLLBACK").unwrap();
            }
        }
        db.execute_batch("INSERT INTO p VALUES(1)").unwrap();
        drop(db);
        let other = open(&name);
        assert_eq!(
            text(&other, "SELECT count(*) FROM t"),
            acknowledged.to_string(),
            "{pragma}"
        );
        assert_eq!(text(&other, "PRAGMA integrity_check"), "ok", "{pragma}");
        if !pragma.contains("EXCLUSIVE") {
            assert_eq!(acknowledged, 4, "{pragma}");
        }
    }
}

fn no_rows(error: rusqlite::Error) -> rusqlite::Result<()> {
    match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        error => Err(error),
    }
}

#[test]
fn connections_that_share_a_cache_see_and_write_one_database() {
    use rusqlite::OpenFlags;
    create("shared-cache")
        .execute_batch("CREATE TABLE t(v); CREATE TABLE u(v)")
        .unwrap();
    let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_SHARED_CACHE;
    let one = crate::host::open_with("shared-cache", flags).unwrap();
    let two = crate::host::open_with("shared-cache", flags).unwrap();
    one.execute_batch("INSERT INTO t VALUES(1)").unwrap();
    two.execute_batch("INSERT INTO u SELECT v+1 FROM t")
        .unwrap();
    drop(one);
    two.execute_batch("BEGIN IMMEDIATE; INSERT INTO u VALUES(3); COMMIT")
        .unwrap();
    assert_eq!(text(&open("shared-cache"), "SELECT sum(v) FROM u"), "5");
}
