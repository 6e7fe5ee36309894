//! `foundationdb-sys` asks the linker for `-lfdb_c`. This supplies an archive of that name with no
//! members: the functions themselves are this crate's (`src/calls.rs`), so that nothing of
//! FoundationDB has to be installed where mvstore is built, and nothing is linked that the loader
//! would look for when it starts. Cargo hands the search path on to every crate that links this one.

use std::path::PathBuf;
use std::{env, fs};

/// What `ar` writes for an archive without members: the magic string alone.
const EMPTY_ARCHIVE: &[u8] = b"!<arch>\n";

fn main() {
    let directory = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let archive = directory.join("libfdb_c.a");
    if let Err(error) = fs::write(&archive, EMPTY_ARCHIVE) {
        panic!("cannot write {}: {error}", archive.display());
    }
    println!("cargo::rustc-link-search=native={}", directory.display());
    println!("cargo::rerun-if-changed=build.rs");
}
