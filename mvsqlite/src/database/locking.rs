//! Locks: a snapshot at SHARED, a write transaction from RESERVED on.

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::Concurrency;
use mvsqlite_protocol::{Moment, Version};

use super::commit_group;
use super::error::{Cause, Error, Operation};
use super::lock::LockLevel;
use super::recent::Seen;
use super::remote::Begun;
use super::write_set::WriteSet;
use super::{DatabaseFile, Phase, Transaction};

impl DatabaseFile {
    /// `xLock`. From no lock to [`LockLevel::Shared`] takes a snapshot, one request. In exclusive mode
    /// [`LockLevel::Reserved`] takes the write lease, another one; the rest is granted without.
    ///
    /// # Errors
    /// If no snapshot could be taken, or it cannot be written on. [`super::SqliteCode::Busy`] if another
    /// has the write lease: SQLite's busy handler waits then, and a new snapshot is taken.
    pub fn lock(&mut self, level: LockLevel) -> Result<(), Error> {
        if level <= self.level {
            return Ok(());
        }
        if self.pinned.is_none() && self.transaction.is_none() {
            self.begin()
                .map_err(|cause| self.fail(Operation::Begin, cause))?;
        }
        if level >= LockLevel::Reserved && self.level < LockLevel::Reserved {
            // SHARED is held from here on, whether or not the rest succeeds.
            self.level = LockLevel::Shared;
            self.reserve().map_err(|cause| {
                // Whoever tries again does so on a new snapshot.
                self.remote.forget_recent(self.identity);
                self.fail(Operation::Reserve, cause)
            })?;
        }
        self.level = level;
        Ok(())
    }

    /// `xUnlock`. To [`LockLevel::Shared`] ends the write transaction, discarding what was not
    /// committed; to [`LockLevel::None`] ends the snapshot. Never fails.
    pub fn unlock(&mut self, level: LockLevel) {
        if level < LockLevel::Reserved {
            self.end_write();
        }
        if level == LockLevel::None {
            self.transaction = None;
            self.leave_transaction();
        }
        self.level = self.level.min(level);
    }

    /// Takes a snapshot: of the newest version, or of the moment that the transaction shows.
    fn begin(&mut self) -> Result<(), Cause> {
        self.opening = None;
        commit_group::expect_nothing_staged()?;
        self.note_group_version();
        let begun = match self.snapshot_to_begin_at() {
            Ok(begun) => begun,
            Err(cause) => {
                self.counter.spoil();
                return Err(cause);
            }
        };
        let snapshot = begun.snapshot;
        let other_version = self.last_known != Some(snapshot.version);
        self.counter
            .begin(snapshot.content.is_none(), other_version);
        self.last_known = Some(snapshot.version);
        if active(Bug::ReadSetPerTransaction) {
            // What was read before may still be in SQLite's cache.
            self.read_set.clear();
        }
        self.transaction = Some(Transaction {
            process: self.remote.env.process_id(),
            snapshot,
            mode: begun.mode,
            phase: Phase::Reading,
            own: None,
            stale: false,
            kept_back: false,
        });
        // Who stays at a version is no part of the moment that the others show, and has nothing to say
        // at their COMMIT.
        if self.held.is_none() {
            self.join_transaction();
        }
        Ok(())
    }

    /// The newest version, or the one that was chosen.
    fn snapshot_to_begin_at(&self) -> Result<Begun, Cause> {
        // All databases of a transaction show one moment.
        let moment = self.moment().filter(|_| !active(Bug::MomentIgnored));
        match &self.held {
            Some(snapshot) => Ok(Begun {
                snapshot: snapshot.clone(),
                mode: Concurrency::Optimistic,
            }),
            None => match moment {
                None => self.begin_recent(),
                moment => self.remote.begin(Some(self.identity), moment),
            },
        }
    }

    /// The newest version, or a little behind if the program allows that and nobody here expects
    /// COMMIT to succeed.
    fn begin_recent(&self) -> Result<Begun, Cause> {
        if self.staleness.is_zero() || self.remote.env.config().exclusive {
            return self.remote.begin(Some(self.identity), None);
        }
        let seen = Seen {
            here: self.last_known,
            beside: self.seen_by_connection(),
        };
        self.remote
            .begin_recent(self.identity, self.staleness, seen)
    }

    /// Makes the transaction a writer.
    fn reserve(&mut self) -> Result<(), Cause> {
        self.check_writable()?;
        self.check_process()?;
        let Some(transaction) = &mut self.transaction else {
            return Err(Cause::Misuse("RESERVED without SHARED"));
        };
        if transaction.stale {
            return Err(Cause::StaleSnapshot);
        }
        let has_own = transaction.own.is_some();
        let lease = self.take_lease()?;
        if has_own {
            self.move_to_own_commit()?;
        }
        if let Some(lease) = &lease {
            self.use_lease(lease)?;
        }
        let Some(transaction) = &mut self.transaction else {
            return Err(Cause::Misuse("RESERVED without SHARED"));
        };
        let snapshot = &transaction.snapshot;
        let writes = WriteSet::new(snapshot.page_size(), snapshot.page_count());
        transaction.phase = Phase::Writing(writes);
        Ok(())
    }

    /// After a COMMIT that stayed at SHARED, the snapshot is the old one under the own pages. If
    /// nobody else committed in between, that is the very content of the own commit, and the
    /// snapshot moves there; otherwise it can be read on but not written on.
    ///
    /// Reading needs not ask, though the rule allows it: in the first case the pages are the same on
    /// either snapshot, in the second reads stay where they are. What lies between the two versions
    /// never changes, so asking later brings the same answer.
    fn move_to_own_commit(&mut self) -> Result<(), Cause> {
        let Some(transaction) = &mut self.transaction else {
            return Ok(());
        };
        let Some(own) = &transaction.own else {
            return Ok(());
        };
        let before = Moment::Version(predecessor(own.snapshot.version));
        let (resolved, _) = self.remote.resolve_version(before)?;
        if resolved.identity != transaction.snapshot.identity {
            return Err(Cause::Replaced);
        }
        let overtaken = resolved.version != transaction.snapshot.version;
        if overtaken && !active(Bug::OvertakenUnchecked) {
            transaction.stale = true;
            return Err(Cause::StaleSnapshot);
        }
        if let Some(own) = transaction.own.take() {
            let (base, read_version) = (own.snapshot.version, own.snapshot.read_version);
            transaction.snapshot = own.snapshot;
            self.update_participant(|participant| {
                participant.base = base;
                participant.read_version = participant.read_version.max(read_version);
                participant.own = None;
            });
        }
        Ok(())
    }

    /// Ends the write transaction, if there is one: what is not committed is gone.
    fn end_write(&mut self) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        let phase = std::mem::replace(&mut transaction.phase, Phase::Reading);
        match phase {
            Phase::Reading => return,
            Phase::Writing(writes) if writes.is_empty() => {}
            // After a rollback SQLite's cache may keep what it did not think worth undoing.
            Phase::Writing(_) | Phase::Doomed { .. } => self.counter.spoil(),
            Phase::Committed | Phase::Finished => {}
        }
        self.end_lease_use();
        self.update_participant(|participant| participant.committing = false);
        self.remote.forget_recent(self.identity);
    }
}

/// The version just below.
pub(super) fn predecessor(version: Version) -> Version {
    let mut bytes = *version.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            break;
        }
    }
    Version::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_below_borrows_across_the_order_field() {
        assert_eq!(predecessor(Version::new(7, 0)), Version::new(6, u16::MAX));
        assert_eq!(predecessor(Version::new(7, 3)), Version::new(7, 2));
    }
}
