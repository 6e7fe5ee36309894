//! The SQL functions that every connection gets.
//!
//! | function | result |
//! |---|---|
//! | `mv_last_known_version(db)` | the version of `db`'s last snapshot or commit, or NULL |
//! | `mv_time2version(db, seconds)` | the version `db` had at a Unix time, or NULL; 0 is now |
//! | `mvsqlite_version()` | the version of this library |
//! | `mv_commit_group_begin()` | NULL; COMMITs of this thread are kept back from here on |
//! | `mv_commit_group_commit(db)` | the version that all of them made together, or NULL for none |
//! | `mv_commit_group_rollback(db)` | NULL; they are forgotten |
//!
//! `db` is a schema name: `'main'`, or that of an attached database.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::api::{Api, AutoExtension, ScalarFunction};
use crate::database_file::{handle_of, text};
use crate::failure::{Ended, Failure, ffi_guard};
use crate::ffi::{code, fcntl, function, sqlite3, sqlite3_context, sqlite3_file, sqlite3_value};
use crate::handle::Handle;
use crate::vfs::Vfs;

/// How many SQLite libraries of one process can be served.
pub(crate) const SLOTS: usize = 4;

/// The VFS of each library that is served. `sqlite3_user_data` would tell a function which VFS it
/// belongs to, but which library's? So each library gets functions of its own, told apart by their
/// slot.
static SERVED: [AtomicPtr<Vfs>; SLOTS] = [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS];

/// How many functions there are.
const FUNCTIONS: usize = 6;

