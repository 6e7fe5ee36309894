//! Pragmas that SQLite must not act on by itself.

use crate::host::{create, open, store, text};

#[test]
fn the_journal_mode_is_delete_whatever_is_asked() {
    let db = create("journal-mode");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    for mode in [
        "wal", "WAL", "memory", "off", "truncate", "persist", "delete", "nonsense",
    ] {
        assert_eq!(text(&db, &format!("PRAGMA journal_mode={mode}")), "delete");
    }
    assert_eq!(text(&db, "PRAGMA journal_mode"), "delete");
    assert_eq!(text(&db, "PRAGMA main.journal_mode=wal"), "delete");
}

#[test]
fn wal_is_refused_in_exclusive_locking_mode_too() {
    let db = create("exclusive-wal");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    let _ = db.query_row("PRAGMA locking_mode=EXCLUSIVE", [], |_| Ok(()));
    assert_eq!(text(&db, "PRAGMA journal_mode=wal"), "delete");
    let _ = db.execute_batch("INSERT INTO t VALUES(1)");
    let file = store().export("exclusive-wal");
    assert_eq!(
        file[18..20],
        [1, 1],
        "the header of a rollback-journal database"
    );
}

#[test]
fn exclusive_locking_mode_is_refused_and_writing_goes_on() {
    let db = create("locking-mode");
    let answer = db.query_row("PRAGMA locking_mode=EXCLUSIVE", [], |row| {
        row.get::<_, String>(0)
    });
    match answer {
        Ok(mode) => assert_eq!(mode, "normal"),
        Err(error) => assert!(error.to_string().contains("locking"), "{error}"),
    }
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    let other = open("locking-mode");
    for value in ["1", "2"] {
        db.execute_batch(&format!("INSERT INTO t VALUES({value})"))
            .unwrap();
        assert_eq!(text(&other, "SELECT count(*) FROM t"), value);
        other
            .execute_batch(&format!("UPDATE t SET v='{value}'"))
            .unwrap();
        assert_eq!(text(&db, "SELECT max(v) FROM t"), value);
    }
}

#[test]
fn memory_maps_are_never_made() {
    let db = create("mmap");
    db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
        .unwrap();
    assert_eq!(text(&db, "PRAGMA mmap_size=268435456"), "0");
    assert_eq!(text(&db, "PRAGMA mmap_size"), "0");
    assert_eq!(text(&db, "SELECT v FROM t"), "1");
}

#[test]
fn the_version_pragma_tells_the_snapshot() {
    let db = create("version-pragma");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    let newest = store().versions("version-pragma").pop().unwrap();
    assert_eq!(text(&db, "PRAGMA mvsqlite_version"), newest.to_string());
}

#[test]
fn data_version_moves_only_when_somebody_else_commits() {
    let (reader, writer) = (create("data-version"), open("data-version"));
    writer
        .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
        .unwrap();
    text(&reader, "SELECT v FROM t");
    let before = text(&reader, "PRAGMA data_version");
    text(&reader, "SELECT v FROM t");
    assert_eq!(text(&reader, "PRAGMA data_version"), before);
    writer.execute_batch("UPDATE t SET v=2").unwrap();
    text(&reader, "SELECT v FROM t");
    assert_ne!(text(&reader, "PRAGMA data_version"), before);
}

#[test]
fn unknown_pragmas_and_those_of_sqlite_work_as_ever() {
    let db = create("other-pragmas");
    db.execute_batch("PRAGMA no_such_pragma=1; PRAGMA user_version=7; PRAGMA foreign_keys=on")
        .unwrap();
    assert_eq!(text(&open("other-pragmas"), "PRAGMA user_version"), "7");
    assert_eq!(text(&db, "PRAGMA foreign_keys"), "1");
}
