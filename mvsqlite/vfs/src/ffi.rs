//! The part of SQLite's C ABI that a VFS needs, written down from `sqlite3.h` (3.40 to 3.54).
//!
//! SQLite guarantees these layouts: structures only ever grow at their end, announced by
//! `iVersion`, and constants never change. Only definitions live here, no logic; the sizes are
//! asserted at compile time. Nothing in this file makes the linker look for SQLite.

#![allow(non_camel_case_types, reason = "SQLite's own names")]

use std::ffi::{c_char, c_double, c_int, c_void};

/// A database connection; opaque.
#[repr(C)]
pub struct sqlite3 {
    _opaque: [u8; 0],
}

/// The call of an SQL function; opaque.
#[repr(C)]
pub struct sqlite3_context {
    _opaque: [u8; 0],
}

/// An SQL value; opaque.
#[repr(C)]
pub struct sqlite3_value {
    _opaque: [u8; 0],
}

/// SQLite's view of an open file: a VFS appends fields of its own.
#[repr(C)]
pub struct sqlite3_file {
    /// Null until the file is open.
    pub methods: *const sqlite3_io_methods,
}

/// `int (*)(sqlite3_file*)`, the shape of several methods.
pub type FileMethod = unsafe extern "C" fn(*mut sqlite3_file) -> c_int;

/// The methods of an open file, version 2: shared memory is present as null pointers, and there is
/// no `xFetch`, so that SQLite never tries to map a file of ours.
#[repr(C)]
#[allow(missing_docs, reason = "named and documented by SQLite")]
pub struct sqlite3_io_methods {
    pub version: c_int,
    pub close: Option<FileMethod>,
    pub read: Option<unsafe extern "C" fn(*mut sqlite3_file, *mut c_void, c_int, i64) -> c_int>,
    pub write: Option<unsafe extern "C" fn(*mut sqlite3_file, *const c_void, c_int, i64) -> c_int>,
    pub truncate: Option<unsafe extern "C" fn(*mut sqlite3_file, i64) -> c_int>,
    pub sync: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int) -> c_int>,
    pub file_size: Option<unsafe extern "C" fn(*mut sqlite3_file, *mut i64) -> c_int>,
    pub lock: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int) -> c_int>,
    pub unlock: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int) -> c_int>,
    pub check_reserved_lock: Option<unsafe extern "C" fn(*mut sqlite3_file, *mut c_int) -> c_int>,
    pub file_control: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int, *mut c_void) -> c_int>,
    pub sector_size: Option<FileMethod>,
    pub device_characteristics: Option<FileMethod>,
    pub shm_map: Option<
        unsafe extern "C" fn(*mut sqlite3_file, c_int, c_int, c_int, *mut *mut c_void) -> c_int,
    >,
    pub shm_lock: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int, c_int, c_int) -> c_int>,
    pub shm_barrier: Option<unsafe extern "C" fn(*mut sqlite3_file)>,
    pub shm_unmap: Option<unsafe extern "C" fn(*mut sqlite3_file, c_int) -> c_int>,
}

/// A function of unknown type, as `xDlSym` and the system-call table give it.
pub type AnyFunction = Option<unsafe extern "C" fn()>;

/// A virtual file system, version 3.
#[repr(C)]
#[allow(missing_docs, reason = "named and documented by SQLite")]
pub struct sqlite3_vfs {
    pub version: c_int,
    pub file_bytes: c_int,
    pub max_pathname: c_int,
    pub next: *mut sqlite3_vfs,
    pub name: *const c_char,
    pub app_data: *mut c_void,
    pub open: Option<
        unsafe extern "C" fn(
            *mut sqlite3_vfs,
            *const c_char,
            *mut sqlite3_file,
            c_int,
            *mut c_int,
        ) -> c_int,
    >,
    pub delete: Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, c_int) -> c_int>,
    pub access:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, c_int, *mut c_int) -> c_int>,
    pub full_pathname:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, c_int, *mut c_char) -> c_int>,
    pub dl_open: Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char) -> *mut c_void>,
    pub dl_error: Option<unsafe extern "C" fn(*mut sqlite3_vfs, c_int, *mut c_char)>,
    pub dl_sym:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut c_void, *const c_char) -> AnyFunction>,
    pub dl_close: Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut c_void)>,
    pub randomness: Option<unsafe extern "C" fn(*mut sqlite3_vfs, c_int, *mut c_char) -> c_int>,
    pub sleep: Option<unsafe extern "C" fn(*mut sqlite3_vfs, c_int) -> c_int>,
    pub current_time: Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut c_double) -> c_int>,
    pub get_last_error: Option<unsafe extern "C" fn(*mut sqlite3_vfs, c_int, *mut c_char) -> c_int>,
    pub current_time_int64: Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut i64) -> c_int>,
    pub set_system_call:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, AnyFunction) -> c_int>,
    pub get_system_call:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char) -> AnyFunction>,
    pub next_system_call:
        Option<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char) -> *const c_char>,
}

