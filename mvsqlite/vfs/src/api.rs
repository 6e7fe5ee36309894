//! The few functions of SQLite that the VFS calls, as a table.
//!
//! No SQLite is linked here: a second copy in a process would have mutexes, allocators and VFS
//! lists of its own. The table is filled from the library that the host already uses, by
//! whatever way finds its symbols (`dlsym` for the preload library).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use crate::ffi::{code, sqlite3, sqlite3_context, sqlite3_value, sqlite3_vfs};

/// An SQL function's implementation, as `sqlite3_create_function_v2` takes it.
pub type ScalarFunction =
    unsafe extern "C" fn(*mut sqlite3_context, c_int, *mut *mut sqlite3_value);

/// An aggregate's final step: never used, part of a signature only.
type FinalStep = unsafe extern "C" fn(*mut sqlite3_context);

/// The entry point of an automatic extension: SQLite declares another type and calls this one.
pub type AutoExtension =
    unsafe extern "C" fn(*mut sqlite3, *mut *mut c_char, *const c_void) -> c_int;

/// A destructor of memory handed to SQLite.
type Destructor = unsafe extern "C" fn(*mut c_void);

/// A function the host's SQLite does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFunction(pub &'static CStr);

impl std::fmt::Display for MissingFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "this SQLite has no function {}",
            self.0.to_string_lossy()
        )
    }
}

impl std::error::Error for MissingFunction {}

/// Declares the table, and its constructor from a symbol look-up.
macro_rules! api_table {
    (
        fixed { $($field:ident = $symbol:literal: fn($($arg:ty),* $(,)?) $(-> $ret:ty)? ;)* }
        variadic { $log:ident = $log_symbol:literal; }
    ) => {
        /// SQLite's functions, by the names they have without `sqlite3_`.
        #[derive(Clone, Copy)]
        pub struct Api {
            $(pub(crate) $field: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
            $log: unsafe extern "C" fn(c_int, *const c_char, ...),
        }

        impl Api {
            /// Fills the table. `symbol` gives the address of a function by its name, or null.
            ///
            /// # Safety
            /// Each address given must be that of SQLite's function of that name, 3.31 or later,
            /// all from one library that stays loaded for the rest of the process.
            ///
            /// # Errors
            /// The first function that was not found.
            pub unsafe fn from_symbols(
                mut symbol: impl FnMut(&CStr) -> *const c_void,
            ) -> Result<Self, MissingFunction> {
                let mut find = |name: &'static CStr| match symbol(name) {
                    address if address.is_null() => Err(MissingFunction(name)),
                    address => Ok(address),
                };
                Ok(Self {
                    $($field: {
                        let address = find($symbol)?;
                        // SAFETY: the caller vouches that the address is that of the function so
                        // named, whose type is the one declared in this table.
                        unsafe {
                            std::mem::transmute::<
                                *const c_void,
                                unsafe extern "C" fn($($arg),*) $(-> $ret)?,
                            >(address)
                        }
                    },)*
                    $log: {
                        let address = find($log_symbol)?;
                        // SAFETY: as above.
                        unsafe {
                            std::mem::transmute::<
                                *const c_void,
                                unsafe extern "C" fn(c_int, *const c_char, ...),
                            >(address)
                        }
                    },
                })
            }
        }
    };
}

api_table! {
    fixed {
        vfs_find = c"sqlite3_vfs_find": fn(*const c_char) -> *mut sqlite3_vfs;
        vfs_register = c"sqlite3_vfs_register": fn(*mut sqlite3_vfs, c_int) -> c_int;
        malloc64 = c"sqlite3_malloc64": fn(u64) -> *mut c_void;
        uri_boolean = c"sqlite3_uri_boolean": fn(*const c_char, *const c_char, c_int) -> c_int;
        db_filename = c"sqlite3_db_filename": fn(*mut sqlite3, *const c_char) -> *const c_char;
        file_control = c"sqlite3_file_control":
            fn(*mut sqlite3, *const c_char, c_int, *mut c_void) -> c_int;
        auto_extension = c"sqlite3_auto_extension": fn(AutoExtension) -> c_int;
        create_function_v2 = c"sqlite3_create_function_v2": fn(
            *mut sqlite3,
            *const c_char,
            c_int,
            c_int,
            *mut c_void,
            Option<ScalarFunction>,
            Option<ScalarFunction>,
            Option<FinalStep>,
            Option<Destructor>,
        ) -> c_int;
        context_db_handle = c"sqlite3_context_db_handle": fn(*mut sqlite3_context) -> *mut sqlite3;
        value_text = c"sqlite3_value_text": fn(*mut sqlite3_value) -> *const c_char;
        value_int64 = c"sqlite3_value_int64": fn(*mut sqlite3_value) -> i64;
        result_text = c"sqlite3_result_text":
            fn(*mut sqlite3_context, *const c_char, c_int, Option<Destructor>);
        result_null = c"sqlite3_result_null": fn(*mut sqlite3_context);
        result_error = c"sqlite3_result_error": fn(*mut sqlite3_context, *const c_char, c_int);
        result_error_code = c"sqlite3_result_error_code": fn(*mut sqlite3_context, c_int);
    }
    variadic {
        log_format = c"sqlite3_log";
    }
}

