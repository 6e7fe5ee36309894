//! Where the files under test are. `make` says so by environment variables; without them they are
//! looked for where plain cargo leaves them.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap().to_owned()
}

/// The release build of the server.
pub fn mvstore() -> PathBuf {
    artifact("MVSTORE", &release("mvstore"), "make release")
}

/// The release build of the preload library.
pub fn preload_library() -> PathBuf {
    let built = release("libmvsqlite_preload.so");
    artifact("MVSQLITE_PRELOAD", &built, "make release")
}

/// SQLite's speedtest1.
pub fn speedtest1() -> PathBuf {
    let kept = cache().join("speedtest1/speedtest1");
    artifact("MVSQLITE_SPEEDTEST1", &kept, "make speedtest1")
}

/// The directory with the newest SQLite as `libsqlite3.so.0`.
pub fn newest_sqlite() -> PathBuf {
    let kept = cache().join("newest-sqlite");
    artifact("MVSQLITE_NEWEST_SQLITE", &kept, "make test-e2e")
}

fn artifact(variable: &str, default: &Path, made_by: &str) -> PathBuf {
    let path = env::var_os(variable).map_or_else(|| default.to_owned(), PathBuf::from);
    assert!(
        path.exists(),
        "{} is not there: `{made_by}` makes it, {variable} overrides where it is",
        path.display()
    );
    path
}

fn release(file: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    repository().join(target).join("release").join(file)
}

fn cache() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    env::var_os("MVSQLITE_CACHE").map_or_else(|| home().join(".cache/mvsqlite"), PathBuf::from)
}
