//! Commit: one transaction of the store, whose cost does not grow with what was read.
//!
//! An attempt, all in one transaction of the engine:
//!
//! 1. Read what stands under the idempotency key (an answer, if it was committed before), the
//!    catalog entry, the guard, the head, and the changelog from the base on.
//! 2. Compare every commit in (base, read version] with what this one relies on: a collision there
//!    is a conflict for good.
//! 3. Ask the engine to watch the same pages, as at most 2,000 ranges, until the commit.
//! 4. Write page versions, changelog, head, outcome and counters.
//!
//! What the engine reports as a conflict is no answer, only a reason to look again at a fresh read
//! version. Nor is a refusal seen at a read version that may be a little old. What the engine cannot
//! tell (committed or not) the next attempt finds out in its first step.
//!
//! The changelog is immutable, so a long walk along it is spread over as many transactions as it
//! takes; [`Progress`] remembers how far it came.
//!
//! A large commit takes memory by its pages, which a stage or a shrinking page count asks for in a
//! request of any size: only a few of them are under way at once.

mod plan;
mod prepare;
mod write;

use mvsqlite_protocol::v2::{CommitReply, CommitRequest};
use mvsqlite_protocol::{NamespaceId, NamespaceKey, PageIndex, ReadVersion, StageId, Version};
use tokio::sync::OwnedSemaphorePermit;
use tokio::try_join;

use self::plan::Plan;
use self::prepare::{CommitLimits, Prepared, StagedPage};
use super::begin::changes_between;
use super::changes::{Batch, Interval, read_batch, successor};
use super::conflict::Collision;
use super::read::{page_one_at, version_unknown};
use super::settle::{outcome, settled};
use super::stage;
use crate::context::{Context, Failure, corrupt_in};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, KvError, RangeOptions, Transaction};
use crate::layout::{ChangeEntry, Outcome, StageRecord, StageState, decode_sum};
use crate::namespace::{Access, admit, expect_id, expect_kept};

/// Failed attempts after which a commit is given up.
const MOST_FAILURES: u32 = 5;
/// Batches of the changelog that one transaction reads before it makes way for a younger one.
const BATCHES_A_TRANSACTION: usize = 8;
/// A commit that changes more pages is large: few of them are let in at once.
const LARGE_PAGES: u64 = 10_000;
/// Sums of staged pages read at once.
const SUMS_A_BATCH: usize = 10_000;

/// Commits a transaction: all or nothing, at one version.
pub(crate) async fn commit(
    ctx: &Context,
    key: &NamespaceKey,
    request: CommitRequest,
) -> Result<CommitReply, StoreError> {
    let mut doubt = request.retry;
    let refusal = match run(ctx, key, &request, &mut doubt).await {
        Ok(reply) => return Ok(reply),
        Err(refusal) => refusal,
    };
    if !doubt || is_final(&refusal) {
        return Err(refusal);
    }
    // An earlier sending or attempt may still be under way, and this refusal would not stop it.
    let unknown = |error: StoreError| StoreError::OutcomeUnknown {
        key: request.key,
        reason: format!("{refusal}; then: {error}"),
    };
    match settled(ctx, key, request.namespace, request.key).await {
        Ok(Some(version)) => replay(ctx, &request, version).await.map_err(unknown),
        Ok(None) if matches!(refusal, StoreError::Unavailable { .. }) => {
            Err(StoreError::Aborted { key: request.key })
        }
        Ok(None) => Err(refusal),
        Err(gone @ StoreError::NamespaceNotFound { .. }) => Err(gone),
        Err(error) => Err(unknown(error)),
    }
}

/// Whether a refusal holds for every sending of the commit, whenever it arrives.
fn is_final(refusal: &StoreError) -> bool {
    match refusal {
        // Found in the changelog, where every other attempt must find it too. A conflict that only
        // the engine saw names no version.
        StoreError::Conflict { version, .. } => version.is_some(),
        StoreError::Aborted { .. } | StoreError::KeyReused { .. } => true,
        StoreError::OutcomeUnknown { .. } => true,
        _ => false,
    }
}

