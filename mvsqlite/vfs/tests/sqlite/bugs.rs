//! A bug on our side must not take the host down, nor be mistaken for success.

use std::time::Duration;

use mvsqlite_protocol::v2::Concurrency;
use rusqlite::ffi::SQLITE_IOERR;

use crate::host::{code, create, logged, open, store, text, try_open};

#[test]
fn a_panic_in_a_read_is_an_io_error_and_closes_the_handle_to_further_use() {
    let setup = create("bug-read");
    setup
        .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(randomblob(30000))")
        .unwrap();
    // Pages that no cache of this process has.
    setup.execute_batch("VACUUM").unwrap();
    let victim = open(&format!("bug-read@{}", store().versions("bug-read")[1]));
    store().set_bug("bug-read", "read", true);
    let read = || victim.query_row("SELECT sum(length(v)) FROM t", [], |_| Ok(()));
    assert_eq!(code(read()) & 0xff, SQLITE_IOERR);
    let (_, line) = logged("a bug made for a test")
        .pop()
        .expect("a line in the log");
    assert!(line.contains("please report it"), "{line}");
    store().set_bug("bug-read", "read", false);
    assert_eq!(code(read()) & 0xff, SQLITE_IOERR);
    drop(victim);
    assert_eq!(
        text(&open("bug-read"), "SELECT sum(length(v)) FROM t"),
        "30000"
    );
}

#[test]
fn a_panic_at_commit_fails_the_commit() {
    let db = create("bug-commit");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    store().set_bug("bug-commit", "commit", true);
    let failed = db.execute_batch("INSERT INTO t VALUES(1)");
    assert_eq!(code(failed) & 0xff, SQLITE_IOERR);
    store().set_bug("bug-commit", "commit", false);
    let again = open("bug-commit");
    assert_eq!(text(&again, "SELECT count(*) FROM t"), "0");
    again.execute_batch("INSERT INTO t VALUES(2)").unwrap();
}

#[test]
fn a_panic_at_open_or_at_the_first_lock_is_an_error_of_that_call() {
    create("bug-begin")
        .execute_batch("CREATE TABLE t(v)")
        .unwrap();
    store().set_bug("bug-begin", "begin", true);
    let opened = try_open("bug-begin")
        .and_then(|db| db.query_row("SELECT * FROM sqlite_schema", [], |_| Ok(())));
    assert!(opened.is_err());
    store().set_bug("bug-begin", "begin", false);
    assert_eq!(
        text(&open("bug-begin"), "SELECT count(*) FROM sqlite_schema"),
        "1"
    );
}

/// The handle was closed to `xUnlock` too: its lease was renewed for as long as the connection was open,
/// and nobody else could write.
#[test]
fn a_panic_under_a_lease_lets_the_next_writer_in() {
    let db = create("bug-lease");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    store().leases("bug-lease", |leases| leases.mode = Concurrency::Exclusive);
    store().set_bug("bug-lease", "commit", true);
    let failed = db.execute_batch("INSERT INTO t VALUES(1)");
    assert_eq!(code(failed) & 0xff, SQLITE_IOERR);
    store().set_bug("bug-lease", "commit", false);
    let again = open("bug-lease");
    again.busy_timeout(Duration::ZERO).unwrap();
    again.execute_batch("INSERT INTO t VALUES(2)").unwrap();
    assert_eq!(text(&again, "SELECT group_concat(v) FROM t"), "2");
    drop(db);
}
