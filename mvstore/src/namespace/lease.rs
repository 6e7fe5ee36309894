//! The write lease: one writer at a time, first come, first served.
//!
//! Whose the lease is stands in the namespace's guard, which every commit reads serializably. Until
//! when, and who waits, stand beside it in the metadata, so that renewing and queueing conflict with
//! nobody. A call never waits: who comes while the lease is held gets a place in the queue, and keeps
//! it by asking again.
//!
//! Invariants:
//! - While a lease lives nobody commits without its nonce. Time alone takes nothing away: a lease
//!   whose term is over is its holder's until somebody else's transaction reads the term serializably,
//!   finds it over and removes the nonce. So a renewal and that transaction conflict, and the late
//!   holder's commit finds another guard than it needs. The clock decides who waits for how long,
//!   never who may write.
//! - A holder's snapshot is the newest version if it is the head that came with the grant: that is
//!   read behind the grant's commit, and every commit under way then conflicts with it.
//! - The nonce is the client's, so every call can be repeated: who holds the lease is granted it again.

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::{Concurrency, LeaseAction, LeaseReply, LeaseRequest};
use mvsqlite_protocol::{LeaseNonce, NamespaceId, NamespaceKey, ReadVersion};
use tokio::try_join;

use super::{Access, admit, expect_id};
use crate::context::{Context, Failure, corrupt_in, rerun};
use crate::error::StoreError;
use crate::failpoint;
use crate::kv::{EngineTime, Freshness, Isolation, RangeOptions, Transaction};
use crate::layout::{CatalogEntry, Deadline, Guard, LeasePlace, LeaseTerm, Nonce};

/// Most places of the queue that a call looks at. Behind so many it does not matter how many more.
const PLACES_SEEN: usize = 64;
/// When asking again is worth while, for the first in the queue and for each one before it. A small
/// transaction takes about that long.
const RETRY_MILLIS: u64 = 2;
const LONGEST_RETRY_MILLIS: u64 = 50;
/// A new place is kept for this part of the time that later requests keep it for: many who find the
/// lease held never come back, and SQLite's busy handler does within a few milliseconds.
const NEW_PLACE_PART: u32 = 4;

/// Takes, keeps or gives back a lease.
pub(crate) async fn lease(
    ctx: &Context,
    key: &NamespaceKey,
    request: &LeaseRequest,
) -> Result<LeaseReply, StoreError> {
    let nonce = nonce_of(request.nonce).ok_or(StoreError::Locked {
        key: key.to_string(),
        reason: "a lease's nonce of zeros names nobody",
    })?;
    let call = Call {
        ctx,
        key,
        id: request.namespace,
        nonce,
    };
    match request.action {
        LeaseAction::Acquire { place } => match rerun(|| call.acquire(place)).await? {
            Acquired::Granted(at) => rerun(|| call.granted(at)).await,
            Acquired::Busy(busy) => Ok(busy),
        },
        LeaseAction::Renew => {
            let at = rerun(|| call.renew()).await?;
            rerun(|| call.granted(at)).await
        }
        LeaseAction::Release { place } => {
            rerun(|| call.release(place)).await?;
            Ok(LeaseReply::Released)
        }
    }
}

fn nonce_of(nonce: LeaseNonce) -> Option<Nonce> {
    Some(*nonce.as_bytes()).filter(|nonce| *nonce != Nonce::default())
}

/// What became of an attempt to take a lease.
enum Acquired {
    /// It is the caller's, since this version at the latest.
    Granted(ReadVersion),
    Busy(LeaseReply),
}

/// One call.
struct Call<'a> {
    ctx: &'a Context,
    key: &'a NamespaceKey,
    id: NamespaceId,
    nonce: Nonce,
}

/// What a call looks at.
struct Seen {
    guard: Guard,
    term: Option<LeaseTerm>,
    now: EngineTime,
    read_version: ReadVersion,
}

impl Seen {
    /// Whether somebody else's lease lives.
    fn is_held_from(&self, nonce: Nonce) -> bool {
        let Some(holder) = self.guard.lease.filter(|holder| *holder != nonce) else {
            return false;
        };
        lives(holder, self.term, self.now)
    }
}

/// Whether the lease of this holder lives. One without a term of its own cannot end, so it does not
/// live; no call leaves one behind.
fn lives(holder: Nonce, term: Option<LeaseTerm>, now: EngineTime) -> bool {
    let term = term.filter(|term| term.nonce == holder);
    term.is_some_and(|term| !term.ends.has_passed(now))
}

