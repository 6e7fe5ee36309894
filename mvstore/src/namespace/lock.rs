//! Namespace locks: one owner writes, all others see the namespace as it was when the lock was taken.
//!
//! A lock has no expiry. Its nonce stands in the guard, which every commit reads serializably; whose
//! it is, and whether it is being rolled back, in a record beside, which those read serializably whom
//! the nonce tells that there is one.
//!
//! What a caller is to a lock decides what it may do ([`Standing`]). Reading pages is never
//! restricted: versions are what they are.
//!
//! Invariants:
//! - Taking a lock and giving it back write the guard, so every commit under way conflicts and judges
//!   again.
//! - While a lock is held the horizon stays at or below its snapshot, and no fork is made.
//! - A rollback is a restore: a new version that shows what the snapshot showed. What was committed
//!   meanwhile stays readable at its versions, which are never given out again.
//!
//! A rollback takes two transactions: the first marks the lock, so that its owner can write no more;
//! the second restores and removes it. One that is cut short between them is done by asking again.

use mvsqlite_protocol::{NamespaceId, NamespaceKey, Version};

use super::{Access, admit, named, not_found};
use crate::context::{Context, Failure, Reruns, corrupt_in};
use crate::error::StoreError;
use crate::failpoint;
use crate::history::{forked_at, write_restore};
use crate::kv::{Freshness, Isolation, KvError, Transaction};
use crate::layout::{Guard, LockRecord, Nonce};
use crate::page::{make_room, newest_until};
use crate::store::{LockAcquired, LockReleased, ReleaseMode};

/// How often a rollback makes room for its layer, which another may take, before it gives up.
const ROOMS_MADE: u32 = 8;
/// Most bytes of an owner's name.
const MAX_OWNER: usize = 256;

/// Whether a text can name a lock's owner: 1 to 256 bytes that an HTTP header can carry.
pub(crate) fn is_owner(owner: &str) -> bool {
    (1..=MAX_OWNER).contains(&owner.len()) && !owner.contains(char::is_control)
}

/// What a caller is to a namespace's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may do everything: there is no lock and it names none, or the lock is its own.
    Free,
    /// There is a lock and it names none: it sees this version, and cannot write.
    Outside(Version),
    /// It names itself the owner of a lock that is not held, held by another, or being rolled back.
    Mistaken,
}

/// Judges a caller who says that it owns the lock, or says nothing.
pub(crate) fn standing(lock: Option<&LockRecord>, caller: Option<&str>) -> Standing {
    match (lock, caller) {
        (None, None) => Standing::Free,
        (None, Some(_)) => Standing::Mistaken,
        (Some(lock), None) => Standing::Outside(lock.snapshot),
        (Some(lock), Some(caller)) if lock.owner == caller && !lock.rolling_back => Standing::Free,
        (Some(_), Some(_)) => Standing::Mistaken,
    }
}

/// The lock that a guard tells of.
pub(crate) async fn lock_of(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
    isolation: Isolation,
) -> Result<Option<LockRecord>, Failure> {
    let Some(nonce) = guard.lock else {
        return Ok(None);
    };
    let value = txn.get(&ctx.keys.lock(id), isolation).await?;
    let lock = value.map(|value| LockRecord::decode(&value)).transpose();
    let lock = lock.map_err(corrupt_in(format_args!("namespace {id}")))?;
    match lock.filter(|lock| lock.nonce == nonce) {
        Some(lock) => Ok(Some(lock)),
        None => Err(StoreError::Corrupt {
            reason: format!("the lock of namespace {id} has no record"),
        }
        .into()),
    }
}

/// Whether a commit may go on as far as the lock is concerned: `true` if it is the owner's. What it
/// reads is read serializably.
///
/// # Errors
/// [`StoreError::Locked`] for one who names no owner, [`StoreError::LockNotHeld`] for one who names
/// another.
pub(crate) async fn judge_lock(
    ctx: &Context,
    txn: &dyn Transaction,
    key: &NamespaceKey,
    id: NamespaceId,
    guard: &Guard,
    caller: Option<&str>,
) -> Result<bool, Failure> {
    let lock = lock_of(ctx, txn, id, guard, Isolation::Serializable).await?;
    match standing(lock.as_ref(), caller) {
        Standing::Free => Ok(lock.is_some()),
        Standing::Outside(_) => Err(StoreError::Locked {
            key: key.to_string(),
            reason: "its namespace lock is held",
        }
        .into()),
        Standing::Mistaken => Err(StoreError::LockNotHeld {
            key: key.to_string(),
        }
        .into()),
    }
}

