//! VACUUM, backup, blobs and other operations on whole databases.

use std::io::{Read, Seek, SeekFrom, Write};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::ffi::SQLITE_CANTOPEN;
use rusqlite::{Connection, MAIN_DB};

use crate::host::{code, create, open, store, text};

const FILL: &str = "CREATE TABLE t(k INTEGER PRIMARY KEY, v);
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300)
     INSERT INTO t SELECT i, randomblob(2000) FROM n";

/// What an ordinary SQLite says about the database as a file.
fn check_of_export(name: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), store().export(name)).unwrap();
    let plain = Connection::open(file.path()).unwrap();
    text(&plain, "PRAGMA integrity_check")
}

#[test]
fn vacuum_shrinks_the_database_and_keeps_its_content() {
    let db = create("vacuum");
    db.execute_batch(FILL).unwrap();
    let before = store().export("vacuum").len();
    db.execute_batch("DELETE FROM t WHERE k > 30; VACUUM")
        .unwrap();
    assert!(store().export("vacuum").len() < before / 4);
    assert_eq!(text(&open("vacuum"), "SELECT count(*) FROM t"), "30");
    assert_eq!(check_of_export("vacuum"), "ok");
    db.execute_batch("INSERT INTO t VALUES(1000, 'grown again')")
        .unwrap();
    assert_eq!(text(&open("vacuum"), "PRAGMA integrity_check"), "ok");
}

#[test]
fn auto_vacuum_and_incremental_vacuum_shrink_the_database() {
    for mode in ["FULL", "INCREMENTAL"] {
        let name = format!("auto-vacuum-{mode}");
        let db = create(&name);
        db.execute_batch(&format!("PRAGMA auto_vacuum={mode}; {FILL}"))
            .unwrap();
        let before = store().export(&name).len();
        db.execute_batch("DELETE FROM t WHERE k > 30").unwrap();
        // One page is freed per step.
        let mut vacuum = db.prepare("PRAGMA incremental_vacuum").unwrap();
        let mut steps = vacuum.raw_query();
        while steps.next().unwrap().is_some() {}
        assert!(store().export(&name).len() < before / 4, "{mode}");
        assert_eq!(check_of_export(&name), "ok");
    }
}

#[test]
fn vacuum_into_fills_an_empty_namespace() {
    let db = create("into-source");
    db.execute_batch(FILL).unwrap();
    store().create("into-target");
    db.execute_batch("VACUUM INTO 'into-target'").unwrap();
    assert_eq!(text(&open("into-target"), "SELECT count(*) FROM t"), "300");
    assert_eq!(check_of_export("into-target"), "ok");
}

#[test]
fn vacuum_into_a_new_namespace_is_the_way_to_another_page_size() {
    let db = create("resize-source");
    db.execute_batch(FILL).unwrap();
    store().create("resize-target");
    db.execute_batch("PRAGMA page_size=4096; VACUUM INTO 'resize-target'")
        .unwrap();
    assert_eq!(text(&open("resize-target"), "PRAGMA page_size"), "4096");
    assert_eq!(check_of_export("resize-target"), "ok");
}

#[test]
fn vacuum_into_takes_a_database_to_an_ordinary_file_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("copy.db");
    create("to-file").execute_batch(FILL).unwrap();
    let uri = format!("file:{}?vfs=unix", file.display());
    open("to-file")
        .execute_batch(&format!("VACUUM INTO '{uri}'"))
        .unwrap();
    let plain = Connection::open(&file).unwrap();
    assert_eq!(text(&plain, "PRAGMA integrity_check"), "ok");
    assert_eq!(text(&plain, "SELECT count(*) FROM t"), "300");
    store().create("from-file");
    plain
        .execute_batch("VACUUM INTO 'file:from-file?vfs=mvsqlite'")
        .unwrap();
    assert_eq!(check_of_export("from-file"), "ok");
    assert_eq!(text(&open("from-file"), "SELECT count(*) FROM t"), "300");
}

#[test]
fn vacuum_into_a_missing_namespace_makes_no_local_file() {
    let db = create("into-nothing");
    db.execute_batch(FILL).unwrap();
    assert_eq!(
        code(db.execute_batch("VACUUM INTO 'into-missing'")),
        SQLITE_CANTOPEN
    );
    assert!(!std::path::Path::new("into-missing").exists());
}

#[test]
fn backup_from_a_database_of_ours_ends_though_others_read() {
    let db = create("backup-from");
    db.execute_batch(FILL).unwrap();
    let reader = open("backup-from");
    let mut copy = Connection::open_in_memory().unwrap();
    {
        let backup = Backup::new(&db, &mut copy).unwrap();
        while backup.step(5).unwrap() == StepResult::More {
            text(&reader, "SELECT count(*) FROM t");
        }
    }
    assert_eq!(text(&copy, "SELECT count(*) FROM t"), "300");
    assert_eq!(text(&copy, "PRAGMA integrity_check"), "ok");
}