/// Sets `doubt` when an attempt has come to nobody knows what.
async fn run(
    ctx: &Context,
    key: &NamespaceKey,
    request: &CommitRequest,
    doubt: &mut bool,
) -> Result<CommitReply, StoreError> {
    let plan = Plan::new(request, &ctx.limits)?;
    let mut progress = Progress::new(request);
    loop {
        let attempt = Attempt {
            ctx,
            key,
            plan: &plan,
        };
        match attempt.run(&mut progress).await {
            Ok(Some(reply)) => return Ok(reply),
            // It goes on in a younger transaction.
            Ok(None) => (),
            Err(Failure::Refused(refusal)) => {
                if progress.freshness == Freshness::Strict || is_final(&refusal) {
                    return Err(refusal);
                }
                progress.freshness = Freshness::Strict;
            }
            Err(Failure::Engine(error)) => {
                *doubt |= matches!(error, KvError::MaybeCommitted { .. });
                progress.note(error, request)?;
            }
        }
    }
}

/// What is known from earlier attempts.
struct Progress<'a> {
    freshness: Freshness,
    /// Failed attempts so far, and what the last one failed of.
    failures: u32,
    last_failure: Option<KvError>,
    /// An attempt may have committed, and nobody looked since.
    uncertain: bool,
    /// The next changelog entry to compare with.
    next: Version,
    /// What others changed from the base up to there.
    interval: Interval,
    prepared: Option<Prepared<'a>>,
    /// Its place among the large commits, if it is one.
    place: Option<OwnedSemaphorePermit>,
}

impl Progress<'_> {
    fn new(request: &CommitRequest) -> Self {
        let seen = ReadVersion(request.base.commit()).max(request.read_version);
        Self {
            freshness: Freshness::AtLeast(seen),
            failures: 0,
            last_failure: None,
            uncertain: false,
            next: request.base,
            interval: Interval::new(),
            prepared: None,
            place: None,
        }
    }

    /// Whether a commit that changes so many pages still has to wait for its place.
    fn must_wait(&self, pages: u64) -> bool {
        pages > LARGE_PAGES && self.place.is_none()
    }

    /// Takes an engine's failure: `Ok` if another attempt is worth while.
    fn note(&mut self, error: KvError, request: &CommitRequest) -> Result<(), StoreError> {
        self.freshness = Freshness::Strict;
        self.failures += 1;
        let again = match &error {
            KvError::Conflict | KvError::TooOld => true,
            KvError::MaybeCommitted { .. } => {
                self.uncertain = true;
                true
            }
            // Only looking can end the uncertainty.
            _ => self.uncertain,
        };
        if !again {
            return Err(error.into());
        }
        if self.uncertain && self.failures > 2 * MOST_FAILURES {
            return Err(StoreError::OutcomeUnknown {
                key: request.key,
                reason: error.to_string(),
            });
        }
        self.last_failure = Some(error);
        Ok(())
    }

    /// Whether to give up, now that it is certain that nothing was committed.
    fn give_up(&self) -> Option<StoreError> {
        if self.failures < MOST_FAILURES {
            return None;
        }
        Some(match &self.last_failure {
            Some(KvError::Conflict) | None => StoreError::Conflict {
                page: None,
                version: None,
            },
            Some(error) => StoreError::Unavailable {
                reason: format!("the commit was tried {} times: {error}", self.failures),
            },
        })
    }
}

/// One attempt to commit.
struct Attempt<'c, 'p, 'a> {
    ctx: &'c Context,
    key: &'c NamespaceKey,
    plan: &'p Plan<'a>,
}

