//! One attempt at a commit: one transaction of the engine.

use futures_util::future::try_join_all;
use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::{GroupChanges, GroupCommitReply};
use mvsqlite_protocol::{ReadVersion, Version};
use tokio::try_join;

use super::fence;
use super::plan::{MemberPlan, Plan};
use super::prepare::{CommitLimits, Prepared};
use super::progress::{MemberProgress, Progress};
use super::request::{Commit, Dialect, Member};
use super::staged::staged_pages;
use super::write::{self, Staged};
use crate::context::{Context, Failure};
use crate::error::StoreError;
use crate::failpoint;
use crate::kv::{Freshness, Isolation, Transaction};
use crate::layout::{CatalogEntry, ChangeEntry, Guard, Outcome, StageState};
use crate::namespace::{expect_id, expect_kept};
use crate::page::begin::changes_between;
use crate::page::changes::{Batch, Interval, newest_until, read_batch, successor};
use crate::page::conflict::Collision;
use crate::page::read::{page_one_at, version_unknown};
use crate::page::settle::outcome;
use crate::page::stage;
use crate::page::waiting::note_place;

/// Batches of the changelog that one transaction reads before it makes way for a younger one.
const BATCHES_A_TRANSACTION: usize = 8;

/// One attempt to commit.
pub(super) struct Attempt<'c, 'p, 'a> {
    pub ctx: &'c Context,
    pub plan: &'p Plan<'a>,
}

/// A namespace as the attempt's transaction sees it.
struct Sight {
    entry: Option<CatalogEntry>,
    guard: Option<Guard>,
    head: Version,
    /// The first of the commits that were not looked at yet.
    changes: Batch,
}

/// A namespace that lets the commit in.
struct Admitted {
    /// As the commit leaves it.
    guard: Guard,
    /// The guard has to be written: the commit ends the write lease that stood there.
    ends_lease: bool,
    head: Version,
    changes: Batch,
    stage: Staged,
}

impl<'a> Attempt<'_, '_, 'a> {
    /// Runs it; `None` if the changelog is longer than one transaction should walk, or if it waited
    /// for its place among the large commits.
    pub(super) async fn run(
        &self,
        progress: &mut Progress<'a>,
    ) -> Result<Option<GroupCommitReply>, Failure> {
        let (ctx, plan) = (self.ctx, self.plan);
        let txn = ctx.begin(progress.freshness);
        let known = plan.members.iter().zip(&progress.members);
        let sights = known.map(|(plan, known)| self.look(&*txn, plan.member, known.next));
        let (outcome, sights) = try_join!(
            outcome(ctx, &*txn, plan.home.id, plan.commit.key),
            try_join_all(sights),
        )?;
        if let Some(outcome) = outcome {
            return self.answer(outcome).await.map(Some);
        }
        progress.uncertain = false;
        let mut namespaces = Vec::with_capacity(sights.len());
        for ((plan, known), sight) in plan.members.iter().zip(&progress.members).zip(sights) {
            namespaces.push(self.admit(&*txn, plan.member, known, sight).await?);
        }
        let staged = namespaces.iter().filter_map(|namespace| namespace.stage);
        if progress.must_wait(staged.map(|(_, record)| record.count).sum()) {
            drop(txn);
            progress.wait(ctx).await?;
            return Ok(None);
        }
        let pages = self.prepare(&*txn, progress, &namespaces).await?;
        if progress.must_wait(pages) {
            drop(txn);
            progress.wait(ctx).await?;
            return Ok(None);
        }
        if let Some(full) = self.full(progress, &namespaces) {
            drop(txn);
            progress.make_room(ctx, full).await?;
            return Ok(None);
        }
        if !self.walk(&*txn, progress, &mut namespaces).await? {
            progress.freshness = Freshness::AtLeast(txn.read_version().await?);
            return Ok(None);
        }
        if let Some(refusal) = progress.give_up() {
            return Err(refusal.into());
        }
        self.commit(txn, progress, &namespaces).await.map(Some)
    }

