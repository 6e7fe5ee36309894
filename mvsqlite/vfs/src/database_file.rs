//! `sqlite3_file` for databases of ours: SQLite's calls, turned into those of [`Handle`].

use std::ffi::{CStr, c_int, c_void};

use mvsqlite::LockLevel;

use crate::control;
use crate::failure::{Failure, guarded_code};
use crate::ffi::{code, lock as level, sqlite3_file, sqlite3_io_methods};
use crate::handle::Handle;

/// What lies in SQLite's memory for an open database.
#[repr(C)]
pub(crate) struct OpenDatabase {
    base: sqlite3_file,
    handle: *mut Handle,
}

/// Version 2 without shared memory: no WAL; and no `xFetch`: no memory map.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    version: 2,
    close: Some(close),
    read: Some(read),
    write: Some(write),
    truncate: Some(truncate),
    sync: Some(sync),
    file_size: Some(file_size),
    lock: Some(lock),
    unlock: Some(unlock),
    check_reserved_lock: Some(check_reserved_lock),
    file_control: Some(file_control),
    sector_size: Some(sector_size),
    device_characteristics: Some(device_characteristics),
    shm_map: None,
    shm_lock: None,
    shm_barrier: None,
    shm_unmap: None,
};

/// Makes the memory at `file` an open database.
///
/// # Safety
/// `file` is memory for a file of a VFS whose `file_bytes` is at least the size of
/// [`OpenDatabase`], and holds no open file.
pub(crate) unsafe fn open(file: *mut sqlite3_file, handle: Handle) {
    let handle = Box::into_raw(Box::new(handle));
    // A super-journal's deletion finds its member by this address.
    handle.expose_provenance();
    let opened = OpenDatabase {
        base: sqlite3_file { methods: &METHODS },
        handle,
    };
    // SAFETY: the caller's; SQLite aligns the memory of files to 8 bytes.
    unsafe { file.cast::<OpenDatabase>().write(opened) }
}

/// The handle behind a file, if it is a database of ours.
///
/// # Safety
/// `file` is null or an open file of any VFS; the handle is used before the next call on it.
pub(crate) unsafe fn handle_of<'a>(file: *mut sqlite3_file) -> Option<&'a mut Handle> {
    // SAFETY: the caller's. Only files of ours carry our table of methods, and those are an
    // `OpenDatabase`.
    unsafe {
        if file.is_null() || !std::ptr::eq((*file).methods, &METHODS) {
            return None;
        }
        (*file.cast::<OpenDatabase>()).handle.as_mut()
    }
}

/// # Safety
/// `file` is an open database of ours, and this is the one call that SQLite makes on it now.
unsafe fn handle<'a>(file: *mut sqlite3_file) -> &'a mut Handle {
    // SAFETY: the caller's; the pointer was made by `open` and lives until `close`.
    unsafe { &mut *(*file.cast::<OpenDatabase>()).handle }
}

/// A size or offset from SQLite, which are never negative.
fn unsigned(value: i64) -> Result<u64, Failure> {
    u64::try_from(value).map_err(|_| Failure::new(code::IOERR, "negative offset in a database"))
}

/// A lock level from SQLite, if it is one.
fn lock_level(number: c_int) -> Result<LockLevel, Failure> {
    Ok(match number {
        level::NONE => LockLevel::None,
        level::SHARED => LockLevel::Shared,
        level::RESERVED => LockLevel::Reserved,
        level::PENDING => LockLevel::Pending,
        level::EXCLUSIVE => LockLevel::Exclusive,
        other => {
            let message = format!("{other} is no lock level of SQLite");
            return Err(Failure::new(code::ERROR, message));
        }
    })
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once; the handle was made by `open` above.
    let handle = unsafe { Box::from_raw((*file.cast::<OpenDatabase>()).handle) };
    let api = handle.vfs().api();
    guarded_code(api, "xClose", || {
        drop(handle);
        Ok(code::OK)
    })
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    buffer: *mut c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: an open database, as SQLite calls methods of open files only, one at a time.
    let handle = unsafe { handle(file) };
    handle.guarded("xRead", |handle| {
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: SQLite gives a buffer of that many bytes; writing is all that is done with it.
        let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        handle.read(buffer, unsigned(offset)?)
    })
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    data: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: an open database.
    let handle = unsafe { handle(file) };
    handle.guarded("xWrite", |handle| {
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: SQLite gives that many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) };
        handle.file().write(unsigned(offset)?, bytes)?;
        Ok(code::OK)
    })
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: an open database.
    let handle = unsafe { handle(file) };
    handle.guarded("xTruncate", |handle| {
        handle.file().truncate(unsigned(size)?)?;
        Ok(code::OK)
    })
}

/// The commit point is `SQLITE_FCNTL_SYNC`, which comes before this even with `synchronous=OFF`.
unsafe extern "C" fn sync(_file: *mut sqlite3_file, _flags: c_int) -> c_int {
    code::OK
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: an open database.
    let handle = unsafe { handle(file) };
    handle.guarded("xFileSize", |handle| {
        let bytes = i64::try_from(handle.file().size()?).unwrap_or(i64::MAX);
        // SAFETY: SQLite gives a place for the answer.
        unsafe { *size = bytes };
        Ok(code::OK)
    })
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open database.
    let handle = unsafe { handle(file) };
    handle.guarded("xLock", |handle| {
        handle.lock(lock_level(level)?)?;
        Ok(code::OK)
    })
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open database.
    let handle = unsafe { handle(file) };
    handle.guarded("xUnlock", |handle| {
        handle.unlock(lock_level(level)?);
        Ok(code::OK)
    })
}

/// Nobody else's lock ever stands in the way.
unsafe extern "C" fn check_reserved_lock(_file: *mut sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *held = 0 };
    code::OK
}

unsafe extern "C" fn file_control(
    file: *mut sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: an open database.
    let handle = unsafe { handle(file) };
    handle.guarded("xFileControl", |handle| {
        // SAFETY: SQLite gives the argument that belongs to the operation.
        unsafe { control::file_control(handle, operation, argument) }
    })
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    // SAFETY: an open database.
    let handle = unsafe { handle(file) };
    handle.guarded("xSectorSize", |handle| Ok(handle.sector_size()))
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    // SAFETY: an open database.
    let handle = unsafe { handle(file) };
    handle.guarded("xDeviceCharacteristics", |handle| {
        Ok(handle.characteristics())
    })
}

/// The name in a C string from SQLite, if it is text.
///
/// # Safety
/// `text` is null or a C string that lives for `'a`.
pub(crate) unsafe fn text<'a>(text: *const std::ffi::c_char) -> Option<&'a str> {
    // SAFETY: the caller's.
    (!text.is_null())
        .then(|| unsafe { CStr::from_ptr(text) })?
        .to_str()
        .ok()
}