impl<'a> Attempt<'_, '_, 'a> {
    /// Runs it; `None` if the changelog is longer than one transaction should walk, or if it waited
    /// for its place among the large commits.
    async fn run(&self, progress: &mut Progress<'a>) -> Result<Option<CommitReply>, Failure> {
        let (ctx, request) = (self.ctx, self.plan.request);
        let id = request.namespace;
        let mut txn = ctx.begin(progress.freshness);
        let isolation = Isolation::Serializable;
        let (outcome, entry, guard, head, changes) = try_join!(
            outcome(ctx, &*txn, id, request.key),
            ctx.catalog_entry(&*txn, self.key.as_str(), isolation),
            ctx.guard(&*txn, id, isolation),
            ctx.head(&*txn, id),
            read_batch(ctx, &*txn, id, progress.next, None),
        )?;
        if let Some(outcome) = outcome {
            return self.answer(outcome).await.map(Some);
        }
        progress.uncertain = false;
        expect_id(self.key, entry, id)?;
        let horizon = admit(self.key, id, guard, Access::Write)?.horizon;
        expect_kept(request.base, horizon)?;
        let read_version = txn.read_version().await?;
        expect_order(read_version, head)?;
        self.expect_base(progress, &changes)?;
        let record = self.expect_stage(&*txn).await?;
        if progress.must_wait(record.map_or(0, |(_, record)| record.count)) {
            drop(txn);
            return self.wait(progress).await;
        }
        if progress.prepared.is_none() {
            progress.prepared = Some(self.prepare(&*txn, record).await?);
        }
        let pages = |prepared: &Prepared<'_>| prepared.changed.len();
        if progress.must_wait(progress.prepared.as_ref().map_or(0, pages)) {
            drop(txn);
            return self.wait(progress).await;
        }
        if !self.walk(&*txn, progress, changes).await? {
            progress.freshness = Freshness::AtLeast(read_version);
            return Ok(None);
        }
        if let Some(refusal) = progress.give_up() {
            return Err(refusal.into());
        }
        let Some(prepared) = &progress.prepared else {
            return Ok(None);
        };
        write::write(ctx, &mut *txn, self.plan, prepared, record);
        let version = txn.commit().await?;
        write::remember_page_one(ctx, id, version, prepared);
        let interval = std::mem::replace(&mut progress.interval, Interval::new());
        Ok(Some(CommitReply {
            version,
            seen: head,
            read_version: read_version.max(ReadVersion(version.commit())),
            changed: interval.finish(),
        }))
    }

    /// Waits until there is a place among the large commits; another attempt follows.
    async fn wait(&self, progress: &mut Progress<'a>) -> Result<Option<CommitReply>, Failure> {
        let place = self.ctx.large_commits.clone().acquire_owned().await;
        progress.place = Some(place.map_err(|error| StoreError::Internal {
            reason: format!("large commits are not let in: {error}"),
        })?);
        Ok(None)
    }

    /// The answer of a commit that was decided before.
    async fn answer(&self, outcome: Outcome) -> Result<CommitReply, Failure> {
        let request = self.plan.request;
        match outcome {
            Outcome::Committed { digest, version } if digest == self.plan.digest => {
                Ok(replay(self.ctx, request, version).await?)
            }
            Outcome::Committed { .. } => Err(StoreError::KeyReused { key: request.key }.into()),
            Outcome::Aborted => Err(StoreError::Aborted { key: request.key }.into()),
        }
    }

    /// Whether the base is one of the namespace's versions: the walk begins at its entry.
    fn expect_base(&self, progress: &Progress<'_>, changes: &Batch) -> Result<(), StoreError> {
        let request = self.plan.request;
        let known = progress.next > request.base
            || request.base == request.namespace.as_version()
            || changes
                .entries
                .first()
                .is_some_and(|(at, _)| *at == request.base);
        if known {
            return Ok(());
        }
        Err(version_unknown(self.key, request.base))
    }

