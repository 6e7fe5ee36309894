//! A full disk: SQLITE_FULL, nothing acknowledged is lost, and writing goes on once there is room.
//! The disk is a small tmpfs of the test's own, which takes root to mount.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use mvsqlite_e2e::{Client, Session, SmallDisk, Store, StoreOptions, code, copy_out};

/// Room for a store beside the reserve that it never touches (256 MiB).
const DISK: u64 = 480 << 20;
const BALLAST: u64 = 100 << 20;
/// More than the journals and memtables that the engine may give back at once.
const MORE_BALLAST: u64 = 110 << 20;

/// Inserts rows of 1 MB until SQLite says no; how many were acknowledged, in all.
fn fill(session: &mut Session, mut rows: u32) -> u32 {
    loop {
        match session.run("INSERT INTO t (body) VALUES (randomblob(1000000))") {
            Ok(_) => rows += 1,
            Err(error) => {
                assert_eq!(error.code, code::FULL, "{error:?}");
                return rows;
            }
        }
        assert!(rows < 1000, "the disk does not fill up");
    }
}

#[test]
fn a_full_disk_refuses_commits_keeps_what_it_has_and_recovers_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(DISK) else {
        println!("SKIPPED: mounting a small tmpfs takes root");
        return;
    };
    assert!(disk.take_room("some", BALLAST));
    let mut store = Store::start_with(StoreOptions {
        data_dir: Some(disk.path().join("data")),
        ..StoreOptions::default()
    });
    store.expect_log("writing is refused: the disk is full");
    store.create_namespace("test");
    let mut session = Session::open(&Client::of(&store), "test").unwrap();
    session.ok("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)");

    let rows = fill(&mut session, 0);
    session.reported(&["cannot commit", "'test'"]);
    let sum = "SELECT count(*), sum(length(body)) FROM t";
    let expected = vec![vec![
        rows.to_string(),
        (i64::from(rows) * 1_000_000).to_string(),
    ]];
    assert_eq!(
        session.ok(sum),
        expected,
        "what was acknowledged can be read"
    );
    // The engine tidies up behind the writer and may find room again, once in a while enough for a
    // small commit: the next refusal is only certain with that room taken.
    assert!(disk.take_room("more", MORE_BALLAST));
    session.fails("CREATE TABLE u (x)", code::FULL);
    let readiness = store.readiness();
    assert_eq!(readiness.0, 200, "it serves reads: {}", readiness.1);
    assert!(
        readiness.1.contains("writing is refused") && readiness.1.contains("bytes are free"),
        "{}",
        readiness.1
    );

    disk.give_room("more");
    disk.give_room("some");
    session.ok("INSERT INTO t (body) VALUES (randomblob(1000000))");
    println!("full after {rows} rows of 1 MB; went on when there was room");

    // Full again, killed, and started on the full disk: nothing is missing.
    let rows = fill(&mut session, rows + 1);
    store.kill();
    store.restart();
    let copy = copy_out(&store, "test");
    assert_eq!(copy.value::<u32>("SELECT count(*) FROM t"), rows);
    store.finish();
}
