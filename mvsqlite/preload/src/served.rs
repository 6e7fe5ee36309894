//! The SQLite libraries of this process that have the VFS.
//!
//! Each library gets it once, at its first open. Looking up takes no lock, so that a child forked
//! while another thread opens its first database can go on; only registering does.

use std::ptr;
use std::sync::OnceLock;

use mvsqlite_vfs::{Api, Vfs};

use crate::process_lock::ProcessLock;
use crate::scope::Scope;
use crate::statements::Statements;

/// What is known about the library of a caller.
#[derive(Clone, Copy)]
pub(crate) enum Served {
    /// mvSQLite is not wanted in this process.
    Not,
    /// It has the VFS.
    By(&'static Vfs),
    /// mvSQLite is wanted, and this library cannot have it.
    Unusable,
}

/// More SQLite libraries than any process was seen to have.
const LIBRARIES: usize = 8;

/// A library that was offered the VFS.
struct Entry {
    /// Told by the address of its `sqlite3_vfs_register`.
    library: usize,
    /// The VFS, if it took it.
    vfs: Option<&'static Vfs>,
    /// What it takes to run its statements again.
    statements: Option<Statements>,
}

static ENTRIES: [OnceLock<Entry>; LIBRARIES] = [const { OnceLock::new() }; LIBRARIES];
static REGISTERING: ProcessLock = ProcessLock::new();

/// Gives the library behind a scope the VFS, if it is wanted and not there yet.
pub(crate) fn serve(scope: &Scope) -> Served {
    let Some(register) = scope.find(c"sqlite3_vfs_register") else {
        return if wanted() {
            Served::Unusable
        } else {
            Served::Not
        };
    };
    let library = register.as_ptr().addr();
    if let Some(known) = known(library) {
        return known;
    }
    if !wanted() {
        return Served::Not;
    }
    let _one_at_a_time = REGISTERING.lock();
    if let Some(known) = known(library) {
        return known;
    }
    silence_panics();
    let vfs = register_with(scope);
    // SAFETY: the symbols of one SQLite library, which stays loaded as its handle is never closed.
    let statements = unsafe { Statements::from_symbols(|symbol| scope.find(symbol)) };
    let entry = Entry {
        library,
        vfs,
        statements,
    };
    // Without a free entry the library goes unserved, and is refused again at its next open.
    let free = ENTRIES.iter().find(|entry| entry.get().is_none());
    match free.is_some_and(|free| free.set(entry).is_ok()) {
        true => vfs.map_or(Served::Unusable, Served::By),
        false => Served::Unusable,
    }
}

/// Whether any library of this process is served.
pub(crate) fn any() -> bool {
    ENTRIES[0].get().is_some()
}

/// Which SQLite library a scope leads to.
pub(crate) fn library(scope: &Scope) -> Option<usize> {
    let register = scope.find(c"sqlite3_vfs_register")?;
    Some(register.as_ptr().addr())
}

/// What it takes to run statements of a library again, if it is served.
pub(crate) fn statements(library: usize) -> Option<&'static Statements> {
    let entry = entry(library)?;
    entry.vfs.and(entry.statements.as_ref())
}

fn entry(library: usize) -> Option<&'static Entry> {
    let mut entries = ENTRIES.iter().filter_map(OnceLock::get);
    entries.find(|entry| entry.library == library)
}

fn known(library: usize) -> Option<Served> {
    Some(entry(library)?.vfs.map_or(Served::Unusable, Served::By))
}

/// Whether any variable of ours is set: with one, a mistake in another must not go unnoticed.
fn wanted() -> bool {
    std::env::vars_os()
        .any(|(name, value)| name.as_encoded_bytes().starts_with(b"MVSQLITE_") && !value.is_empty())
}

fn register_with(scope: &Scope) -> Option<&'static Vfs> {
    // SAFETY: the symbols of one SQLite library, which stays loaded as its handle is never closed.
    let api = unsafe {
        Api::from_symbols(|symbol| {
            scope
                .find(symbol)
                .map_or(ptr::null(), |address| address.as_ptr().cast_const())
        })
    };
    Vfs::register_from_env(api.ok()?, true).ok()
}

/// A panic is caught, logged as a failure of its call and ends nothing; the usual report on the
/// host's standard error is not ours to make. The hook is that of this library's own copy of Rust's
/// runtime: a host written in Rust keeps its hook.
fn silence_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}
