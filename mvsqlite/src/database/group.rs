//! The commit of a transaction, over one database of ours or several: what it sends, and what
//! becomes of it.
//!
//! All of it is one request, which carries what was read from the connection's other databases of
//! ours too. So a transaction commits in all of its databases or in none, and only if nothing
//! that it read anywhere has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::{
    CommitRequest, GroupChanges, GroupCommitReply, GroupCommitRequest, GroupMember, MAX_GROUP,
    PAGE_1, StageRef,
};
use mvsqlite_protocol::{
    Code, IdempotencyKey, Incarnation, Moment, NamespaceId, PageData, PageIndex, PageRun, PageSet,
    Problem, ReadVersion,
};
use serde_bytes::ByteBuf;

use super::cache::OwnCommit;
use super::commit_group::{self, StagedFile};
use super::connection::Participant;
use super::error::{Cause, Error};
use super::locking::predecessor;
use super::remote::{Remote, lock_cache};
use super::snapshot::{Header, Snapshot};
use super::upload::Page;
use super::write_set::WriteSet;
use super::{DatabaseFile, OwnPages, Phase, Transaction, page1};
use crate::client::CommitOutcome;
use crate::environment::Environment;

/// What a commit changes in one database.
struct Changes {
    /// In stored form, ascending; page 1 only if it changed.
    inline: Vec<Page>,
    stage: Option<StageRef>,
    /// Page 1 as it is from then on, in stored form.
    header: Header,
    /// What SQLite wrote into page 1 as change counter.
    counter: u32,
}

impl Changes {
    /// Nothing but counters: nothing to store.
    fn is_empty(&self) -> bool {
        self.inline.is_empty() && self.stage.is_none()
    }

    fn staged_bytes(&self) -> u64 {
        let pages = self.stage.map_or(0, |stage| stage.count);
        pages * u64::from(self.header.page_size)
    }
}

/// A commit request, put together.
#[derive(Default)]
pub(super) struct Assembly {
    members: Vec<GroupMember>,
    incarnation: Option<Incarnation>,
    read_version: ReadVersion,
    staged_bytes: u64,
}

/// What a commit of ours puts into the cache.
pub(super) struct Written {
    /// Every page it changed, those it cut off included.
    pub(super) pages: PageSet,
    /// The content of some of them, in stored form.
    pub(super) contents: Vec<Page>,
}

impl Written {
    fn new(writes: &WriteSet, changes: &Changes, base: &Snapshot) -> Self {
        let count = changes.header.page_count;
        let mut pages = writes.written(count);
        let mut contents = writes.contents(count);
        if changes.inline.iter().any(|(index, _)| *index == PAGE_1) {
            pages.insert(PAGE_1);
            contents.push((PAGE_1, Arc::clone(&changes.header.page1)));
        }
        pages.extend(&cut_off(count, base.page_count()));
        Self { pages, contents }
    }
}

/// The pages from the new end of a file to its old one. One run: how many they are is what page 1 says,
/// which may be anything.
fn cut_off(count: PageIndex, before: PageIndex) -> PageSet {
    let run = PageRun {
        first: count,
        count: before.saturating_sub(count),
    };
    // The only run that a set does not take is the empty one.
    PageSet::try_from(vec![run]).unwrap_or_default()
}

impl DatabaseFile {
    /// The commit of a transaction over several databases of one connection, in one moment: SQLite
    /// deletes its super-journal. Each of them had its `SQLITE_FCNTL_SYNC` with that one's name.
    ///
    /// # Errors
    /// As [`Self::sync`]; then nothing was committed in any of them, or it is not known, and the
    /// write transactions of all are doomed.
    pub fn commit_together(files: &mut [&mut Self]) -> Result<(), Error> {
        let mut ready = Ok(());
        for file in files.iter_mut() {
            ready = ready.and_then(|()| file.expect_commit());
        }
        let Err(cause) = ready.and_then(|()| commit(files)) else {
            return Ok(());
        };
        let mut first = None;
        for file in files.iter_mut() {
            let error = file.commit_failed(cause.clone());
            first = first.or(Some(error));
        }
        first.map_or(Ok(()), Err)
    }