/// Takes the lock.
pub(crate) async fn acquire_lock(
    ctx: &Context,
    key: &NamespaceKey,
    owner: &str,
    version: Option<Version>,
) -> Result<LockAcquired, StoreError> {
    if !is_owner(owner) {
        return Ok(LockAcquired::InvalidOwner);
    }
    let nonce = ctx.random()?;
    let mut reruns = Reruns::new();
    loop {
        // After an unknown outcome the owner's own lock is found, and that is an answer.
        match try_acquire(ctx, key, owner, version, nonce).await {
            Ok(done) => return Ok(done),
            Err(failure) => reruns.after(failure)?,
        }
    }
}

async fn try_acquire(
    ctx: &Context,
    key: &NamespaceKey,
    owner: &str,
    version: Option<Version>,
    nonce: Nonce,
) -> Result<LockAcquired, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let Sight { id, guard, lock } = look(ctx, &*txn, key).await?;
    if let Some(lock) = lock {
        return Ok(if lock.owner == owner {
            LockAcquired::Acquired
        } else {
            LockAcquired::Held { owner: lock.owner }
        });
    }
    let head = ctx.head(&*txn, id).await?;
    let snapshot = match version {
        None => head,
        Some(version) => match lockable(ctx, &*txn, id, &guard, head, version).await? {
            Ok(snapshot) => snapshot,
            Err(reason) => return Ok(LockAcquired::Refused { reason }),
        },
    };
    let record = LockRecord {
        nonce,
        snapshot,
        rolling_back: false,
        owner: owner.to_owned(),
    };
    let locked = Guard {
        lock: Some(nonce),
        ..guard
    };
    txn.set(&ctx.keys.lock(id), &record.encode());
    txn.set(&ctx.keys.guard(id), &locked.encode());
    txn.commit().await?;
    Ok(LockAcquired::Acquired)
}

/// The version that a lock may go back to, or why it may not.
async fn lockable(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
    head: Version,
    version: Version,
) -> Result<Result<Version, String>, Failure> {
    if version > head {
        return Ok(Err(format!(
            "version {version} is above the namespace's last version {head}"
        )));
    }
    let oldest = guard.oldest(id);
    if version < oldest {
        return Ok(Err(format!(
            "version {version} is truncated; the oldest one kept is {oldest}"
        )));
    }
    let snapshot = newest_until(ctx, txn, id, version).await?;
    Ok(match above_a_fork(ctx, txn, id, snapshot).await? {
        None => Ok(snapshot),
        Some(fork) => Err(below_fork(snapshot, fork)),
    })
}

/// The newest version that a fork sees, if it is above this one. A rollback would not disturb the
/// fork; the original refuses all the same, and its callers may count on that.
async fn above_a_fork(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    version: Version,
) -> Result<Option<Version>, Failure> {
    let newest = forked_at(ctx, txn, id).await?.into_iter().max();
    Ok(newest.filter(|fork| *fork > version))
}

fn below_fork(version: Version, fork: Version) -> String {
    format!("version {version} is below {fork}, which a fork of the namespace sees")
}

/// Gives the lock back.
pub(crate) async fn release_lock(
    ctx: &Context,
    key: &NamespaceKey,
    owner: &str,
    mode: ReleaseMode,
) -> Result<LockReleased, StoreError> {
    if owner.is_empty() {
        return Ok(LockReleased::InvalidOwner);
    }
    let mut step = match mode {
        ReleaseMode::Commit => Step::Commit,
        ReleaseMode::Rollback => Step::Mark,
    };
    // Once more if there was no room for another layer, and has been made.
    for _ in 0..=ROOMS_MADE {
        match release(ctx, key, owner, step).await? {
            Released::Done(done) => return Ok(done),
            Released::Marked(nonce) => step = Step::Restore(nonce),
        }
    }
    Err(StoreError::Unavailable {
        reason: format!("'{key}' is busy: its last large changes are not worked off yet"),
    })
}

/// A transaction of a release.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Removes the lock; everything written stays.
    Commit,
    /// Marks the lock as being rolled back.
    Mark,
    /// Restores the snapshot and removes the lock of this nonce.
    Restore(Nonce),
}

/// What became of a step.
enum Released {
    /// The lock of this nonce is being rolled back.
    Marked(Nonce),
    Done(LockReleased),
}

/// Runs a step until it is done.
async fn release(
    ctx: &Context,
    key: &NamespaceKey,
    owner: &str,
    step: Step,
) -> Result<Released, StoreError> {
    let mut reruns = Reruns::new();
    // What an attempt of unknown outcome was removing.
    let mut uncertain = None;
    loop {
        let mut removing = None;
        match try_release(ctx, key, owner, step, uncertain, &mut removing).await {
            Ok(released) => return Ok(released),
            Err(failure) => {
                if matches!(failure, Failure::Engine(KvError::MaybeCommitted { .. })) {
                    uncertain = removing;
                }
                reruns.after(failure)?;
            }
        }
    }
}

