//! The VFS itself: SQLite's calls that open, find and delete files.
//!
//! What is ours is answered here; everything else is passed, unchanged, to the VFS that was the
//! host's default when ours was registered. A file of the default VFS is opened in place, in
//! SQLite's own memory, so that no call on it passes through us.

use std::ffi::{c_char, c_int};
use std::ptr;
use std::sync::{Arc, Mutex};

use mvsqlite::{DatabaseFile, Environment, OpenOptions, PerProcess};

use crate::api::Api;
use crate::database_file::{self, text};
use crate::delegate;
use crate::failure::{Failure, guarded_code};
use crate::ffi::{access as ask, code, open, sqlite3_file, sqlite3_vfs};
use crate::handle::Handle;
use crate::journal::Journal;
use crate::names::{Names, Role};
use crate::private_file;
use crate::registration::{Registration, registration, vfs};
use crate::super_journal::{SharedJournal, SuperJournals};

/// The VFS of one SQLite library of the process. Lives for ever: SQLite keeps its address.
pub struct Vfs {
    pub(crate) api: Api,
    pub(crate) names: Names,
    pub(crate) base: *mut sqlite3_vfs,
    pub(crate) super_journals: PerProcess<SuperJournals>,
    /// What SQLite knows of this VFS by its main name.
    pub(crate) description: *mut sqlite3_vfs,
    /// For its SQL functions; `None` if too many libraries are served.
    pub(crate) slot: Option<usize>,
}

// SAFETY: what is not `Sync` by itself are the pointers to the two descriptions: SQLite calls the
// default VFS from any thread too, and ours is changed by SQLite only, under a mutex of its own.
unsafe impl Sync for Vfs {}
// SAFETY: as above.
unsafe impl Send for Vfs {}

impl Vfs {
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    pub(crate) fn base(&self) -> *mut sqlite3_vfs {
        self.base
    }

    pub(crate) fn super_journals(&self) -> Arc<SuperJournals> {
        self.super_journals.get(std::process::id())
    }

    /// A number from the default VFS's source of randomness: different each time, not secret.
    pub(crate) fn random(&self) -> u128 {
        // The default VFS of Unix takes no buffer shorter than a time and a process id.
        let mut bytes = [0; 16];
        let length = c_int::try_from(bytes.len()).unwrap_or(0);
        // SAFETY: the default VFS stays registered; the buffer has that many bytes.
        unsafe {
            if let Some(randomness) = (*self.base).randomness {
                randomness(self.base, length, bytes.as_mut_ptr().cast());
            }
        }
        u128::from_ne_bytes(bytes)
    }
}

pub(crate) unsafe extern "C" fn open(
    raw: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this for the VFS it was registered with.
    let registration = unsafe { registration(raw) };
    let vfs = registration.vfs();
    // SAFETY: SQLite gives memory for a file. Without methods it counts as not open.
    unsafe { (*file).methods = ptr::null() };
    // SAFETY: null, or a C string from SQLite that lives as long as the file is open.
    let ours = match unsafe { text(name) } {
        Some(text) => FileToOpen::classify(vfs, text, flags),
        None if name.is_null() => None,
        None => FileToOpen::classify_unreadable(vfs, flags),
    };
    let Some(ours) = ours else {
        // SAFETY: the default VFS gets exactly what we got.
        return unsafe { delegate::open(vfs, name, file, flags, out_flags) };
    };
    guarded_code(&vfs.api, "xOpen", || {
        // SAFETY: SQLite's memory for a file, not open.
        let opened = unsafe { ours.open(registration, name, file, flags)? };
        if !out_flags.is_null() {
            // SAFETY: SQLite gives a place for the flags.
            unsafe { *out_flags = opened };
        }
        Ok(code::OK)
    })
}

/// A file of ours that SQLite wants opened.
enum FileToOpen<'a> {
    Database(Result<(Arc<Environment>, mvsqlite_protocol::DatabaseName), Failure>),
    Journal,
    SuperJournal(&'a str),
    Wal,
}