const POINTER: usize = size_of::<*const ()>();
const _: () = assert!(size_of::<sqlite3_file>() == POINTER);
// iVersion (padded to a pointer), 12 methods of version 1, 4 of version 2.
const _: () = assert!(size_of::<sqlite3_io_methods>() == 17 * POINTER);
// Three ints (padded), 3 pointers, 12 methods of version 1, 1 of version 2, 3 of version 3.
const _: () = assert!(
    size_of::<sqlite3_vfs>() == (3 * size_of::<c_int>()).next_multiple_of(POINTER) + 19 * POINTER
);
const _: () = assert!(size_of::<AnyFunction>() == POINTER);

/// Result codes.
pub mod code {
    use std::ffi::c_int;

    pub const OK: c_int = 0;
    pub const ERROR: c_int = 1;
    pub const PERM: c_int = 3;
    pub const BUSY: c_int = 5;
    pub const NOMEM: c_int = 7;
    pub const IOERR: c_int = 10;
    pub const NOTFOUND: c_int = 12;
    pub const FULL: c_int = 13;
    pub const CANTOPEN: c_int = 14;
    pub const IOERR_READ: c_int = IOERR | 1 << 8;
    pub const IOERR_SHORT_READ: c_int = IOERR | 2 << 8;
    pub const IOERR_WRITE: c_int = IOERR | 3 << 8;
    pub const IOERR_TRUNCATE: c_int = IOERR | 6 << 8;
    pub const IOERR_DELETE_NOENT: c_int = IOERR | 23 << 8;
}

/// Flags of `xOpen`.
pub mod open {
    use std::ffi::c_int;

    pub const READONLY: c_int = 0x1;
    pub const READWRITE: c_int = 0x2;
    pub const CREATE: c_int = 0x4;
    pub const MEMORY: c_int = 0x80;
    pub const MAIN_DB: c_int = 0x100;
    pub const MAIN_JOURNAL: c_int = 0x800;
    pub const SUPER_JOURNAL: c_int = 0x4000;
    pub const WAL: c_int = 0x8_0000;
}

/// What `xAccess` is asked.
pub mod access {
    use std::ffi::c_int;

    pub const EXISTS: c_int = 0;
}

/// Lock levels of `xLock` and `xUnlock`.
pub mod lock {
    use std::ffi::c_int;

    pub const NONE: c_int = 0;
    pub const SHARED: c_int = 1;
    pub const RESERVED: c_int = 2;
    pub const PENDING: c_int = 3;
    pub const EXCLUSIVE: c_int = 4;
}

/// Device characteristics.
pub mod iocap {
    use std::ffi::c_int;

    pub const POWERSAFE_OVERWRITE: c_int = 0x1000;
    pub const IMMUTABLE: c_int = 0x2000;
}

/// Operations of `xFileControl`.
pub mod fcntl {
    use std::ffi::c_int;

    pub const LOCKSTATE: c_int = 1;
    pub const LAST_ERRNO: c_int = 4;
    pub const SIZE_HINT: c_int = 5;
    pub const CHUNK_SIZE: c_int = 6;
    pub const FILE_POINTER: c_int = 7;
    pub const OVERWRITE: c_int = 11;
    pub const VFSNAME: c_int = 12;
    pub const POWERSAFE_OVERWRITE: c_int = 13;
    pub const PRAGMA: c_int = 14;
    pub const BUSYHANDLER: c_int = 15;
    pub const TEMPFILENAME: c_int = 16;
    pub const HAS_MOVED: c_int = 20;
    pub const SYNC: c_int = 21;
    pub const COMMIT_PHASETWO: c_int = 22;
    pub const PDB: c_int = 30;
}

/// Text encodings and properties of SQL functions.
pub mod function {
    use std::ffi::c_int;

    pub const UTF8: c_int = 1;
    /// May be called from SQL at top level only, never from a trigger, view or schema.
    pub const DIRECTONLY: c_int = 0x8_0000;
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi as header;
    use std::mem::offset_of;

    /// Asserts that fields lie where SQLite's own header, as translated by bindgen, has them.
    macro_rules! same_offsets {
        ($ours:ty, $theirs:ty: $($field:ident = $name:ident),* $(,)?) => {
            $(assert_eq!(offset_of!($ours, $field), offset_of!($theirs, $name), stringify!($name));)*
        };
    }

