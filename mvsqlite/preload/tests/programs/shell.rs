//! Debian's sqlite3 shell.

use crate::program::Program;
use crate::server::server;

fn shell(name: &str, sql: &str) -> Program {
    Program::new("sqlite3", &[name, sql]).env("MVSQLITE_DATA_PLANE", &server().url)
}

#[test]
fn a_database_outlives_the_program_and_leaves_no_file() {
    server().store.create("shell");
    let mut first = shell("shell", "CREATE TABLE t(v); INSERT INTO t VALUES('kept')");
    first.run().printed();
    assert!(first.files().is_empty());
    assert_eq!(shell("shell", "SELECT v FROM t").run().printed(), "kept");
    assert_eq!(shell("shell", "PRAGMA page_size").run().printed(), "8192");
}

#[test]
fn an_earlier_version_is_opened_by_name_and_cannot_be_written() {
    server().store.create("earlier");
    shell("earlier", "CREATE TABLE t(v); INSERT INTO t VALUES('then')")
        .run()
        .printed();
    let then = shell(
        "earlier",
        "SELECT v FROM t; SELECT mv_last_known_version('main')",
    );
    let mut then = then;
    let printed = then.run().printed().to_owned();
    let version = printed.lines().nth(1).unwrap();
    shell("earlier", "UPDATE t SET v='now'").run().printed();
    let past = format!("earlier@{version}");
    assert_eq!(shell(&past, "SELECT v FROM t").run().printed(), "then");
    let refused = shell(&past, "UPDATE t SET v='never'").run();
    assert!(refused.err.contains("readonly"), "{refused:?}");
    assert_eq!(shell("earlier", "SELECT v FROM t").run().printed(), "now");
}

#[test]
fn the_shells_own_commands_work() {
    server().store.create("dot-commands");
    let sql = "CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 2); CREATE INDEX i ON t(b);";
    shell("dot-commands", sql).run().printed();
    let dump = shell("dot-commands", ".dump").run().printed().to_owned();
    assert!(dump.contains("INSERT INTO t VALUES(1,2);"), "{dump}");
    assert_eq!(shell("dot-commands", ".tables").run().printed(), "t");
    let mut backup = shell("dot-commands", ".backup copy.db");
    // The shell opens the copy on the default VFS, which is ours: a namespace, and a missing one.
    assert!(!backup.run().success);
    assert!(backup.files().is_empty());
    let check = shell("dot-commands", "PRAGMA integrity_check; PRAGMA quick_check").run();
    assert_eq!(check.printed(), "ok\nok");
}

#[test]
fn the_page_size_of_new_databases_is_that_of_the_variable() {
    for size in ["4096", "16384", "32768"] {
        let name = format!("sector-size-{size}");
        server().store.create(&name);
        let shell = shell(&name, "CREATE TABLE t(v); PRAGMA page_size");
        assert_eq!(
            shell.env("MVSQLITE_SECTOR_SIZE", size).run().printed(),
            size
        );
    }
}

#[test]
fn pages_kept_on_disk_spare_the_next_program_its_requests() {
    server().store.create("disk-cache");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    let cached = |sql: &str| {
        let mut shell = shell("disk-cache", sql).env("MVSQLITE_DISK_CACHE", path.to_str().unwrap());
        shell.run().printed().to_owned()
    };
    let rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO t SELECT i, hex(i) FROM n";
    shell("disk-cache", &format!("CREATE TABLE t(a, b); {rows}"))
        .run()
        .printed();
    let sum = "SELECT sum(a), sum(length(b)) FROM t";
    let reads = || server().store.reads("disk-cache").len();
    let expected = cached(sum);
    let cold = reads();
    assert!(cold > 0);
    assert_eq!(cached(sum), expected);
    assert_eq!(reads(), cold);
    // What changed meanwhile is seen.
    shell("disk-cache", "UPDATE t SET a = a + 1 WHERE rowid = 2500")
        .run()
        .printed();
    let before = reads();
    assert_ne!(cached(sum), expected);
    assert!((1..cold).contains(&(reads() - before)));
    assert_eq!(cached("PRAGMA integrity_check"), "ok");
}