impl<'a> FileToOpen<'a> {
    /// Which of ours it is; `None` for a file of the default VFS.
    fn classify(vfs: &Vfs, name: &'a str, flags: c_int) -> Option<Self> {
        let is = |kind| flags & kind != 0;
        if is(open::MAIN_DB) && !is(open::MEMORY) {
            return vfs.names.database(name).map(Self::Database);
        }
        match vfs.names.role(name) {
            Role::Journal if is(open::MAIN_JOURNAL) => Some(Self::Journal),
            Role::Journal if is(open::WAL) => Some(Self::Wal),
            Role::SuperJournal if is(open::SUPER_JOURNAL) => Some(Self::SuperJournal(name)),
            _ => None,
        }
    }

    /// As [`Self::classify`] for a name that is not UTF-8: no namespace has such a name, but where
    /// every database is ours a local file would be wrong too.
    fn classify_unreadable(vfs: &Vfs, flags: c_int) -> Option<Self> {
        let is_database = flags & open::MAIN_DB != 0 && flags & open::MEMORY == 0;
        (is_database && vfs.names.takes_all()).then(|| {
            let message = "a database name that is not UTF-8 cannot be an mvSQLite namespace";
            Self::Database(Err(Failure::new(code::CANTOPEN, message)))
        })
    }

    /// Opens it in SQLite's memory. Returns the flags it was opened with.
    ///
    /// # Safety
    /// `file` is SQLite's memory for a file, and `name` what SQLite wants opened.
    unsafe fn open(
        self,
        registration: &'static Registration,
        name: *const c_char,
        file: *mut sqlite3_file,
        flags: c_int,
    ) -> Result<c_int, Failure> {
        let vfs = registration.vfs();
        let journal = match self {
            Self::Database(database) => {
                let (environment, database) = database?;
                // SAFETY: the caller's.
                unsafe { refuse_unlocked(vfs, name)? };
                let read_only = flags & open::READONLY != 0;
                let options = OpenOptions {
                    read_only,
                    page_size: registration.page_size(),
                };
                let opened = DatabaseFile::open(environment, database, options)?;
                let read_only = read_only || opened.is_read_only();
                // SAFETY: the caller's.
                unsafe { database_file::open(file, Handle::new(registration, opened)) };
                return Ok(match read_only {
                    true => flags & !(open::READWRITE | open::CREATE) | open::READONLY,
                    false => flags,
                });
            }
            Self::Wal => {
                let message = "an mvSQLite database cannot be in WAL mode; it needs none, readers \
                               and writers never wait for each other";
                return Err(Failure::new(code::CANTOPEN, message));
            }
            Self::Journal => Arc::new(Mutex::new(Journal::new(vfs.names.journal_bytes()))),
            Self::SuperJournal(name) => super_journal(vfs, name, flags)?,
        };
        // SAFETY: the caller's.
        unsafe { private_file::open(file, vfs, journal) };
        Ok(flags)
    }
}

/// A super-journal, made or found.
fn super_journal(vfs: &Vfs, name: &str, flags: c_int) -> Result<SharedJournal, Failure> {
    let journals = vfs.super_journals();
    if flags & open::CREATE != 0 {
        return Ok(journals.create(name, Journal::new(vfs.names.journal_bytes())));
    }
    journals.open(name).ok_or_else(|| {
        let message = format!("there is no super-journal '{name}' in this process");
        Failure::new(code::CANTOPEN, message)
    })
}

/// SQLite takes no locks on a file opened with `nolock=1` or `immutable=1`, and locks are what
/// begins and ends a snapshot.
///
/// # Safety
/// `name` is what SQLite gave to `xOpen` for a main database: its URI parameters stand behind it.
unsafe fn refuse_unlocked(vfs: &Vfs, name: *const c_char) -> Result<(), Failure> {
    for (parameter, instead) in [
        (c"nolock", "open it without"),
        (
            c"immutable",
            "open 'namespace@version' for a state that never changes",
        ),
    ] {
        // SAFETY: the caller's.
        if unsafe { (vfs.api.uri_boolean)(name, parameter.as_ptr(), 0) } != 0 {
            let parameter = parameter.to_string_lossy();
            let message = format!(
                "an mvSQLite database cannot be opened with {parameter}=1: its transactions begin \
                 and end with SQLite's locks; {instead}"
            );
            return Err(Failure::new(code::CANTOPEN, message));
        }
    }
    Ok(())
}