impl Call<'_> {
    /// Reads all that decides about the lease, serializably.
    async fn look(&self, txn: &dyn Transaction) -> Result<Seen, Failure> {
        let (ctx, isolation) = (self.ctx, Isolation::Serializable);
        let (entry, guard, term, read_version) = try_join!(
            ctx.catalog_entry(txn, self.key.as_str(), isolation),
            ctx.guard(txn, self.id, isolation),
            term(ctx, txn, self.id),
            async { Ok(txn.read_version().await?) },
        )?;
        expect_id(self.key, entry, self.id)?;
        admit(self.key, self.id, guard.clone(), Access::Write)?;
        Ok(Seen {
            guard: guard.ok_or_else(|| super::not_found(self.key))?,
            term,
            now: ctx.engine.time(read_version),
            read_version,
        })
    }

    /// Takes the lease if nobody has it and nobody is before the caller; else keeps the place.
    async fn acquire(&self, place: Option<u64>) -> Result<Acquired, Failure> {
        let ctx = self.ctx;
        let mut txn = ctx.begin(Freshness::Strict);
        let (seen, queue) = try_join!(self.look(&*txn), self.queue(&*txn))?;
        if seen.guard.lock.is_some() {
            // Its commit would be refused, which nobody who holds a lease expects.
            return Err(locked(self.key, "its namespace lock is held").into());
        }
        let own = LeasePlace {
            number: place.unwrap_or(seen.read_version.0),
            nonce: self.nonce,
        };
        let before = queue.iter().filter(|(place, _)| *place < own);
        let (passed_over, waiting): (Vec<_>, Vec<_>) = before
            .copied()
            .partition(|(_, kept)| kept.has_passed(seen.now));
        if seen.guard.lease != Some(self.nonce) {
            if seen.is_held_from(self.nonce) || !waiting.is_empty() {
                let kept = queue.iter().find(|(place, _)| *place == own);
                let kept = kept.map(|(_, kept)| *kept);
                return self.wait(txn, &seen, own, kept, waiting.len()).await;
            }
            let guard = Guard {
                lease: Some(self.nonce),
                ..seen.guard.clone()
            };
            txn.set(&ctx.keys.guard(self.id), &guard.encode());
            txn.clear(&ctx.keys.lease_place(self.id, own));
            for (place, _) in passed_over {
                txn.clear(&ctx.keys.lease_place(self.id, place));
            }
        }
        self.write_term(&mut *txn, seen.now);
        let version = txn.commit().await?;
        failpoint::pass(failpoint::LEASED);
        Ok(Acquired::Granted(ReadVersion(version.commit())))
    }

    /// The answer to one who has to wait. The place is written only where that is news: most callers
    /// ask many times, and a write costs what a commit costs.
    async fn wait(
        &self,
        mut txn: Box<dyn Transaction>,
        seen: &Seen,
        own: LeasePlace,
        kept: Option<Deadline>,
        waiting: usize,
    ) -> Result<Acquired, Failure> {
        let whole = self.ctx.options.lease_place_ttl;
        let term = match kept {
            Some(_) => whole,
            None => whole / NEW_PLACE_PART,
        };
        if kept.is_none_or(|kept| kept.is_half_over(seen.now)) {
            let kept = Deadline::after(seen.now, term);
            let key = self.ctx.keys.lease_place(self.id, own);
            txn.set(&key, &kept.encode());
            txn.commit().await?;
        }
        let retry = RETRY_MILLIS.saturating_mul(waiting as u64 + 1);
        Ok(Acquired::Busy(LeaseReply::Busy {
            place: own.number,
            retry_millis: retry.min(LONGEST_RETRY_MILLIS),
            place_millis: millis(term),
        }))
    }

    /// Keeps the lease for another term, also one that is over, as long as nobody else has taken it.
    async fn renew(&self) -> Result<ReadVersion, Failure> {
        let mut txn = self.ctx.begin(Freshness::Strict);
        let seen = self.look(&*txn).await?;
        if seen.guard.lease != Some(self.nonce) {
            return Err(lost(self.key).into());
        }
        self.write_term(&mut *txn, seen.now);
        let version = txn.commit().await?;
        failpoint::pass(failpoint::LEASED);
        Ok(ReadVersion(version.commit()))
    }

    fn write_term(&self, txn: &mut dyn Transaction, now: EngineTime) {
        let term = LeaseTerm {
            nonce: self.nonce,
            ends: Deadline::after(now, self.ctx.options.lease_ttl),
        };
        txn.set(&self.ctx.keys.lease_term(self.id), &term.encode());
    }

    /// The head is read behind the grant, not in it: there it would have to be read serializably, and
    /// a namespace whose other writers are optimistic might never let the grant through.
    async fn granted(&self, at: ReadVersion) -> Result<LeaseReply, Failure> {
        let txn = self.ctx.begin(Freshness::AtLeast(at));
        let head = self.ctx.head(&*txn, self.id).await?;
        let read_version = txn.read_version().await?.max(at);
        Ok(LeaseReply::Granted {
            ttl_millis: millis(self.ctx.options.lease_ttl),
            head,
            read_version: read_version.max(ReadVersion(head.commit())),
        })
    }

    /// Gives back what the caller has, the lease or the place or nothing.
    async fn release(&self, place: Option<u64>) -> Result<(), Failure> {
        let mut txn = self.ctx.begin(Freshness::Strict);
        let seen = self.look(&*txn).await?;
        let holds = seen.guard.lease == Some(self.nonce);
        if holds {
            let guard = Guard {
                lease: None,
                ..seen.guard.clone()
            };
            txn.set(&self.ctx.keys.guard(self.id), &guard.encode());
        }
        if let Some(number) = place {
            let nonce = self.nonce;
            let place = LeasePlace { number, nonce };
            txn.clear(&self.ctx.keys.lease_place(self.id, place));
        }
        if holds || place.is_some() {
            txn.commit().await?;
        }
        Ok(())
    }

    /// The first places of the queue. A snapshot read: who comes at the very same moment may be served
    /// first, and nobody makes another's grant conflict by queueing.
    async fn queue(&self, txn: &dyn Transaction) -> Result<Vec<(LeasePlace, Deadline)>, Failure> {
        let options = RangeOptions {
            limit: PLACES_SEEN,
            reverse: false,
            isolation: Isolation::Snapshot,
        };
        let keys = &self.ctx.keys;
        let pairs = txn.get_range(&keys.lease_queue(self.id), options).await?;
        let place = || corrupt_in(format!("the queue for the lease of {}", self.id));
        let parsed = pairs.iter().map(|(key, value)| {
            let at = keys.parse_lease_place(key).map_err(place())?;
            Ok((at, Deadline::decode(value).map_err(place())?))
        });
        parsed.collect()
    }
}

