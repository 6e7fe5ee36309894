//! The SQL functions that every connection gets.
//!
//! | function | result |
//! |---|---|
//! | `mv_last_known_version(db)` | the version of `db`'s last snapshot or commit, or NULL |
//! | `mv_time2version(db, seconds)` | the version `db` had at a Unix time, or NULL; 0 is now |
//! | `mv_pin_version(db, version)`, `mv_unpin_version(db)` | NULL; `db` stays at a version, or no longer |
//! | `mv_prefetch_metrics(db)` | JSON: how the prefetch of `db` did |
//! | `mv_nslock_acquire(db, owner[, version])` | NULL; the namespace's lock is the owner's |
//! | `mv_nslock_release_commit(db, owner)`, `mv_nslock_release_rollback(db, owner)` | NULL; it is nobody's |
//! | `mvsqlite_version()` | the version of this library |
//! | `mv_commit_group_begin()` | NULL; COMMITs of this thread are kept back from here on |
//! | `mv_commit_group_commit(db)` | the version that all of them made together, or NULL for none |
//! | `mv_commit_group_rollback(db)` | NULL; they are forgotten |
//!
//! `db` is a schema name: `'main'`, or that of an attached database.

mod call;
mod implementations;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use implementations::*;

use crate::api::{Api, AutoExtension, ScalarFunction};
use crate::failure::Failure;
use crate::ffi::{code, function, sqlite3};
use crate::vfs::Vfs;

/// How many SQLite libraries of one process can be served.
pub(crate) const SLOTS: usize = 4;

/// The VFS of each library that is served. `sqlite3_user_data` would tell a function which VFS it
/// belongs to, but which library's? So each library gets functions of its own, told apart by their
/// slot.
static SERVED: [AtomicPtr<Vfs>; SLOTS] = [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS];

/// How many functions there are.
const FUNCTIONS: usize = 13;

/// Name, number of arguments, implementation.
type Declaration = (&'static CStr, c_int, ScalarFunction);

const fn declarations<const SLOT: usize>() -> [Declaration; FUNCTIONS] {
    [
        (c"mv_last_known_version", 1, last_known_version::<SLOT>),
        (c"mv_time2version", 2, time_to_version::<SLOT>),
        (c"mv_pin_version", 2, pin_version::<SLOT>),
        (c"mv_unpin_version", 1, unpin_version::<SLOT>),
        (c"mv_prefetch_metrics", 1, prefetch_metrics::<SLOT>),
        (c"mv_nslock_acquire", 2, nslock_acquire::<SLOT>),
        (c"mv_nslock_acquire", 3, nslock_acquire::<SLOT>),
        (
            c"mv_nslock_release_commit",
            2,
            nslock_release_commit::<SLOT>,
        ),
        (
            c"mv_nslock_release_rollback",
            2,
            nslock_release_rollback::<SLOT>,
        ),
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

/// The VFS of a slot.
fn vfs_of(slot: usize) -> Option<&'static Vfs> {
    // SAFETY: a slot is filled before its functions and its entry point are handed out, with a VFS
    // that lives for ever.
    unsafe { SERVED[slot].load(Ordering::Acquire).as_ref() }
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
    if let Some(vfs) = vfs_of(SLOT) {
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
