//! The page size of new databases, and that no page is written for its neighbour's sake.

use rusqlite::ffi::SQLITE_ERROR;

use crate::host::{code, create, logged, open, store, text};

const PAGE_SIZES: [u32; 7] = [512, 1024, 2048, 4096, 8192, 16_384, 32_768];

#[test]
fn a_new_database_has_pages_of_8192_bytes() {
    let db = create("default-page-size");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    assert_eq!(text(&db, "PRAGMA page_size"), "8192");
    assert_eq!(store().export("default-page-size").len() % 8192, 0);
}

#[test]
fn every_page_size_from_512_to_32768_can_be_chosen_for_a_new_database() {
    for size in PAGE_SIZES {
        let name = format!("page-size-{size}");
        let db = create(&name);
        db.execute_batch(&format!(
            "PRAGMA page_size={size}; CREATE TABLE t(k INTEGER PRIMARY KEY, v);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200)
             INSERT INTO t SELECT i, randomblob(i*20) FROM n"
        ))
        .unwrap();
        let other = open(&name);
        assert_eq!(text(&other, "PRAGMA page_size"), size.to_string());
        assert_eq!(
            text(&other, "SELECT sum(length(v)) FROM t"),
            (20 * 200 * 201 / 2).to_string()
        );
        other
            .execute_batch("DELETE FROM t WHERE k % 3 = 0; VACUUM")
            .unwrap();
        assert_eq!(text(&db, "PRAGMA integrity_check"), "ok", "{size}");
        assert_eq!(text(&db, "PRAGMA page_size"), size.to_string());
    }
}

#[test]
fn writers_of_neighbouring_pages_do_not_conflict_at_any_page_size() {
    for size in PAGE_SIZES {
        let name = format!("neighbours-{size}");
        let setup = create(&name);
        // Four roots on consecutive pages: one sector of 8192 bytes would hold them all.
        setup
            .execute_batch(&format!(
                "PRAGMA page_size={size};
                 CREATE TABLE a(v); CREATE TABLE b(v); CREATE TABLE c(v); CREATE TABLE d(v);
                 INSERT INTO a VALUES(0); INSERT INTO b VALUES(0);
                 INSERT INTO c VALUES(0); INSERT INTO d VALUES(0)"
            ))
            .unwrap();
        let writers = ["a", "b", "c", "d"].map(|table| (open(&name), table));
        for (db, table) in &writers {
            db.execute_batch(&format!("BEGIN; UPDATE {table} SET v=1"))
                .unwrap();
        }
        for (db, table) in &writers {
            db.execute_batch("COMMIT")
                .unwrap_or_else(|e| panic!("{table} at {size}: {e}"));
        }
        assert_eq!(text(&setup, "SELECT a.v+b.v+c.v+d.v FROM a, b, c, d"), "4");
    }
}

#[test]
fn neighbours_are_still_left_alone_after_a_rollback_that_played_back_a_journal() {
    let name = "neighbours-after-playback";
    let setup = create(name);
    setup
        .execute_batch(
            "PRAGMA page_size=512; CREATE TABLE a(v); CREATE TABLE b(v); CREATE TABLE big(v);
             INSERT INTO a VALUES(0); INSERT INTO b VALUES(0)",
        )
        .unwrap();
    let (left, right) = (open(name), open(name));
    left.execute_batch(
        "PRAGMA cache_size=2; BEGIN;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300)
         INSERT INTO big SELECT zeroblob(400) FROM n; ROLLBACK",
    )
    .unwrap();
    left.execute_batch("BEGIN; UPDATE a SET v=1").unwrap();
    right
        .execute_batch("BEGIN; UPDATE b SET v=1; COMMIT")
        .unwrap();
    left.execute_batch("COMMIT").unwrap();
}

#[test]
fn pages_of_65536_bytes_are_refused_with_a_message() {
    let db = create("page-size-65536");
    let made = db.execute_batch("PRAGMA page_size=65536; CREATE TABLE t(v)");
    assert!(made.is_err());
    let lines = logged("'page-size-65536'");
    let explained = lines.iter().any(|(_, line)| line.contains("512 to 32768"));
    let answered = made.unwrap_err().to_string().contains("512 to 32768");
    assert!(explained || answered, "{lines:?}");
    assert!(store().versions("page-size-65536").is_empty());
}

#[test]
fn changing_the_page_size_by_vacuum_is_refused_with_a_way_out() {
    let db = create("page-size-change");
    db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(randomblob(20000))")
        .unwrap();
    let before = store().versions("page-size-change");
    let changed = db
        .execute_batch("PRAGMA page_size=4096")
        .and_then(|()| db.execute_batch("VACUUM"));
    assert_eq!(code(changed), SQLITE_ERROR);
    assert_eq!(store().versions("page-size-change"), before);
    let told = format!(
        "{:?} {}",
        logged("'page-size-change'"),
        text(&db, "PRAGMA mvsqlite_last_error")
    );
    assert!(
        told.contains("8192") && told.contains("4096") && told.contains("VACUUM INTO"),
        "{told}"
    );
    assert_eq!(text(&db, "PRAGMA page_size"), "8192");
    assert_eq!(text(&db, "PRAGMA integrity_check"), "ok");
    db.execute_batch("PRAGMA page_size=8192; VACUUM").unwrap();
}
