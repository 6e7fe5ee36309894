//! Commits, rollbacks and conflicts of one database.

use rusqlite::ffi::{SQLITE_BUSY_SNAPSHOT, SQLITE_CANTOPEN};

use crate::host::{code, create, logged, open, store, text, try_open};

const JOURNAL_MODES: [&str; 5] = ["delete", "truncate", "persist", "memory", "off"];
const SYNCHRONOUS: [&str; 4] = ["off", "normal", "full", "extra"];

/// Runs a case in a fresh database for each combination of the two pragmas.
fn in_every_mode(name: &str, case: impl Fn(&str, &str)) {
    for journal in JOURNAL_MODES {
        for synchronous in SYNCHRONOUS {
            let namespace = format!("{name}-{journal}-{synchronous}");
            let pragmas =
                format!("PRAGMA journal_mode={journal}; PRAGMA synchronous={synchronous};");
            let setup = create(&namespace);
            setup
                .execute_batch("CREATE TABLE t(k INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 'old'), (2, 'old')")
                .unwrap();
            case(&namespace, &pragmas);
            assert_eq!(
                text(&open(&namespace), "PRAGMA integrity_check"),
                "ok",
                "{namespace}"
            );
        }
    }
}

#[test]
fn a_commit_is_seen_by_other_connections_in_every_mode() {
    in_every_mode("visible", |name, pragmas| {
        let (writer, reader) = (open(name), open(name));
        writer.execute_batch(pragmas).unwrap();
        assert_eq!(text(&reader, "SELECT v FROM t WHERE k=1"), "old");
        writer
            .execute_batch("BEGIN; UPDATE t SET v='new' WHERE k=1")
            .unwrap();
        assert_eq!(text(&reader, "SELECT v FROM t WHERE k=1"), "old");
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!(text(&reader, "SELECT v FROM t WHERE k=1"), "new");
    });
}

#[test]
fn a_conflict_at_commit_rolls_back_and_the_transaction_can_be_run_again_in_every_mode() {
    in_every_mode("conflict", |name, pragmas| {
        let (loser, winner) = (open(name), open(name));
        loser.execute_batch(pragmas).unwrap();
        loser
            .execute_batch("BEGIN; UPDATE t SET v='loser' WHERE k=1")
            .unwrap();
        winner
            .execute_batch("UPDATE t SET v='winner' WHERE k=1")
            .unwrap();
        assert_eq!(
            code(loser.execute_batch("COMMIT")),
            SQLITE_BUSY_SNAPSHOT,
            "{name}"
        );
        assert!(loser.is_autocommit(), "{name}");
        assert_eq!(text(&loser, "SELECT v FROM t WHERE k=1"), "winner");
        loser
            .execute_batch("BEGIN; UPDATE t SET v=v||'+' WHERE k=1; COMMIT")
            .unwrap();
        assert_eq!(text(&winner, "SELECT v FROM t WHERE k=1"), "winner+");
    });
}

#[test]
fn a_conflict_of_an_autocommit_statement_is_busy_snapshot_and_a_second_try_works() {
    let writer = create("autocommit");
    writer
        .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(0)")
        .unwrap();
    let other = open("autocommit");
    // The other connection commits between this statement's snapshot and its commit.
    let raced = writer.create_scalar_function(
        "race",
        0,
        rusqlite::functions::FunctionFlags::SQLITE_UTF8,
        {
            let other = std::sync::Mutex::new(Some(other));
            move |_| {
                if let Some(other) = other.lock().unwrap().take() {
                    other.execute_batch("UPDATE t SET v = v + 10").unwrap();
                }
                Ok(1)
            }
        },
    );
    raced.unwrap();
    let update = "UPDATE t SET v = v + race()";
    assert_eq!(code(writer.execute_batch(update)), SQLITE_BUSY_SNAPSHOT);
    assert!(writer.is_autocommit());
    writer.execute_batch(update).unwrap();
    assert_eq!(text(&writer, "SELECT v FROM t"), "11");
}

