//! Exclusive mode under real SQLite: its busy handler, its transactions, attached databases.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mvsqlite_protocol::LeaseNonce;
use mvsqlite_protocol::v2::Concurrency;
use rusqlite::Connection;

use crate::host::{code, create, open, store, text};

const SQLITE_BUSY: i32 = 5;
const SQLITE_BUSY_SNAPSHOT: i32 = 517;
const SOMEBODY: LeaseNonce = LeaseNonce::from_bytes([7; 16]);

/// A namespace in exclusive mode with one number in it.
fn exclusive(name: &str) -> Connection {
    let db = create(name);
    db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(0)")
        .unwrap();
    store().leases(name, |leases| leases.mode = Concurrency::Exclusive);
    db
}

fn is_free(name: &str) -> bool {
    store().leases(name, |leases| {
        leases.holder.is_none() && leases.queue.is_empty()
    })
}

fn patient(name: &str) -> Connection {
    let db = open(name);
    db.busy_timeout(Duration::from_secs(20)).unwrap();
    db
}

fn impatient(name: &str) -> Connection {
    let db = open(name);
    db.busy_timeout(Duration::ZERO).unwrap();
    db
}

#[test]
fn a_transaction_commits_and_lets_the_next_one_in() {
    let db = exclusive("alone");
    db.execute_batch("BEGIN IMMEDIATE; UPDATE t SET v=1; COMMIT")
        .unwrap();
    db.execute_batch("UPDATE t SET v=v+1").unwrap();
    db.execute_batch("BEGIN; UPDATE t SET v=v+1; ROLLBACK")
        .unwrap();
    db.execute_batch("BEGIN IMMEDIATE; COMMIT; BEGIN EXCLUSIVE; UPDATE t SET v=v+1; COMMIT")
        .unwrap();
    assert_eq!(text(&open("alone"), "SELECT v FROM t"), "3");
    assert!(is_free("alone"));
}

#[test]
fn without_a_busy_timeout_a_second_writer_is_told_at_once_and_can_go_on_reading() {
    let first = exclusive("told");
    let second = impatient("told");
    first.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(code(second.execute_batch("BEGIN IMMEDIATE")), SQLITE_BUSY);
    assert_eq!(code(second.execute_batch("UPDATE t SET v=9")), SQLITE_BUSY);
    second.execute_batch("BEGIN").unwrap();
    assert_eq!(text(&second, "SELECT v FROM t"), "0");
    assert_eq!(code(second.execute_batch("UPDATE t SET v=9")), SQLITE_BUSY);
    assert_eq!(text(&second, "SELECT v FROM t"), "0");
    second.execute_batch("COMMIT").unwrap();
    first.execute_batch("UPDATE t SET v=1; COMMIT").unwrap();
    second.execute_batch("UPDATE t SET v=v+1").unwrap();
    assert_eq!(text(&first, "SELECT v FROM t"), "2");
}

#[test]
fn with_a_busy_timeout_a_second_writer_waits_for_the_first() {
    let first = exclusive("waits");
    first
        .execute_batch("BEGIN IMMEDIATE; UPDATE t SET v=1")
        .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let second = patient("waits");
            second
                .execute_batch("BEGIN IMMEDIATE; UPDATE t SET v=v+10; COMMIT")
                .unwrap();
        });
        // The second has a place in the queue before the first goes on.
        while store().leases("waits", |leases| leases.queue.is_empty()) {
            std::thread::yield_now();
        }
        first.execute_batch("COMMIT").unwrap();
    });
    assert_eq!(text(&first, "SELECT v FROM t"), "11");
    assert!(is_free("waits"));
}

#[test]
fn the_busy_timeout_ends_the_waiting() {
    let first = exclusive("timeout");
    first.execute_batch("BEGIN IMMEDIATE").unwrap();
    let second = open("timeout");
    second.busy_timeout(Duration::from_millis(30)).unwrap();
    assert_eq!(code(second.execute_batch("BEGIN IMMEDIATE")), SQLITE_BUSY);
    drop(second);
    assert!(store().leases("timeout", |leases| leases.queue.is_empty()));
    first.execute_batch("COMMIT").unwrap();
}

