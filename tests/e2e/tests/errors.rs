//! When things go wrong, seen from the program: the documented result code, a report that says
//! what, where and what to do, no process that aborts, none that hangs, nothing lost.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use mvsqlite_e2e::{Client, Fault, Proxy, Session, SqlError, Store, code, free_port};

/// `MVSQLITE_HTTP_TIMEOUT_SECS` of these tests. No operation may take more than three times as long.
const TIMEOUT: Duration = Duration::from_secs(1);
/// That, and time for two busy cores to get round to it.
const LIMIT: Duration = Duration::from_secs(3 + 2);

fn impatient(client: Client) -> Client {
    client.env("MVSQLITE_HTTP_TIMEOUT_SECS", &TIMEOUT.as_secs().to_string())
}

/// A store with the namespace `test`, in it two tables with a row each.
fn store() -> Store {
    let store = Store::start();
    store.create_namespace("test");
    let made = Client::of(&store).query(
        "test",
        "CREATE TABLE t (x); INSERT INTO t VALUES (1); CREATE TABLE u (x); INSERT INTO u VALUES (1);",
    );
    assert_eq!(made, "");
    store
}

fn open_error(client: &Client, name: &str) -> (SqlError, Session) {
    let mut session = Session::closed(client);
    let error = session.run(name).expect_err(name);
    assert!(
        session.elapsed < LIMIT,
        "opening took {:?}",
        session.elapsed
    );
    println!("{name}: {error:?}: {}", session.log().trim());
    (error, session)
}

/// What is in `t` now, by a client of its own that goes to the store directly.
fn stored(store: &Store) -> String {
    Client::of(store).query(
        "test",
        "SELECT group_concat(x) FROM (SELECT x FROM t ORDER BY x);",
    )
}

#[test]
fn a_missing_namespace_cannot_be_opened_and_the_report_says_how_to_make_it() {
    let store = store();
    let (error, session) = open_error(&Client::of(&store), "missing");
    assert_eq!(error.code, code::CANTOPEN);
    session.reported(&["'missing'", "create"]);

    // The same line is in SQLite's error log.
    let log = ".log stderr\n.open missing\nSELECT 1;";
    let shell = Client::of(&store).sqlite3(":memory:", log);
    shell.says(&["'missing'", "unable to open"]);
    store.finish();
}

#[test]
fn malformed_names_and_versions_cannot_be_opened() {
    let store = store();
    let long = "x".repeat(256);
    for (name, because) in [
        ("with space", "' '"),
        ("test@", "20 hex digits"),
        ("test@12", "20 hex digits"),
        ("test@zzzzzzzzzzzzzzzzzzzz", "20 hex digits"),
        ("ünicode", "A-Z a-z 0-9"),
        (&long, "255"),
    ] {
        let (error, session) = open_error(&Client::of(&store), name);
        assert_eq!(error.code, code::CANTOPEN, "{name}");
        session.reported(&[because]);
    }
    store.finish();
}

#[test]
fn a_version_that_was_never_reached_cannot_be_opened() {
    let store = store();
    let (error, session) = open_error(&Client::of(&store), "test@ffffffffffffffff0000");
    assert_eq!(error.code, code::CANTOPEN);
    session.reported(&["'test'", "ffffffffffffffff0000"]);
    store.finish();
}

#[test]
fn a_past_version_is_read_only() {
    let store = store();
    let client = Client::of(&store);
    let version = client.query(
        "test",
        "SELECT x FROM t; SELECT mv_last_known_version('main');",
    );
    let version = version.lines().last().unwrap();
    let mut past = Session::open(&client, &format!("test@{version}")).unwrap();
    for sql in [
        "INSERT INTO t VALUES (2)",
        "CREATE TABLE v (x)",
        "PRAGMA user_version = 1",
        "VACUUM",
    ] {
        let error = past.run(sql).expect_err(sql);
        assert_eq!(error.code & 0xff, code::READONLY, "{sql}: {error:?}");
    }
    assert_eq!(past.value("SELECT x FROM t"), "1");
    // Also when the transaction says early that it will write.
    past.ok("BEGIN IMMEDIATE");
    past.fails("DELETE FROM t", code::READONLY);
    past.ok("ROLLBACK");
    assert_eq!(stored(&store), "1");
    store.finish();
}