async fn term(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
) -> Result<Option<LeaseTerm>, Failure> {
    let key = ctx.keys.lease_term(id);
    let value = txn.get(&key, Isolation::Serializable).await?;
    let term = value.map(|value| LeaseTerm::decode(&value)).transpose();
    Ok(term.map_err(corrupt_in(format_args!("the lease of namespace {id}")))?)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn locked(key: &NamespaceKey, reason: &'static str) -> StoreError {
    StoreError::Locked {
        key: key.to_string(),
        reason,
    }
}

fn lost(key: &NamespaceKey) -> StoreError {
    locked(key, "the write lease that was brought is no longer held")
}

/// Judges a commit by the write lease. Returns whether the commit ends the lease that stands in the
/// guard, by removing it from there in its own transaction: the one it brings is given back, and one
/// whose time is over goes, so that its late holder fails.
///
/// The guard and the mode were read serializably; the term is read so here, where it matters.
///
/// # Errors
/// [`StoreError::Locked`]. At a read version that is a little old a lease may seem alive that is over,
/// and seem missing though it was granted.
pub(crate) async fn judge_commit(
    ctx: &Context,
    txn: &dyn Transaction,
    key: &NamespaceKey,
    entry: CatalogEntry,
    guard: &Guard,
    brought: Option<LeaseNonce>,
) -> Result<bool, Failure> {
    if let Some(brought) = brought {
        // One that was taken over by another is not held any more.
        let is_own = guard.lease == nonce_of(brought) || active(Bug::LeaseNonceUnchecked);
        return match is_own && guard.lease.is_some() {
            true => Ok(true),
            false => Err(lost(key).into()),
        };
    }
    if entry.mode == Concurrency::Exclusive {
        let reason = "it is in exclusive mode, and the commit brings no write lease";
        return Err(locked(key, reason).into());
    }
    let Some(holder) = guard.lease else {
        return Ok(false);
    };
    let (term, read_version) = try_join!(term(ctx, txn, entry.id), async {
        Ok(txn.read_version().await?)
    })?;
    if lives(holder, term, ctx.engine.time(read_version)) {
        return Err(locked(key, "another writer holds the write lease").into());
    }
    Ok(true)
}
