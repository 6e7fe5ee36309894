//! The lists of what does not apply, each entry with its reason.
//!
//! An entry names a file, or files by a pattern, and either nothing more (the file is not run) or
//! cases by patterns (the file is run, and at least one case by each pattern fails).

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::glob::matches;
use crate::process::Mode;

/// Why something does not apply. Closed on purpose: a new reason is a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No test of SQLite over a VFS: it runs other files, measures speed, or tests a tool.
    NotATest,
    /// It fails on ordinary files too, with this build and in this environment.
    FailsOnFiles,
    /// The build leaves out what it tests.
    BuildOption,
    /// It looks at, makes, or recovers from rollback journals on disk; ours are private.
    JournalOnDisk,
    /// It tests the write-ahead log, which mvSQLite has not.
    Wal,
    /// It writes into the database file from outside, or damages it.
    Corruption,
    /// It expects that readers and writers wait for each other; mvSQLite's take snapshots.
    Locks,
    /// It changes the page size of a database that is not empty, or uses one of 64 KiB.
    PageSize,
    /// It tests memory-mapped files or shared memory.
    MemoryMap,
    /// It counts or simulates calls of a VFS of its own over the unix VFS.
    TestVfs,
    /// It tests the unix VFS or properties of a file: modes, links, names, sizes, times.
    FileSystem,
    /// It asks for a setting that mvSQLite answers in its own documented way (pragmas, URIs).
    Setting,
    /// It makes memory or I/O fail by SQLite's own means, which do not reach below our VFS.
    Injection,
    /// It expects which pages are cached, read or written when, which is the VFS's own affair.
    Caching,
    /// It takes longer than a run is given.
    TooSlow,
    /// A bug of mvSQLite, to be mended.
    KnownBug,
    /// Not looked into yet.
    Unexamined,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}");
        for (at, letter) in name.char_indices() {
            if at > 0 && letter.is_ascii_uppercase() {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

/// An entry of a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Names of files, which may be patterns.
    pub files: Vec<String>,
    /// Patterns of cases; none: the files are not run at all.
    #[serde(default)]
    pub cases: Vec<String>,
    /// How the file ends before its time, if it does: the words of its ending, as a pattern.
    pub ends: Option<String>,
    /// In which modes; none: in all but `files`.
    #[serde(default)]
    pub modes: Vec<Mode>,
    /// Why.
    pub reason: Reason,
    /// Why, in a sentence.
    pub why: String,
}

impl Exception {
    /// Whether it is about this file in this mode.
    pub fn covers(&self, file: &str, mode: Mode) -> bool {
        let in_mode = match self.modes.as_slice() {
            [] => mode != Mode::Files || self.holds_on_files(),
            modes => modes.contains(&mode),
        };
        in_mode && self.files.iter().any(|pattern| matches(pattern, file))
    }

    fn holds_on_files(&self) -> bool {
        let anywhere = [
            Reason::NotATest,
            Reason::FailsOnFiles,
            Reason::BuildOption,
            Reason::TooSlow,
        ];
        anywhere.contains(&self.reason)
    }

    /// Whether the files are not run at all.
    pub fn whole_file(&self) -> bool {
        self.cases.is_empty() && self.ends.is_none()
    }
}

/// All lists.
#[derive(Debug, Default)]
pub struct Exceptions {
    all: Vec<Exception>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    exception: Vec<Exception>,
}

impl Exceptions {
    /// Reads every `.toml` of a directory.
    ///
    /// # Errors
    /// If one cannot be read, is malformed, or has an entry without files or without a sentence.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut all = Vec::new();
        let entries = fs::read_dir(directory)
            .with_context(|| format!("no lists in {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|end| end != "toml") {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let list = Self::parse(&text).with_context(|| path.display().to_string())?;
            all.extend(list.all);
        }
        Ok(Self { all })
    }

    fn parse(text: &str) -> Result<Self> {
        let list: List = toml::from_str(text)?;
        for exception in &list.exception {
            if exception.files.is_empty() || exception.why.trim().is_empty() {
                bail!("an exception needs files and a sentence: {exception:?}");
            }
        }
        Ok(Self {
            all: list.exception,
        })
    }

    /// The entries about a file.
    pub fn of<'a>(&'a self, file: &str, mode: Mode) -> Vec<&'a Exception> {
        let about = self
            .all
            .iter()
            .filter(|exception| exception.covers(file, mode));
        about.collect()
    }

    /// Entries about none of these files: the lists have aged, or a name is misspelt.
    pub fn without_file<'a>(&'a self, files: &[String]) -> Vec<&'a Exception> {
        let known = |exception: &&Exception| {
            let all = |pattern: &String| files.iter().any(|file| matches(pattern, file));
            exception.files.iter().all(all)
        };
        self.all
            .iter()
            .filter(|exception| !known(exception))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"
        [[exception]]
        files = ["journal*"]
        reason = "journal-on-disk"
        why = "They look at journal files."

        [[exception]]
        files = ["lock"]
        cases = ["lock-2.*"]
        modes = ["optimistic"]
        reason = "locks"
        why = "Readers do not wait."
    "#;

    #[test]
    fn an_entry_covers_its_files_in_its_modes() {
        let exceptions = Exceptions::parse(LIST).unwrap();
        assert_eq!(exceptions.of("journal1", Mode::Exclusive).len(), 1);
        assert!(exceptions.of("journal1", Mode::Files).is_empty());
        assert_eq!(exceptions.of("lock", Mode::Optimistic).len(), 1);
        assert!(exceptions.of("lock", Mode::Exclusive).is_empty());
    }

    #[test]
    fn an_unknown_reason_is_refused() {
        let list = LIST.replace("locks", "because");
        assert!(Exceptions::parse(&list).is_err());
    }

    #[test]
    fn an_entry_about_no_file_is_found() {
        let exceptions = Exceptions::parse(LIST).unwrap();
        assert_eq!(exceptions.without_file(&["lock".to_owned()]).len(), 1);
    }

    #[test]
    fn a_reason_is_written_as_in_the_lists() {
        assert_eq!(Reason::JournalOnDisk.to_string(), "journal-on-disk");
        assert_eq!(Reason::NotATest.to_string(), "not-a-test");
    }
}
