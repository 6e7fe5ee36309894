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

#[test]
fn pragmas_of_ours_tell_what_a_connection_uses() {
    let db = create("our-pragmas");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    assert_eq!(text(&db, "PRAGMA mvsqlite_namespace"), "our-pragmas");
    let id = text(&db, "PRAGMA mvsqlite_id");
    let (incarnation, namespace) = id.split_once('/').unwrap();
    assert_eq!((incarnation.len(), namespace.len()), (16, 20), "{id}");
    let cache: serde_json::Value =
        serde_json::from_str(&text(&db, "PRAGMA mvsqlite_cache")).unwrap();
    assert!(cache["pages"].as_u64().unwrap() > 0, "{cache}");
    assert!(
        cache["bytes"].as_u64() <= cache["budget_bytes"].as_u64(),
        "{cache}"
    );
    let unknown = db.execute_batch("PRAGMA mvsqlite_nonsense").unwrap_err();
    assert!(
        unknown.to_string().contains("mvsqlite_staleness"),
        "{unknown}"
    );
}

#[test]
fn how_far_reads_may_be_behind_is_set_per_connection() {
    let (db, other) = (create("staleness-pragma"), open("staleness-pragma"));
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    assert_eq!(text(&db, "PRAGMA mvsqlite_staleness"), "0");
    assert_eq!(text(&db, "PRAGMA mvsqlite_staleness=60000"), "60000");
    assert_eq!(text(&db, "PRAGMA mvsqlite_staleness"), "60000");
    assert_eq!(text(&other, "PRAGMA mvsqlite_staleness"), "0");
    for wrong in ["-1", "soon", "86400001"] {
        let refused = db.execute_batch(&format!("PRAGMA mvsqlite_staleness='{wrong}'"));
        assert!(
            refused.unwrap_err().to_string().contains("from 0 to"),
            "{wrong}"
        );
    }
    // A writer of this process is seen at once all the same.
    for count in 1..4 {
        other.execute_batch("INSERT INTO t VALUES(1)").unwrap();
        assert_eq!(text(&db, "SELECT count(*) FROM t"), count.to_string());
    }
}

/// `PRAGMA temp_store_directory='/tmp'` failed with "not a writable directory". SQLite asks the VFS of
/// the connection whether it may write there, and that took the directory for a database, which is
/// never there for `xAccess`. Such questions go to the default VFS now.
#[test]
fn a_directory_for_temporary_files_can_be_named() {
    let db = create("temp-store-directory");
    let directory = tempfile::tempdir().unwrap();
    let set = |path: &str| db.execute_batch(&format!("PRAGMA temp_store_directory='{path}'"));
    set(directory.path().to_str().unwrap()).unwrap();
    let missing = directory.path().join("missing");
    assert!(set(missing.to_str().unwrap()).is_err());
    set("").unwrap();
}
