//! The data directory: who holds it, what format it is in, and how it comes to be.
//!
//! | entry | what |
//! |---|---|
//! | `LOCK` | empty; locked (`flock`) by the process that serves the directory, never removed |
//! | `FORMAT` | three lines of text: what this is, and the format's generations (see [`FORMAT`]) |
//! | `fjall` | the storage library's files |
//! | `fjall.new`, `FORMAT.new` | left by a creation that was interrupted; removed at the next opening |
//!
//! Creation is crash safe: `FORMAT` is put in place first, the database is built as `fjall.new`,
//! fsynced whole, and renamed. A directory with `FORMAT` and without `fjall` never held data.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The format that this program reads and writes.
///
/// Line 1 says what the directory is. `min-reader` and `min-writer` are the oldest generation of
/// programs that may read it and write it; this program is of [`GENERATION`].
const FORMAT: &str = "mvsqlite embedded store\nmin-reader 1\nmin-writer 1\n";

/// This program's generation of the format.
const GENERATION: u32 = 1;

const TITLE: &str = "mvsqlite embedded store";
const LOCK_FILE: &str = "LOCK";
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_DRAFT: &str = "FORMAT.new";
const DATABASE: &str = "fjall";
const DATABASE_DRAFT: &str = "fjall.new";

/// What a new directory may hold: our own, of a creation that was interrupted, and what a freshly
/// made file system holds.
const EXPECTED: [&str; 4] = [LOCK_FILE, FORMAT_DRAFT, DATABASE_DRAFT, "lost+found"];

/// Whether a directory with nothing but files of such names holds no store yet.
pub(crate) fn is_no_store(name: &std::ffi::OsStr) -> bool {
    EXPECTED.iter().any(|expected| name == *expected)
}

/// Why a directory cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another engine in this one, holds it.
    #[error(
        "the data directory {} is in use by another mvstore; stop that one or choose another directory with --data-dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It holds files that are not ours.
    #[error(
        "the directory {} is not an mvstore data directory: it holds {found:?} but no FORMAT file; choose an empty or new directory with --data-dir",
        path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of the things found there.
        found: String,
    },
    /// It was written by a program that this one does not understand.
    #[error(
        "the data directory {} has a format that this mvstore does not know ({found:?}; it knows generation {GENERATION}); use the mvstore that wrote it, or a newer one",
        path.display()
    )]
    UnknownFormat {
        /// The directory.
        path: PathBuf,
        /// What its FORMAT file says, cut short.
        found: String,
    },
    /// The operating system refused something.
    #[error("{doing} {} failed: {source}", path.display())]
    Io {
        /// What was being done, ready to be followed by the path.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Its files are damaged.
    #[error(
        "the data in {} is damaged: {reason}; nothing was changed; restore a backup, or keep a copy of the directory and ask for help with it",
        path.display()
    )]
    Corrupt {
        /// The directory or file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

/// A data directory that this process holds until the value is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Closing it gives up the lock.
    _lock: File,
}

impl Directory {
    /// Takes the directory, making it if it is not there. `build` makes a new database under the
    /// path it is given and closes it.
    pub(super) fn open(
        path: &Path,
        build: impl FnOnce(&Path) -> Result<(), OpenError>,
    ) -> Result<Self, OpenError> {
        make_directory(path)?;
        // Before the lock file is put there: a directory that is not ours is left as it is.
        let known = path.join(FORMAT_FILE);
        if !exists(&known)? {
            refuse_others(path)?;
        }
        let directory = Self {
            path: path.to_owned(),
            _lock: lock(path)?,
        };
        if exists(&known)? {
            check_format(path, &known)?;
        } else {
            write_format(path)?;
        }
        if !exists(&directory.database())? {
            directory.create(build)?;
        }
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the storage library's files are.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    fn create(&self, build: impl FnOnce(&Path) -> Result<(), OpenError>) -> Result<(), OpenError> {
        let draft = self.path.join(DATABASE_DRAFT);
        if exists(&draft)? {
            fs::remove_dir_all(&draft).map_err(OpenError::io("removing", &draft))?;
        }
        build(&draft)?;
        sync_tree(&draft)?;
        fs::rename(&draft, self.database()).map_err(OpenError::io("renaming", &draft))?;
        sync(&self.path)
    }
}

/// With its missing parents, each name made durable.
fn make_directory(path: &Path) -> Result<(), OpenError> {
    if path.as_os_str().is_empty() || exists(path)? {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    make_directory(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(OpenError::io("making the directory", path)(error));
        }
        _ => {}
    }
    match parent.as_os_str().is_empty() {
        true => sync(Path::new(".")),
        false => sync(parent),
    }
}

