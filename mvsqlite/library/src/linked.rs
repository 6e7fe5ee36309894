//! The SQLite that the program is linked with.

use std::ffi::{CStr, c_void};
use std::ptr;

use mvsqlite_vfs::{Api, MissingFunction};

/// Declares functions of SQLite by their names alone, and a look-up by name.
macro_rules! linked_functions {
    ($($name:ident),* $(,)?) => {
        // Only their addresses are taken; [`Api`] knows the types.
        unsafe extern "C" {
            $(fn $name();)*
        }

        fn find(symbol: &CStr) -> *const c_void {
            match symbol.to_bytes() {
                $(name if name == stringify!($name).as_bytes() => $name as *const c_void,)*
                _ => ptr::null(),
            }
        }
    };
}

linked_functions! {
    sqlite3_auto_extension,
    sqlite3_context_db_handle,
    sqlite3_create_function_v2,
    sqlite3_db_filename,
    sqlite3_file_control,
    sqlite3_log,
    sqlite3_malloc64,
    sqlite3_result_error,
    sqlite3_result_error_code,
    sqlite3_result_null,
    sqlite3_result_text,
    sqlite3_uri_boolean,
    sqlite3_value_int64,
    sqlite3_value_text,
    sqlite3_value_type,
    sqlite3_vfs_find,
    sqlite3_vfs_register,
}

/// The functions that the VFS calls.
pub(crate) fn api() -> Result<Api, MissingFunction> {
    // SAFETY: the functions of the one SQLite in this program, which it cannot lose.
    unsafe { Api::from_symbols(find) }
}

#[cfg(test)]
mod tests {
    /// A function that the VFS came to need and that is not declared here would make every
    /// registration fail.
    #[test]
    fn every_function_that_the_vfs_calls_is_linked() {
        assert_eq!(super::api().err(), None);
    }
}