    /// Reads what a commit has to know about a namespace.
    async fn look(
        &self,
        txn: &dyn Transaction,
        member: &Member,
        next: Version,
    ) -> Result<Sight, Failure> {
        let (ctx, id) = (self.ctx, member.id);
        let isolation = Isolation::Serializable;
        let (entry, guard, head, changes) = try_join!(
            ctx.catalog_entry(txn, member.ns.as_str(), isolation),
            ctx.guard(txn, id, isolation),
            ctx.head(txn, id),
            read_batch(ctx, txn, id, next, None),
        )?;
        Ok(Sight {
            entry,
            guard,
            head,
            changes,
        })
    }

    /// Whether the namespace lets the commit in, on this base and with this stage.
    async fn admit(
        &self,
        txn: &dyn Transaction,
        member: &Member,
        known: &MemberProgress<'a>,
        sight: Sight,
    ) -> Result<Admitted, Failure> {
        let entry = expect_id(&member.ns, sight.entry, member.id)?;
        let owner = self.plan.commit.lock_owner.as_deref();
        let passed = fence::pass(self.ctx, txn, member, entry, sight.guard, owner).await?;
        let horizon = passed.guard.horizon;
        expect_order(txn.read_version().await?, sight.head)?;
        match member.dialect {
            Dialect::V2 => {
                expect_kept(member.base, horizon)?;
                expect_commit(member, known, &sight.changes)?;
            }
            Dialect::V1 => expect_walkable(member, horizon, sight.head)?,
        }
        Ok(Admitted {
            guard: passed.guard,
            ends_lease: passed.ends_lease,
            head: sight.head,
            changes: sight.changes,
            stage: self.expect_stage(txn, member).await?,
        })
    }

    /// The stage's record, if it is as the client believes.
    async fn expect_stage(
        &self,
        txn: &dyn Transaction,
        member: &Member,
    ) -> Result<Staged, Failure> {
        let Some(named) = member.stage else {
            return Ok(None);
        };
        let record = stage::record(self.ctx, txn, member.id, named.stage).await?;
        let record = record.ok_or_else(|| stage::unknown(named.stage))?;
        if record.state != StageState::Open {
            return Err(stage::closed(named.stage).into());
        }
        // A batch that came late has put back what a later one replaced.
        let differs = (record.count, record.sum) != (named.count, named.sum);
        if differs && !active(Bug::StageUnchecked) {
            let reason = format!(
                "it holds {} pages of sum {:016x}, not {} of {:016x}",
                record.count, record.sum, named.count, named.sum
            );
            return Err(StoreError::StageInvalid {
                stage: named.stage,
                reason,
            }
            .into());
        }
        Ok(Some((named.stage, record)))
    }

    /// Works out what is not worked out yet. Returns how many page versions the commit writes.
    async fn prepare(
        &self,
        txn: &dyn Transaction,
        progress: &mut Progress<'a>,
        namespaces: &[Admitted],
    ) -> Result<u64, Failure> {
        let limits = CommitLimits {
            bounds: &self.ctx.bounds,
            members: self.plan.members.len() as u64,
            inline: self.plan.members.iter().map(MemberPlan::inline).sum(),
        };
        let mut pages = 0;
        for (at, plan) in self.plan.members.iter().enumerate() {
            let prepared = match progress.members[at].prepared.take() {
                Some(prepared) => prepared,
                None => {
                    let namespace = &namespaces[at];
                    self.prepare_member(txn, plan, namespace, &limits).await?
                }
            };
            pages += prepared.versions();
            progress.members[at].prepared = Some(prepared);
        }
        limits.expect_versions(pages)?;
        Ok(pages)
    }

    /// A namespace that needs a layer for this commit and has no room for one.
    fn full(&self, progress: &Progress<'_>, namespaces: &[Admitted]) -> Option<&Member> {
        let members = self.plan.members.iter().zip(&progress.members);
        let mut needy = members.zip(namespaces).filter(|((_, known), namespace)| {
            let prepared = known.prepared.as_ref();
            let layered = prepared.is_some_and(|prepared| prepared.layered.is_some());
            layered && !namespace.guard.has_room()
        });
        needy.next().map(|((plan, _), _)| plan.member)
    }

