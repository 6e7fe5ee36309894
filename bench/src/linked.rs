//! The VFS on the SQLite that is linked into this binary, so that both sides run on the same one.

#![allow(
    unsafe_code,
    reason = "SQLite's functions are handed over by their addresses"
)]

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use mvsqlite::Environment;
use mvsqlite_vfs::{Api, Vfs};
use rusqlite::ffi;

/// Registers the VFS once, with the environment's configuration.
pub fn register() -> Result<()> {
    static REGISTERED: OnceLock<Result<(), String>> = OnceLock::new();
    let registered =
        REGISTERED.get_or_init(|| try_register().map_err(|error| format!("{error:#}")));
    registered.clone().map_err(|error| anyhow!(error))
}

fn try_register() -> Result<()> {
    let environment = Environment::from_env().context("the configuration")?;
    // SAFETY: each address is that of the linked SQLite's function of that name.
    let api = unsafe { Api::from_symbols(linked) }?;
    Vfs::register(api, Ok(environment), false)?;
    Ok(())
}

/// The address of a function of the linked SQLite, or null.
fn linked(symbol: &CStr) -> *const c_void {
    macro_rules! functions {
        ($($name:ident)*) => {
            match symbol.to_str() {
                $(Ok(stringify!($name)) => ffi::$name as *const c_void,)*
                _ => ptr::null(),
            }
        };
    }
    functions!(
        sqlite3_auto_extension
        sqlite3_context_db_handle
        sqlite3_create_function_v2
        sqlite3_db_filename
        sqlite3_file_control
        sqlite3_free
        sqlite3_log
        sqlite3_malloc64
        sqlite3_result_error
        sqlite3_result_error_code
        sqlite3_result_null
        sqlite3_result_text
        sqlite3_uri_boolean
        sqlite3_value_int64
        sqlite3_value_text
        sqlite3_vfs_find
        sqlite3_vfs_register
    )
}