#[test]
fn a_stale_reader_cannot_become_a_writer_and_its_retry_succeeds() {
    let reader = exclusive("stale");
    let writer = open("stale");
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(text(&reader, "SELECT v FROM t"), "0");
    writer.execute_batch("UPDATE t SET v=1").unwrap();
    let late = code(reader.execute_batch("UPDATE t SET v=v+10"));
    assert_eq!(late, SQLITE_BUSY_SNAPSHOT);
    assert_eq!(text(&reader, "SELECT v FROM t"), "0");
    reader.execute_batch("ROLLBACK").unwrap();
    reader
        .execute_batch("BEGIN IMMEDIATE; UPDATE t SET v=v+10; COMMIT")
        .unwrap();
    assert_eq!(text(&writer, "SELECT v FROM t"), "11");
    assert!(is_free("stale"));
}

#[test]
fn writers_by_the_habits_of_wal_mode_lose_no_update_and_no_commit_fails() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 25;
    exclusive("habits");
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let db = patient("habits");
                start.wait();
                for _ in 0..ROUNDS {
                    db.execute_batch("BEGIN IMMEDIATE").unwrap();
                    let value: i64 = text(&db, "SELECT v FROM t").parse().unwrap();
                    db.execute("UPDATE t SET v=?", [value + 1]).unwrap();
                    db.execute_batch("COMMIT").unwrap();
                    // As one statement.
                    db.execute_batch("UPDATE t SET v=v+1").unwrap();
                }
            });
        }
    });
    let sum = (2 * THREADS * ROUNDS).to_string();
    assert_eq!(text(&open("habits"), "SELECT v FROM t"), sum);
    assert!(is_free("habits"));
}

#[test]
fn a_custom_busy_handler_is_asked_and_may_give_up() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let first = exclusive("handler");
    first.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut second = open("handler");
    let handler = |count| {
        ASKED.fetch_add(1, Ordering::Relaxed);
        count < 3
    };
    second.busy_handler(Some(handler)).unwrap();
    assert_eq!(code(second.execute_batch("BEGIN IMMEDIATE")), SQLITE_BUSY);
    assert_eq!(ASKED.load(Ordering::Relaxed), 4);
    first.execute_batch("COMMIT").unwrap();
}

#[test]
fn closing_a_connection_in_a_transaction_lets_the_next_writer_in() {
    let first = exclusive("closed");
    first
        .execute_batch("BEGIN IMMEDIATE; UPDATE t SET v=1")
        .unwrap();
    let second = impatient("closed");
    drop(first);
    second.execute_batch("UPDATE t SET v=v+10").unwrap();
    assert_eq!(text(&second, "SELECT v FROM t"), "10");
}

#[test]
fn a_lost_lease_fails_the_commit_and_rolls_the_transaction_back() {
    let db = exclusive("lost");
    db.execute_batch("BEGIN IMMEDIATE; UPDATE t SET v=1")
        .unwrap();
    store().leases("lost", |leases| leases.holder = Some(SOMEBODY));
    assert_eq!(code(db.execute_batch("COMMIT")), SQLITE_BUSY_SNAPSHOT);
    assert!(db.is_autocommit());
    store().leases("lost", |leases| leases.holder = None);
    assert_eq!(text(&db, "SELECT v FROM t"), "0");
    db.execute_batch("UPDATE t SET v=2").unwrap();
}

#[test]
fn a_lease_in_use_is_renewed_in_the_background() {
    let db = exclusive("renewed");
    store().leases("renewed", |leases| leases.ttl_millis = 60);
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store().leases("renewed", |leases| leases.renewed) < 3 {
        assert!(std::time::Instant::now() < deadline, "nobody renews it");
        std::thread::yield_now();
    }
    db.execute_batch("UPDATE t SET v=1; COMMIT").unwrap();
    assert!(is_free("renewed"));
}

