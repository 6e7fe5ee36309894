//! The SQL functions.

use rusqlite::Connection;

use crate::host::{create, open, store, text};

/// The message with which a query fails.
fn refusal(db: &Connection, sql: &str) -> String {
    let error = db.query_row(sql, [], |_| Ok(())).expect_err(sql);
    error.to_string()
}

#[test]
fn the_last_known_version_follows_the_commits_of_this_connection() {
    let db = create("last-known");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    let newest = store().versions("last-known").pop().unwrap();
    assert_eq!(
        text(&db, "SELECT mv_last_known_version('main')"),
        newest.to_string()
    );
}

#[test]
fn a_time_is_turned_into_the_version_of_then() {
    let db = create("time");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    let newest = store().versions("time").pop().unwrap();
    assert_eq!(
        text(&db, "SELECT mv_time2version('main', 0)"),
        newest.to_string()
    );
}

#[test]
fn the_library_tells_its_own_version() {
    let db = create("library-version");
    assert_eq!(
        text(&db, "SELECT mvsqlite_version()"),
        env!("CARGO_PKG_VERSION")
    );
}

#[test]
fn an_unknown_schema_or_one_that_is_not_ours_is_an_sql_error() {
    let db = create("not-ours");
    db.execute_batch("ATTACH ':memory:' AS mem; CREATE TEMP TABLE w(v)")
        .unwrap();
    for (argument, message) in [
        ("'nowhere'", "no database 'nowhere'"),
        ("'mem'", "not an mvSQLite database"),
        ("'temp'", "not an mvSQLite database"),
        ("NULL", "db argument is required"),
        ("x'ff'", "not valid UTF-8"),
    ] {
        for call in [
            "mv_last_known_version(X)",
            "mv_time2version(X, 0)",
            "mv_pin_version(X, '000000000001e2400000')",
            "mv_unpin_version(X)",
            "mv_prefetch_metrics(X)",
            "mv_nslock_acquire(X, 'w')",
            "mv_nslock_acquire(X, 'w', NULL)",
            "mv_nslock_release_commit(X, 'w')",
            "mv_nslock_release_rollback(X, 'w')",
        ] {
            let sql = format!("SELECT {}", call.replace('X', argument));
            let error = db.query_row(&sql, [], |_| Ok(())).expect_err(&sql);
            assert!(error.to_string().contains(message), "{sql}: {error}");
        }
    }
}

#[test]
fn the_functions_cannot_be_hidden_in_a_schema() {
    let db = create("direct-only");
    db.execute_batch("CREATE VIEW w AS SELECT mv_last_known_version('main') AS v")
        .unwrap();
    let error = db.query_row("SELECT v FROM w", [], |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("unsafe use"), "{error}");
}

#[test]
fn a_pinned_database_reads_as_it_was_and_cannot_be_written_until_it_is_unpinned() {
    let db = create("pinned");
    db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES('then')")
        .unwrap();
    let then = text(&db, "SELECT mv_last_known_version('main')");
    open("pinned")
        .execute_batch("UPDATE t SET v='now'")
        .unwrap();
    assert_eq!(text(&db, "SELECT v FROM t"), "now");
    let pin = format!("SELECT mv_pin_version('main', '{then}')");
    assert_eq!(text(&db, &pin), "NULL");
    assert_eq!(text(&db, "SELECT v FROM t"), "then");
    assert_eq!(text(&db, "PRAGMA mvsqlite_version"), then);
    let refused = db.execute_batch("UPDATE t SET v='never'").unwrap_err();
    assert!(refused.to_string().contains("readonly"), "{refused}");
    assert!(text(&db, "PRAGMA mvsqlite_last_error").contains("mv_unpin_version"));
    assert_eq!(text(&db, "SELECT mv_unpin_version('main')"), "NULL");
    assert_eq!(text(&db, "SELECT v FROM t"), "now");
    db.execute_batch("UPDATE t SET v='later'").unwrap();
    assert_eq!(text(&open("pinned"), "SELECT v FROM t"), "later");
}

