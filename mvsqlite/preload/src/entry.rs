//! The interposed functions.
//!
//! Each is a few instructions that pass on its arguments and, behind them, the address it returns
//! to: who called decides which SQLite library is meant when a process has several, or has loaded
//! it with `dlopen` out of everybody else's sight. Compilers offer no stable way to that address.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use mvsqlite_vfs::sqlite3;

use crate::scope::{Caller, Scope};
use crate::served::{Served, serve};

/// `SQLITE_CANTOPEN`: the answer when the real function cannot be called, or may not.
const CANTOPEN: c_int = 14;

/// Defines an exported function that calls `$body` with one argument more: the caller's address.
macro_rules! interpose {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty, $x86_64:literal, $aarch64:literal, $body:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As SQLite's function of this name.
        #[cfg(target_arch = "x86_64")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> $ret {
            // At the first instruction the return address is on top of the stack.
            std::arch::naked_asm!(
                concat!("mov ", $x86_64, ", [rsp]"),
                "jmp {body}",
                body = sym $body,
            )
        }

        $(#[$doc])*
        ///
        /// # Safety
        /// As SQLite's function of this name.
        #[cfg(target_arch = "aarch64")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> $ret {
            // At the first instruction the return address is in the link register.
            std::arch::naked_asm!(
                concat!("mov ", $aarch64, ", x30"),
                "b {body}",
                body = sym $body,
            )
        }
    };
}

interpose! {
    /// SQLite's `sqlite3_open`, with the VFS in place.
    fn sqlite3_open(name: *const c_char, db: *mut *mut sqlite3) -> c_int, "rdx", "x2", open
}

interpose! {
    /// SQLite's `sqlite3_open16`, with the VFS in place.
    fn sqlite3_open16(name: *const c_void, db: *mut *mut sqlite3) -> c_int, "rdx", "x2", open16
}

interpose! {
    /// SQLite's `sqlite3_open_v2`, with the VFS in place.
    fn sqlite3_open_v2(
        name: *const c_char,
        db: *mut *mut sqlite3,
        flags: c_int,
        vfs: *const c_char
    ) -> c_int, "r8", "x4", open_v2
}

interpose! {
    /// SQLite's `sqlite3_step`; a single statement that lost a conflict is run again.
    fn sqlite3_step(statement: *mut c_void) -> c_int, "rsi", "x1", step
}

interpose! {
    /// SQLite's `sqlite3_errmsg`; a failure of ours is explained.
    fn sqlite3_errmsg(db: *mut c_void) -> *const c_char, "rsi", "x1", errmsg
}

type Open = unsafe extern "C" fn(*const c_char, *mut *mut sqlite3) -> c_int;
type Open16 = unsafe extern "C" fn(*const c_void, *mut *mut sqlite3) -> c_int;
type OpenV2 = unsafe extern "C" fn(*const c_char, *mut *mut sqlite3, c_int, *const c_char) -> c_int;

unsafe extern "C" fn open(name: *const c_char, db: *mut *mut sqlite3, caller: Caller) -> c_int {
    open_with(caller, c"sqlite3_open", db, |real| {
        // SAFETY: the symbol's type in SQLite's header.
        let real = unsafe { std::mem::transmute::<*const c_void, Open>(real) };
        // SAFETY: the caller's arguments, passed on.
        unsafe { real(name, db) }
    })
}

unsafe extern "C" fn open16(name: *const c_void, db: *mut *mut sqlite3, caller: Caller) -> c_int {
    open_with(caller, c"sqlite3_open16", db, |real| {
        // SAFETY: the symbol's type in SQLite's header.
        let real = unsafe { std::mem::transmute::<*const c_void, Open16>(real) };
        // SAFETY: the caller's arguments, passed on.
        unsafe { real(name, db) }
    })
}

unsafe extern "C" fn open_v2(
    name: *const c_char,
    db: *mut *mut sqlite3,
    flags: c_int,
    vfs: *const c_char,
    caller: Caller,
) -> c_int {
    open_with(caller, c"sqlite3_open_v2", db, |real| {
        // SAFETY: the symbol's type in SQLite's header.
        let real = unsafe { std::mem::transmute::<*const c_void, OpenV2>(real) };
        // SAFETY: the caller's arguments, passed on.
        unsafe { real(name, db, flags, vfs) }
    })
}

unsafe extern "C" fn step(statement: *mut c_void, caller: Caller) -> c_int {
    // SAFETY: the caller's argument, passed on.
    unsafe { crate::step::step(statement, caller) }
}

unsafe extern "C" fn errmsg(db: *mut c_void, caller: Caller) -> *const c_char {
    // SAFETY: the caller's argument, passed on.
    unsafe { crate::errmsg::errmsg(db, caller) }
}

/// Sees to it that the library has the VFS, calls the real function, adds the SQL functions.
///
/// If the VFS is wanted and cannot be had, nothing is opened: a program that is meant to work on
/// the store must never silently work on a local file.
fn open_with(
    caller: Caller,
    symbol: &CStr,
    db: *mut *mut sqlite3,
    call: impl FnOnce(*const c_void) -> c_int,
) -> c_int {
    let prepared = catch_unwind(|| {
        let scope = Scope::of(caller);
        let (real, served) = (scope.find(symbol), serve(&scope));
        if matches!(served, Served::By(_)) {
            // SQLite keeps our VFS, and the VFS calls SQLite.
            scope.keep();
        }
        (real, served)
    });
    let (real, vfs) = match prepared {
        Ok((Some(real), Served::Not)) => return call(real.as_ptr()),
        Ok((Some(real), Served::By(vfs))) => (real, vfs),
        Ok((None, _) | (_, Served::Unusable)) | Err(_) => {
            if !db.is_null() {
                // SAFETY: SQLite's callers give a place for the connection.
                unsafe { *db = ptr::null_mut() };
            }
            return CANTOPEN;
        }
    };
    vfs.stay_default();
    mvsqlite_vfs::forget_failure();
    let result = call(real.as_ptr());
    if result == 0 {
        // A failure here is the host's allocator's; the connection works without the functions.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the library just opened this connection, and nobody else knows it yet.
            unsafe { vfs.add_functions(*db) }
        }));
    }
    result
}