#[test]
fn a_conflict_is_logged_with_its_namespace_and_what_to_do() {
    let (loser, winner) = (create("logged"), open("logged"));
    winner
        .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(0)")
        .unwrap();
    loser.execute_batch("BEGIN; UPDATE t SET v=1").unwrap();
    winner.execute_batch("UPDATE t SET v=2").unwrap();
    loser.execute_batch("COMMIT").unwrap_err();
    let lines = logged("'logged'");
    let (code, line) = lines.first().expect("a line in the log");
    assert_eq!(*code, SQLITE_BUSY_SNAPSHOT);
    assert!(line.contains("roll back and run it again"), "{line}");
    assert_eq!(text(&loser, "PRAGMA mvsqlite_last_error"), *line);
}

#[test]
fn writers_of_different_pages_do_not_conflict() {
    let setup = create("disjoint");
    setup
        .execute_batch("CREATE TABLE a(v); CREATE TABLE b(v); INSERT INTO a VALUES(0); INSERT INTO b VALUES(0)")
        .unwrap();
    let (left, right) = (open("disjoint"), open("disjoint"));
    left.execute_batch("BEGIN; UPDATE a SET v=1").unwrap();
    right.execute_batch("BEGIN; UPDATE b SET v=1").unwrap();
    left.execute_batch("COMMIT").unwrap();
    right.execute_batch("COMMIT").unwrap();
    assert_eq!(text(&setup, "SELECT a.v + b.v FROM a, b"), "2");
}

#[test]
fn a_rollback_after_a_spill_leaves_nothing_behind() {
    in_every_mode("spill", |name, pragmas| {
        let writer = open(name);
        writer.execute_batch(pragmas).unwrap();
        let before = store().versions(name);
        writer
            .execute_batch(
                "PRAGMA cache_size=2; BEGIN;
                 WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i+1 FROM n WHERE i<400)
                 INSERT INTO t SELECT i, zeroblob(3000) FROM n;
                 ROLLBACK",
            )
            .unwrap();
        assert_eq!(store().versions(name), before, "{name}");
        assert_eq!(text(&writer, "SELECT count(*) FROM t"), "2");
        writer
            .execute_batch("INSERT INTO t VALUES(3, 'after')")
            .unwrap();
        assert_eq!(text(&open(name), "SELECT count(*) FROM t"), "3");
    });
}

#[test]
fn a_conflict_after_a_spill_leaves_nothing_behind() {
    in_every_mode("spilled-conflict", |name, pragmas| {
        let (loser, winner) = (open(name), open(name));
        loser.execute_batch(pragmas).unwrap();
        loser
            .execute_batch(
                "PRAGMA cache_size=2; BEGIN;
                 WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i+1 FROM n WHERE i<400)
                 INSERT INTO t SELECT i, zeroblob(3000) FROM n",
            )
            .unwrap();
        winner
            .execute_batch("INSERT INTO t VALUES(5, 'winner')")
            .unwrap();
        assert_eq!(
            code(loser.execute_batch("COMMIT")),
            SQLITE_BUSY_SNAPSHOT,
            "{name}"
        );
        assert_eq!(text(&loser, "SELECT count(*) FROM t"), "3");
        loser
            .execute_batch("INSERT INTO t VALUES(6, 'loser')")
            .unwrap();
        assert_eq!(text(&winner, "SELECT count(*) FROM t"), "4");
    });
}

#[test]
fn a_transaction_larger_than_a_journal_in_memory_rolls_back() {
    let writer = create("long-journal");
    writer
        .execute_batch(
            "CREATE TABLE t(k INTEGER PRIMARY KEY, v);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1500)
             INSERT INTO t SELECT i, randomblob(7000) FROM n;
             CREATE TABLE kept AS SELECT sum(length(hex(v))) AS s, group_concat(hex(substr(v,1,4))) AS h FROM t;
             PRAGMA cache_size=10",
        )
        .unwrap();
    // The old content of 1,500 pages: a journal of some 12 MB.
    writer
        .execute_batch("BEGIN; UPDATE t SET v=randomblob(7000); ROLLBACK")
        .unwrap();
    let same = "SELECT (SELECT h FROM kept) = (SELECT group_concat(hex(substr(v,1,4))) FROM t)";
    assert_eq!(text(&writer, same), "1");
    assert_eq!(text(&writer, "PRAGMA integrity_check"), "ok");
}

