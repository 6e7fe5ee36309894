//! An `FDB_HOME` with the stand-in for FoundationDB's client library (`mvstore/fdb-client/fake`).

use std::env;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

/// A directory that holds the stand-in under the client library's name.
pub(crate) fn fake_home() -> TempDir {
    let test = env::current_exe().expect("a running test knows its file");
    // Cargo puts the cdylib of a dependency beside the tests that depend on it.
    let library = test.with_file_name("libfdb_fake.so");
    assert!(
        library.exists(),
        "{} was not built: is mvstore-fdb-fake a dev-dependency?",
        library.display()
    );
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    symlink(library, home.path().join("libfdb_c.so")).expect("a symbolic link can be made");
    home
}
