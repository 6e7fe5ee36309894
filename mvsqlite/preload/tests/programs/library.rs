//! The library as the loader sees it.

use std::process::Command;

use crate::program::library;

#[test]
fn nothing_but_the_interposed_functions_is_exported() {
    let listed = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(library())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut symbols: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    symbols.sort_unstable();
    let interposed = [
        "sqlite3_errmsg",
        "sqlite3_open",
        "sqlite3_open16",
        "sqlite3_open_v2",
        "sqlite3_step",
    ];
    assert_eq!(symbols, interposed);
}

#[test]
fn no_sqlite_is_linked() {
    let listed = Command::new("readelf")
        .arg("-dW")
        .arg(library())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("NEEDED") && !listed.contains("sqlite3"),
        "{listed}"
    );
}