impl Api {
    /// Writes a message to SQLite's error log, if the host has set one.
    ///
    /// SQLite cuts what exceeds a buffer of its own, so a long message takes several lines.
    pub(crate) fn log(&self, result_code: c_int, message: &str) {
        for line in lines(message) {
            let line = c_text(&line);
            // SAFETY: the format has one %s, which gets one C string; SQLite copies what it keeps.
            unsafe { (self.log_format)(result_code, c"%s".as_ptr(), line.as_ptr()) }
        }
    }

    /// Copies text into memory that SQLite frees with `sqlite3_free`; null when there is none.
    pub(crate) fn new_text(&self, text: &str) -> *mut c_char {
        let text = c_text(text);
        let bytes = text.as_bytes_with_nul();
        // SAFETY: plain allocation.
        let memory = unsafe { (self.malloc64)(bytes.len() as u64) }.cast::<c_char>();
        if !memory.is_null() {
            // SAFETY: `memory` is fresh and has room for `bytes.len()` bytes.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), memory, bytes.len()) };
        }
        memory
    }

    /// Gives the message of an extension that cannot be loaded; nothing if no memory is left.
    ///
    /// # Safety
    /// `destination` is null or valid for writing a pointer.
    pub unsafe fn explain(&self, destination: *mut *mut c_char, text: &str) {
        if !destination.is_null() {
            // SAFETY: the caller's.
            unsafe { self.give_text(destination, text) };
        }
    }

    /// Copies text into memory for SQLite and stores its address at `destination`.
    ///
    /// # Safety
    /// `destination` is valid for writing a pointer.
    pub(crate) unsafe fn give_text(&self, destination: *mut *mut c_char, text: &str) -> c_int {
        let memory = self.new_text(text);
        // SAFETY: the caller's.
        unsafe { *destination = memory };
        if memory.is_null() {
            code::NOMEM
        } else {
            code::OK
        }
    }

    /// Makes text the result of an SQL function.
    ///
    /// # Safety
    /// `context` is that of the running function.
    pub(crate) unsafe fn return_text(&self, context: *mut sqlite3_context, text: &str) {
        let Ok(length) = c_int::try_from(text.len()) else {
            // SAFETY: the caller's.
            return unsafe { (self.result_error_code)(context, code::NOMEM) };
        };
        // SQLITE_TRANSIENT: SQLite makes a copy of its own.
        // SAFETY: SQLite compares this destructor with the value -1 and never calls it.
        let transient = unsafe { std::mem::transmute::<isize, Option<Destructor>>(-1) };
        // SAFETY: `text` is valid for `length` bytes during the call; `context` by the caller.
        unsafe { (self.result_text)(context, text.as_ptr().cast(), length, transient) }
    }

    /// Makes an error the result of an SQL function: its message, then its code.
    ///
    /// # Safety
    /// `context` is that of the running function.
    pub(crate) unsafe fn return_error(
        &self,
        context: *mut sqlite3_context,
        code: c_int,
        text: &str,
    ) {
        let length = c_int::try_from(text.len()).unwrap_or(c_int::MAX);
        // SAFETY: `text` is valid for `length` bytes and copied by SQLite; `context` by the caller.
        unsafe {
            (self.result_error)(context, text.as_ptr().cast(), length);
            if code != code::ERROR {
                (self.result_error_code)(context, code);
            }
        }
    }
}

/// The longest line, in bytes: SQLite's buffer has 210 (3.40).
const LINE_BYTES: usize = 200;
/// How a line begins that continues the one before.
const CONTINUED: &str = "... ";

/// A message in lines that fit SQLite's buffer, broken between words where there are any.
fn lines(message: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in message.split_inclusive(' ') {
        let full =
            |line: &str| line.len() + word.len() > LINE_BYTES && line.len() > CONTINUED.len();
        if lines.last().is_some_and(|line| full(line)) {
            lines.push(CONTINUED.to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(word);
        }
    }
    lines
}

/// Text as a C string: cut at the first NUL, which no message of ours has.
fn c_text(text: &str) -> CString {
    let bytes = text.as_bytes();
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_broken_between_words_and_complete() {
        let message = "a message of words ".repeat(30);
        let broken = lines(&message);
        assert!(broken.len() > 1 && broken.iter().all(|line| line.len() <= LINE_BYTES));
        let joined: String = broken
            .iter()
            .map(|line| line.strip_prefix(CONTINUED).unwrap_or(line))
            .collect();
        assert_eq!(joined, message);
        assert_eq!(lines("short"), ["short"]);
    }

    #[test]
    fn text_for_sqlite_ends_at_its_first_nul() {
        assert_eq!(c_text("a\0b").as_c_str(), c"a");
    }
}