/// Name, number of arguments, implementation.
type Declaration = (&'static CStr, c_int, ScalarFunction);

const fn declarations<const SLOT: usize>() -> [Declaration; FUNCTIONS] {
    [
        (c"mv_last_known_version", 1, last_known_version::<SLOT>),
        (c"mv_time2version", 2, time_to_version::<SLOT>),
        (c"mvsqlite_version", 0, library_version::<SLOT>),
        (c"mv_commit_group_begin", 0, commit_group_begin::<SLOT>),
        (c"mv_commit_group_commit", 1, commit_group_commit::<SLOT>),
        (
            c"mv_commit_group_rollback",
            1,
            commit_group_rollback::<SLOT>,
        ),
    ]
}

const DECLARATIONS: [[Declaration; FUNCTIONS]; SLOTS] = [
    declarations::<0>(),
    declarations::<1>(),
    declarations::<2>(),
    declarations::<3>(),
];

/// Gives the VFS at an address a slot, for ever; `None` if all are taken.
///
/// Nothing is read there before the slot's functions are added to a connection.
pub(crate) fn take_slot(vfs: *mut Vfs) -> Option<usize> {
    SERVED.iter().position(|slot| {
        slot.compare_exchange(ptr::null_mut(), vfs, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    })
}

/// What adds the functions of a slot to each new connection, for `sqlite3_auto_extension`.
pub(crate) fn entry_point(slot: usize) -> AutoExtension {
    const ENTRY_POINTS: [AutoExtension; SLOTS] = [
        added_by_sqlite::<0>,
        added_by_sqlite::<1>,
        added_by_sqlite::<2>,
        added_by_sqlite::<3>,
    ];
    ENTRY_POINTS[slot]
}

/// A failure is logged; the connection opens all the same, as when the functions are added by us.
unsafe extern "C" fn added_by_sqlite<const SLOT: usize>(
    db: *mut sqlite3,
    _message: *mut *mut c_char,
    _routines: *const c_void,
) -> c_int {
    // SAFETY: a slot is filled before its entry point is handed out, with a VFS that lives for ever.
    if let Some(vfs) = unsafe { SERVED[SLOT].load(Ordering::Acquire).as_ref() } {
        // SAFETY: SQLite just made this connection, and nobody else knows it yet.
        unsafe { vfs.add_functions(db) };
    }
    code::OK
}

/// Adds the functions of a slot to a connection.
///
/// # Safety
/// `db` is an open connection of the SQLite that the slot's VFS is registered with, used by no
/// other thread during the call.
pub(crate) unsafe fn add_to(api: &Api, slot: usize, db: *mut sqlite3) -> Result<(), Failure> {
    for (name, arguments, implementation) in DECLARATIONS.get(slot).into_iter().flatten() {
        let flags = function::UTF8 | function::DIRECTONLY;
        // SAFETY: the caller's; the implementation matches the declaration.
        let added = unsafe {
            (api.create_function_v2)(
                db,
                name.as_ptr(),
                *arguments,
                flags,
                ptr::null_mut(),
                Some(*implementation),
                None,
                None,
                None,
            )
        };
        if added != code::OK {
            let message = format!(
                "cannot add the SQL function {} to a connection (code {added})",
                name.to_string_lossy()
            );
            return Err(Failure::new(added, message));
        }
    }
    Ok(())
}

/// One call of a function.
struct Call {
    api: &'static Api,
    context: *mut sqlite3_context,
    arguments: *mut *mut sqlite3_value,
}

impl Call {
    /// # Safety
    /// What SQLite gave to the implementation of a function added by [`add_to`] for this slot.
    unsafe fn run(
        slot: usize,
        context: *mut sqlite3_context,
        arguments: *mut *mut sqlite3_value,
        name: &str,
        body: impl FnOnce(&mut Self) -> Result<Option<String>, Failure>,
    ) {
        // SAFETY: a slot is filled before its functions are added, with a VFS that lives for ever.
        let Some(vfs) = (unsafe { SERVED[slot].load(Ordering::Acquire).as_ref() }) else {
            return;
        };
        let mut call = Self {
            api: vfs.api(),
            context,
            arguments,
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

    fn argument(&self, index: usize) -> *mut sqlite3_value {
        // SAFETY: SQLite checks the number of arguments against that of the declaration.
        unsafe { *self.arguments.add(index) }
    }

    /// The database of ours that the first argument names.
    fn database(&mut self) -> Result<&mut Handle, Failure> {
        // SAFETY: a value of the running call; the text lives until the value changes.
        let schema = unsafe { text((self.api.value_text)(self.argument(0))) };
        let schema = schema.ok_or_else(|| Failure::new(code::ERROR, "no database name given"))?;
        let mut file: *mut sqlite3_file = ptr::null_mut();
        // SAFETY: the connection of the running call; its mutex is held by this thread and can be
        // entered again. The argument is a place for the file.
        let found = unsafe {
            let db = (self.api.context_db_handle)(self.context);
            let schema = (self.api.value_text)(self.argument(0));
            let place = ptr::from_mut(&mut file).cast();
            (self.api.file_control)(db, schema, fcntl::FILE_POINTER, place)
        };
        if found != code::OK {
            let message = format!("there is no database '{schema}' on this connection");
            return Err(Failure::new(code::ERROR, message));
        }
        // SAFETY: a file of this connection, which runs no other call now.
        unsafe { handle_of(file) }.ok_or_else(|| {
            let message = format!("database '{schema}' is not an mvSQLite database");
            Failure::new(code::ERROR, message)
        })
    }
}

unsafe extern "C" fn last_known_version<const SLOT: usize>(
    context: *mut sqlite3_context,
    _count: c_int,
    arguments: *mut *mut sqlite3_value,
) {
    // SAFETY: called by SQLite as declared.
    unsafe {
        Call::run(SLOT, context, arguments, "mv_last_known_version", |call| {
            let version = call.database()?.file().last_known_version();
            Ok(version.map(|version| version.to_string()))
        });
    }
}

unsafe extern "C" fn time_to_version<const SLOT: usize>(
    context: *mut sqlite3_context,
    _count: c_int,
    arguments: *mut *mut sqlite3_value,
) {
    // SAFETY: called by SQLite as declared.
    unsafe {
        Call::run(SLOT, context, arguments, "mv_time2version", |call| {
            let seconds = (call.api.value_int64)(call.argument(1));
            let version = call.database()?.file().time_to_version(seconds)?;
            Ok(version.map(|version| version.to_string()))
        });
    }
}

unsafe extern "C" fn library_version<const SLOT: usize>(
    context: *mut sqlite3_context,
    _count: c_int,
    arguments: *mut *mut sqlite3_value,
) {
    // SAFETY: called by SQLite as declared.
    unsafe {
        Call::run(SLOT, context, arguments, "mvsqlite_version", |_| {
            Ok(Some(env!("CARGO_PKG_VERSION").to_owned()))
        });
    }
}

unsafe extern "C" fn commit_group_begin<const SLOT: usize>(
    context: *mut sqlite3_context,
    _count: c_int,
    arguments: *mut *mut sqlite3_value,
) {
    // SAFETY: called by SQLite as declared.
    unsafe {
        Call::run(SLOT, context, arguments, "mv_commit_group_begin", |_| {
            mvsqlite::begin_commit_group()?;
            Ok(None)
        });
    }
}

unsafe extern "C" fn commit_group_commit<const SLOT: usize>(
    context: *mut sqlite3_context,
    _count: c_int,
    arguments: *mut *mut sqlite3_value,
) {
    // SAFETY: called by SQLite as declared.
    unsafe {
        Call::run(SLOT, context, arguments, "mv_commit_group_commit", |call| {
            call.database()?;
            let version = mvsqlite::commit_commit_group()?;
            Ok(version.map(|version| version.to_string()))
        });
    }
}

unsafe extern "C" fn commit_group_rollback<const SLOT: usize>(
    context: *mut sqlite3_context,
    _count: c_int,
    arguments: *mut *mut sqlite3_value,
) {
    // SAFETY: called by SQLite as declared.
    unsafe {
        Call::run(
            SLOT,
            context,
            arguments,
            "mv_commit_group_rollback",
            |call| {
                call.database()?;
                mvsqlite::rollback_commit_group()?;
                Ok(None)
            },
        );
    }
}
