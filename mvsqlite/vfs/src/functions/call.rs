//! One call of an SQL function: its arguments, its result, its failure.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use super::vfs_of;
use crate::api::Api;
use crate::database_file::handle_of;
use crate::failure::{Ended, Failure, ffi_guard};
use crate::ffi::{code, fcntl, sqlite3_context, sqlite3_file, sqlite3_value};
use crate::handle::Handle;

/// One call of a function.
pub(super) struct Call {
    api: &'static Api,
    context: *mut sqlite3_context,
    arguments: *mut *mut sqlite3_value,
    count: usize,
}

impl Call {
    /// # Safety
    /// What SQLite gave to the implementation of a function added by [`add_to`] for this slot.
    pub(super) unsafe fn run(
        slot: usize,
        context: *mut sqlite3_context,
        count: c_int,
        arguments: *mut *mut sqlite3_value,
        name: &str,
        body: impl FnOnce(&mut Self) -> Result<Option<String>, Failure>,
    ) {
        let Some(vfs) = vfs_of(slot) else { return };
        let mut call = Self {
            api: vfs.api(),
            context,
            arguments,
            count: usize::try_from(count).unwrap_or(0),
        };
        let ended = ffi_guard(call.api, name, || body(&mut call));
        // SAFETY: the context is that of the running call.
        unsafe {
            match ended {
                Ended::Returned(Some(text)) => call.api.return_text(context, &text),
                Ended::Returned(None) => (call.api.result_null)(context),
                Ended::Failed(failure) | Ended::Panicked(failure) => {
                    call.api
                        .return_error(context, failure.code, &failure.message);
                }
            }
        }
    }

    /// An argument; null if there are not so many.
    fn argument(&self, index: usize) -> *mut sqlite3_value {
        match index < self.count {
            // SAFETY: SQLite gives so many arguments.
            true => unsafe { *self.arguments.add(index) },
            false => ptr::null_mut(),
        }
    }

    /// An argument as text, which lives until its value changes; null for NULL and for none.
    fn c_text(&self, index: usize) -> *const c_char {
        match self.argument(index) {
            value if value.is_null() => ptr::null(),
            // SAFETY: a value of the running call.
            value => unsafe { (self.api.value_text)(value) },
        }
    }

    /// An argument as a number, as SQLite converts it.
    pub(super) fn integer(&self, index: usize) -> i64 {
        match self.argument(index) {
            value if value.is_null() => 0,
            // SAFETY: a value of the running call.
            value => unsafe { (self.api.value_int64)(value) },
        }
    }

    /// An argument as text; `None` for NULL and for none.
    pub(super) fn optional_text(
        &self,
        index: usize,
        function: &str,
        argument: &str,
    ) -> Result<Option<String>, Failure> {
        let value = self.c_text(index);
        if value.is_null() {
            return Ok(None);
        }
        // SAFETY: a C string of the running call.
        let text = unsafe { CStr::from_ptr(value) }.to_str();
        text.map(|text| Some(text.to_owned())).map_err(|_| {
            error(format!(
                "{function}: {argument} argument is not valid UTF-8"
            ))
        })
    }

    /// An argument as text, which must be there.
    pub(super) fn text(
        &self,
        index: usize,
        function: &str,
        argument: &str,
    ) -> Result<String, Failure> {
        let text = self.optional_text(index, function, argument)?;
        text.ok_or_else(|| error(format!("{function}: {argument} argument is required")))
    }

    /// The database of ours that the first argument names.
    pub(super) fn database(&mut self, function: &str) -> Result<&mut Handle, Failure> {
        let schema = self.text(0, function, "db")?;
        let mut file: *mut sqlite3_file = ptr::null_mut();
        // SAFETY: the connection of the running call; its mutex is held by this thread and can be
        // entered again. The argument is a place for the file.
        let found = unsafe {
            let db = (self.api.context_db_handle)(self.context);
            let place = ptr::from_mut(&mut file).cast();
            (self.api.file_control)(db, self.c_text(0), fcntl::FILE_POINTER, place)
        };
        if found != code::OK {
            let message = format!("there is no database '{schema}' on this connection");
            return Err(error(message));
        }
        // SAFETY: a file of this connection, which runs no other call now.
        unsafe { handle_of(file) }
            .ok_or_else(|| error(format!("database '{schema}' is not an mvSQLite database")))
    }
}

/// A failure that is an SQL error and nothing more.
pub(super) fn error(message: impl std::fmt::Display) -> Failure {
    Failure::new(code::ERROR, message.to_string())
}