    async fn prepare_member(
        &self,
        txn: &dyn Transaction,
        plan: &MemberPlan<'a>,
        namespace: &Admitted,
        limits: &CommitLimits<'_>,
    ) -> Result<Prepared<'a>, Failure> {
        let (ctx, id) = (self.ctx, plan.member.id);
        let Admitted { guard, stage, .. } = namespace;
        let base = async {
            if Prepared::needs_base(plan) {
                page_one_at(ctx, txn, id, guard, plan.member.base).await
            } else {
                Ok(None)
            }
        };
        let staged = async {
            match stage {
                Some((stage, record)) => staged_pages(ctx, txn, id, *stage, *record).await,
                None => Ok(Vec::new()),
            }
        };
        let (base, staged) = try_join!(base, staged)?;
        let staged_size = stage.map_or(0, |(_, record)| record.page_size);
        let base = base.as_ref().map(|page| &page.content[..]);
        Ok(Prepared::new(plan, base, staged, staged_size, limits)?)
    }

    /// Compares with every commit up to the read version; `false` if there are too many for this
    /// transaction.
    async fn walk(
        &self,
        txn: &dyn Transaction,
        progress: &mut Progress<'a>,
        namespaces: &mut [Admitted],
    ) -> Result<bool, Failure> {
        let mut batches = 0;
        let members = self.plan.members.iter().zip(&mut progress.members);
        for ((plan, known), namespace) in members.zip(namespaces) {
            // Every member relies on what it read.
            if active(Bug::GroupChecksFirst) && plan.member.id != self.plan.members[0].member.id {
                break;
            }
            loop {
                for (version, entry) in &namespace.changes.entries {
                    compare(plan.member, known, *version, entry)?;
                    known.next = successor(*version);
                }
                if namespace.changes.is_last {
                    break;
                }
                batches += 1;
                if batches == BATCHES_A_TRANSACTION {
                    return Ok(false);
                }
                let id = plan.member.id;
                namespace.changes = read_batch(self.ctx, txn, id, known.next, None).await?;
            }
        }
        Ok(true)
    }

    /// Writes everything, and commits the transaction.
    async fn commit(
        &self,
        mut txn: Box<dyn Transaction>,
        progress: &mut Progress<'a>,
        namespaces: &[Admitted],
    ) -> Result<GroupCommitReply, Failure> {
        let (ctx, plans) = (self.ctx, &self.plan.members);
        for ((plan, known), namespace) in plans.iter().zip(&progress.members).zip(namespaces) {
            let id = plan.member.id;
            let prepared = expect_prepared(known)?;
            write::watch(ctx, &mut *txn, id, prepared);
            if namespace.ends_lease {
                txn.set(&ctx.keys.guard(id), &namespace.guard.encode());
            }
            if plan.member.is_written() {
                let Admitted { guard, stage, .. } = namespace;
                write::write_version(ctx, &mut *txn, id, guard, prepared, *stage);
                for (index, hash) in &plan.member.noted {
                    note_place(ctx, &mut *txn, id, hash, *index);
                }
            }
        }
        write::write_outcome(ctx, &mut *txn, self.plan);
        let read_version = txn.read_version().await?;
        let (before, behind) = match progress.makes_layer() {
            true => (failpoint::LAYER_BEFORE_COMMIT, failpoint::LAYER_COMMITTED),
            false => (failpoint::BEFORE_COMMIT, failpoint::COMMITTED),
        };
        failpoint::pass(before);
        let version = txn.commit().await?;
        failpoint::pass(behind);
        let mut changes = Vec::with_capacity(plans.len());
        for ((plan, known), namespace) in plans.iter().zip(&mut progress.members).zip(namespaces) {
            if let Some(prepared) = &known.prepared {
                write::remember_page_one(ctx, plan.member.id, version, prepared);
            }
            let interval = std::mem::replace(&mut known.interval, Interval::new());
            changes.push(GroupChanges {
                seen: namespace.head,
                changed: interval.finish(),
            });
        }
        Ok(GroupCommitReply {
            version,
            read_version: read_version.max(ReadVersion(version.commit())),
            members: changes,
        })
    }

    /// The answer of a commit that was decided before.
    async fn answer(&self, outcome: Outcome) -> Result<GroupCommitReply, Failure> {
        let commit = self.plan.commit;
        match outcome {
            Outcome::Committed { digest, version } if digest == self.plan.digest => {
                Ok(replay(self.ctx, commit, version).await?)
            }
            Outcome::Committed { .. } => Err(StoreError::KeyReused { key: commit.key }.into()),
            Outcome::Aborted => Err(StoreError::Aborted { key: commit.key }.into()),
        }
    }
}

