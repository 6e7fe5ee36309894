//! Transactions of many megabytes: all or nothing whatever happens, and a clear error beyond the
//! limit.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use mvsqlite_e2e::{Client, Session, Store, code, copy_out, until};

const MEGABYTES: u32 = 96;

fn fill(session: &mut Session, megabytes: u32) {
    session.ok(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {megabytes})
        INSERT INTO t (body) SELECT randomblob(1000000) FROM n"
    ));
}

fn store_with_table() -> Store {
    let store = Store::start();
    store.create_namespace("large");
    let table = "CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB);";
    Client::of(&store).query("large", table);
    store
}

#[test]
fn a_transaction_of_many_megabytes_commits_and_reads_back() {
    let store = store_with_table();
    // A cache too small for it: reading back asks the store.
    let client = Client::of(&store).env("MVSQLITE_PAGE_CACHE_SIZE", "100");
    let mut session = Session::open(&client, "large").unwrap();
    session.ok("BEGIN");
    fill(&mut session, MEGABYTES);
    let sum = "SELECT count(*), sum(length(body)), sum(unicode(hex(substr(body, -1)))) FROM t";
    let written = session.ok(sum);
    session.ok("COMMIT");
    println!("COMMIT of {MEGABYTES} MB took {:?}", session.elapsed);
    assert_eq!(session.ok(sum), written);
    let mut other = Session::open(&client, "large").unwrap();
    assert_eq!(other.ok(sum), written);
    let copy = copy_out(&store, "large");
    assert_eq!(copy.value::<u32>("SELECT count(*) FROM t"), MEGABYTES);
    store.finish();
}

#[test]
fn a_transaction_beyond_the_limit_is_refused_and_the_connection_goes_on() {
    let store = store_with_table();
    let client = Client::of(&store).env("MVSQLITE_TRANSACTION_BYTES", "4000000");
    let mut session = Session::open(&client, "large").unwrap();
    session.ok("BEGIN");
    let refused = match session.run("INSERT INTO t (body) VALUES (zeroblob(8000000))") {
        Ok(_) => session.run("COMMIT").expect_err("twice the limit"),
        Err(error) => error,
    };
    assert_eq!(refused.code, code::FULL, "{refused:?}");
    session.reported(&["'large'", "4000000", "split it"]);
    session.run("ROLLBACK").ok();
    assert_eq!(session.value("SELECT count(*) FROM t"), "0");
    session.ok("INSERT INTO t (body) VALUES (zeroblob(100000))");
    let copy = copy_out(&store, "large");
    assert_eq!(copy.value::<u32>("SELECT count(*) FROM t"), 1);
    store.finish();
}

#[test]
fn a_store_killed_amid_a_large_commit_has_all_of_it_or_nothing() {
    let mut store = store_with_table();
    let client = Client::of(&store).env("MVSQLITE_HTTP_TIMEOUT_SECS", "5");
    let mut expected = 0;
    for round in 0..3 {
        let mut session = Session::open(&client, "large").unwrap();
        session.ok("BEGIN");
        fill(&mut session, 40);
        let size = directory_size(&store);
        session.send("COMMIT");
        // Kill when the store has begun to write it, each round a bit further on.
        let begun = size + (1 + round * 15) * 1_000_000;
        until("the store to write", Duration::from_secs(30), || {
            (directory_size(&store) > begun || session.has_answered()).then_some(())
        });
        store.kill();
        store.restart();
        let acknowledged = session.receive("COMMIT");
        let rows = Client::of(&store).query("large", "SELECT count(*) FROM t;");
        let rows: u32 = rows.parse().unwrap();
        println!("round {round}: COMMIT said {acknowledged:?}; {rows} rows");
        assert!(rows == expected || rows == expected + 40, "{rows} rows");
        match acknowledged {
            Ok(_) => assert_eq!(rows, expected + 40, "acknowledged and lost"),
            Err(error) if error.code == code::IOERR_FSYNC => assert_eq!(rows, expected),
            Err(error) => assert_eq!(error.code, code::IOERR_COMMIT_ATOMIC, "{error:?}"),
        }
        expected = rows;
    }
    copy_out(&store, "large");
    store.finish();
}

/// What the files in the store's directory take, in bytes.
fn directory_size(store: &Store) -> u64 {
    fn size(path: &std::path::Path) -> u64 {
        let Ok(entries) = std::fs::read_dir(path) else {
            return std::fs::metadata(path).map_or(0, |file| file.len());
        };
        entries
            .filter_map(Result::ok)
            .map(|entry| size(&entry.path()))
            .sum()
    }
    size(store.data_dir())
}
