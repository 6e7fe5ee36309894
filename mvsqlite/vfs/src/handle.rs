//! An open database of ours, between SQLite's file methods and the `mvsqlite` crate.
//!
//! SQLite serialises its calls per connection, so a handle is used by one thread at a time. After
//! a panic a handle is closed to everything but `xClose`: what it knows may be half true.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use mvsqlite::{ConnectionId, DatabaseFile, LockLevel, Read};

use crate::delegate;
use crate::failure::{Ended, Failure, ffi_guard};
use crate::ffi::{code, iocap, sqlite3};
use crate::registration::Registration;
use crate::super_journal::{Connection, Joined, SuperJournals};
use crate::vfs::Vfs;

/// One open database.
pub(crate) struct Handle {
    vfs: &'static Vfs,
    /// The name of the VFS that it was opened through.
    opened_through: &'static CStr,
    file: DatabaseFile,
    /// Where SQLite keeps the connection that uses the file, from `SQLITE_FCNTL_PDB` on.
    connection: *const *mut sqlite3,
    /// The connection in whose name this database writes.
    writing_for: Option<Connection>,
    level: LockLevel,
    /// Whether `xSectorSize` was asked: see [`Handle::characteristics`].
    page_size_offered: bool,
    last_failure: Option<String>,
    poisoned: bool,
}

impl Handle {
    pub(crate) fn new(registration: &'static Registration, file: DatabaseFile) -> Self {
        Self {
            vfs: registration.vfs(),
            opened_through: registration.name(),
            file,
            connection: std::ptr::null(),
            writing_for: None,
            level: LockLevel::None,
            page_size_offered: false,
            last_failure: None,
            poisoned: false,
        }
    }

    /// Runs the body of one of SQLite's calls on this handle.
    pub(crate) fn guarded(
        &mut self,
        call: &str,
        body: impl FnOnce(&mut Self) -> Result<c_int, Failure>,
    ) -> c_int {
        if self.poisoned {
            return code::IOERR;
        }
        let api = self.vfs.api();
        let failure = match ffi_guard(api, call, || body(self)) {
            Ended::Returned(code) => return code,
            Ended::Failed(failure) => failure,
            Ended::Panicked(failure) => {
                self.poison();
                failure
            }
        };
        self.last_failure = Some(failure.message);
        failure.code
    }

    /// Closes the handle to everything but `xClose`. Not even `xUnlock` ends its write transaction
    /// then, so the others are let in now.
    fn poison(&mut self) {
        self.poisoned = true;
        let let_in = AssertUnwindSafe(|| self.file.give_up_lease());
        // What half true state may say about the lease is the store's to judge.
        let _ = catch_unwind(let_in);
    }

