//! Writing, and the commit point.
//!
//! A write transaction goes through the phases of [`Phase`]. SQLite sends `SQLITE_FCNTL_SYNC` at
//! COMMIT and also at the end of a rollback that had to play its journal back. It is a commit if
//! and only if the newest page 1 written carries another change counter than the one SQLite held
//! when it began: a commit always writes one, a cache spill sends no SYNC, and a rollback puts the
//! old one back. After the commit point nothing fails, since SQLite would undo what is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use mvsqlite_protocol::v2::{CommitReply, CommitRequest, PAGE_1, StageRef};
use mvsqlite_protocol::{Code, IdempotencyKey, PageData, PageRun, PageSet, Problem};
use serde_bytes::ByteBuf;

use super::cache::OwnCommit;
use super::connection::Progress;
use super::error::{Cause, Error, Operation};
use super::remote::{Remote, lock_cache};
use super::snapshot::{Header, Snapshot};
use super::upload::Page;
use super::write_set::{WriteLimits, WriteSet};
use super::{DatabaseFile, OwnPages, Phase, page1};
use crate::client::CommitOutcome;

/// What a commit sends.
struct Changes {
    /// In stored form, ascending; page 1 only if it changed.
    inline: Vec<Page>,
    stage: Option<StageRef>,
    /// Page 1 as it is from then on, in stored form.
    header: Header,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.inline.is_empty() && self.stage.is_none()
    }
}

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
                self.report(Progress::Wrote);
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
    /// `super_journal` is its name if the transaction has one.
    ///
    /// # Errors
    /// If nothing was committed ([`super::SqliteCode::BusySnapshot`] for a conflict), or if that is
    /// not known ([`super::SqliteCode::IoErrCommitAtomic`]). The write transaction is doomed then:
    /// SQLite's playback is accepted and ignored.
    pub fn sync(&mut self, super_journal: Option<&str>) -> Result<(), Error> {
        let result = self.try_sync(super_journal.is_some());
        result.map_err(|cause| {
            if !matches!(cause, Cause::Doomed(_)) {
                self.doom(&cause);
            }
            self.fail(Operation::Commit, cause)
        })
    }

    fn try_sync(&mut self, has_super_journal: bool) -> Result<(), Cause> {
        let held = self.counter.held();
        let Some(transaction) = &mut self.transaction else {
            return Ok(());
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
                return Ok(());
            }
            _ => return Ok(()),
        }
        self.check_process()?;
        self.check_other_databases(has_super_journal)?;
        self.commit()
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

    /// Two of our databases in one transaction would be two commits, the second of which may fail.
    fn check_other_databases(&self, has_super_journal: bool) -> Result<(), Cause> {
        let Some(connection) = self.connection else {
            return Ok(());
        };
        let shared = self.remote.env.shared();
        let writers = shared.lock_writers();
        match writers.other(connection, self.id) {
            // Without a super-journal a lock alone is no writing: BEGIN IMMEDIATE locks all.
            Some((_, Progress::Reserved)) if !has_super_journal => Ok(()),
            Some((other, progress)) => Err(Cause::SecondDatabase {
                other: other.to_owned(),
                committed: progress == Progress::Committed,
            }),
            None => Ok(()),
        }
    }

    /// Sends the write set, all or nothing.
    fn commit(&mut self) -> Result<(), Cause> {
        let Some(transaction) = &mut self.transaction else {
            return Ok(());
        };
        let Phase::Writing(writes) = &mut transaction.phase else {
            return Ok(());
        };
        let Some(counter) = writes.change_counter() else {
            return Ok(());
        };
        let changes = changes(writes, &self.remote, &mut transaction.snapshot)?;
        if changes.is_empty() {
            // Nothing but counters: nothing to store.
            transaction.phase = Phase::Committed;
        } else {
            let reply = self.send(&changes)?;
            self.lease_returned();
            self.install(changes, reply);
        }
        self.counter.committed(counter);
        self.report(Progress::Committed);
        Ok(())
    }

    /// One commit request.
    fn send(&mut self, changes: &Changes) -> Result<CommitReply, Cause> {
        let mut key = [0; IdempotencyKey::LEN];
        self.remote.env.system().fill_random(&mut key)?;
        let lease = self.lease_in_use();
        let Some(transaction) = &mut self.transaction else {
            return Err(Cause::Misuse("a commit without a transaction"));
        };
        let snapshot = &transaction.snapshot;
        let request = CommitRequest {
            namespace: snapshot.identity.namespace,
            base: snapshot.version,
            read_version: snapshot.read_version,
            key: IdempotencyKey::from_bytes(key),
            retry: false,
            read: bounded(&self.read_set, MOST_READ_RUNS),
            pages: changes.inline.iter().map(page_data).collect(),
            stage: changes.stage,
            incarnation: Some(snapshot.identity.incarnation),
            lease,
        };
        let plane = self.remote.env.plane();
        let staged = changes.stage.map_or(0, |stage| stage.count);
        let bytes = staged * u64::from(changes.header.page_size);
        let outcome = plane.commit(&self.remote.key, request, bytes);
        if !matches!(outcome, CommitOutcome::Committed(_)) {
            // The snapshot is of no more use for writing, whatever the reason.
            transaction.stale = true;
        }
        match outcome {
            CommitOutcome::Committed(reply) => Ok(reply),
            CommitOutcome::Refused(problem) => Err(refusal(problem)),
            CommitOutcome::NotCommitted(error) => Err(Cause::NotCommitted(error)),
            CommitOutcome::Unknown(error) => Err(Cause::OutcomeUnknown(error)),
        }
    }

    /// The commit is made: the own pages lie over the snapshot from now on, and in the cache.
    fn install(&mut self, changes: Changes, reply: CommitReply) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        let phase = std::mem::replace(&mut transaction.phase, Phase::Committed);
        let Phase::Writing(writes) = phase else {
            return;
        };
        let base = &transaction.snapshot;
        let mut after = base.clone();
        let count = changes.header.page_count;
        let cut_off = count..base.page_count();
        let mut written = writes.written(count);
        let mut contents = writes.contents(count);
        let mut pages: BTreeMap<_, _> = contents.iter().cloned().collect();
        if let Some(page1) = writes.page1() {
            pages.insert(PAGE_1, Arc::from(page1));
        }
        if changes.inline.iter().any(|(index, _)| *index == PAGE_1) {
            written.insert(PAGE_1);
            contents.push((PAGE_1, Arc::clone(&changes.header.page1)));
        }
        after.content = Some(changes.header);
        after.version = reply.version;
        after.read_version = after.read_version.max(reply.read_version);
        // What SQLite wrote is in its cache now as much as what it read.
        self.read_set.extend(&written);
        written.extend(&cut_off.collect());
        let commit = OwnCommit {
            base: base.version,
            version: reply.version,
            seen: reply.seen,
            changed: reply.changed.as_ref(),
            written,
            contents,
        };
        let shared = self.remote.env.shared();
        lock_cache(&shared).committed(base.identity, commit);
        self.last_known = Some(reply.version);
        transaction.own = Some(OwnPages {
            pages,
            stored: writes.staged_below(count).collect(),
            snapshot: after,
        });
    }
}

