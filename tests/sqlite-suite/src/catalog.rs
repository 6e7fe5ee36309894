//! The test files in SQLite's source tree.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A test file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TestFile {
    /// Its name in reports and lists: `select1`, `rtree/rtree1`.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// Directories of the source tree with test files, and what begins their names.
const DIRECTORIES: [(&str, &str); 4] = [
    ("test", ""),
    ("ext/rtree", "rtree/"),
    ("ext/fts5/test", "fts5/"),
    ("ext/session", "session/"),
];

/// All test files of a source tree, by name.
///
/// # Errors
/// If one of its directories cannot be read.
pub fn test_files(source: &Path) -> Result<Vec<TestFile>> {
    let mut files = Vec::new();
    for (directory, prefix) in DIRECTORIES {
        let directory = source.join(directory);
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("cannot look for tests in {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let is_test = path.extension().is_some_and(|end| end == "test");
            if let (Some(stem), true) = (stem, is_test) {
                let name = format!("{prefix}{stem}");
                files.push(TestFile { name, path });
            }
        }
    }
    files.sort();
    Ok(files)
}
