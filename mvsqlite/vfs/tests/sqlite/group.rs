//! Transactions that write several databases of ours: in all of them or in none.

use rusqlite::Connection;
use rusqlite::ffi::{SQLITE_BUSY_SNAPSHOT, SQLITE_ERROR, SQLITE_IOERR_COMMIT_ATOMIC};

use crate::host::{code, create, open, store, text};

/// Databases `NAME-0` and so on, each with a table `t` of one value 0, attached as `d0` and so on to a
/// connection whose main database is the first.
fn attached(name: &str, count: usize) -> Connection {
    for number in 0..count {
        create(&format!("{name}-{number}"))
            .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(0)")
            .unwrap();
    }
    connect(name, count)
}

fn connect(name: &str, count: usize) -> Connection {
    let db = open(&format!("{name}-0"));
    for number in 1..count {
        db.execute_batch(&format!("ATTACH '{name}-{number}' AS d{number}"))
            .unwrap();
    }
    db
}

/// The value in a database, as another connection sees it.
fn value(name: &str, number: usize) -> String {
    text(&open(&format!("{name}-{number}")), "SELECT v FROM t")
}

fn versions(name: &str, number: usize) -> usize {
    store().versions(&format!("{name}-{number}")).len()
}

#[test]
fn two_and_three_databases_commit_at_one_version() {
    for count in [2, 3] {
        let name = format!("group-{count}");
        let db = attached(&name, count);
        db.execute_batch("BEGIN; UPDATE t SET v=7").unwrap();
        for number in 1..count {
            db.execute_batch(&format!("UPDATE d{number}.t SET v=7"))
                .unwrap();
        }
        db.execute_batch("COMMIT").unwrap();
        let newest = |number| store().versions(&format!("{name}-{number}")).pop().unwrap();
        for number in 0..count {
            assert_eq!(value(&name, number), "7");
            assert_eq!(newest(number), newest(0));
            let schema = if number == 0 {
                "main"
            } else {
                &format!("d{number}")
            };
            let known = text(&db, &format!("SELECT mv_last_known_version('{schema}')"));
            assert_eq!(known, newest(0).to_string());
        }
        // And on.
        db.execute_batch("BEGIN; UPDATE t SET v=v+1; UPDATE d1.t SET v=v+1; COMMIT")
            .unwrap();
        assert_eq!((value(&name, 0), value(&name, 1)), ("8".into(), "8".into()));
    }
}

#[test]
fn a_conflict_in_either_database_leaves_both_untouched() {
    for (loser, name) in ["conflict-first", "conflict-second"].iter().enumerate() {
        let db = attached(name, 2);
        db.execute_batch("BEGIN; UPDATE t SET v=1; UPDATE d1.t SET v=1")
            .unwrap();
        open(&format!("{name}-{loser}"))
            .execute_batch("UPDATE t SET v=10")
            .unwrap();
        let before = (versions(name, 0), versions(name, 1));
        assert_eq!(code(db.execute_batch("COMMIT")), SQLITE_BUSY_SNAPSHOT);
        assert!(db.is_autocommit());
        assert_eq!((versions(name, 0), versions(name, 1)), before);
        // The connection's own cache does not keep what failed either.
        let sum = "SELECT a.v + b.v FROM main.t a, d1.t b";
        assert_eq!(text(&db, sum), "10");
        db.execute_batch("BEGIN; UPDATE t SET v=v+1; UPDATE d1.t SET v=v+1; COMMIT")
            .unwrap();
        assert_eq!(text(&db, sum), "12");
        for number in 0..2 {
            let check = "PRAGMA integrity_check";
            assert_eq!(text(&open(&format!("{name}-{number}")), check), "ok");
        }
    }
}

#[test]
fn what_was_read_in_one_database_and_written_in_the_other_is_checked_together() {
    let name = "group-skew";
    let one = attached(name, 2);
    let two = connect(name, 2);
    // Each sets its own if the other is not set.
    one.execute_batch("BEGIN; UPDATE t SET v=1 WHERE (SELECT v FROM d1.t)=0")
        .unwrap();
    two.execute_batch("BEGIN; UPDATE d1.t SET v=1 WHERE (SELECT v FROM main.t)=0")
        .unwrap();
    one.execute_batch("COMMIT").unwrap();
    assert_eq!(code(two.execute_batch("COMMIT")), SQLITE_BUSY_SNAPSHOT);
    assert_eq!((value(name, 0), value(name, 1)), ("1".into(), "0".into()));
}