    /// What the write transaction changes, ready to be sent as one of so many parts of a request.
    fn changes(&mut self, parts: usize) -> Result<Changes, Cause> {
        let Some(Transaction {
            phase: Phase::Writing(writes),
            snapshot,
            ..
        }) = &mut self.transaction
        else {
            return Err(Cause::Misuse("a commit without a transaction"));
        };
        let (Some(written), Some(page_size)) = (writes.page1(), writes.page_size()) else {
            return Err(Cause::Misuse("a commit without page 1"));
        };
        let counter = page1::change_counter(written);
        let base = snapshot.content.as_ref().map(|header| &header.page1);
        let page1 = page1::stored(written, base.map(|page| &**page));
        let page1_changed = base.is_none_or(|base| !page1::is_unchanged(&page1, base))
            || active(Bug::CountersStored);
        let header = Header::new(Arc::from(page1), page_size);
        let room = snapshot.limits.inline_bytes / parts.max(1) as u64;
        let room = room.saturating_sub(page_size.into());
        // What lies behind the end by page 1 is cut off later, when nothing may fail any more.
        let mut gathered = writes.gather(header.page_count, room, &self.remote, snapshot)?;
        if page1_changed {
            let page1 = (PAGE_1, Arc::clone(&header.page1));
            gathered.inline.insert(0, page1);
        }
        Ok(Changes {
            inline: gathered.inline,
            stage: gathered.stage,
            header,
            counter,
        })
    }

    /// The commit is made: the own pages lie over the snapshot from now on, and in the cache.
    /// Without a reply there was nothing to store.
    fn install(&mut self, changes: Changes, reply: Option<(&GroupCommitReply, &GroupChanges)>) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        let phase = std::mem::replace(&mut transaction.phase, Phase::Committed);
        let Phase::Writing(writes) = phase else {
            return;
        };
        self.counter.committed(changes.counter);
        let Some((reply, others)) = reply.filter(|_| !changes.is_empty()) else {
            return;
        };
        if let Some(claim) = &self.claim {
            // The commit gave the lease back.
            claim.returned();
        }
        let base = &transaction.snapshot;
        let count = changes.header.page_count;
        let mut pages: BTreeMap<_, _> = writes.contents(count).into_iter().collect();
        if let Some(page1) = writes.page1() {
            pages.insert(PAGE_1, Arc::from(page1));
        }
        let written = Written::new(&writes, &changes, base);
        // What SQLite wrote is in its cache now as much as what it read.
        self.read_set.extend(&written.pages);
        if active(Bug::ReadSetDropped) {
            self.read_set.clear();
        }
        let mut after = base.clone();
        after.content = Some(changes.header);
        after.version = reply.version;
        after.read_version = after.read_version.max(reply.read_version);
        let commit = OwnCommit {
            base: base.version,
            version: reply.version,
            seen: others.seen,
            changed: others.changed.as_ref(),
            written: written.pages,
            contents: written.contents,
        };
        let shared = self.remote.env.shared();
        lock_cache(&shared).committed(base.identity, commit);
        self.last_known = Some(reply.version);
        transaction.own = Some(OwnPages {
            pages,
            stored: writes.staged_below(count).collect(),
            snapshot: after,
        });
        let own = Some(reply.version);
        self.update_participant(|participant| {
            participant.own = own;
            participant.committing = true;
        });
    }

    /// The commit is kept back by a commit group, and SQLite takes it for made. Nothing can be read
    /// any more until the lock is gone, since the pages are neither here nor in the store.
    fn install_staged(&mut self, changes: &Changes) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        let phase = std::mem::replace(&mut transaction.phase, Phase::Committed);
        let Phase::Writing(writes) = phase else {
            return;
        };
        self.counter.committed(changes.counter);
        if changes.is_empty() {
            return;
        }
        transaction.stale = true;
        transaction.kept_back = true;
        let version = Arc::default();
        self.in_group = Some(Arc::clone(&version));
        commit_group::keep(StagedFile {
            identity: transaction.snapshot.identity,
            base: transaction.snapshot.version,
            written: Written::new(&writes, changes, &transaction.snapshot),
            version,
            lease: self
                .claim
                .as_ref()
                .and_then(|claim| claim.hand_over(&self.remote.env)),
        });
    }

    /// Takes note of the version that the commit group made of this database's last commit.
    pub(super) fn note_group_version(&mut self) {
        if let Some(version) = self.in_group.take().and_then(|group| group.get().copied()) {
            self.last_known = Some(version);
        }
    }
}

/// Commits what these databases of one connection have written: all of it or nothing.
pub(super) fn commit(files: &mut [&mut DatabaseFile]) -> Result<(), Cause> {
    let Some(first) = files.first() else {
        return Ok(());
    };
    let env = Arc::clone(&first.remote.env);
    // What a commit group keeps back is sent with what follows, of which nothing is known yet.
    let parts = match commit_group::is_open() {
        true => MAX_GROUP,
        false => files.len(),
    };
    let changes = files.iter_mut().map(|file| file.changes(parts));
    let changes = changes.collect::<Result<Vec<_>, _>>()?;
    if changes.iter().all(Changes::is_empty) {
        // Nothing is stored, so nothing has to be checked.
        for (file, changes) in files.iter_mut().zip(changes) {
            file.install(changes, None);
        }
        return Ok(());
    }
    let assembly = assemble(&env, files, &changes)?;
    if commit_group::is_open() {
        commit_group::stage(&env, assembly)?;
        for (file, changes) in files.iter_mut().zip(&changes) {
            file.install_staged(changes);
        }
        return Ok(());
    }
    let reply = assembly.send(&env)?;
    // The written databases come first among the members, in this order.
    let installed = files.iter_mut().zip(changes).zip(&reply.members);
    for ((file, changes), others) in installed {
        file.install(changes, Some((&reply, others)));
    }
    Ok(())
}