    #[test]
    fn the_structures_are_those_of_sqlites_header() {
        assert_eq!(size_of::<sqlite3_vfs>(), size_of::<header::sqlite3_vfs>());
        same_offsets!(sqlite3_vfs, header::sqlite3_vfs:
            version = iVersion, file_bytes = szOsFile, max_pathname = mxPathname, next = pNext,
            name = zName, app_data = pAppData, open = xOpen, delete = xDelete, access = xAccess,
            full_pathname = xFullPathname, dl_open = xDlOpen, dl_error = xDlError,
            dl_sym = xDlSym, dl_close = xDlClose, randomness = xRandomness, sleep = xSleep,
            current_time = xCurrentTime, get_last_error = xGetLastError,
            current_time_int64 = xCurrentTimeInt64, set_system_call = xSetSystemCall,
            get_system_call = xGetSystemCall, next_system_call = xNextSystemCall,
        );
        // Version 3 has two methods more than ours.
        assert_eq!(
            size_of::<sqlite3_io_methods>() + 2 * POINTER,
            size_of::<header::sqlite3_io_methods>()
        );
        same_offsets!(sqlite3_io_methods, header::sqlite3_io_methods:
            version = iVersion, close = xClose, read = xRead, write = xWrite,
            truncate = xTruncate, sync = xSync, file_size = xFileSize, lock = xLock,
            unlock = xUnlock, check_reserved_lock = xCheckReservedLock,
            file_control = xFileControl, sector_size = xSectorSize,
            device_characteristics = xDeviceCharacteristics, shm_map = xShmMap,
            shm_lock = xShmLock, shm_barrier = xShmBarrier, shm_unmap = xShmUnmap,
        );
        same_offsets!(sqlite3_file, header::sqlite3_file: methods = pMethods);
    }

    #[test]
    fn the_constants_are_those_of_sqlites_header() {
        let pairs = [
            (code::OK, header::SQLITE_OK),
            (code::ERROR, header::SQLITE_ERROR),
            (code::BUSY, header::SQLITE_BUSY),
            (code::NOMEM, header::SQLITE_NOMEM),
            (code::IOERR, header::SQLITE_IOERR),
            (code::NOTFOUND, header::SQLITE_NOTFOUND),
            (code::FULL, header::SQLITE_FULL),
            (code::IOERR_WRITE, header::SQLITE_IOERR_WRITE),
            (code::IOERR_TRUNCATE, header::SQLITE_IOERR_TRUNCATE),
            (code::CANTOPEN, header::SQLITE_CANTOPEN),
            (code::IOERR_READ, header::SQLITE_IOERR_READ),
            (code::IOERR_SHORT_READ, header::SQLITE_IOERR_SHORT_READ),
            (code::IOERR_DELETE_NOENT, header::SQLITE_IOERR_DELETE_NOENT),
            (open::READONLY, header::SQLITE_OPEN_READONLY),
            (open::READWRITE, header::SQLITE_OPEN_READWRITE),
            (open::CREATE, header::SQLITE_OPEN_CREATE),
            (open::MEMORY, header::SQLITE_OPEN_MEMORY),
            (open::MAIN_DB, header::SQLITE_OPEN_MAIN_DB),
            (open::MAIN_JOURNAL, header::SQLITE_OPEN_MAIN_JOURNAL),
            (open::SUPER_JOURNAL, header::SQLITE_OPEN_SUPER_JOURNAL),
            (open::WAL, header::SQLITE_OPEN_WAL),
            (lock::NONE, header::SQLITE_LOCK_NONE),
            (lock::SHARED, header::SQLITE_LOCK_SHARED),
            (lock::RESERVED, header::SQLITE_LOCK_RESERVED),
            (lock::PENDING, header::SQLITE_LOCK_PENDING),
            (lock::EXCLUSIVE, header::SQLITE_LOCK_EXCLUSIVE),
            (
                iocap::POWERSAFE_OVERWRITE,
                header::SQLITE_IOCAP_POWERSAFE_OVERWRITE,
            ),
            (iocap::IMMUTABLE, header::SQLITE_IOCAP_IMMUTABLE),
            (fcntl::LOCKSTATE, header::SQLITE_FCNTL_LOCKSTATE),
            (fcntl::LAST_ERRNO, header::SQLITE_FCNTL_LAST_ERRNO),
            (fcntl::SIZE_HINT, header::SQLITE_FCNTL_SIZE_HINT),
            (fcntl::CHUNK_SIZE, header::SQLITE_FCNTL_CHUNK_SIZE),
            (fcntl::FILE_POINTER, header::SQLITE_FCNTL_FILE_POINTER),
            (fcntl::OVERWRITE, header::SQLITE_FCNTL_OVERWRITE),
            (fcntl::VFSNAME, header::SQLITE_FCNTL_VFSNAME),
            (
                fcntl::POWERSAFE_OVERWRITE,
                header::SQLITE_FCNTL_POWERSAFE_OVERWRITE,
            ),
            (fcntl::PRAGMA, header::SQLITE_FCNTL_PRAGMA),
            (fcntl::BUSYHANDLER, header::SQLITE_FCNTL_BUSYHANDLER),
            (fcntl::TEMPFILENAME, header::SQLITE_FCNTL_TEMPFILENAME),
            (fcntl::HAS_MOVED, header::SQLITE_FCNTL_HAS_MOVED),
            (fcntl::SYNC, header::SQLITE_FCNTL_SYNC),
            (fcntl::COMMIT_PHASETWO, header::SQLITE_FCNTL_COMMIT_PHASETWO),
            (fcntl::PDB, header::SQLITE_FCNTL_PDB),
            (function::UTF8, header::SQLITE_UTF8),
            (function::DIRECTONLY, header::SQLITE_DIRECTONLY),
        ];
        for (index, (ours, theirs)) in pairs.into_iter().enumerate() {
            assert_eq!(ours, theirs, "entry {index}");
        }
    }
}