#[test]
fn a_transaction_that_only_read_the_other_database_gives_it_no_version() {
    let name = "group-read";
    let db = attached(name, 2);
    let before = versions(name, 1);
    db.execute_batch("BEGIN; UPDATE t SET v=(SELECT v+5 FROM d1.t); COMMIT")
        .unwrap();
    assert_eq!(value(name, 0), "5");
    assert_eq!(versions(name, 1), before);
}

#[test]
fn rollback_and_savepoints_reach_both_databases() {
    let name = "group-rollback";
    let db = attached(name, 2);
    let before = (versions(name, 0), versions(name, 1));
    for cache in ["", "PRAGMA main.cache_size=2; PRAGMA d1.cache_size=2;"] {
        db.execute_batch(cache).unwrap();
        let fill = "INSERT INTO t SELECT zeroblob(3000) FROM (WITH RECURSIVE c(n) AS \
                    (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<40) SELECT n FROM c);";
        db.execute_batch(&format!(
            "BEGIN; {fill} {} ROLLBACK",
            fill.replace("INTO t", "INTO d1.t")
        ))
        .unwrap();
        assert_eq!((versions(name, 0), versions(name, 1)), before);
    }
    db.execute_batch(
        "BEGIN; UPDATE t SET v=1; SAVEPOINT s; UPDATE t SET v=2; UPDATE d1.t SET v=2; \
         ROLLBACK TO s; UPDATE d1.t SET v=3; RELEASE s; COMMIT",
    )
    .unwrap();
    assert_eq!((value(name, 0), value(name, 1)), ("1".into(), "3".into()));
    db.execute_batch("SAVEPOINT s; UPDATE t SET v=4; UPDATE d1.t SET v=4; RELEASE s")
        .unwrap();
    assert_eq!((value(name, 0), value(name, 1)), ("4".into(), "4".into()));
}

#[test]
fn journal_modes_and_synchronous_do_not_change_that_it_is_atomic() {
    for (number, pragma) in [
        "PRAGMA journal_mode=memory",
        "PRAGMA journal_mode=off",
        "PRAGMA journal_mode=truncate",
        "PRAGMA d1.journal_mode=persist",
        "PRAGMA synchronous=off",
        "PRAGMA d1.synchronous=off; PRAGMA main.journal_mode=memory",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("group-mode-{number}");
        let db = attached(&name, 2);
        for pragma in pragma.split(';') {
            db.query_row(pragma, [], |_| Ok(())).unwrap();
        }
        db.execute_batch("BEGIN; UPDATE t SET v=1; UPDATE d1.t SET v=1")
            .unwrap();
        open(&format!("{name}-1"))
            .execute_batch("UPDATE t SET v=10")
            .unwrap();
        assert_eq!(code(db.execute_batch("COMMIT")), SQLITE_BUSY_SNAPSHOT);
        let both = |name: &str| (value(name, 0), value(name, 1));
        assert_eq!(both(&name), ("0".into(), "10".into()), "{pragma}");
        db.execute_batch("BEGIN; UPDATE t SET v=2; UPDATE d1.t SET v=2; COMMIT")
            .unwrap();
        assert_eq!(both(&name), ("2".into(), "2".into()), "{pragma}");
    }
}

#[test]
fn a_lost_reply_is_found_out_by_asking_again_or_settling() {
    let name = "group-lost";
    let db = attached(name, 2);
    let first = format!("{name}-0");
    for (value, lost) in [(1, 1), (2, 1000)] {
        store().lose_replies(&first, "group commit", lost);
        let sql = format!("BEGIN; UPDATE t SET v={value}; UPDATE d1.t SET v={value}; COMMIT");
        db.execute_batch(&sql).unwrap();
        let sum = "SELECT a.v + b.v FROM main.t a, d1.t b";
        assert_eq!(text(&db, sum), (2 * value).to_string());
    }
    store().lose_replies(&first, "group commit", 0);
    let sum = "SELECT a.v + b.v FROM main.t a, d1.t b";
    assert_eq!(text(&connect(name, 2), sum), "4");
}

