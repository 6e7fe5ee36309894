//! What is fetched ahead of SQLite's reading, and what is not.
//!
//! The background threads make the number of requests vary a little, so the tests count pages, and
//! requests with much room.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::host::{create, open, store, text};

/// Rows of the table, on some 400 leaves.
const ROWS: u64 = 4000;

/// A number that looks random.
fn scatter(n: u64) -> u64 {
    n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// A database with a table, and an index in an order that has nothing to do with it; then a copy
/// that no cache knows, opened.
fn cold(name: &str) -> Connection {
    let source = format!("{name}-source");
    let connection = create(&source);
    connection.pragma_update(None, "page_size", 1024).unwrap();
    connection
        .execute_batch("BEGIN; CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, body BLOB)")
        .unwrap();
    for id in 0..ROWS {
        let row = (id as i64, scatter(id) as i64, [7u8; 80]);
        connection
            .execute("INSERT INTO t VALUES(?1, ?2, ?3)", row)
            .unwrap();
    }
    connection
        .execute_batch("CREATE INDEX by_k ON t(k); COMMIT")
        .unwrap();
    store().copy(&source, name);
    open(name)
}

/// How many requests there were, and how many pages they asked for.
fn asked(name: &str) -> (usize, u64) {
    let reads = store().reads(name);
    (reads.len(), reads.iter().map(|pages| pages.len()).sum())
}

/// Hardly a page is asked for twice. The cache is that of all tests in this process: the large ones
/// among them may push some pages out in between.
fn expect_few_repeated(name: &str) {
    let (_, pages) = asked(name);
    let reads = store().reads(name);
    let different: BTreeSet<u32> = reads.iter().flat_map(|pages| pages.iter()).collect();
    let different = different.len() as u64;
    assert!(
        pages <= different + different / 4,
        "{pages} pages, {different} different ones"
    );
}

#[test]
fn a_scan_asks_for_many_leaves_at_once_and_for_each_page_once() {
    for (name, order) in [("scan-forward", "ASC"), ("scan-backward", "DESC")] {
        let connection = cold(name);
        let sql =
            format!("SELECT count(body) FROM (SELECT body FROM t ORDER BY id {order} LIMIT -1)");
        assert_eq!(text(&connection, &sql), ROWS.to_string());
        let (requests, pages) = asked(name);
        assert!(pages > 350, "{pages} pages");
        assert!(requests < 60, "{requests} requests for {pages} pages");
        // What is on its way is not asked for again.
        expect_few_repeated(name);
    }
}

#[test]
fn a_range_of_an_index_asks_for_the_leaves_of_its_table() {
    for (name, order) in [("hop-forward", "ASC"), ("hop-backward", "DESC")] {
        let connection = cold(name);
        let sql = format!(
            "SELECT count(length(body)) FROM (SELECT body FROM t INDEXED BY by_k ORDER BY k {order} LIMIT 300)"
        );
        assert_eq!(text(&connection, &sql), "300");
        let (requests, pages) = asked(name);
        assert!(pages > 150, "{pages} pages");
        assert!(requests < 60, "{requests} requests for {pages} pages");
    }
}

#[test]
fn a_row_that_is_looked_up_costs_no_page_more() {
    let name = "point";
    let connection = cold(name);
    for n in 0..20 {
        let id = scatter(n) % ROWS;
        let sql = format!("SELECT length(body) FROM t WHERE id = {id}");
        assert_eq!(text(&connection, &sql), "80");
    }
    let by_key = format!("SELECT length(body) FROM t WHERE k = {}", scatter(77));
    assert_eq!(text(&connection, &by_key), "80");
    // Each request is for one page, but for look-ups that happen to be neighbours.
    let (requests, pages) = asked(name);
    assert!(
        pages < requests as u64 + 16,
        "{requests} requests for {pages} pages"
    );
}

#[test]
fn a_long_row_is_fetched_in_a_few_requests() {
    let connection = create("blob-source");
    connection.pragma_update(None, "page_size", 1024).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB);
             INSERT INTO t VALUES(1, zeroblob(300000)), (2, zeroblob(200000))",
        )
        .unwrap();
    store().copy("blob-source", "blob");
    let connection = open("blob");
    // It has to be read to its end to see that there is none.
    let sql = "SELECT sum(instr(body, x'01')) FROM t";
    assert_eq!(text(&connection, sql), "0");
    let (requests, pages) = asked("blob");
    assert!(pages >= 490, "{pages} pages");
    assert!(requests < 40, "{requests} requests for {pages} pages");
    expect_few_repeated("blob");
}

#[test]
fn what_was_fetched_on_a_guess_and_not_read_conflicts_with_nobody() {
    let name = "guessed-not-read";
    let reader = cold(name);
    let writer = open(name);
    reader.execute_batch("BEGIN").unwrap();
    let sql = "SELECT count(body) FROM (SELECT body FROM t ORDER BY id LIMIT 500)";
    assert_eq!(text(&reader, sql), "500");
    // Some 50 leaves further on: fetched, unless the scan was never that far ahead.
    let set = |connection: &Connection, id: u32| {
        let sql = format!("UPDATE t SET body = randomblob(80) WHERE id = {id}");
        connection.execute_batch(&sql)
    };
    set(&writer, 900).unwrap();
    set(&reader, 10).unwrap();
    reader.execute_batch("COMMIT").unwrap();
    // What was read does conflict.
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(text(&reader, sql), "500");
    set(&writer, 100).unwrap();
    set(&reader, 10).unwrap();
    reader.execute_batch("COMMIT").unwrap_err();
}
