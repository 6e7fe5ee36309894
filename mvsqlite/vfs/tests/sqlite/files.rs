//! What the VFS answers about files and names.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use rusqlite::ffi::{self, SQLITE_CANTOPEN, SQLITE_OK, SQLITE_READONLY};
use rusqlite::{Connection, OpenFlags};

use crate::host::{code, create, logged, open_with, store, text};

fn control<T>(db: &Connection, operation: c_int, argument: &mut T) -> c_int {
    // SAFETY: an open connection, and an argument of the type that the operation takes.
    unsafe {
        let argument = ptr::from_mut(argument).cast::<c_void>();
        ffi::sqlite3_file_control(db.handle(), c"main".as_ptr(), operation, argument)
    }
}

fn control_text(db: &Connection, operation: c_int) -> String {
    let mut given: *mut c_char = ptr::null_mut();
    assert_eq!(control(db, operation, &mut given), SQLITE_OK);
    // SAFETY: a C string from SQLite's allocator, which this frees as a program would.
    unsafe {
        let text = CStr::from_ptr(given).to_str().unwrap().to_owned();
        ffi::sqlite3_free(given.cast());
        text
    }
}

#[test]
fn file_controls_answer_what_programs_ask() {
    let db = create("controls");
    db.execute_batch("CREATE TABLE t(v)").unwrap();
    let mut number: c_int = -1;
    assert_eq!(control_text(&db, ffi::SQLITE_FCNTL_VFSNAME), "mvsqlite");
    let (one, two) = (
        control_text(&db, ffi::SQLITE_FCNTL_TEMPFILENAME),
        control_text(&db, ffi::SQLITE_FCNTL_TEMPFILENAME),
    );
    assert_ne!(one, two);
    assert_eq!(
        control(&db, ffi::SQLITE_FCNTL_HAS_MOVED, &mut number),
        SQLITE_OK
    );
    assert_eq!(number, 0);
    assert_eq!(
        control(&db, ffi::SQLITE_FCNTL_POWERSAFE_OVERWRITE, &mut number),
        SQLITE_OK
    );
    assert_eq!(number, 1);
    assert_eq!(
        control(&db, ffi::SQLITE_FCNTL_LOCKSTATE, &mut number),
        SQLITE_OK
    );
    assert_eq!(number, ffi::SQLITE_LOCK_NONE);
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(
        control(&db, ffi::SQLITE_FCNTL_LOCKSTATE, &mut number),
        SQLITE_OK
    );
    assert_eq!(number, ffi::SQLITE_LOCK_RESERVED);
    assert_eq!(control(&db, 9999, &mut number), ffi::SQLITE_NOTFOUND);
}

#[test]
fn a_read_only_open_by_uri_refuses_writes() {
    create("read-only")
        .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
        .unwrap();
    let db = open_with("file:read-only?mode=ro", OpenFlags::default()).unwrap();
    assert_eq!(text(&db, "SELECT v FROM t"), "1");
    assert_eq!(code(db.execute_batch("DELETE FROM t")), SQLITE_READONLY);
    let db = open_with("read-only", OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    assert_eq!(code(db.execute_batch("DELETE FROM t")), SQLITE_READONLY);
}

#[test]
fn opening_without_locks_is_refused_with_a_reason() {
    store().create("unlocked");
    for parameter in ["nolock", "immutable"] {
        let opened = open_with(
            &format!("file:unlocked?{parameter}=1"),
            OpenFlags::default(),
        );
        assert_eq!(code(opened), SQLITE_CANTOPEN);
        assert!(!logged(&format!("{parameter}=1")).is_empty());
    }
}

#[test]
fn names_that_cannot_be_namespaces_are_refused_with_what_is_wrong() {
    // SQLite's log has no room for the whole of the last one.
    for (name, logs) in [
        ("with space", "with space"),
        ("ü", "ü"),
        (&"x".repeat(300), "xxx"),
    ] {
        assert_eq!(code(open_with(name, OpenFlags::default())), SQLITE_CANTOPEN);
        assert!(!logged(logs).is_empty(), "{name}");
    }
}

#[test]
fn in_memory_and_temporary_databases_are_the_hosts() {
    for name in [":memory:", "", "file::memory:?cache=shared"] {
        let db = open_with(name, OpenFlags::default()).unwrap();
        db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
            .unwrap();
        assert_eq!(text(&db, "SELECT v FROM t"), "1");
    }
}

#[test]
fn the_last_error_text_is_that_of_the_last_failure_on_this_thread() {
    code(open_with("this-one-is-missing", OpenFlags::default()));
    let mut buffer: [c_char; 400] = [0; 400];
    // SAFETY: the registered VFS, and a buffer of the size given.
    let text = unsafe {
        let vfs = ffi::sqlite3_vfs_find(c"mvsqlite".as_ptr());
        (*vfs).xGetLastError.unwrap()(vfs, 400, buffer.as_mut_ptr());
        CStr::from_ptr(buffer.as_ptr()).to_str().unwrap()
    };
    assert!(text.contains("this-one-is-missing"), "{text}");
}