#[test]
fn within_a_transaction_no_version_is_pinned_and_no_lock_is_taken() {
    let db = create("pin-in-transaction");
    db.execute_batch("CREATE TABLE t(v); BEGIN; SELECT * FROM t")
        .unwrap();
    let version = store().versions("pin-in-transaction")[0];
    for (call, message) in [
        (
            format!("mv_pin_version('main', '{version}')"),
            "cannot pin version while transaction is active",
        ),
        (
            "mv_unpin_version('main')".to_owned(),
            "cannot unpin version while transaction is active",
        ),
        (
            "mv_nslock_acquire('main', 'w')".to_owned(),
            "cannot acquire nslock while a transaction is active",
        ),
        (
            "mv_nslock_release_commit('main', 'w')".to_owned(),
            "cannot release nslock while a transaction is active",
        ),
    ] {
        assert_eq!(refusal(&db, &format!("SELECT {call}")), message);
    }
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(text(&db, "SELECT mv_unpin_version('main')"), "NULL");
}

#[test]
fn a_version_that_is_none_is_refused() {
    let db = create("pin-nothing");
    let no_version = refusal(&db, "SELECT mv_pin_version('main', 'yesterday')");
    assert!(
        no_version.contains("not a version of 20 hex digits"),
        "{no_version}"
    );
    let missing = refusal(&db, "SELECT mv_pin_version('main', NULL)");
    assert_eq!(missing, "mv_pin_version: version argument is required");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    let fixed = open(&format!(
        "pin-nothing@{}",
        store().versions("pin-nothing")[0]
    ));
    let refused = refusal(&fixed, "SELECT mv_unpin_version('main')");
    assert!(refused.contains("opened at a version"), "{refused}");
}

#[test]
fn a_namespace_lock_is_taken_and_given_back_by_its_owner_only() {
    let (db, other) = (create("nslock"), open("nslock"));
    assert_eq!(text(&db, "SELECT mv_nslock_acquire('main', 'w1')"), "NULL");
    assert_eq!(
        refusal(&other, "SELECT mv_nslock_acquire('main', 'w2', NULL)"),
        "nslock: held by other owner: w1"
    );
    assert_eq!(
        refusal(&other, "SELECT mv_nslock_release_rollback('main', 'w2')"),
        "nslock: not locked or owner mismatch (current: w1)"
    );
    assert_eq!(
        text(&db, "SELECT mv_nslock_release_commit('main', 'w1')"),
        "NULL"
    );
    assert_eq!(
        refusal(&db, "SELECT mv_nslock_release_commit('main', 'w1')"),
        "nslock: not locked or owner mismatch (current: none)"
    );
    for (call, message) in [
        (
            "mv_nslock_acquire('main', NULL)",
            "mv_nslock_acquire: owner argument is required",
        ),
        (
            "mv_nslock_release_commit('main', NULL)",
            "mv_nslock_release: owner argument is required",
        ),
        (
            "mv_nslock_release_rollback(NULL, 'w')",
            "mv_nslock_release: db argument is required",
        ),
        (
            "mv_nslock_acquire('main', '')",
            "nslock: invalid owner (empty or > 256 bytes)",
        ),
    ] {
        assert_eq!(refusal(&db, &format!("SELECT {call}")), message);
    }
}

#[test]
fn the_metrics_of_the_prefetch_have_the_names_of_the_original() {
    let db = create("metrics");
    db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(1); SELECT * FROM t")
        .unwrap();
    let metrics = text(&db, "SELECT mv_prefetch_metrics('main')");
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    assert!(metrics["page_reads"].as_u64().unwrap() > 0, "{metrics}");
    for name in [
        "cache_misses",
        "predictions_made",
        "predictions_hit",
        "hit_rate",
        "stride_predictions",
        "markov_hits",
        "markov_chain_predictions",
        "frequency_hits",
    ] {
        assert!(metrics[name].is_number(), "{name} in {metrics}");
    }
}
