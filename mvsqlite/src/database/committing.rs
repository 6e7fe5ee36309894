//! Writing, and the commit point.
//!
//! A write transaction goes through the phases of [`Phase`]. SQLite sends `SQLITE_FCNTL_SYNC` at
//! COMMIT and also at the end of a rollback that had to play its journal back. It is a commit if
//! and only if the newest page 1 written carries another change counter than the one SQLite held
//! when it began: a commit always writes one, a cache spill sends no SYNC, and a rollback puts the
//! old one back. After the commit point nothing fails, since SQLite would undo what is stored.

use super::error::{Cause, Error, Operation};
use super::write_set::WriteLimits;
use super::{DatabaseFile, Phase, group, page1};

impl DatabaseFile {
    /// `xWrite`: whole pages, into this transaction's private write set.
    ///
    /// # Errors
    /// If the write cannot be part of any commit: a past version, another page size, too much.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.try_write(offset, data).map_err(|cause| {
            self.doom(&cause);
            self.fail(Operation::Write, cause)
        })
    }

    fn try_write(&mut self, offset: u64, data: &[u8]) -> Result<(), Cause> {
        self.check_writable()?;
        self.check_process()?;
        let most_bytes = self.remote.env.config().transaction_bytes;
        let Some(transaction) = &mut self.transaction else {
            return Err(Cause::Misuse("a write without a lock"));
        };
        match &mut transaction.phase {
            Phase::Reading => Err(Cause::Misuse("a write without RESERVED")),
            Phase::Writing(writes) => {
                let limits = WriteLimits {
                    pages: transaction.snapshot.limits.commit_pages,
                    bytes: most_bytes,
                };
                writes.write(offset, data, limits)?;
                writes.upload(&self.remote, &mut transaction.snapshot)?;
                if let Some(counter) = writes.change_counter() {
                    self.counter.written(counter);
                }
                Ok(())
            }
            Phase::Doomed { change_counter, .. } => {
                if offset == 0 && page1::is_sqlite(data) {
                    let counter = page1::change_counter(data);
                    *change_counter = Some(counter);
                    self.counter.written(counter);
                }
                Ok(())
            }
            // The playback of a transaction over several files, of which a later one failed: this
            // one is committed, which the failure said. SQLite's cache is put back to what was before,
            // and nothing can be written over that.
            Phase::Committed => {
                transaction.stale = true;
                Ok(())
            }
            // A new write transaction without a new lock. It is doomed, so that its playback is
            // accepted.
            Phase::Finished => Err(Cause::ExclusiveLocking),
        }
    }

    /// `xTruncate`. Cannot fail after the commit point, where SQLite cuts off what the commit has
    /// cut off already.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn truncate(&mut self, size: u64) -> Result<(), Error> {
        let result = self.try_truncate(size);
        result.map_err(|cause| self.fail(Operation::Write, cause))
    }

    fn try_truncate(&mut self, size: u64) -> Result<(), Cause> {
        self.check_writable()?;
        let Some(transaction) = &mut self.transaction else {
            return Err(Cause::Misuse("a truncation without a lock"));
        };
        match &mut transaction.phase {
            Phase::Reading => Err(Cause::Misuse("a truncation without RESERVED")),
            Phase::Writing(writes) => {
                writes.truncate(size);
                Ok(())
            }
            Phase::Doomed { change_counter, .. } => {
                if size == 0 {
                    *change_counter = None;
                }
                Ok(())
            }
            Phase::Committed | Phase::Finished => Ok(()),
        }
    }

    /// `SQLITE_FCNTL_OVERWRITE`: a VACUUM is about to write the whole file. This is where a change
    /// of the page size is first seen, if `PRAGMA page_size` of this database asked for it;
    /// otherwise the header that is written tells.
    ///
    /// # Errors
    /// If it is to change the page size.
    pub fn overwrite(&mut self) -> Result<(), Error> {
        match (self.page_size(), self.asked_page_size) {
            (Some(from), Some(to)) if from != to => {
                let cause = Cause::PageSizeChange { from, to };
                Err(self.fail(Operation::Write, cause))
            }
            _ => Ok(()),
        }
    }

    /// `SQLITE_FCNTL_SYNC`: the commit point, if this is a commit and not the end of a rollback.
    /// `super_journal` is its name if the transaction has one, which is not ours: then this database
    /// commits by itself. Members of a super-journal of ours commit by [`Self::commit_together`].
    ///
    /// # Errors
    /// If nothing was committed ([`super::SqliteCode::BusySnapshot`] for a conflict), or if that is
    /// not known ([`super::SqliteCode::IoErrCommitAtomic`]). The write transaction is doomed then:
    /// SQLite's playback is accepted and ignored.
    pub fn sync(&mut self, super_journal: Option<&str>) -> Result<(), Error> {
        let result = match self.is_commit(super_journal.is_some()) {
            Ok(true) => group::commit(&mut [&mut *self]),
            Ok(false) => Ok(()),
            Err(cause) => Err(cause),
        };
        result.map_err(|cause| self.commit_failed(cause))
    }

    /// Whether a SYNC is a commit.
    fn is_commit(&mut self, has_super_journal: bool) -> Result<bool, Cause> {
        let held = self.counter.held();
        let Some(transaction) = &mut self.transaction else {
            return Ok(false);
        };
        let is_commit = |counter: Option<u32>| counter.is_some_and(|counter| counter != held);
        match &transaction.phase {
            Phase::Writing(writes) if is_commit(writes.change_counter()) => {}
            Phase::Doomed {
                reason,
                change_counter,
            } if is_commit(*change_counter) => return Err(Cause::Doomed(reason.clone())),
            // A rollback is never sent a super-journal's name: this is a commit without a counter.
            Phase::Writing(writes) if has_super_journal && !writes.is_empty() => {
                return Err(Cause::ExclusiveLocking);
            }
            // The end of a rollback, after which SQLite gives up its lock.
            Phase::Doomed { .. } => {
                transaction.phase = Phase::Finished;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        self.check_process()?;
        Ok(true)
    }

    /// Whether a member of a super-journal, which is about to commit, can.
    pub(super) fn expect_commit(&mut self) -> Result<(), Cause> {
        match self.is_commit(true) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Cause::Misuse("a commit without a change")),
            Err(cause) => Err(cause),
        }
    }

    /// A commit came to nothing.
    pub(super) fn commit_failed(&mut self, cause: Cause) -> Error {
        if !matches!(cause, Cause::Doomed(_)) {
            self.doom(&cause);
        }
        self.fail(Operation::Commit, cause)
    }

    /// `SQLITE_FCNTL_COMMIT_PHASETWO`: SQLite believes to have committed.
    ///
    /// # Errors
    /// If there was no commit. In exclusive locking mode, which a connection may have chosen out of
    /// this database's sight, only the first commit writes a change counter; a later one looks
    /// like a rollback at its SYNC, and here is the last chance not to report it as done.
    pub fn commit_phase_two(&mut self) -> Result<(), Error> {
        let Some(transaction) = &mut self.transaction else {
            return Ok(());
        };
        let cause = match &transaction.phase {
            Phase::Writing(writes) if !writes.is_empty() => Cause::ExclusiveLocking,
            Phase::Doomed { reason, .. } => Cause::Doomed(reason.clone()),
            Phase::Committed => {
                transaction.phase = Phase::Finished;
                return Ok(());
            }
            Phase::Writing(_) | Phase::Reading | Phase::Finished => return Ok(()),
        };
        self.doom(&cause);
        Err(self.fail(Operation::Commit, cause))
    }

    /// Nothing of the write transaction can be committed any more.
    fn doom(&mut self, cause: &Cause) {
        self.counter.spoil();
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        if !matches!(transaction.phase, Phase::Writing(_) | Phase::Finished) {
            return;
        }
        // With an ordinary file in the transaction SQLite may skip the playback: its cache then
        // holds what was never stored, as long as a statement keeps SHARED.
        transaction.stale = true;
        transaction.phase = Phase::Doomed {
            reason: cause.to_string(),
            change_counter: None,
        };
    }
}