fn refuse_others(path: &Path) -> Result<(), OpenError> {
    let failed = || OpenError::io("reading the directory", path);
    for entry in fs::read_dir(path).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        let name = name.to_string_lossy();
        if !EXPECTED.contains(&name.as_ref()) {
            return Err(OpenError::NotOurs {
                path: path.to_owned(),
                found: name.into_owned(),
            });
        }
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(OpenError::io("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: directory.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io {
            doing: "locking",
            path,
            source,
        }),
    }
}

fn check_format(directory: &Path, file: &Path) -> Result<(), OpenError> {
    let bytes = fs::read(file).map_err(OpenError::io("reading", file))?;
    let text = String::from_utf8_lossy(&bytes);
    if generations(&text).is_some_and(|(reader, writer)| reader.max(writer) <= GENERATION) {
        return Ok(());
    }
    Err(OpenError::UnknownFormat {
        path: directory.to_owned(),
        found: text.trim_end().chars().take(100).collect(),
    })
}

/// `min-reader` and `min-writer`, if the text is a FORMAT file of any generation.
pub(super) fn generations(text: &str) -> Option<(u32, u32)> {
    let mut lines = text.lines();
    if lines.next()? != TITLE {
        return None;
    }
    let reader = lines.next()?.strip_prefix("min-reader ")?.parse().ok()?;
    let writer = lines.next()?.strip_prefix("min-writer ")?.parse().ok()?;
    Some((reader, writer))
}

fn write_format(directory: &Path) -> Result<(), OpenError> {
    let draft = directory.join(FORMAT_DRAFT);
    File::create(&draft)
        .and_then(|mut file| {
            file.write_all(FORMAT.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&draft, directory.join(FORMAT_FILE)))
        .map_err(OpenError::io("writing", &draft))?;
    sync(directory)
}

/// Makes a directory, all that is below it, and all their names durable.
fn sync_tree(path: &Path) -> Result<(), OpenError> {
    let failed = || OpenError::io("reading the directory", path);
    for entry in fs::read_dir(path).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if entry.file_type().map_err(failed())?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            sync(&entry.path())?;
        }
    }
    sync(path)
}

fn sync(path: &Path) -> Result<(), OpenError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(OpenError::io("making durable", path))
}

fn exists(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map_err(OpenError::io("looking at", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(path: &Path) -> Result<(), OpenError> {
        fs::create_dir(path).unwrap();
        fs::write(path.join("data"), b"data").unwrap();
        Ok(())
    }

    #[test]
    fn the_format_file_is_these_bytes() {
        let home = tempfile::tempdir().unwrap();
        drop(Directory::open(home.path(), build).unwrap());
        let golden = b"mvsqlite embedded store\nmin-reader 1\nmin-writer 1\n";
        assert_eq!(fs::read(home.path().join("FORMAT")).unwrap(), golden);
    }

    #[test]
    fn a_second_opener_is_refused_until_the_first_lets_go() {
        let home = tempfile::tempdir().unwrap();
        let first = Directory::open(home.path(), build).unwrap();
        let error = Directory::open(home.path(), build).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(home.path().to_str().unwrap()));
        drop(first);
        Directory::open(home.path(), build).unwrap();
    }

    #[test]
    fn an_unknown_format_is_refused_and_quoted() {
        for content in [
            "mvsqlite embedded store\nmin-reader 2\nmin-writer 2\n",
            "mvsqlite embedded store\nmin-reader 1\nmin-writer 2\n",
            "mvsqlite embedded store\n",
            "something else\n",
            "",
        ] {
            let home = tempfile::tempdir().unwrap();
            fs::write(home.path().join("FORMAT"), content).unwrap();
            let error = Directory::open(home.path(), build).unwrap_err();
            assert!(matches!(error, OpenError::UnknownFormat { .. }), "{error}");
            assert!(!home.path().join("fjall").exists());
        }
    }

    #[test]
    fn a_directory_of_something_else_is_refused_and_left_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("thesis.txt"), b"").unwrap();
        let error = Directory::open(home.path(), build).unwrap_err();
        assert!(error.to_string().contains("thesis.txt"), "{error}");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_interrupted_creation_is_done_again() {
        for left in ["LOCK", "FORMAT.new", "fjall.new/half", "lost+found/x"] {
            let home = tempfile::tempdir().unwrap();
            let file = home.path().join(left);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, b"left").unwrap();
            let directory = Directory::open(home.path(), build).unwrap();
            assert_eq!(
                fs::read(directory.database().join("data")).unwrap(),
                b"data"
            );
        }
    }

    #[test]
    fn what_exists_is_not_built_again() {
        let home = tempfile::tempdir().unwrap();
        drop(Directory::open(home.path(), build).unwrap());
        Directory::open(home.path(), |_| panic!("it exists")).unwrap();
    }
}