#[test]
fn savepoints_roll_back_to_where_they_began() {
    let db = create("savepoints");
    db.execute_batch(
        "CREATE TABLE t(v); PRAGMA cache_size=2;
         BEGIN; INSERT INTO t VALUES('a');
         SAVEPOINT s;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300)
         INSERT INTO t SELECT zeroblob(3000) FROM n;
         ROLLBACK TO s; INSERT INTO t VALUES('b'); RELEASE s;
         COMMIT",
    )
    .unwrap();
    assert_eq!(
        text(&open("savepoints"), "SELECT group_concat(v) FROM t"),
        "a,b"
    );
    assert_eq!(text(&db, "PRAGMA integrity_check"), "ok");
}

#[test]
fn a_conflict_at_release_needs_a_rollback_before_the_next_try() {
    let (loser, winner) = (create("release"), open("release"));
    winner
        .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(0)")
        .unwrap();
    loser
        .execute_batch("SAVEPOINT s; UPDATE t SET v=1")
        .unwrap();
    winner.execute_batch("UPDATE t SET v=2").unwrap();
    assert_eq!(code(loser.execute_batch("RELEASE s")), SQLITE_BUSY_SNAPSHOT);
    // SQLite leaves the outer transaction open here, unlike at COMMIT.
    assert!(!loser.is_autocommit());
    loser.execute_batch("ROLLBACK").unwrap();
    loser
        .execute_batch("SAVEPOINT s; UPDATE t SET v=v+1; RELEASE s")
        .unwrap();
    assert_eq!(text(&winner, "SELECT v FROM t"), "3");
}

#[test]
fn a_reader_keeps_its_snapshot_until_it_ends() {
    let (reader, writer) = (create("snapshot"), open("snapshot"));
    writer
        .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
        .unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(text(&reader, "SELECT v FROM t"), "1");
    writer.execute_batch("UPDATE t SET v=2").unwrap();
    assert_eq!(text(&reader, "SELECT v FROM t"), "1");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(text(&reader, "SELECT v FROM t"), "2");
}

#[test]
fn write_skew_is_a_conflict() {
    let setup = create("skew");
    setup
        .execute_batch("CREATE TABLE a(v); CREATE TABLE b(v); INSERT INTO a VALUES(1); INSERT INTO b VALUES(1)")
        .unwrap();
    let (left, right) = (open("skew"), open("skew"));
    for connection in [&left, &right] {
        // Their caches are warm: the reads below must be noticed all the same.
        text(connection, "SELECT a.v + b.v FROM a, b");
        connection.execute_batch("BEGIN").unwrap();
        assert_eq!(text(connection, "SELECT a.v + b.v FROM a, b"), "2");
    }
    left.execute_batch("UPDATE a SET v=0; COMMIT").unwrap();
    right.execute_batch("UPDATE b SET v=0").unwrap();
    assert_eq!(code(right.execute_batch("COMMIT")), SQLITE_BUSY_SNAPSHOT);
}

#[test]
fn a_missing_namespace_cannot_be_opened_and_the_log_says_so() {
    let opened =
        try_open("never-created").and_then(|db| db.execute_batch("SELECT * FROM sqlite_schema"));
    assert_eq!(code(opened), SQLITE_CANTOPEN);
    assert!(!logged("'never-created'").is_empty());
}

#[test]
fn threads_with_connections_of_their_own_lose_no_update() {
    const THREADS: i64 = 4;
    const ROUNDS: i64 = 25;
    create("threads")
        .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(0)")
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let db = open("threads");
                for _ in 0..ROUNDS {
                    while let Err(error) = db.execute_batch("BEGIN; UPDATE t SET v=v+1; COMMIT") {
                        assert_eq!(code::<()>(Err(error)), SQLITE_BUSY_SNAPSHOT);
                    }
                }
            });
        }
    });
    assert_eq!(
        text(&open("threads"), "SELECT v FROM t"),
        (THREADS * ROUNDS).to_string()
    );
}
