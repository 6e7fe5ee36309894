//! What is not ours goes to the VFS that was the host's default, unchanged.

use std::ffi::{c_char, c_double, c_int, c_void};
use std::panic::catch_unwind;
use std::time::Duration;

use crate::failure;
use crate::ffi::{AnyFunction, code, sqlite3_file, sqlite3_vfs};
use crate::registration::vfs;
use crate::vfs::{Vfs, copy_message};

/// The default VFS behind ours.
///
/// # Safety
/// `raw` is our description of a registered VFS.
unsafe fn base(raw: *mut sqlite3_vfs) -> *mut sqlite3_vfs {
    // SAFETY: the caller's.
    unsafe { vfs(raw) }.base()
}

/// # Safety
/// SQLite's arguments of `xOpen`.
pub(crate) unsafe fn open(
    vfs: &Vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let base = vfs.base();
    // SAFETY: the default VFS stays registered; its file fits, as `file_bytes` is the larger one.
    unsafe {
        (*base).open.map_or(code::CANTOPEN, |open| {
            open(base, name, file, flags, out_flags)
        })
    }
}

/// # Safety
/// SQLite's arguments of `xDelete`.
pub(crate) unsafe fn delete(vfs: &Vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    let base = vfs.base();
    // SAFETY: the default VFS stays registered.
    unsafe {
        (*base)
            .delete
            .map_or(code::IOERR, |delete| delete(base, name, sync_dir))
    }
}

/// # Safety
/// SQLite's arguments of `xAccess`.
pub(crate) unsafe fn access(
    vfs: &Vfs,
    name: *const c_char,
    flags: c_int,
    answer: *mut c_int,
) -> c_int {
    let base = vfs.base();
    // SAFETY: the default VFS stays registered.
    unsafe {
        (*base)
            .access
            .map_or(code::IOERR, |access| access(base, name, flags, answer))
    }
}

/// # Safety
/// SQLite's arguments of `xFullPathname`.
pub(crate) unsafe fn full_pathname(
    vfs: &Vfs,
    name: *const c_char,
    room: c_int,
    full: *mut c_char,
) -> c_int {
    let base = vfs.base();
    // SAFETY: the default VFS stays registered.
    unsafe {
        (*base)
            .full_pathname
            .map_or(code::CANTOPEN, |f| f(base, name, room, full))
    }
}

pub(crate) unsafe extern "C" fn dl_open(raw: *mut sqlite3_vfs, name: *const c_char) -> *mut c_void {
    // SAFETY: SQLite's call, passed on.
    unsafe {
        let base = base(raw);
        (*base)
            .dl_open
            .map_or(std::ptr::null_mut(), |f| f(base, name))
    }
}

pub(crate) unsafe extern "C" fn dl_error(raw: *mut sqlite3_vfs, room: c_int, text: *mut c_char) {
    // SAFETY: SQLite's call, passed on.
    unsafe {
        let base = base(raw);
        if let Some(dl_error) = (*base).dl_error {
            dl_error(base, room, text);
        }
    }
}

pub(crate) unsafe extern "C" fn dl_sym(
    raw: *mut sqlite3_vfs,
    library: *mut c_void,
    symbol: *const c_char,
) -> AnyFunction {
    // SAFETY: SQLite's call, passed on.
    unsafe {
        let base = base(raw);
        (*base).dl_sym.and_then(|f| f(base, library, symbol))
    }
}

pub(crate) unsafe extern "C" fn dl_close(raw: *mut sqlite3_vfs, library: *mut c_void) {
    // SAFETY: SQLite's call, passed on.
    unsafe {
        let base = base(raw);
        if let Some(dl_close) = (*base).dl_close {
            dl_close(base, library);
        }
    }
}

pub(crate) unsafe extern "C" fn randomness(
    raw: *mut sqlite3_vfs,
    length: c_int,
    buffer: *mut c_char,
) -> c_int {
    // SAFETY: SQLite's call, passed on.
    unsafe {
        let base = base(raw);
        (*base).randomness.map_or(0, |f| f(base, length, buffer))
    }
}

/// Sleeps, except that SQLite's busy handler is woken when what it waits for is there.
pub(crate) unsafe extern "C" fn sleep(raw: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    let duration = Duration::from_micros(u64::try_from(microseconds).unwrap_or(0));
    if let Ok(true) = catch_unwind(|| mvsqlite::sleep_for_lease(duration)) {
        return microseconds;
    }
    // SAFETY: SQLite's call, passed on.
    unsafe {
        let base = base(raw);
        (*base).sleep.map_or(0, |f| f(base, microseconds))
    }
}

pub(crate) unsafe extern "C" fn current_time(raw: *mut sqlite3_vfs, days: *mut c_double) -> c_int {
    // SAFETY: SQLite's call, passed on.
    unsafe {
        let base = base(raw);
        (*base).current_time.map_or(code::ERROR, |f| f(base, days))
    }
}

/// The text of this thread's last failure of ours; with none, the default VFS's answer.
pub(crate) unsafe extern "C" fn get_last_error(
    raw: *mut sqlite3_vfs,
    room: c_int,
    buffer: *mut c_char,
) -> c_int {
    let message = failure::last_message();
    // SAFETY: SQLite's call, passed on; the buffer has `room` bytes.
    unsafe {
        if !message.is_empty() && room > 0 && !buffer.is_null() {
            copy_message(&message, room, buffer);
            return 0;
        }
        let base = base(raw);
        (*base).get_last_error.map_or(0, |f| f(base, room, buffer))
    }
}

pub(crate) unsafe extern "C" fn current_time_int64(
    raw: *mut sqlite3_vfs,
    milliseconds: *mut i64,
) -> c_int {
    const MILLISECONDS_PER_DAY: f64 = 86_400_000.0;
    // SAFETY: SQLite's call, passed on; the method exists from version 2 on.
    unsafe {
        let base = base(raw);
        if (*base).version >= 2
            && let Some(current_time_int64) = (*base).current_time_int64
        {
            return current_time_int64(base, milliseconds);
        }
        let mut days = 0.0;
        let result = current_time(raw, &mut days);
        *milliseconds = (days * MILLISECONDS_PER_DAY) as i64;
        result
    }
}

pub(crate) unsafe extern "C" fn set_system_call(
    raw: *mut sqlite3_vfs,
    name: *const c_char,
    function: AnyFunction,
) -> c_int {
    // SAFETY: SQLite's call, passed on; the method exists from version 3 on.
    unsafe {
        let base = base(raw);
        match (*base).set_system_call.filter(|_| (*base).version >= 3) {
            Some(set_system_call) => set_system_call(base, name, function),
            None => code::NOTFOUND,
        }
    }
}

pub(crate) unsafe extern "C" fn get_system_call(
    raw: *mut sqlite3_vfs,
    name: *const c_char,
) -> AnyFunction {
    // SAFETY: SQLite's call, passed on; the method exists from version 3 on.
    unsafe {
        let base = base(raw);
        let get_system_call = (*base).get_system_call.filter(|_| (*base).version >= 3)?;
        get_system_call(base, name)
    }
}

pub(crate) unsafe extern "C" fn next_system_call(
    raw: *mut sqlite3_vfs,
    name: *const c_char,
) -> *const c_char {
    // SAFETY: SQLite's call, passed on; the method exists from version 3 on.
    unsafe {
        let base = base(raw);
        match (*base).next_system_call.filter(|_| (*base).version >= 3) {
            Some(next_system_call) => next_system_call(base, name),
            None => std::ptr::null(),
        }
    }
}
