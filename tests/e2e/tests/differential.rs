//! The same SQL on a local file and through the VFS: the same answers, the same database.
//!
//! Each script of `sql/` runs in the sqlite3 shell, and statement by statement in Python, with
//! Debian's SQLite and with the newest one.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};

use mvsqlite_e2e::{Client, Store, copy_out};

fn scripts() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let entries = fs::read_dir(directory).unwrap();
    let mut scripts: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(scripts.len() > 15, "the scripts are missing");
    scripts
}

fn name(script: &Path) -> String {
    script.file_stem().unwrap().to_string_lossy().into_owned()
}

/// What differs first between two outputs, with its surroundings.
fn assert_same(what: &str, local: &str, ours: &str) {
    if local == ours {
        return;
    }
    let same = |(a, b): &(&str, &str)| a == b;
    let line = local.lines().zip(ours.lines()).take_while(same).count();
    let from = |text: &str| {
        let lines: Vec<&str> = text.lines().skip(line.saturating_sub(3)).take(8).collect();
        lines.join("\n")
    };
    panic!(
        "{what} differs from line {}\n--- on a file\n{}\n--- through the VFS\n{}",
        line + 1,
        from(local),
        from(ours)
    );
}

#[test]
fn the_shell_answers_the_same_and_leaves_the_same_database() {
    let store = Store::start();
    for script in scripts() {
        let (name, sql) = (name(&script), fs::read_to_string(&script).unwrap());
        let file = store.scratch().join(format!("{name}.db"));
        let file = file.to_str().unwrap();
        store.create_namespace(&name);

        let local = Client::local().sqlite3(file, &sql);
        let ours = Client::of(&store).sqlite3(&name, &sql);
        assert_same(&name, &local.said(), &ours.said());

        let dump = "PRAGMA page_size; PRAGMA page_count; PRAGMA freelist_count;\n.dump\n";
        let local = Client::local().query(file, dump);
        let ours = Client::of(&store).query(&name, dump);
        assert_same(&format!("the dump after {name}"), &local, &ours);
        copy_out(&store, &name);
        println!("{name}: {} lines of dump, equal", ours.lines().count());
    }
    store.finish();
}

fn statement_by_statement(local: &Client, remote: impl Fn(&Store) -> Client) {
    let store = Store::start();
    for script in scripts() {
        let name = name(&script);
        let file = store.scratch().join(format!("{name}.db"));
        store.create_namespace(&name);
        let script = script.to_str().unwrap();
        let expected = local.python("run_sql.py", &[file.to_str().unwrap(), script]);
        let ours = remote(&store).python("run_sql.py", &[&name, script]);
        assert_same(&name, expected.ok(), ours.ok());
        println!("{name}: {} lines, equal", ours.stdout.lines().count());
    }
    store.finish();
}

#[test]
fn python_with_debians_sqlite_answers_the_same() {
    statement_by_statement(&Client::local(), Client::of);
}

#[test]
fn python_with_the_newest_sqlite_answers_the_same() {
    statement_by_statement(&Client::local().with_newest_sqlite(), |store| {
        Client::of(store).with_newest_sqlite()
    });
}