#[test]
fn a_store_that_is_down_makes_opening_fail_in_time() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let (error, session) = open_error(&impatient(Client::at(&url)), "test");
    assert_eq!(error.code, code::CANTOPEN);
    session.reported(&["'test'", &url["http://".len()..]]);
}

#[test]
fn a_wrong_configuration_makes_opening_fail_and_leaves_the_rest_alone() {
    for url in ["ftp://somewhere", "127.0.0.1:7000", "http://"] {
        let (error, session) = open_error(&Client::at(url), "test");
        assert_eq!(error.code, code::CANTOPEN);
        session.reported(&["MVSQLITE_DATA_PLANE"]);
    }
    let unset = Client::at("");
    let (error, session) = open_error(&unset, "test");
    assert_eq!(error.code, code::CANTOPEN);
    session.reported(&["MVSQLITE_DATA_PLANE"]);
    assert_eq!(unset.query(":memory:", "SELECT 1 + 1;"), "2");
}

#[test]
fn a_store_that_goes_down_in_a_transaction_fails_it_and_is_used_again_afterwards() {
    let mut store = store();
    let client = impatient(Client::of(&store)).env("MVSQLITE_PAGE_CACHE_SIZE", "0");
    let mut session = Session::open(&client, "test").unwrap();
    session.ok("BEGIN");
    session.ok("INSERT INTO t VALUES (2)");
    store.kill();
    session.fails("SELECT x FROM u", code::IOERR_READ);
    assert!(session.elapsed < LIMIT, "{:?}", session.elapsed);
    session.reported(&["cannot read", "'test'", &store.data_plane_address()]);
    session.run("ROLLBACK").ok();
    session.fails("SELECT x FROM u", code::IOERR_LOCK);
    assert!(session.elapsed < LIMIT, "{:?}", session.elapsed);

    store.restart();
    assert_eq!(session.value("SELECT x FROM u"), "1");
    session.ok("INSERT INTO t VALUES (3)");
    assert_eq!(stored(&store), "1,3");
    store.finish();
}

#[test]
fn a_store_that_is_down_at_commit_fails_it_and_says_whether_it_may_have_happened() {
    let mut store = store();
    let mut session = Session::open(&impatient(Client::of(&store)), "test").unwrap();
    session.ok("BEGIN");
    session.ok("INSERT INTO t VALUES (2)");
    store.kill();
    let error = session.run("COMMIT").expect_err("COMMIT without a store");
    assert!(session.elapsed < LIMIT, "{:?}", session.elapsed);
    assert!(
        [code::IOERR_FSYNC, code::IOERR_COMMIT_ATOMIC].contains(&error.code),
        "{error:?}"
    );
    session.reported(&["cannot commit", "'test'"]);
    session.run("ROLLBACK").ok();
    store.restart();
    // It never reached a store.
    assert_eq!(session.value("SELECT count(*) FROM t"), "1");
    session.ok("INSERT INTO t VALUES (3)");
    assert_eq!(stored(&store), "1,3");
    store.finish();
}

/// A session through a proxy, in a transaction that has written 2 and waits to commit.
fn about_to_commit(store: &Store) -> (Proxy, Session) {
    let proxy = Proxy::before(store);
    let mut session = Session::open(&impatient(Client::at(&proxy.url())), "test").unwrap();
    session.ok("BEGIN");
    session.ok("INSERT INTO t VALUES (2)");
    (proxy, session)
}

#[test]
fn a_lost_reply_to_commit_is_asked_for_again_and_commits_once() {
    let store = store();
    let (proxy, mut session) = about_to_commit(&store);
    proxy.set_times(Fault::LoseReply(&["commit"]), 1);
    session.ok("COMMIT");
    assert_eq!(proxy.struck(), 1, "a reply was lost");
    assert_eq!(session.value("SELECT count(*) FROM t"), "2");
    assert_eq!(stored(&store), "1,2");
    store.finish();
}

