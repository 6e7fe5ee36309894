//! What the documents name exists: tests behind the guarantees, files behind links, make targets.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mvsqlite_e2e::repository;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The parts of a text between backticks, in order; fenced blocks are indented in our documents.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// README and everything under docs/.
fn documents() -> Vec<PathBuf> {
    let mut found = vec![
        repository().join("README.md"),
        repository().join("CHANGELOG.md"),
    ];
    let mut folders = vec![repository().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("docs can be listed") {
            let path = entry.expect("docs can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let text = read(&repository().join("docs/guarantees.md"));
    let quoted = quoted(&text);
    let mut named = 0;
    for pair in quoted.windows(2) {
        let [file, function] = pair else { continue };
        let is_function = function.contains('_')
            && function
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !file.ends_with(".rs") || !is_function {
            continue;
        }
        named += 1;
        let source = read(&repository().join(file));
        assert!(
            source.contains(&format!("fn {function}(")),
            "docs/guarantees.md names {function} in {file}, which has no such function"
        );
    }
    assert!(
        named >= 30,
        "only {named} tests were found in docs/guarantees.md"
    );
}

#[test]
fn every_file_that_a_document_links_to_exists() {
    for document in documents() {
        let text = read(&document);
        let folder = document.parent().expect("a document lies in a folder");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(
                folder.join(target).exists(),
                "{} links to {target}",
                document.display()
            );
        }
    }
}

#[test]
fn every_make_target_that_a_document_names_exists() {
    let makefile = read(&repository().join("Makefile"));
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', '.', ' ']))
        .filter_map(|line| line.split_once(':').map(|(target, _)| target))
        .collect();
    for document in documents() {
        let text = read(&document);
        for code in quoted(&text) {
            let mut words = code.split_whitespace();
            if words.next() != Some("make") {
                continue;
            }
            let Some(target) = words.next() else { continue };
            assert!(
                targets.contains(target),
                "{} names make {target}",
                document.display()
            );
        }
    }
}