    /// The stage's record, if it is as the client believes.
    async fn expect_stage(
        &self,
        txn: &dyn Transaction,
    ) -> Result<Option<(StageId, StageRecord)>, Failure> {
        let request = self.plan.request;
        let Some(named) = request.stage else {
            return Ok(None);
        };
        let record = stage::record(self.ctx, txn, request.namespace, named.stage).await?;
        let record = record.ok_or_else(|| stage::unknown(named.stage))?;
        if record.state != StageState::Open {
            return Err(stage::closed(named.stage).into());
        }
        if (record.count, record.sum) != (named.count, named.sum) {
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

    async fn prepare(
        &self,
        txn: &dyn Transaction,
        stage: Option<(StageId, StageRecord)>,
    ) -> Result<Prepared<'a>, Failure> {
        let (ctx, request) = (self.ctx, self.plan.request);
        let id = request.namespace;
        let limits = CommitLimits {
            pages: ctx.limits.commit_pages,
            watched_ranges: ctx.bounds.watched_ranges,
        };
        let (base, staged) = try_join!(page_one_at(ctx, txn, id, request.base), async {
            match stage {
                Some((stage, record)) => staged_pages(ctx, txn, id, stage, record).await,
                None => Ok(Vec::new()),
            }
        })?;
        let staged_size = stage.map_or(0, |(_, record)| record.page_size);
        let base = base.as_ref().map(|page| &page.content[..]);
        Ok(Prepared::new(
            self.plan,
            base,
            staged,
            staged_size,
            &limits,
        )?)
    }

    /// Compares with every commit up to the read version; `false` if there are too many for this
    /// transaction.
    async fn walk(
        &self,
        txn: &dyn Transaction,
        progress: &mut Progress<'a>,
        mut changes: Batch,
    ) -> Result<bool, Failure> {
        let id = self.plan.request.namespace;
        for _ in 0..BATCHES_A_TRANSACTION {
            for (version, entry) in &changes.entries {
                self.compare(progress, *version, entry)?;
                progress.next = successor(*version);
            }
            if changes.is_last {
                return Ok(true);
            }
            changes = read_batch(self.ctx, txn, id, progress.next, None).await?;
        }
        Ok(false)
    }

    fn compare(
        &self,
        progress: &mut Progress<'a>,
        version: Version,
        entry: &ChangeEntry,
    ) -> Result<(), StoreError> {
        if version <= self.plan.request.base {
            return Ok(());
        }
        progress.interval.add(entry);
        let prepared = progress.prepared.as_ref();
        let collision = prepared.and_then(|prepared| prepared.footprint.collides_with(entry));
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

/// What a stage holds, by index. Checked against the record that was read serializably, so it does
/// not matter how many reads it takes.
async fn staged_pages(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    stage: StageId,
    record: StageRecord,
) -> Result<Vec<StagedPage>, Failure> {
    let place = || corrupt_in(format!("stage {stage} of {id}"));
    let options = RangeOptions {
        limit: SUMS_A_BATCH,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let mut pages: Vec<StagedPage> = Vec::new();
    let mut next: PageIndex = 0;
    loop {
        let range = ctx.keys.staged_sums(id, stage, next);
        let pairs = txn.get_range(&range, options).await?;
        for (key, value) in &pairs {
            let index = ctx.keys.parse_staged(key).map_err(place())?;
            pages.push((index, decode_sum(value).map_err(place())?));
            next = index.saturating_add(1);
        }
        if pairs.len() < SUMS_A_BATCH {
            break;
        }
    }
    let sum = pages.iter().fold(0, |sum, (_, page)| sum ^ page);
    if (pages.len() as u64, sum) != (record.count, record.sum) {
        let reason = format!("stage {stage} of {id} does not hold what its record says");
        return Err(StoreError::Corrupt { reason }.into());
    }
    Ok(pages)
}

/// The answer of a commit that happened before. Everything up to its own version is past, so others'
/// changes can be told up to there.
async fn replay(
    ctx: &Context,
    request: &CommitRequest,
    version: Version,
) -> Result<CommitReply, StoreError> {
    let txn = ctx.begin(Freshness::AtLeast(ReadVersion(version.commit())));
    let id = request.namespace;
    let own = |at| at == version;
    // Where it cannot be told, by whatever cause, "unknown" is a true answer.
    let changes = changes_between(ctx, &*txn, id, request.base, version, own).await;
    Ok(CommitReply {
        version,
        seen: version,
        read_version: ReadVersion(version.commit()).max(request.read_version),
        changed: changes.ok().and_then(|changes| changes.foreign),
    })
}
