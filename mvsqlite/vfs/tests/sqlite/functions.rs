//! The SQL functions.

use crate::host::{create, store, text};

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
        ("NULL", "no database name"),
    ] {
        for call in ["mv_last_known_version(X)", "mv_time2version(X, 0)"] {
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
