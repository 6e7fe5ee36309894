//! Several VFSs in one process, each as the VFS of a process of its own.

use rusqlite::{Connection, OpenFlags};

use crate::host::{self, another_environment, register_as, text};

fn open(vfs: &std::ffi::CStr, name: &str) -> Connection {
    Connection::open_with_flags_and_vfs(name, OpenFlags::default(), vfs).unwrap()
}

const PAGES: &str = "PRAGMA mvsqlite_cache";

#[test]
fn each_name_has_its_own_cache_and_the_sql_functions() {
    let first = host::create("named");
    first
        .execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
        .unwrap();
    let vfs = register_as(c"mvsqlite-named", another_environment());

    let other = open(c"mvsqlite-named", "named");
    assert_eq!(text(&other, "SELECT a FROM t"), "1");
    assert_ne!(text(&other, PAGES), text(&first, PAGES));
    let version = "SELECT mv_last_known_version('main')";
    assert_eq!(text(&other, version), text(&first, version));

    let seen = text(&other, PAGES);
    assert!(vfs.replace_environment(another_environment()));
    let newer = open(c"mvsqlite-named", "named");
    assert_ne!(
        text(&newer, PAGES),
        seen,
        "the cache went with the environment"
    );
    assert_eq!(text(&other, PAGES), seen, "an open database keeps its own");
    assert_eq!(text(&newer, "SELECT a FROM t"), "1");
}
