//! The functions of `include/mvsqlite.h`, where they are documented for their users.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::catch_unwind;
use std::sync::Once;

use crate::{Error, Registration};

/// `SQLITE_OK`.
const OK: c_int = 0;
/// `SQLITE_ERROR`.
const ERROR: c_int = 1;
/// `SQLITE_INTERNAL`.
const INTERNAL: c_int = 2;
/// `SQLITE_MISUSE`.
const MISUSE: c_int = 21;

/// `MVSQLITE_MAKE_DEFAULT`: the VFS becomes the default.
pub const MAKE_DEFAULT: c_int = 1;

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// `mvsqlite_register`: [`Registration::register`] for C.
///
/// # Safety
/// `settings` is null or an array of C strings whose last element is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvsqlite_register(settings: *const *const c_char, flags: c_int) -> c_int {
    silence_panics();
    // SAFETY: the caller's.
    let registered = catch_unwind(|| unsafe { register(settings, flags) });
    let (code, message) = match registered {
        Ok(Ok(())) => (OK, String::new()),
        Ok(Err(failure)) => failure,
        Err(_) => (INTERNAL, "bug in mvSQLite, please report it".to_owned()),
    };
    // At the end of a thread its locals are gone; the code is the answer all the same.
    let _ = MESSAGE.try_with(|place| {
        *place.borrow_mut() = CString::new(message).unwrap_or_default();
    });
    code
}

/// `mvsqlite_errmsg`: the message of this thread's last call of [`mvsqlite_register`].
#[unsafe(no_mangle)]
pub extern "C" fn mvsqlite_errmsg() -> *const c_char {
    let message = MESSAGE.try_with(|message| message.borrow().as_ptr());
    message.unwrap_or(c"".as_ptr())
}

/// `mvsqlite_version`: the version of this library.
#[unsafe(no_mangle)]
pub extern "C" fn mvsqlite_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// # Safety
/// As [`mvsqlite_register`].
unsafe fn register(settings: *const *const c_char, flags: c_int) -> Result<(), (c_int, String)> {
    if flags & !MAKE_DEFAULT != 0 {
        return Err((MISUSE, format!("unknown flags {flags:#x}")));
    }
    let mut registration = Registration::new();
    if flags & MAKE_DEFAULT != 0 {
        registration = registration.as_default();
    }
    // SAFETY: the caller's.
    for setting in unsafe { texts(settings) } {
        let setting = setting.to_string_lossy();
        let Some((name, value)) = setting.split_once('=') else {
            return Err((MISUSE, format!("'{setting}': expected NAME=VALUE")));
        };
        registration = registration.set(name, value);
    }
    registration.register().map_err(|error| {
        let code = match error {
            Error::UnknownSetting(_) | Error::AlreadyRegistered => MISUSE,
            _ => ERROR,
        };
        (code, error.to_string())
    })
}

/// The texts of an array that a null ends.
///
/// # Safety
/// `array` is null or such an array, which lives for `'a`.
unsafe fn texts<'a>(array: *const *const c_char) -> Vec<&'a CStr> {
    let mut texts = Vec::new();
    if array.is_null() {
        return texts;
    }
    // SAFETY: the caller's: every element up to the null one may be read, and is a C string.
    unsafe {
        let mut next = array;
        while !(*next).is_null() {
            texts.push(CStr::from_ptr(*next));
            next = next.add(1);
        }
    }
    texts
}

/// A panic is caught and ends nothing; the usual report on the host's standard error is not ours to
/// make. A program in C has no panics of its own.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    /// What the header says, in Rust's types: it does not compile if they differ.
    #[test]
    fn the_signatures_are_those_of_the_header() {
        let _: unsafe extern "C" fn(*const *const c_char, c_int) -> c_int = mvsqlite_register;
        let _: extern "C" fn() -> *const c_char = mvsqlite_errmsg;
        let _: extern "C" fn() -> *const c_char = mvsqlite_version;
        let header = include_str!("../include/mvsqlite.h");
        for declaration in [
            "int mvsqlite_register(const char *const *settings, int flags);",
            "const char *mvsqlite_errmsg(void);",
            "const char *mvsqlite_version(void);",
        ] {
            assert!(header.contains(declaration), "{declaration}");
        }
        assert!(header.contains(&format!("#define MVSQLITE_MAKE_DEFAULT {MAKE_DEFAULT}")));
    }

    #[test]
    fn wrong_arguments_are_a_misuse_with_a_message() {
        let settings = [c"no equals sign".as_ptr(), ptr::null()];
        // SAFETY: an array of C strings with null at its end.
        let code = unsafe { mvsqlite_register(settings.as_ptr(), 0) };
        // SAFETY: a C string of this thread.
        let message = unsafe { CStr::from_ptr(mvsqlite_errmsg()) };
        assert_eq!(code, MISUSE);
        assert!(message.to_string_lossy().contains("NAME=VALUE"));
        // SAFETY: null stands for no settings.
        assert_eq!(unsafe { mvsqlite_register(ptr::null(), 64) }, MISUSE);
    }
}