#[test]
fn a_lost_commit_request_is_sent_again() {
    let store = store();
    let (proxy, mut session) = about_to_commit(&store);
    proxy.set_times(Fault::LoseRequest(&["commit"]), 1);
    session.ok("COMMIT");
    assert_eq!(proxy.struck(), 1, "a request was lost");
    assert_eq!(stored(&store), "1,2");
    store.finish();
}

#[test]
fn an_outcome_that_stays_unknown_is_reported_as_such() {
    let store = store();
    let (proxy, mut session) = about_to_commit(&store);
    proxy.set(Fault::LoseReply(&["commit", "settle"]));
    session.fails("COMMIT", code::IOERR_COMMIT_ATOMIC);
    assert!(session.elapsed < LIMIT, "{:?}", session.elapsed);
    assert!(proxy.struck() > 0);
    session.reported(&["cannot commit", "'test'", "MAY have been committed"]);
    proxy.set(Fault::None);
    session.run("ROLLBACK").ok();
    // Here it was; the session sees what everybody sees.
    assert_eq!(stored(&store), "1,2");
    assert_eq!(session.value("SELECT count(*) FROM t"), "2");
    session.ok("INSERT INTO t VALUES (3)");
    assert_eq!(stored(&store), "1,2,3");
    store.finish();
}

#[test]
fn a_commit_that_never_arrives_is_settled_as_not_made() {
    let store = store();
    let (proxy, mut session) = about_to_commit(&store);
    proxy.set(Fault::LoseRequest(&["commit"]));
    session.fails("COMMIT", code::IOERR_FSYNC);
    assert!(session.elapsed < LIMIT, "{:?}", session.elapsed);
    session.reported(&["nothing was committed"]);
    proxy.set(Fault::None);
    session.run("ROLLBACK").ok();
    assert_eq!(stored(&store), "1");
    session.ok("INSERT INTO t VALUES (3)");
    assert_eq!(stored(&store), "1,3");
    store.finish();
}

#[test]
fn a_silent_network_ends_in_an_error_in_time() {
    let store = store();
    let proxy = Proxy::before(&store);
    let client = impatient(Client::at(&proxy.url())).env("MVSQLITE_PAGE_CACHE_SIZE", "0");
    let mut session = Session::open(&client, "test").unwrap();
    session.ok("BEGIN");
    session.ok("INSERT INTO t VALUES (2)");
    proxy.set(Fault::Silence);
    session.fails("SELECT x FROM u", code::IOERR_READ);
    assert!(session.elapsed < LIMIT, "{:?}", session.elapsed);
    session.run("ROLLBACK").ok();
    session.fails("BEGIN IMMEDIATE", code::IOERR_LOCK);
    assert!(session.elapsed < LIMIT, "{:?}", session.elapsed);
    let (error, _) = open_error(&client, "test");
    assert_eq!(error.code, code::CANTOPEN);
    proxy.set(Fault::None);
    assert_eq!(session.value("SELECT x FROM u"), "1");
    assert_eq!(stored(&store), "1");
    store.finish();
}

#[test]
fn a_slow_network_is_only_slow() {
    let store = store();
    let proxy = Proxy::before(&store);
    proxy.set(Fault::Delay(Duration::from_millis(40)));
    let mut session = Session::open(&Client::at(&proxy.url()), "test").unwrap();
    session.ok("INSERT INTO t VALUES (2)");
    assert_eq!(session.value("SELECT count(*) FROM t"), "2");
    assert_eq!(stored(&store), "1,2");
    store.finish();
}

#[test]
fn a_restart_of_the_store_goes_unnoticed_between_transactions() {
    let mut store = store();
    let mut session = Session::open(&Client::of(&store), "test").unwrap();
    session.ok("INSERT INTO t VALUES (2)");
    for round in 3..6 {
        match round % 2 {
            0 => store.stop(),
            _ => store.kill(),
        }
        store.restart();
        session.ok(&format!("INSERT INTO t VALUES ({round})"));
        assert_eq!(session.value("SELECT max(x) FROM t"), round.to_string());
    }
    assert_eq!(stored(&store), "1,2,3,4,5");
    store.finish();
}