/// What of the write set is a change. Whatever a commit cannot bring inline is in its stage then.
fn changes(
    writes: &mut WriteSet,
    remote: &Remote,
    snapshot: &mut Snapshot,
) -> Result<Changes, Cause> {
    let (Some(written), Some(page_size)) = (writes.page1(), writes.page_size()) else {
        return Err(Cause::Misuse("a commit without page 1"));
    };
    let base = snapshot.content.as_ref().map(|header| &header.page1);
    let page1 = page1::stored(written, base.map(|page| &**page));
    let page1_changed = base.is_none_or(|base| !page1::is_unchanged(&page1, base));
    let header = Header::new(Arc::from(page1), page_size);
    let room = snapshot.limits.inline_bytes;
    let room = room.saturating_sub(page_size.into());
    // What lies behind the end by page 1 is cut off later, when nothing may fail any more.
    let mut gathered = writes.gather(header.page_count, room, remote, snapshot)?;
    if page1_changed {
        let page1 = (PAGE_1, Arc::clone(&header.page1));
        gathered.inline.insert(0, page1);
    }
    Ok(Changes {
        inline: gathered.inline,
        stage: gathered.stage,
        header,
    })
}

/// Most runs of a read set that are sent; servers take twice as many.
const MOST_READ_RUNS: usize = 1 << 18;

/// A read set of at most this many runs: the smallest gaps are closed until they suffice. A page too
/// many can cost a false conflict, never hide one.
fn bounded(read_set: &PageSet, most: usize) -> PageSet {
    let mut runs = read_set.runs().to_vec();
    let mut gap: u64 = 1;
    while runs.len() > most.max(1) {
        let mut wider: Vec<PageRun> = Vec::with_capacity(runs.len());
        for run in runs {
            match wider.last_mut() {
                Some(last) if u64::from(run.first) - last.end() <= gap => {
                    last.count = run.first - last.first + run.count;
                }
                _ => wider.push(run),
            }
        }
        runs = wider;
        gap *= 2;
    }
    // Runs of a set, joined, are valid runs.
    PageSet::try_from(runs).unwrap_or_else(|_| read_set.clone())
}

fn page_data((index, page): &Page) -> PageData {
    PageData {
        index: *index,
        data: ByteBuf::from(page.to_vec()),
    }
}

fn refusal(problem: Box<Problem>) -> Cause {
    match problem.code {
        Code::Conflict => Cause::Conflict {
            page: problem.page,
            version: problem.version,
        },
        _ => Cause::Call(crate::client::CallError::Refused(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bounded_read_set_holds_every_page_and_no_more_runs_than_allowed(
            pages in prop::collection::vec(0u32..500, 0..100),
            most in 1usize..20,
        ) {
            let read_set: PageSet = pages.iter().copied().collect();
            let bounded = bounded(&read_set, most);
            prop_assert!(bounded.runs().len() <= most);
            prop_assert!(pages.iter().all(|page| bounded.contains(*page)));
            if read_set.runs().len() <= most {
                prop_assert_eq!(bounded, read_set);
            }
        }
    }
}
