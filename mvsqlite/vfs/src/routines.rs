//! The table of SQLite's functions that is handed to a loadable extension: `sqlite3_api_routines`.
//!
//! A structure of function pointers that only ever grows at its end, so each function has its place
//! for ever. The places were counted in `sqlite3ext.h`; a test compares them with a real table.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use crate::api::{Api, MissingFunction};

/// The places of the functions that are used.
const PLACES: &[(&CStr, usize)] = &[
    (c"sqlite3_libversion_number", 67),
    (c"sqlite3_result_error", 80),
    (c"sqlite3_result_null", 84),
    (c"sqlite3_result_text", 85),
    (c"sqlite3_value_int64", 107),
    (c"sqlite3_value_text", 109),
    (c"sqlite3_value_type", 113),
    (c"sqlite3_file_control", 127),
    (c"sqlite3_vfs_find", 141),
    (c"sqlite3_vfs_register", 142),
    (c"sqlite3_result_error_code", 146),
    (c"sqlite3_context_db_handle", 149),
    (c"sqlite3_create_function_v2", 162),
    (c"sqlite3_log", 167),
    (c"sqlite3_db_filename", 180),
    (c"sqlite3_uri_boolean", 187),
    (c"sqlite3_auto_extension", 192),
    (c"sqlite3_malloc64", 197),
];

/// The oldest SQLite that the VFS works with, 3.31. Its table has all the places.
const OLDEST: c_int = 3_031_000;

/// The table that SQLite hands to an extension's entry point.
#[derive(Clone, Copy)]
pub struct ApiRoutines(*const *const c_void);

/// A table that the VFS cannot work with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnusableRoutines {
    /// There is none: SQLite was built without loadable extensions.
    Missing,
    /// An older SQLite than the VFS works with: its `sqlite3_libversion_number`.
    TooOld(c_int),
    /// A function that is not in the table.
    Lacks(MissingFunction),
}

impl std::fmt::Display for UnusableRoutines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("this SQLite gives its functions to no extension"),
            Self::TooOld(version) => write!(
                f,
                "SQLite {}.{} is too old; it takes 3.31 or later",
                version / 1_000_000,
                version / 1000 % 1000
            ),
            Self::Lacks(function) => function.fmt(f),
        }
    }
}

impl std::error::Error for UnusableRoutines {}

impl ApiRoutines {
    /// # Safety
    /// `table` is null or the `sqlite3_api_routines` of a SQLite that stays loaded for the rest of
    /// the process.
    pub unsafe fn new(table: *const c_void) -> Self {
        Self(table.cast())
    }

    /// The functions that the VFS calls.
    ///
    /// # Errors
    /// If this SQLite is too old or lacks one.
    pub fn api(self) -> Result<Api, UnusableRoutines> {
        let version = self
            .find(c"sqlite3_libversion_number")
            .ok_or(UnusableRoutines::Missing)?;
        // SAFETY: the function at this place, as the header has it.
        let version = unsafe {
            std::mem::transmute::<*const c_void, unsafe extern "C" fn() -> c_int>(version)()
        };
        if version < OLDEST {
            return Err(UnusableRoutines::TooOld(version));
        }
        // SAFETY: the functions of one SQLite that stays loaded, by `new`.
        let api = unsafe { Api::from_symbols(|symbol| self.find(symbol).unwrap_or(ptr::null())) };
        api.map_err(UnusableRoutines::Lacks)
    }

    /// A function of the table. None of those behind the first may be asked for before the version
    /// is known to have them.
    fn find(self, symbol: &CStr) -> Option<*const c_void> {
        let place = PLACES.iter().find(|(name, _)| *name == symbol)?.1;
        if self.0.is_null() {
            return None;
        }
        // SAFETY: a table of a version that has this place.
        let function = unsafe { *self.0.add(place) };
        (!function.is_null()).then_some(function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;
    use std::ffi::c_char;
    use std::sync::atomic::{AtomicPtr, Ordering};

    static TABLE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

    unsafe extern "C" fn keep_table(
        _db: *mut ffi::sqlite3,
        _message: *mut *mut c_char,
        table: *const ffi::sqlite3_api_routines,
    ) -> c_int {
        TABLE.store(table.cast_mut().cast(), Ordering::Release);
        ffi::SQLITE_OK
    }

    /// The table of the SQLite in this test binary, as its automatic extensions get it.
    fn table() -> ApiRoutines {
        // SAFETY: the entry point has the type that SQLite calls it with.
        unsafe { ffi::sqlite3_auto_extension(Some(keep_table)) };
        drop(rusqlite::Connection::open_in_memory().unwrap());
        // SAFETY: as above.
        unsafe { ffi::sqlite3_cancel_auto_extension(Some(keep_table)) };
        // SAFETY: linked into this binary.
        unsafe { ApiRoutines::new(TABLE.load(Ordering::Acquire)) }
    }

    #[test]
    fn every_function_stands_at_its_place_in_a_real_table() {
        macro_rules! addresses {
            ($($name:ident),* $(,)?) => {
                [$((stringify!($name), ffi::$name as *const c_void)),*]
            };
        }
        let addresses = addresses!(
            sqlite3_libversion_number,
            sqlite3_result_error,
            sqlite3_result_null,
            sqlite3_result_text,
            sqlite3_value_int64,
            sqlite3_value_text,
            sqlite3_value_type,
            sqlite3_file_control,
            sqlite3_vfs_find,
            sqlite3_vfs_register,
            sqlite3_result_error_code,
            sqlite3_context_db_handle,
            sqlite3_create_function_v2,
            sqlite3_log,
            sqlite3_db_filename,
            sqlite3_uri_boolean,
            sqlite3_auto_extension,
            sqlite3_malloc64,
        );
        let table = table();
        for (symbol, _) in PLACES {
            let name = symbol.to_str().unwrap();
            let known = addresses.iter().find(|(known, _)| *known == name);
            let (_, address) = known.unwrap_or_else(|| panic!("{name} is not compared"));
            assert_eq!(table.find(symbol), Some(*address), "{name}");
        }
        assert!(table.api().is_ok());
    }

    #[test]
    fn a_missing_table_is_refused() {
        // SAFETY: null is allowed.
        let none = unsafe { ApiRoutines::new(ptr::null()) };
        assert_eq!(none.api().err(), Some(UnusableRoutines::Missing));
    }
}