#[test]
fn an_outcome_that_stays_unknown_is_told_from_one_that_is_none() {
    let name = "group-unknown";
    let db = attached(name, 2);
    let first = format!("{name}-0");
    store().lose_replies(&first, "group commit", 1000);
    store().lose_replies(&first, "group settle", 1000);
    let sql = "BEGIN; UPDATE t SET v=1; UPDATE d1.t SET v=1; COMMIT";
    assert_eq!(code(db.execute_batch(sql)), SQLITE_IOERR_COMMIT_ATOMIC);
    store().lose_replies(&first, "group commit", 0);
    store().lose_replies(&first, "group settle", 0);
    // It was committed; whatever it was, it is the same in both, and this connection sees it.
    let both = "SELECT a.v || b.v FROM main.t a, d1.t b";
    assert_eq!(text(&db, both), "11");
    db.execute_batch("BEGIN; UPDATE t SET v=v+1; UPDATE d1.t SET v=v+1; COMMIT")
        .unwrap();
    assert_eq!(text(&connect(name, 2), both), "22");
}

#[test]
fn attached_databases_show_one_moment_while_another_writes_both() {
    let name = "group-moment";
    let db = attached(name, 2);
    let bump = "BEGIN; UPDATE t SET v=v+1; UPDATE d1.t SET v=v+1; COMMIT";
    let writer = connect(name, 2);
    db.execute_batch("BEGIN").unwrap();
    assert_eq!(text(&db, "SELECT v FROM main.t"), "0");
    writer.execute_batch(bump).unwrap();
    assert_eq!(text(&db, "SELECT v FROM d1.t"), "0");
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(text(&db, "SELECT v FROM d1.t"), "1");
    // Within one statement too, outside of a transaction.
    let writer = std::sync::Mutex::new(writer);
    let both = format!("{name}-1");
    store().before(&both, "begin", move || {
        writer.lock().unwrap().execute_batch(bump).unwrap();
    });
    let pair = "SELECT a.v || b.v FROM main.t a, d1.t b";
    assert_eq!(text(&db, pair), "11");
    assert_eq!(text(&db, pair), "22");
}

/// SQLite keeps all locks of a connection while a statement is open, and so all snapshots.
#[test]
fn what_was_written_beside_an_open_statement_is_found_again() {
    let name = "group-cursor";
    let db = attached(name, 2);
    db.execute_batch("INSERT INTO d1.t VALUES(1), (2)").unwrap();
    let mut statement = db.prepare("SELECT v FROM d1.t").unwrap();
    let mut rows = statement.query([]).unwrap();
    rows.next().unwrap().unwrap();
    open(&format!("{name}-0"))
        .execute_batch("UPDATE t SET v=1")
        .unwrap();
    assert_eq!(text(&db, "SELECT v FROM main.t"), "0");
    assert_eq!(
        code(db.execute_batch("UPDATE main.t SET v=2")),
        SQLITE_BUSY_SNAPSHOT
    );
    drop(rows);
    drop(statement);
    assert_eq!(text(&db, "SELECT v FROM main.t"), "1");
    let mut statement = db.prepare("SELECT v FROM d1.t").unwrap();
    let mut rows = statement.query([]).unwrap();
    rows.next().unwrap().unwrap();
    db.execute_batch("UPDATE main.t SET v=100").unwrap();
    assert_eq!(text(&db, "SELECT v FROM main.t"), "100");
    drop(rows);
    assert_eq!(text(&db, "SELECT v FROM main.t"), "100");
}