async fn try_release(
    ctx: &Context,
    key: &NamespaceKey,
    owner: &str,
    step: Step,
    uncertain: Option<Nonce>,
    removing: &mut Option<Nonce>,
) -> Result<Released, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let Sight { id, guard, lock } = look(ctx, &*txn, key).await?;
    if uncertain.is_some() && guard.lock != uncertain {
        return Ok(Released::Done(LockReleased::Released));
    }
    let lock = match lock {
        Some(lock) if lock.owner == owner => lock,
        other => {
            let mistaken = LockReleased::NotHeld {
                owner: other.map(|lock| lock.owner),
            };
            let gone = matches!(step, Step::Restore(_));
            return Ok(Released::Done(if gone {
                LockReleased::Gone
            } else {
                mistaken
            }));
        }
    };
    match step {
        Step::Commit if lock.rolling_back => {
            return Ok(Released::Done(LockReleased::RollingBack));
        }
        Step::Restore(nonce) if lock.nonce != nonce => {
            return Ok(Released::Done(LockReleased::Gone));
        }
        Step::Commit | Step::Restore(_) => *removing = guard.lock,
        Step::Mark => return mark(ctx, txn, id, lock).await,
    }
    let head = ctx.head(&*txn, id).await?;
    let unlocked = Guard {
        lock: None,
        ..guard
    };
    txn.clear(&ctx.keys.lock(id));
    if matches!(step, Step::Restore(_)) && head != lock.snapshot {
        if !unlocked.has_room() && make_room(ctx, id).await? {
            return Ok(Released::Marked(lock.nonce));
        }
        write_restore(ctx, &mut *txn, id, &unlocked, lock.snapshot)?;
    } else {
        txn.set(&ctx.keys.guard(id), &unlocked.encode());
    }
    txn.commit().await?;
    failpoint::pass(failpoint::LOCK_RELEASED);
    Ok(Released::Done(LockReleased::Released))
}

/// Says that the rollback is under way, from which on the owner cannot write.
async fn mark(
    ctx: &Context,
    mut txn: Box<dyn Transaction>,
    id: NamespaceId,
    lock: LockRecord,
) -> Result<Released, Failure> {
    if let Some(fork) = above_a_fork(ctx, &*txn, id, lock.snapshot).await? {
        let reason = below_fork(lock.snapshot, fork);
        return Ok(Released::Done(LockReleased::Refused { reason }));
    }
    let nonce = lock.nonce;
    if !lock.rolling_back {
        let marked = LockRecord {
            rolling_back: true,
            ..lock
        };
        txn.set(&ctx.keys.lock(id), &marked.encode());
        txn.commit().await?;
        failpoint::pass(failpoint::LOCK_RELEASED);
    }
    Ok(Released::Marked(nonce))
}

/// A namespace and its lock, read serializably.
struct Sight {
    id: NamespaceId,
    guard: Guard,
    lock: Option<LockRecord>,
}

async fn look(ctx: &Context, txn: &dyn Transaction, key: &NamespaceKey) -> Result<Sight, Failure> {
    let isolation = Isolation::Serializable;
    let entry = ctx.catalog_entry(txn, key.as_str(), isolation).await?;
    let id = named(key, entry)?.id;
    let guard = ctx.guard(txn, id, isolation).await?;
    let guard = guard.ok_or_else(|| not_found(key))?;
    admit(key, id, Some(guard.clone()), Access::Write)?;
    let lock = lock_of(ctx, txn, id, &guard, isolation).await?;
    Ok(Sight { id, guard, lock })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_is_to_a_lock() {
        let snapshot = Version::new(7, 0);
        let lock = |rolling_back| LockRecord {
            nonce: [1; 16],
            snapshot,
            rolling_back,
            owner: "w1".to_owned(),
        };
        let held = lock(false);
        assert_eq!(standing(None, None), Standing::Free);
        assert_eq!(standing(None, Some("w1")), Standing::Mistaken);
        assert_eq!(standing(Some(&held), None), Standing::Outside(snapshot));
        assert_eq!(standing(Some(&held), Some("w1")), Standing::Free);
        assert_eq!(standing(Some(&held), Some("w2")), Standing::Mistaken);
        let going = lock(true);
        assert_eq!(standing(Some(&going), None), Standing::Outside(snapshot));
        assert_eq!(standing(Some(&going), Some("w1")), Standing::Mistaken);
    }

    #[test]
    fn an_owner_is_a_name_that_a_header_can_carry() {
        for good in ["w", "worker 1", "dépôt", &"x".repeat(256)] {
            assert!(is_owner(good), "{good}");
        }
        for bad in ["", "a\nb", "\0", &"x".repeat(257)] {
            assert!(!is_owner(bad), "{bad:?}");
        }
    }
}