/// Everything that the transaction wrote and read.
fn assemble(
    env: &Arc<Environment>,
    files: &[&mut DatabaseFile],
    changes: &[Changes],
) -> Result<Assembly, Cause> {
    let ids: Vec<_> = files.iter().map(|file| file.id).collect();
    let connection = files.first().and_then(|file| file.connection);
    let others = connection.map_or_else(Vec::new, |connection| {
        env.shared().lock_connections().others(connection, &ids)
    });
    let sets = files.len() + others.len();
    let mut assembly = Assembly::default();
    for (file, changes) in files.iter().zip(changes) {
        assembly.add_written(env, file, changes, sets)?;
    }
    for other in others {
        // What was read there is part of the transaction.
        if active(Bug::OthersUnchecked) {
            break;
        }
        assembly.add_read(env, other, sets)?;
    }
    expect_few(assembly.members.len())?;
    Ok(assembly)
}

fn expect_few(members: usize) -> Result<(), Cause> {
    if members <= MAX_GROUP {
        return Ok(());
    }
    Err(Cause::TooLarge {
        limit: MAX_GROUP as u64,
        unit: "databases, those included that it only reads",
    })
}

fn is_written(member: &GroupMember) -> bool {
    !member.pages.is_empty() || member.stage.is_some()
}

impl Assembly {
    /// Adds a database that was written, whose read set is one of so many.
    fn add_written(
        &mut self,
        env: &Arc<Environment>,
        file: &DatabaseFile,
        changes: &Changes,
        sets: usize,
    ) -> Result<(), Cause> {
        let Some(transaction) = &file.transaction else {
            return Err(Cause::Misuse("a commit without a transaction"));
        };
        let snapshot = &transaction.snapshot;
        let incarnation = *self
            .incarnation
            .get_or_insert(snapshot.identity.incarnation);
        let sendable = file.remote.env.is_as_good_as(env);
        if incarnation != snapshot.identity.incarnation || !sendable {
            return Err(Cause::SeveralStores);
        }
        let namespace = snapshot.identity.namespace;
        if self.members.iter().any(|m| m.namespace == namespace) {
            return Err(Cause::AttachedTwice);
        }
        self.read_version = self.read_version.max(snapshot.read_version);
        self.staged_bytes += changes.staged_bytes();
        self.members.push(GroupMember {
            ns: file.remote.key.clone(),
            namespace,
            base: snapshot.version,
            read: file.read_set.to_send(sets),
            pages: changes.inline.iter().map(page_data).collect(),
            stage: changes.stage,
            lease: file.lease_in_use(),
        });
        Ok(())
    }

    /// Adds a database that was only read.
    fn add_read(
        &mut self,
        env: &Arc<Environment>,
        mut other: Participant,
        sets: usize,
    ) -> Result<(), Cause> {
        if self.incarnation != Some(other.identity.incarnation) {
            // Versions of different stores have no order.
            return Ok(());
        }
        move_to_own_commit(env, &mut other)?;
        self.read_version = self.read_version.max(other.read_version);
        let namespace = other.identity.namespace;
        let same = self.members.iter_mut().find(|m| m.namespace == namespace);
        match same {
            // Attached twice.
            Some(member) if member.base == other.base => {
                member.read.extend(&other.read.to_send(sets));
            }
            Some(_) => return Err(Cause::StaleSnapshot),
            None => self.members.push(GroupMember {
                ns: other.key,
                namespace,
                base: other.base,
                read: other.read.to_send(sets),
                pages: Vec::new(),
                stage: None,
                lease: None,
            }),
        }
        Ok(())
    }

    /// Its namespaces, in the order of the reply's entries.
    pub(super) fn namespaces(&self) -> Vec<NamespaceId> {
        self.members.iter().map(|member| member.namespace).collect()
    }

