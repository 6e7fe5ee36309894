//! FoundationDB's client library, opened at run time.
//!
//! The crate `foundationdb` expects `libfdb_c` at link time. One mvstore binary has to contain the
//! FoundationDB engine, be built where FoundationDB is not installed, and start where it is not
//! installed. So the functions that `foundationdb` calls are defined here, as jumps through a table
//! (`calls`), and the table is filled from `libfdb_c.so` when the engine is chosen (`library`).
//!
//! Invariants:
//! - No jump before [`Client::start`] has found **every** function in one library whose API version
//!   is high enough; until then each leads to a message and an abort, never through null.
//! - One network thread per process, started once, never restarted, stopped and joined at exit
//!   before the library's own destructors run (`network`).
//!
//! What it deliberately does not do: nothing of keys, values, transactions and their errors; that
//! is the engine's (`mvstore/src/kv/foundationdb.rs`), over the re-exported crate [`foundationdb`].

mod calls;
mod library;
mod network;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use foundationdb;
pub use library::LibrarySearch;

use foundationdb::Database;

/// The API version that is asked for: behaviour stays that of FoundationDB 7.3, also with newer
/// client libraries.
pub const API_VERSION: i32 = 730;

/// A loaded client library with its network running. There is at most one per process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    library: PathBuf,
}

impl Client {
    /// Finds and loads the library and starts the network thread; when they already run, returns
    /// what runs, wherever `search` points.
    ///
    /// # Errors
    ///
    /// After [`StartError::NotFound`], [`StartError::Unloadable`], [`StartError::MissingCall`] and
    /// [`StartError::ApiTooOld`] a later call may succeed; the others are for the rest of the process.
    pub fn start(search: &LibrarySearch) -> Result<Self, StartError> {
        network::start(search).map(|library| Self { library })
    }

    /// The library that was loaded; a bare file name if the loader found it on its own path.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// A handle on the cluster that a cluster file names. Contacts nobody: an unreachable cluster
    /// shows in the first transaction.
    ///
    /// # Errors
    ///
    /// [`StartError::ClusterFile`] if the file cannot be read or the library refuses it.
    pub fn connect(&self, cluster_file: &Path) -> Result<Database, StartError> {
        let refused = |reason: String| StartError::ClusterFile {
            path: cluster_file.to_owned(),
            reason,
        };
        // The library would report an unreadable file only in the first transaction.
        let text = std::fs::read(cluster_file).map_err(|error| refused(error.to_string()))?;
        if text.trim_ascii().is_empty() {
            return Err(refused("it is empty".to_owned()));
        }
        let path = CString::new(cluster_file.as_os_str().as_bytes())
            .map_err(|_| refused("its name contains a NUL byte".to_owned()))?;
        let path = path
            .to_str()
            .map_err(|_| refused("its name is not UTF-8".to_owned()))?;
        Database::from_path(path).map_err(|error| refused(error.message().to_owned()))
    }
}

/// Why FoundationDB cannot be used. Says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no client library.
    #[error(
        "FoundationDB's client library {} was not found. Install the package foundationdb-clients, \
         version 7.3 or newer (https://github.com/apple/foundationdb/releases), or set FDB_HOME to \
         the directory that holds it. Tried: {}", library::FILE_NAME, tried.join("; ")
    )]
    NotFound {
        /// Each place, and what the loader said.
        tried: Vec<String>,
    },
    /// The file in `FDB_HOME` is there, but is no library for this machine.
    #[error("{} cannot be loaded: {reason}", library.display())]
    Unloadable {
        /// The file.
        library: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// The library lacks a function.
    #[error(
        "{} is not a client library of FoundationDB 7.3 or newer: it lacks {call}. Install the \
         package foundationdb-clients, version 7.3 or newer", library.display()
    )]
    MissingCall {
        /// The file.
        library: PathBuf,
        /// The function.
        call: &'static str,
    },
    /// The library is of an older FoundationDB.
    #[error(
        "{} supports FoundationDB's API up to version {supported}, but mvstore needs {}. Install \
         the package foundationdb-clients, version 7.3 or newer", library.display(), API_VERSION
    )]
    ApiTooOld {
        /// The file.
        library: PathBuf,
        /// The highest API version it offers.
        supported: i32,
    },
    /// The library was loaded, but its network did not start.
    #[error("FoundationDB's client network did not start: {reason}")]
    Network {
        /// What failed.
        reason: String,
    },
    /// The process is exiting; the network cannot be started again.
    #[error("FoundationDB's client network was stopped: the process is exiting")]
    Stopped,
    /// The cluster file is not usable.
    #[error("the FoundationDB cluster file {} cannot be used: {reason}", path.display())]
    ClusterFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
