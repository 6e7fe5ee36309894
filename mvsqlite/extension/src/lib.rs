//! `libmvsqlite_extension.so`: the mvSQLite VFS as a loadable extension of SQLite.
//!
//! Loading it registers the VFS `mvsqlite` and its page-size variants with the SQLite that loads
//! it, for every connection opened from then on, and adds the SQL functions to the connection that
//! loads it and to later ones. The VFS does not become the default: a program that loads an
//! extension has files of its own, so it says which databases are meant (`file:orders?vfs=mvsqlite`).
//!
//! Invariants:
//! - SQLite is used through the table of functions that the entry point is given; none is linked.
//! - The library stays loaded once it has registered the VFS (`SQLITE_OK_LOAD_PERMANENTLY`): SQLite
//!   keeps its addresses.
//! - Where the preload library already serves this SQLite, nothing is done.
//!
//! Not here: running single statements again that lost a conflict, for which `sqlite3_step` would
//! have to be replaced.

#![allow(unsafe_code, reason = "this crate is a C library")]

use std::ffi::{c_char, c_int, c_void};
use std::panic::catch_unwind;
use std::sync::Once;

use mvsqlite_vfs::{Api, ApiRoutines, RegisterError, Vfs, sqlite3};

/// `SQLITE_ERROR`.
const ERROR: c_int = 1;
/// `SQLITE_OK_LOAD_PERMANENTLY`.
const OK_LOAD_PERMANENTLY: c_int = 256;

/// The entry point that SQLite looks for first, whatever the file is called.
///
/// # Safety
/// Called by SQLite when it loads the extension.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_extension_init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    routines: *const c_void,
) -> c_int {
    // SAFETY: SQLite's arguments, passed on.
    unsafe { load(db, message, routines) }
}

/// The entry point by the name of the file, `libmvsqlite_extension.so`.
///
/// # Safety
/// As [`sqlite3_extension_init`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_mvsqliteextension_init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    routines: *const c_void,
) -> c_int {
    // SAFETY: SQLite's arguments, passed on.
    unsafe { load(db, message, routines) }
}

/// The entry point of a file that was renamed to `mvsqlite.so`.
///
/// # Safety
/// As [`sqlite3_extension_init`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_mvsqlite_init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    routines: *const c_void,
) -> c_int {
    // SAFETY: SQLite's arguments, passed on.
    unsafe { load(db, message, routines) }
}

/// # Safety
/// SQLite's arguments of an extension's entry point.
unsafe fn load(db: *mut sqlite3, message: *mut *mut c_char, routines: *const c_void) -> c_int {
    silence_panics();
    // SAFETY: the caller's. The library that loads us keeps us loaded, and itself.
    let routines = unsafe { ApiRoutines::new(routines) };
    let loaded = catch_unwind(|| {
        // Of a SQLite that is too old there is no telling whether it can allocate a message.
        let Ok(api) = routines.api() else {
            return ERROR;
        };
        match serve(api) {
            Ok(served) => {
                if let Some(vfs) = served {
                    // SAFETY: the connection that loads the extension, by the thread that does.
                    unsafe { vfs.add_functions(db) };
                }
                OK_LOAD_PERMANENTLY
            }
            Err(error) => {
                let text = format!("cannot load mvSQLite: {error}");
                // SAFETY: SQLite gives null or a place for a message that it frees.
                unsafe { api.explain(message, &text) };
                ERROR
            }
        }
    });
    loaded.unwrap_or(ERROR)
}

/// The VFS of this library; `None` if the preload library has registered its own.
fn serve(api: Api) -> Result<Option<&'static Vfs>, RegisterError> {
    let served = Vfs::register_once(api, |api| match Vfs::is_registered(&api) {
        true => Err(Elsewhere::Foreign),
        false => Vfs::register_from_env(api, false).map_err(Elsewhere::Failed),
    });
    match served {
        Ok(vfs) => Ok(Some(vfs)),
        Err(Elsewhere::Foreign) => Ok(None),
        Err(Elsewhere::Failed(error)) => Err(error),
    }
}

/// Why no VFS was registered.
enum Elsewhere {
    /// Another copy of this code has registered it.
    Foreign,
    Failed(RegisterError),
}

impl From<RegisterError> for Elsewhere {
    fn from(error: RegisterError) -> Self {
        Self::Failed(error)
    }
}

/// A panic is caught and ends nothing; the usual report on the host's standard error is not ours to
/// make. The hook is that of this library's own copy of Rust's runtime.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}