    /// Adds another transaction's, so that both commit together; or leaves everything as it was.
    pub(super) fn merge(&mut self, other: Self) -> Result<(), Cause> {
        if self.incarnation != other.incarnation {
            return Err(Cause::SeveralStores);
        }
        let find = |member: &GroupMember| {
            let same = |own: &GroupMember| own.namespace == member.namespace;
            self.members.iter().position(same)
        };
        let places: Vec<_> = other.members.iter().map(find).collect();
        for (member, place) in other.members.iter().zip(&places) {
            let Some(own) = place.map(|place| &self.members[place]) else {
                continue;
            };
            if is_written(own) && is_written(member) {
                return Err(Cause::AttachedTwice);
            }
            if own.base != member.base {
                return Err(Cause::StaleSnapshot);
            }
        }
        let new = places.iter().filter(|place| place.is_none()).count();
        expect_few(self.members.len() + new)?;
        for (member, place) in other.members.into_iter().zip(places) {
            let Some(place) = place else {
                self.members.push(member);
                continue;
            };
            let own = &mut self.members[place];
            own.read.extend(&member.read);
            if is_written(&member) {
                own.pages = member.pages;
                own.stage = member.stage;
                own.lease = member.lease;
            }
        }
        self.read_version = self.read_version.max(other.read_version);
        self.staged_bytes += other.staged_bytes;
        Ok(())
    }

    /// One request. The reply has an entry for each member.
    pub(super) fn send(mut self, env: &Environment) -> Result<GroupCommitReply, Cause> {
        let mut key = [0; IdempotencyKey::LEN];
        env.system().fill_random(&mut key)?;
        let key = IdempotencyKey::from_bytes(key);
        if self.members.len() > 1 {
            return self.send_group(env, key);
        }
        let Some(member) = self.members.pop() else {
            return Err(Cause::Misuse("a commit of nothing"));
        };
        let request = CommitRequest {
            namespace: member.namespace,
            base: member.base,
            read_version: self.read_version,
            key,
            retry: false,
            read: member.read,
            pages: member.pages,
            stage: member.stage,
            incarnation: self.incarnation,
            lease: member.lease,
        };
        let reply = definite(env.plane().commit(&member.ns, request, self.staged_bytes))?;
        Ok(GroupCommitReply {
            version: reply.version,
            read_version: reply.read_version,
            members: vec![GroupChanges {
                seen: reply.seen,
                changed: reply.changed,
            }],
        })
    }

    fn send_group(self, env: &Environment, key: IdempotencyKey) -> Result<GroupCommitReply, Cause> {
        let unknown = |member: &GroupMember| GroupChanges {
            seen: member.base,
            changed: None,
        };
        let unknown: Vec<_> = self.members.iter().map(unknown).collect();
        let request = GroupCommitRequest {
            key,
            retry: false,
            incarnation: self.incarnation,
            read_version: self.read_version,
            members: self.members,
        };
        let mut reply = definite(env.plane().commit_group(request, self.staged_bytes))?;
        if reply.members.len() != unknown.len() {
            // Committed it is; what others did is another matter.
            reply.members = unknown;
        }
        Ok(reply)
    }
}

/// After a COMMIT that left an open statement at SHARED, reads come from the old snapshot under
/// the own pages. That is the content of the own commit if nobody else committed in between.
fn move_to_own_commit(env: &Arc<Environment>, other: &mut Participant) -> Result<(), Cause> {
    let Some(own) = other.own else {
        return Ok(());
    };
    let remote = Remote {
        env: Arc::clone(env),
        key: other.key.clone(),
    };
    let (before, _) = remote.resolve_version(Moment::Version(predecessor(own)))?;
    if before.identity != other.identity {
        return Err(Cause::Replaced);
    }
    if before.version != other.base {
        return Err(Cause::StaleSnapshot);
    }
    other.base = own;
    other.read_version = other.read_version.max(before.read_version);
    Ok(())
}

fn definite<R>(outcome: CommitOutcome<R>) -> Result<R, Cause> {
    match outcome {
        CommitOutcome::Committed(reply) => Ok(reply),
        CommitOutcome::Refused(problem) => Err(refusal(problem)),
        CommitOutcome::NotCommitted(error) => Err(Cause::NotCommitted(error)),
        CommitOutcome::Unknown(error) => Err(Cause::OutcomeUnknown(error)),
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

fn page_data((index, page): &Page) -> PageData {
    PageData {
        index: *index,
        data: ByteBuf::from(page.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symptom: the host process was aborted for want of 32 GiB of memory, right after its commit was
    /// made. Cause: of a file that became shorter each page cut off was listed on its own, and page 1
    /// of the snapshot (a damaged one, or a server's lie) gave the file four billion pages. Fix: they
    /// are one run.
    #[test]
    fn pages_cut_off_are_one_run_however_many_page_1_says_there_were() {
        let all = cut_off(1, PageIndex::MAX);
        assert_eq!(all.len(), u64::from(PageIndex::MAX) - 1);
        assert!(all.contains(1) && !all.contains(0));
        assert!(cut_off(7, 7).is_empty() && cut_off(9, 7).is_empty());
    }
}