/// The retry that a lease is kept for may never come.
#[test]
fn a_lease_that_was_kept_for_a_retry_is_given_back_when_none_comes() {
    let reader = exclusive("unused");
    reader.execute_batch("BEGIN").unwrap();
    text(&reader, "SELECT v FROM t");
    open("unused").execute_batch("UPDATE t SET v=1").unwrap();
    let late = code(reader.execute_batch("UPDATE t SET v=2"));
    assert_eq!(late, SQLITE_BUSY_SNAPSHOT);
    patient("unused")
        .execute_batch("UPDATE t SET v=v+1")
        .unwrap();
    reader.execute_batch("ROLLBACK").unwrap();
    assert_eq!(text(&reader, "SELECT v FROM t"), "2");
}

#[test]
fn of_two_attached_databases_the_second_may_be_busy() {
    let db = exclusive("two-a");
    exclusive("two-b");
    db.execute_batch("ATTACH 'two-b' AS b").unwrap();
    db.busy_timeout(Duration::ZERO).unwrap();
    store().leases("two-b", |leases| leases.holder = Some(SOMEBODY));
    assert_eq!(code(db.execute_batch("BEGIN IMMEDIATE")), SQLITE_BUSY);
    store().leases("two-b", |leases| leases.holder = None);
    db.execute_batch("BEGIN IMMEDIATE; UPDATE main.t SET v=1; COMMIT")
        .unwrap();
    assert!(is_free("two-a") && is_free("two-b"));
}

/// The second database of a transaction began as of the moment of the first, which was then too old to
/// be written on: BEGIN IMMEDIATE waited in vain while the first kept others waiting.
#[test]
fn begin_immediate_waits_for_the_second_of_two_databases_and_sees_what_it_waited_for() {
    let db = exclusive("later-a");
    exclusive("later-b");
    db.execute_batch("ATTACH 'later-b' AS b").unwrap();
    db.busy_timeout(Duration::from_secs(20)).unwrap();
    let other = open("later-b");
    other
        .execute_batch("BEGIN IMMEDIATE; UPDATE t SET v=5")
        .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while store().leases("later-b", |leases| leases.queue.is_empty()) {
                std::thread::yield_now();
            }
            other.execute_batch("COMMIT").unwrap();
        });
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
    });
    assert_eq!(text(&db, "SELECT v FROM b.t"), "5");
    db.execute_batch("UPDATE main.t SET v=1; UPDATE b.t SET v=v+1; COMMIT")
        .unwrap();
    assert_eq!(text(&open("later-b"), "SELECT v FROM t"), "6");
    assert!(is_free("later-a") && is_free("later-b"));
}

/// A COMMIT that a group kept back took its lease for given back: nobody renewed it while the group was
/// open, and after a group that was rolled back or refused others waited until it ended by itself.
#[test]
fn a_commit_group_holds_the_leases_of_its_commits_until_it_ends() {
    let db = exclusive("group-lease");
    let holder = || store().leases("group-lease", |leases| leases.holder);
    let end = |how: &str| text(&db, &format!("SELECT mv_commit_group_{how}('main')"));
    store().leases("group-lease", |leases| leases.ttl_millis = 60);
    let write_in_group = || {
        text(&db, "SELECT mv_commit_group_begin()");
        db.execute_batch("UPDATE t SET v=v+1").unwrap();
        assert!(holder().is_some());
    };
    write_in_group();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store().leases("group-lease", |leases| leases.renewed) < 3 {
        assert!(std::time::Instant::now() < deadline, "nobody renews it");
        std::thread::yield_now();
    }
    end("rollback");
    assert!(is_free("group-lease"));

    write_in_group();
    end("commit");
    assert!(is_free("group-lease"));
    assert_eq!(text(&db, "SELECT v FROM t"), "1");

    // Lost, and another's by now: the group fails and leaves it alone.
    write_in_group();
    store().leases("group-lease", |leases| leases.holder = Some(SOMEBODY));
    let ended = db.query_row("SELECT mv_commit_group_commit('main')", [], |_| Ok(()));
    assert!(ended.is_err());
    assert_eq!(holder(), Some(SOMEBODY));
    store().leases("group-lease", |leases| leases.holder = None);

    // The thread ends with its group open.
    std::thread::spawn(|| {
        let db = open("group-lease");
        text(&db, "SELECT mv_commit_group_begin()");
        db.execute_batch("UPDATE t SET v=v+1").unwrap();
    })
    .join()
    .unwrap();
    assert!(is_free("group-lease"));
}
