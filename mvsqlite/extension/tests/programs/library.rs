//! The library as the loader sees it.

use std::process::Command;

use crate::program::library;

fn listed(program: &str, option: &str) -> String {
    let output = Command::new(program)
        .args([option, "-W"].iter().filter(|_| program == "readelf"))
        .args(["-D", "--defined-only"].iter().filter(|_| program == "nm"))
        .arg(library())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn nothing_but_the_entry_points_is_exported() {
    let listed = listed("nm", "");
    let mut symbols: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    symbols.sort_unstable();
    let entry_points = [
        "sqlite3_extension_init",
        "sqlite3_mvsqlite_init",
        "sqlite3_mvsqliteextension_init",
    ];
    assert_eq!(symbols, entry_points);
}

#[test]
fn no_sqlite_is_linked() {
    let listed = listed("readelf", "-d");
    assert!(
        listed.contains("NEEDED") && !listed.contains("libsqlite3"),
        "{listed}"
    );
}