#[test]
fn backup_into_a_database_of_ours_replaces_its_content_in_one_commit() {
    let source = Connection::open_in_memory().unwrap();
    source
        .execute_batch(&format!("PRAGMA page_size=8192; {FILL}"))
        .unwrap();
    let mut db = create("backup-into");
    db.execute_batch("CREATE TABLE old(v)").unwrap();
    let before = store().versions("backup-into").len();
    Backup::new(&source, &mut db)
        .unwrap()
        .run_to_completion(10, std::time::Duration::ZERO, None)
        .unwrap();
    assert_eq!(store().versions("backup-into").len(), before + 1);
    assert_eq!(text(&open("backup-into"), "SELECT count(*) FROM t"), "300");
    assert_eq!(check_of_export("backup-into"), "ok");
}

#[test]
fn a_database_in_wal_mode_can_be_brought_in_and_is_in_rollback_mode_here() {
    let directory = tempfile::tempdir().unwrap();
    let source = Connection::open(directory.path().join("wal.db")).unwrap();
    let pragmas = "PRAGMA page_size=8192; PRAGMA journal_mode=wal";
    for pragma in pragmas.split(';') {
        let _ = source.query_row(pragma, [], |_| Ok(()));
    }
    source.execute_batch(FILL).unwrap();
    assert_eq!(text(&source, "PRAGMA journal_mode"), "wal");
    store().create("from-wal-into");
    source
        .execute_batch("VACUUM INTO 'file:from-wal-into?vfs=mvsqlite'")
        .unwrap();
    let mut db = create("from-wal-backup");
    Backup::new(&source, &mut db)
        .unwrap()
        .run_to_completion(1000, std::time::Duration::ZERO, None)
        .unwrap();
    for name in ["from-wal-into", "from-wal-backup"] {
        let db = open(name);
        assert_eq!(text(&db, "SELECT count(*) FROM t"), "300", "{name}");
        db.execute_batch("INSERT INTO t VALUES(1000, 'more')")
            .unwrap();
        assert_eq!(text(&db, "PRAGMA journal_mode"), "delete");
        assert_eq!(check_of_export(name), "ok");
    }
}

#[test]
fn backup_into_a_database_with_another_page_size_fails_and_changes_nothing() {
    let source = Connection::open_in_memory().unwrap();
    source
        .execute_batch(&format!("PRAGMA page_size=4096; {FILL}"))
        .unwrap();
    let mut db = create("backup-page-size");
    db.execute_batch("CREATE TABLE old(v); INSERT INTO old VALUES('kept')")
        .unwrap();
    let before = store().versions("backup-page-size");
    let done = Backup::new(&source, &mut db).unwrap().run_to_completion(
        1000,
        std::time::Duration::ZERO,
        None,
    );
    assert!(done.is_err());
    assert_eq!(store().versions("backup-page-size"), before);
    assert_eq!(text(&open("backup-page-size"), "SELECT v FROM old"), "kept");
    assert_eq!(text(&db, "SELECT v FROM old"), "kept");
}

#[test]
fn blobs_are_read_and_written_in_place() {
    let db = create("blob");
    db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(zeroblob(100000))")
        .unwrap();
    {
        let mut blob = db.blob_open(MAIN_DB, "t", "v", 1, false).unwrap();
        blob.seek(SeekFrom::Start(90_000)).unwrap();
        blob.write_all(b"deep inside").unwrap();
    }
    let other = open("blob");
    let mut blob = other.blob_open(MAIN_DB, "t", "v", 1, true).unwrap();
    blob.seek(SeekFrom::Start(90_000)).unwrap();
    let mut found = [0; 11];
    blob.read_exact(&mut found).unwrap();
    assert_eq!(&found, b"deep inside");
}

#[test]
fn freelist_churn_by_two_writers_keeps_the_database_whole() {
    let name = "churn";
    create(name).execute_batch(FILL).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            scope.spawn(move || {
                let db = open(name);
                for round in 0..30 {
                    let key = 1000 + writer * 100 + round % 7;
                    let sql = format!(
                        "BEGIN; DELETE FROM t WHERE k={key};
                         INSERT INTO t VALUES({key}, randomblob({})); COMMIT",
                        1000 + (round * 7919) % 60_000
                    );
                    while let Err(error) = db.execute_batch(&sql) {
                        assert_eq!(code::<()>(Err(error)), rusqlite::ffi::SQLITE_BUSY_SNAPSHOT);
                        if !db.is_autocommit() {
                            db.execute_batch("ROLLBACK").unwrap();
                        }
                    }
                }
            });
        }
    });
    assert_eq!(check_of_export(name), "ok");
    assert_eq!(text(&open(name), "SELECT count(*) FROM t"), "314");
}
