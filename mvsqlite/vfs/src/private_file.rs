//! `sqlite3_file` for journals: main journals of databases of ours, and super-journals.

use std::ffi::{c_int, c_void};
use std::sync::{MutexGuard, PoisonError};

use crate::failure::{Failure, guarded_code};
use crate::ffi::{code, sqlite3_file, sqlite3_io_methods};
use crate::journal::Journal;
use crate::super_journal::SharedJournal;
use crate::vfs::Vfs;

/// What lies in SQLite's memory for an open journal.
#[repr(C)]
pub(crate) struct PrivateFile {
    base: sqlite3_file,
    state: *mut State,
}

struct State {
    vfs: &'static Vfs,
    journal: SharedJournal,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    version: 1,
    close: Some(close),
    read: Some(read),
    write: Some(write),
    truncate: Some(truncate),
    sync: Some(sync),
    file_size: Some(file_size),
    lock: Some(no_lock),
    unlock: Some(no_lock),
    check_reserved_lock: Some(check_reserved_lock),
    file_control: Some(file_control),
    sector_size: Some(nothing),
    device_characteristics: Some(nothing),
    shm_map: None,
    shm_lock: None,
    shm_barrier: None,
    shm_unmap: None,
};

/// Makes the memory at `file` an open journal.
///
/// # Safety
/// `file` is memory for a file of a VFS whose `file_bytes` is at least the size of
/// [`PrivateFile`], and holds no open file.
pub(crate) unsafe fn open(file: *mut sqlite3_file, vfs: &'static Vfs, journal: SharedJournal) {
    let state = Box::into_raw(Box::new(State { vfs, journal }));
    let opened = PrivateFile {
        base: sqlite3_file { methods: &METHODS },
        state,
    };
    // SAFETY: the caller's; SQLite aligns the memory of files to 8 bytes.
    unsafe { file.cast::<PrivateFile>().write(opened) }
}

/// # Safety
/// `file` was opened by [`open`] and not closed since; SQLite makes one call at a time.
unsafe fn state<'a>(file: *mut sqlite3_file) -> &'a State {
    // SAFETY: the caller's.
    unsafe { &*(*file.cast::<PrivateFile>()).state }
}

impl State {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A size or offset from SQLite, which are never negative.
fn unsigned(value: i64) -> Result<u64, Failure> {
    u64::try_from(value).map_err(|_| Failure::new(code::IOERR, "negative offset in a journal"))
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once; the state was made by `open` above.
    let state = unsafe { Box::from_raw((*file.cast::<PrivateFile>()).state) };
    let api = state.vfs.api();
    guarded_code(api, "xClose of a journal", || {
        drop(state);
        Ok(code::OK)
    })
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    buffer: *mut c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: an open journal, as SQLite calls methods of open files only.
    let state = unsafe { state(file) };
    guarded_code(state.vfs.api(), "xRead of a journal", || {
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: SQLite gives a buffer of that many bytes; writing is all that is done with it.
        let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        match state.journal().read(buffer, unsigned(offset)?)? {
            true => Ok(code::OK),
            false => Ok(code::IOERR_SHORT_READ),
        }
    })
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    data: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: an open journal.
    let state = unsafe { state(file) };
    guarded_code(state.vfs.api(), "xWrite of a journal", || {
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: SQLite gives that many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) };
        state.journal().write(bytes, unsigned(offset)?)?;
        Ok(code::OK)
    })
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: an open journal.
    let state = unsafe { state(file) };
    guarded_code(state.vfs.api(), "xTruncate of a journal", || {
        state.journal().truncate(unsigned(size)?)?;
        Ok(code::OK)
    })
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: an open journal.
    let state = unsafe { state(file) };
    guarded_code(state.vfs.api(), "xFileSize of a journal", || {
        let bytes = i64::try_from(state.journal().size()).unwrap_or(i64::MAX);
        // SAFETY: SQLite gives a place for the answer.
        unsafe { *size = bytes };
        Ok(code::OK)
    })
}

/// A journal need not survive anything, so there is nothing to make durable.
unsafe extern "C" fn sync(_file: *mut sqlite3_file, _flags: c_int) -> c_int {
    code::OK
}

unsafe extern "C" fn no_lock(_file: *mut sqlite3_file, _level: c_int) -> c_int {
    code::OK
}

unsafe extern "C" fn check_reserved_lock(_file: *mut sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *held = 0 };
    code::OK
}

unsafe extern "C" fn file_control(
    _file: *mut sqlite3_file,
    _operation: c_int,
    _argument: *mut c_void,
) -> c_int {
    code::NOTFOUND
}

/// No sector size and no device characteristics of its own: SQLite's defaults.
unsafe extern "C" fn nothing(_file: *mut sqlite3_file) -> c_int {
    0
}