#[test]
fn a_restart_of_the_store_within_a_transaction_loses_nothing() {
    let mut store = store();
    let mut session = Session::open(&Client::of(&store), "test").unwrap();
    session.ok("BEGIN");
    session.ok("INSERT INTO t VALUES (2)");
    store.kill();
    store.restart();
    match session.run("COMMIT") {
        Ok(_) => assert_eq!(stored(&store), "1,2"),
        Err(error) => {
            println!("the transaction failed: {error:?}");
            session.run("ROLLBACK").ok();
            assert_eq!(stored(&store), "1");
        }
    }
    session.ok("INSERT INTO t VALUES (3)");
    assert!(stored(&store).ends_with('3'));
    store.finish();
}

#[test]
fn a_conflict_comes_out_of_commit_and_the_retry_succeeds() {
    let store = store();
    let client = Client::of(&store);
    let mut one = Session::open(&client, "test").unwrap();
    let mut two = Session::open(&client, "test").unwrap();
    for session in [&mut one, &mut two] {
        session.ok("BEGIN");
        session.ok("UPDATE t SET x = x + 1");
    }
    one.ok("COMMIT");
    let error = two.fails("COMMIT", code::BUSY_SNAPSHOT);
    assert_eq!(error.message, "database is locked");
    two.reported(&["cannot commit", "'test'", "roll back and run it again"]);
    two.fails("COMMIT", code::ERROR);
    two.ok("BEGIN");
    two.ok("UPDATE t SET x = x + 1");
    two.ok("COMMIT");
    assert_eq!(stored(&store), "3");
    store.finish();
}

#[test]
fn a_namespace_that_is_made_anew_is_not_mistaken_for_the_old_one() {
    let store = store();
    let mut session = Session::open(&Client::of(&store), "test").unwrap();
    session.ok("BEGIN");
    session.ok("INSERT INTO t VALUES (2)");
    assert_eq!(store.admin("delete_namespace", r#"{"key":"test"}"#).0, 200);
    store.create_namespace("test");
    session.fails("COMMIT", code::READONLY_DBMOVED);
    session.reported(&["'test'"]);
    session.run("ROLLBACK").ok();
    session.fails("SELECT * FROM t", code::READONLY_DBMOVED);
    let tables = Client::of(&store).query("test", "SELECT count(*) FROM sqlite_schema;");
    assert_eq!(tables, "0");
    store.finish();
}

#[test]
fn a_renamed_namespace_is_found_by_its_new_name_only() {
    let store = store();
    let renamed = store.admin("rename_namespace", r#"{"old_key":"test","new_key":"new"}"#);
    assert_eq!(renamed.0, 200);
    assert_eq!(Client::of(&store).query("new", "SELECT x FROM t;"), "1");
    let (error, _) = open_error(&Client::of(&store), "test");
    assert_eq!(error.code, code::CANTOPEN);
    store.finish();
}

#[test]
fn page_sizes_and_modes_that_are_not_served_are_refused_with_the_reason() {
    let store = store();
    let client = Client::of(&store);
    let mut session = Session::open(&client, "test").unwrap();
    assert_eq!(session.value("PRAGMA journal_mode = WAL"), "delete");
    session.ok("PRAGMA page_size = 4096");
    let error = session.run("VACUUM").expect_err("a new page size");
    assert_eq!(error.code & 0xff, code::ERROR, "{error:?}");
    assert_eq!(session.value("PRAGMA integrity_check"), "ok");

    store.create_namespace("huge");
    let mut huge = Session::open(&client, "huge").unwrap();
    huge.run("PRAGMA page_size = 65536").ok();
    match huge.run("CREATE TABLE t (x)") {
        Ok(_) => assert_ne!(huge.value("PRAGMA page_size"), "65536"),
        Err(error) => assert_eq!(error.code & 0xff, code::ERROR, "{error:?}"),
    }
    huge.reported(&["65536"]);
    store.finish();
}