    pub(crate) fn vfs(&self) -> &'static Vfs {
        self.vfs
    }

    /// The name of the VFS that it was opened through.
    pub(crate) fn vfs_name(&self) -> Cow<'static, str> {
        self.opened_through.to_string_lossy()
    }

    pub(crate) fn file(&mut self) -> &mut DatabaseFile {
        &mut self.file
    }

    /// The level of the lock that SQLite holds.
    pub(crate) fn level(&self) -> LockLevel {
        self.level
    }

    /// The last failure of this handle, for people who see no error log.
    pub(crate) fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_deref()
    }

    /// Ties the database to its connection.
    ///
    /// SQLite gives the place where it keeps the connection's address, which lives as long as the
    /// file is open: with a shared cache the connection differs from call to call.
    pub(crate) fn set_connection(&mut self, place: *const *mut sqlite3) {
        self.connection = place;
        self.tell_connection();
    }

    fn tell_connection(&mut self) {
        let connection = self.connection().addr();
        self.file.set_connection(ConnectionId(connection));
    }

    fn connection(&self) -> *mut sqlite3 {
        match self.connection.is_null() {
            true => std::ptr::null_mut(),
            // SAFETY: see `set_connection`.
            false => unsafe { *self.connection },
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<c_int, Failure> {
        Ok(match self.file.read(offset, buffer)? {
            Read::Full => code::OK,
            Read::Short(_) => code::IOERR_SHORT_READ,
        })
    }

    pub(crate) fn lock(&mut self, level: LockLevel) -> Result<(), Failure> {
        let becomes_writer = level >= LockLevel::Reserved && self.level < LockLevel::Reserved;
        if becomes_writer {
            self.start_writing()?;
        } else if self.level == LockLevel::None {
            self.tell_connection();
        }
        if let Err(error) = self.file.lock(level) {
            if becomes_writer {
                self.end_writing();
            }
            return Err(error.into());
        }
        self.level = self.level.max(level);
        Ok(())
    }

    pub(crate) fn unlock(&mut self, level: LockLevel) {
        self.file.unlock(level);
        if level < LockLevel::Reserved {
            self.end_writing();
        }
        self.level = self.level.min(level);
    }

    /// Without a main database on disk SQLite uses no super-journal, and would commit one database
    /// after the other with nothing to undo the first.
    fn start_writing(&mut self) -> Result<(), Failure> {
        self.tell_connection();
        let connection = self.connection().addr();
        self.writing_for = Some(connection);
        let journals = self.super_journals();
        if journals.writer_started(connection, self.member()) || self.has_main_file() {
            return Ok(());
        }
        self.end_writing();
        Err(Failure::new(
            code::ERROR,
            format!(
                "cannot write to mvSQLite namespace '{}': the transaction writes another mvSQLite \
                 database already, and with an in-memory main database the two cannot be committed \
                 together; write one per transaction, or open one of them as the main database",
                self.file.name().namespace
            ),
        ))
    }

    fn end_writing(&mut self) {
        if let Some(connection) = self.writing_for.take() {
            let member = self.member();
            for name in self.super_journals().writer_ended(connection, member) {
                if let Ok(name) = CString::new(name) {
                    // SAFETY: a C string; a file left behind by a failure does no harm.
                    unsafe { delegate::delete(self.vfs, name.as_ptr(), 0) };
                }
            }
        }
    }

    fn has_main_file(&self) -> bool {
        let connection = self.connection();
        if connection.is_null() {
            return true;
        }
        let db_filename = self.vfs.api().db_filename;
        // SAFETY: the connection that makes this very call; "main" always exists. The call takes no
        // lock.
        let name = unsafe { db_filename(connection, c"main".as_ptr()) };
        // SAFETY: SQLite gives null or a C string that lives as long as the connection.
        !name.is_null() && unsafe { !CStr::from_ptr(name).is_empty() }
    }

    /// `SQLITE_FCNTL_SYNC`: the commit point, unless a super-journal of ours is to be it.
    pub(crate) fn sync(&mut self, super_journal: Option<&str>) -> Result<(), Failure> {
        if let Some(name) = super_journal {
            let (connection, member) = (self.connection().addr(), self.member());
            match self.super_journals().join(name, connection, member) {
                Joined::Prepared => return Ok(()),
                Joined::NotOurs => {}
            }
        }
        self.file.sync(super_journal).map_err(Failure::from)
    }

    /// The deletion of the super-journal under which these handles noted themselves: they commit,
    /// all or none.
    pub(crate) fn commit_together(vfs: &Vfs, handles: &mut [&mut Self]) -> c_int {
        if handles.iter().any(|handle| handle.poisoned) {
            return code::IOERR;
        }
        let ended = ffi_guard(vfs.api(), "commit", || {
            let mut files: Vec<_> = handles.iter_mut().map(|handle| &mut handle.file).collect();
            DatabaseFile::commit_together(&mut files).map_err(Failure::from)
        });
        let (failure, poisoned) = match ended {
            Ended::Returned(()) => return code::OK,
            Ended::Failed(failure) => (failure, false),
            Ended::Panicked(failure) => (failure, true),
        };
        for handle in handles {
            handle.last_failure = Some(failure.message.clone());
            if poisoned {
                handle.poison();
            }
        }
        failure.code
    }

    /// The page size that a new database gets.
    ///
    /// SQLite takes the larger of its default and the sector size, but only when the device does
    /// not promise powersafe overwrites; with the promise a sector counts as 512 bytes.
    pub(crate) fn sector_size(&mut self) -> c_int {
        self.page_size_offered = true;
        c_int::try_from(self.file.default_page_size()).unwrap_or(0)
    }

    /// The device characteristics; powersafe overwrites only from the second question on.
    ///
    /// At open SQLite (`sqlite3PagerOpen`, the same from 3.40 to 3.54) looks at the sector size
    /// twice: first to choose the page size of a database yet to be made, then to fix the unit in
    /// which it journals and writes, and again after each playback. The promise is missing until
    /// the sector size was asked for once. So new databases get the page size wished for, and never
    /// is more than a page written for a page: neighbours written along would be conflicts with
    /// transactions that change them.
    ///
    /// Never `SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN`: with it SQLite keeps the journal of a failed
    /// rollback open across its unlock in two journal modes (reached with `PRAGMA journal_mode` of
    /// an ordinary main database), and then plays it back, hot, over a newer snapshot.
    pub(crate) fn characteristics(&self) -> c_int {
        if self.file.is_immutable() {
            return iocap::IMMUTABLE | iocap::POWERSAFE_OVERWRITE;
        }
        match self.page_size_offered {
            true => iocap::POWERSAFE_OVERWRITE,
            false => 0,
        }
    }

    fn member(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn super_journals(&self) -> Arc<SuperJournals> {
        self.vfs.super_journals()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end_writing();
    }
}
