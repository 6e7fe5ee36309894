//! `xFileControl` for databases of ours: the commit point, the pragmas, and small questions.

use std::ffi::{c_char, c_int, c_void};

use mvsqlite::{LockLevel, Pragma};

use crate::database_file::text;
use crate::failure::Failure;
use crate::ffi::{code, fcntl, lock, sqlite3};
use crate::handle::Handle;

/// Answers one file control. What is not known is `SQLITE_NOTFOUND`, as SQLite wants it.
///
/// # Safety
/// `argument` is what SQLite documents for the operation.
pub(crate) unsafe fn file_control(
    handle: &mut Handle,
    operation: c_int,
    argument: *mut c_void,
) -> Result<c_int, Failure> {
    match operation {
        fcntl::SYNC => {
            // SAFETY: null or the name of the super-journal, a C string.
            let super_journal = unsafe { text(argument.cast::<c_char>()) };
            handle.sync(super_journal)?;
        }
        fcntl::COMMIT_PHASETWO => handle.file().commit_phase_two()?,
        fcntl::OVERWRITE => handle.file().overwrite()?,
        // SAFETY: the array of texts that belongs to this operation.
        fcntl::PRAGMA => return unsafe { pragma(handle, argument.cast()) },
        fcntl::PDB => handle.set_connection(argument.cast::<*mut sqlite3>()),
        // Hints about files on disks, and the busy handler, which is never needed here: a lock is
        // granted at once or fails for a reason that waiting does not cure.
        fcntl::SIZE_HINT | fcntl::CHUNK_SIZE | fcntl::BUSYHANDLER => {}
        // SAFETY: a place for an integer.
        fcntl::LOCKSTATE => unsafe { answer(argument, lock_number(handle.level())) },
        // SAFETY: as above.
        fcntl::LAST_ERRNO | fcntl::HAS_MOVED => unsafe { answer(argument, 0) },
        // SAFETY: as above. What it was set to is of no interest: it cannot be switched off.
        fcntl::POWERSAFE_OVERWRITE => unsafe { answer(argument, 1) },
        // SAFETY: a place for a text that SQLite frees.
        fcntl::VFSNAME => return Ok(unsafe { give(handle, argument, &handle.vfs_name()) }),
        fcntl::TEMPFILENAME => {
            let name = temporary_name(handle);
            // SAFETY: as above.
            return Ok(unsafe { give(handle, argument, &name) });
        }
        _ => return Ok(code::NOTFOUND),
    }
    Ok(code::OK)
}

/// # Safety
/// `argument` points to an integer.
unsafe fn answer(argument: *mut c_void, value: c_int) {
    // SAFETY: the caller's.
    unsafe { *argument.cast::<c_int>() = value }
}

/// # Safety
/// `argument` points to a `char*`.
unsafe fn give(handle: &Handle, argument: *mut c_void, text: &str) -> c_int {
    // SAFETY: the caller's.
    unsafe { handle.vfs().api().give_text(argument.cast(), text) }
}

fn lock_number(level: LockLevel) -> c_int {
    match level {
        LockLevel::None => lock::NONE,
        LockLevel::Shared => lock::SHARED,
        LockLevel::Reserved => lock::RESERVED,
        LockLevel::Pending => lock::PENDING,
        LockLevel::Exclusive => lock::EXCLUSIVE,
    }
}

/// A pragma on its way through the parser: `[result, name, value or null]`.
///
/// # Safety
/// `arguments` is that array.
unsafe fn pragma(handle: &mut Handle, arguments: *mut *mut c_char) -> Result<c_int, Failure> {
    // SAFETY: the caller's.
    let (name, value) = unsafe { (text(*arguments.add(1)), text(*arguments.add(2))) };
    let Some(name) = name else {
        return Ok(code::NOTFOUND);
    };
    let answer = match name.eq_ignore_ascii_case("mvsqlite_last_error") {
        true => Pragma::Answer(handle.last_failure().map(str::to_owned)),
        false => handle.file().pragma(name, value),
    };
    match answer {
        Pragma::NotOurs => Ok(code::NOTFOUND),
        // Never nothing at all: the result is the column's name too, and a name that is null is out
        // of memory to Python.
        // SAFETY: the first element is the place of the result.
        Pragma::Answer(result) => Ok(unsafe {
            let result = result.unwrap_or_default();
            give(handle, arguments.cast(), &result)
        }),
        Pragma::Refused(message) => {
            // SAFETY: as above; with an error code it is the message.
            unsafe { give(handle, arguments.cast(), &message) };
            Err(Failure::new(code::ERROR, message))
        }
    }
}

/// A name for a temporary file that does not exist, as the default VFS would choose one.
fn temporary_name(handle: &Handle) -> String {
    let directory = ["SQLITE_TMPDIR", "TMPDIR"]
        .into_iter()
        .find_map(std::env::var_os)
        .unwrap_or_else(|| "/tmp".into());
    let unique = handle.vfs().random();
    format!("{}/mvsqlite_{unique:032x}", directory.to_string_lossy())
}
