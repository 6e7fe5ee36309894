//! `sqlite3_errmsg`: says why a call failed, where SQLite knows only that the VFS refused.
//!
//! SQLite has one text per result code for that, such as "unable to open database file". It stays at
//! the front, and ours follows. Only for a failure of ours during this thread's last open or step,
//! with the very code that the connection has, where SQLite has nothing of its own to say. Not for
//! `SQLITE_BUSY`: programs compare that text.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::catch_unwind;

use crate::scope::{Caller, Scope};
use crate::served;

/// `SQLITE_BUSY`, without extended codes.
const BUSY: c_int = 5;

type Connection = *mut std::ffi::c_void;
type Errmsg = unsafe extern "C" fn(Connection) -> *const c_char;

thread_local! {
    /// What was given to the program last. As with SQLite's own, it lives until the next call.
    static GIVEN: RefCell<CString> = RefCell::default();
}

/// What `sqlite3_errmsg` does, for a call from `caller`.
///
/// # Safety
/// `db` is what a program may give to SQLite's function.
pub(crate) unsafe fn errmsg(db: Connection, caller: Caller) -> *const c_char {
    let found = catch_unwind(|| {
        let scope = Scope::of(caller);
        let real = scope.find(c"sqlite3_errmsg")?;
        let library = served::library(&scope);
        Some((real, library, scope))
    });
    let Ok(Some((real, library, _scope))) = found else {
        return c"unknown error".as_ptr();
    };
    // SAFETY: the symbol's type in SQLite's header.
    let real = unsafe { std::mem::transmute::<std::ptr::NonNull<std::ffi::c_void>, Errmsg>(real) };
    // SAFETY: the caller's argument, passed on. The library is kept loaded during the call.
    let text = unsafe { real(db) };
    let Some(statements) = library.and_then(served::statements) else {
        return text;
    };
    let explained = catch_unwind(|| {
        // SAFETY: the caller's; SQLite's texts are C strings.
        let (code, general) = unsafe { statements.code_and_its_text(db) };
        let (failed, why) = mvsqlite_vfs::last_failure()?;
        // SAFETY: as above.
        let said = unsafe { text.as_ref().map(|text| CStr::from_ptr(text))? };
        let unexplained = failed == code && code & 0xff != BUSY && general == Some(said);
        let explained = format!("{}: {why}", said.to_str().ok()?);
        let explained = CString::new(explained).ok().filter(|_| unexplained)?;
        give(explained)
    });
    explained.ok().flatten().unwrap_or(text)
}

/// A text that the program may look at until it is given another one. The same text has the same
/// address: programs ask twice and use the first answer, which SQLite's own allows.
fn give(text: CString) -> Option<*const c_char> {
    let give = |given: &RefCell<CString>| {
        let mut given = given.borrow_mut();
        if *given != text {
            *given = text;
        }
        given.as_ptr()
    };
    GIVEN.try_with(give).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that asked for the message twice printed freed memory: the second answer had taken
    /// the place of the first, though both were the same.
    #[test]
    fn the_same_message_asked_for_again_stays_where_it_is() {
        let first = give(c"why".to_owned()).unwrap();
        assert_eq!(give(c"why".to_owned()), Some(first));
        let other = give(c"why not".to_owned()).unwrap();
        // SAFETY: given last on this thread.
        assert_eq!(unsafe { CStr::from_ptr(other) }, c"why not");
    }
}