#[test]
fn a_commit_while_a_statement_reads_the_other_database_is_followed_by_more() {
    let name = "group-reading";
    let db = attached(name, 2);
    db.execute_batch("INSERT INTO d1.t VALUES(1), (2)").unwrap();
    let mut statement = db.prepare("SELECT v FROM d1.t").unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut sum = 0;
    while let Some(row) = rows.next().unwrap() {
        sum += row.get::<_, i64>(0).unwrap();
        db.execute_batch("BEGIN; UPDATE main.t SET v=v+1; UPDATE d1.t SET v=v+10; COMMIT")
            .unwrap();
        db.execute_batch("UPDATE main.t SET v=v+1").unwrap();
    }
    assert!(sum >= 3);
    drop(rows);
    drop(statement);
    assert_eq!(value(name, 0), "6");
    assert_eq!(text(&db, "SELECT sum(v) FROM d1.t"), "93");
    let other = open(&format!("{name}-1"));
    assert_eq!(text(&other, "SELECT sum(v) FROM t"), "93");
}

#[test]
fn a_temporary_table_and_an_ordinary_file_may_take_part() {
    let name = "group-mixed";
    let db = attached(name, 2);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plain.db");
    db.execute_batch(&format!(
        "ATTACH 'file:{}?vfs=unix' AS plain; CREATE TABLE plain.p(v); CREATE TEMP TABLE w(v);
         BEGIN; INSERT INTO w VALUES(1); INSERT INTO plain.p VALUES(1);
         UPDATE t SET v=1; UPDATE d1.t SET v=1; COMMIT",
        file.display()
    ))
    .unwrap();
    assert_eq!((value(name, 0), value(name, 1)), ("1".into(), "1".into()));
    let plain = Connection::open(&file).unwrap();
    assert_eq!(text(&plain, "SELECT count(*) FROM p"), "1");
}

#[test]
fn a_database_attached_twice_is_written_through_one_name_only() {
    let name = "group-twice";
    let db = attached(name, 1);
    db.execute_batch(&format!("ATTACH '{name}-0' AS again"))
        .unwrap();
    db.execute_batch("BEGIN; UPDATE main.t SET v=(SELECT v+1 FROM again.t); COMMIT")
        .unwrap();
    assert_eq!(value(name, 0), "1");
    let both = "BEGIN; UPDATE main.t SET v=5; UPDATE again.t SET v=6; COMMIT";
    assert_eq!(code(db.execute_batch(both)), SQLITE_ERROR);
    if !db.is_autocommit() {
        db.execute_batch("ROLLBACK").unwrap();
    }
    assert_eq!(value(name, 0), "1");
    assert_eq!(text(&db, "SELECT a.v + b.v FROM main.t a, again.t b"), "2");
}

#[test]
fn an_ordinary_main_database_commits_ours_one_after_the_other() {
    let name = "group-foreign";
    drop(attached(name, 2));
    let directory = tempfile::tempdir().unwrap();
    let db = Connection::open(directory.path().join("main.db")).unwrap();
    db.execute_batch(&format!(
        "CREATE TABLE p(v); ATTACH 'file:{name}-0?vfs=mvsqlite' AS d0; ATTACH 'file:{name}-1?vfs=mvsqlite' AS d1;
         BEGIN; INSERT INTO p VALUES(1); UPDATE d0.t SET v=1; UPDATE d1.t SET v=1; COMMIT"
    ))
    .unwrap();
    assert_eq!((value(name, 0), value(name, 1)), ("1".into(), "1".into()));
    let newest = |number: usize| store().versions(&format!("{name}-{number}")).pop();
    assert_ne!(newest(0), newest(1));
}

#[test]
fn vacuum_and_growth_go_together_with_other_databases() {
    let name = "group-grow";
    let db = attached(name, 2);
    let fill = |schema: &str| {
        format!(
            "INSERT INTO {schema}.t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c \
             WHERE n<200) SELECT zeroblob(500) FROM c;"
        )
    };
    db.execute_batch(&format!("BEGIN; {} {} COMMIT", fill("main"), fill("d1")))
        .unwrap();
    db.execute_batch("BEGIN; DELETE FROM t; DELETE FROM d1.t; COMMIT")
        .unwrap();
    db.execute_batch("VACUUM; VACUUM d1").unwrap();
    db.execute_batch(&format!("BEGIN; {} {} COMMIT", fill("main"), fill("d1")))
        .unwrap();
    for number in 0..2 {
        let other = open(&format!("{name}-{number}"));
        assert_eq!(text(&other, "SELECT count(*) FROM t"), "200");
        assert_eq!(text(&other, "PRAGMA integrity_check"), "ok");
    }
}