pub(crate) unsafe extern "C" fn delete(
    raw: *mut sqlite3_vfs,
    name: *const c_char,
    sync_dir: c_int,
) -> c_int {
    // SAFETY: SQLite calls this for the VFS it was registered with.
    let vfs = unsafe { vfs(raw) };
    // SAFETY: a C string from SQLite.
    let path = unsafe { text(name) }.unwrap_or_default();
    match vfs.names.role(path) {
        // A journal's bytes went with the handle that had it open.
        Role::Journal => code::OK,
        Role::SuperJournal => guarded_code(&vfs.api, "xDelete of a super-journal", || {
            delete_super_journal(vfs, path, sync_dir != 0)
        }),
        // Databases are deleted in the store, not by a program that has a file name.
        Role::Database => code::IOERR_DELETE_NOENT,
        Role::Foreign if vfs.super_journals().put_off(path, sync_dir != 0) => code::OK,
        // SAFETY: the default VFS gets exactly what we got.
        Role::Foreign => unsafe { delegate::delete(vfs, name, sync_dir) },
    }
}

/// With the directory synced the deletion is the commit of the transaction, without it a clean-up
/// after one that was rolled back.
fn delete_super_journal(vfs: &Vfs, name: &str, commits: bool) -> Result<c_int, Failure> {
    let journals = vfs.super_journals();
    if !commits {
        journals.forget(name);
        return Ok(code::OK);
    }
    let members = journals.decide(name);
    let handles = members.into_iter().map(|member| {
        let handle = ptr::with_exposed_provenance_mut::<Handle>(member);
        // SAFETY: the members, each once, noted themselves during this very COMMIT, which this
        // thread runs; a handle stays open, at its address, while its connection commits.
        unsafe { &mut *handle }
    });
    let mut handles: Vec<_> = handles.collect();
    Ok(Handle::commit_together(vfs, &mut handles))
}

pub(crate) unsafe extern "C" fn access(
    raw: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    answer: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this for the VFS it was registered with.
    let vfs = unsafe { vfs(raw) };
    // SAFETY: a C string from SQLite.
    let path = unsafe { text(name) }.unwrap_or_default();
    let exists = match vfs.names.role(path) {
        // Journals are private to the handle that writes them.
        Role::Journal => Some(false),
        Role::SuperJournal => Some(vfs.super_journals().open(path).is_some()),
        // Whether something may be read or written SQLite asks of directories for its temporary
        // files, whose names look like those of namespaces.
        Role::Database => (flags == ask::EXISTS).then_some(false),
        Role::Foreign => None,
    };
    let Some(exists) = exists else {
        // SAFETY: the default VFS gets exactly what we got.
        let code = unsafe { delegate::access(vfs, name, flags, answer) };
        return code;
    };
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *answer = c_int::from(exists) };
    code::OK
}

/// A name of ours stays as it is; so does one whose full path is ours, as that path.
pub(crate) unsafe extern "C" fn full_pathname(
    raw: *mut sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    full: *mut c_char,
) -> c_int {
    // SAFETY: SQLite calls this for the VFS it was registered with.
    let vfs = unsafe { vfs(raw) };
    // SAFETY: a C string from SQLite.
    let ours = unsafe { text(name) }.filter(|name| vfs.names.takes(name));
    let Some(ours) = ours else {
        // SAFETY: the default VFS gets exactly what we got.
        return unsafe { delegate::full_pathname(vfs, name, room, full) };
    };
    guarded_code(&vfs.api, "xFullPathname", || {
        if usize::try_from(room).is_ok_and(|room| room > ours.len()) {
            // SAFETY: room for the name and its end was just checked.
            unsafe { ptr::copy_nonoverlapping(name, full, ours.len() + 1) };
            return Ok(code::OK);
        }
        let message = format!("'{ours}' is too long for the name of a database");
        Err(Failure::new(code::CANTOPEN, message))
    })
}

/// Copies a message into a buffer of SQLite's, cut to fit.
///
/// # Safety
/// `buffer` has `room` bytes.
pub(crate) unsafe fn copy_message(message: &str, room: c_int, buffer: *mut c_char) {
    let Some(most) = usize::try_from(room)
        .ok()
        .and_then(|room| room.checked_sub(1))
    else {
        return;
    };
    let length = most.min(message.len());
    // SAFETY: the caller's; `length` is at most `room - 1`.
    unsafe {
        ptr::copy_nonoverlapping(message.as_ptr().cast(), buffer, length);
        *buffer.add(length) = 0;
    }
}