/// What was worked out; every member's is, before anything is written.
fn expect_prepared<'p, 'a>(known: &'p MemberProgress<'a>) -> Result<&'p Prepared<'a>, StoreError> {
    known.prepared.as_ref().ok_or_else(|| StoreError::Internal {
        reason: "a commit was about to be written that was not worked out".to_owned(),
    })
}

/// A read version below the head means that the engine's versions went back.
fn expect_order(read_version: ReadVersion, head: Version) -> Result<(), StoreError> {
    if read_version.sees(head) {
        return Ok(());
    }
    Err(StoreError::VersionsWentBack {
        read_version: read_version.0,
        version: head.commit(),
    })
}

/// Whether the base is one of the namespace's versions: the walk begins at its entry.
fn expect_commit(
    member: &Member,
    known: &MemberProgress<'_>,
    changes: &Batch,
) -> Result<(), StoreError> {
    let first = changes.entries.first();
    let is_known = known.next > member.base
        || member.base == member.id.as_version()
        || first.is_some_and(|(at, _)| *at == member.base);
    if is_known {
        return Ok(());
    }
    Err(version_unknown(&member.ns, member.base))
}

/// Whether everything that was committed since the base can be looked at. A base may lie between
/// commits, but nothing can have been read at one above the head: the namespace was rolled back. And
/// below the horizon the changelog has gaps.
fn expect_walkable(member: &Member, horizon: Version, head: Version) -> Result<(), StoreError> {
    let conflict = |version| {
        Err(StoreError::Conflict {
            page: None,
            version,
        })
    };
    let base = member.base.max(member.id.as_version());
    if base > head {
        return conflict(None);
    }
    if base < horizon && base < head {
        return conflict(Some(head));
    }
    Ok(())
}

fn compare(
    member: &Member,
    known: &mut MemberProgress<'_>,
    version: Version,
    entry: &ChangeEntry,
) -> Result<(), StoreError> {
    if version <= member.base {
        return Ok(());
    }
    known.interval.add(entry);
    let collision = expect_prepared(known)?.footprint.collides_with(entry);
    let page = match collision {
        None => return Ok(()),
        Some(Collision::Page(page)) => Some(page),
        Some(Collision::Unknown) => None,
    };
    Err(StoreError::Conflict {
        page,
        version: Some(version),
    })
}

/// The answer of a commit that happened before. Everything up to its own version is past, so others'
/// changes can be told up to there.
pub(super) async fn replay(
    ctx: &Context,
    commit: &Commit,
    version: Version,
) -> Result<GroupCommitReply, StoreError> {
    let read_version = ReadVersion(version.commit());
    let txn = ctx.begin(Freshness::AtLeast(read_version));
    let mut members = Vec::with_capacity(commit.members.len());
    for member in &commit.members {
        let told = changes_until(ctx, &*txn, member, version).await;
        // Where it cannot be told, by whatever cause, "unknown" is a true answer.
        members.push(told.unwrap_or(GroupChanges {
            seen: member.base,
            changed: None,
        }));
    }
    Ok(GroupCommitReply {
        version,
        read_version: read_version.max(commit.read_version),
        members,
    })
}

async fn changes_until(
    ctx: &Context,
    txn: &dyn Transaction,
    member: &Member,
    version: Version,
) -> Result<GroupChanges, Failure> {
    let id = member.id;
    let guard = ctx.guard(txn, id, Isolation::Snapshot).await?;
    // Below the horizon the changelog has gaps.
    if guard.is_none_or(|guard| member.base < guard.horizon) {
        return Ok(GroupChanges {
            seen: member.base,
            changed: None,
        });
    }
    // A namespace that was only read has no entry at the version, and what a client knows has to
    // stand at one.
    let seen = if member.is_written() {
        version
    } else {
        newest_until(ctx, txn, id, version).await?
    };
    let own = |at| at == version;
    let changes = changes_between(ctx, txn, id, member.base, seen, own).await?;
    Ok(GroupChanges {
        seen,
        changed: changes.foreign,
    })
}
