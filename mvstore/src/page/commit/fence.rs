//! Whether a namespace's guard lets a commit through: the one place where commits meet namespace
//! locks and write leases.
//!
//! The guard was read serializably, so whatever is decided here still holds when the commit
//! happens. What else decides (a lease's expiry) has to be read serializably as well.

use super::request::{Effect, Member};
use crate::context::{Context, Failure};
use crate::kv::Transaction;
use crate::layout::{CatalogEntry, Guard};
use crate::namespace::{Access, admit, judge_commit, judge_lock};

/// A guard that let a commit through.
pub(super) struct Passed {
    /// The guard as the commit leaves it, with the horizon as it counts.
    pub guard: Guard,
    /// The commit ends the write lease that stood in the guard, which has to be written.
    pub ends_lease: bool,
}

/// Lets a commit's member through, or refuses it.
///
/// A namespace that was only read is let in like a reader: nothing of it is written, so the locks
/// and leases of others keep nothing from it. A lease that its client holds all the same is given back.
pub(super) async fn pass(
    ctx: &Context,
    txn: &dyn Transaction,
    member: &Member,
    entry: CatalogEntry,
    guard: Option<Guard>,
    lock_owner: Option<&str>,
) -> Result<Passed, Failure> {
    let (ns, id) = (&member.ns, member.id);
    let (guard, ends_lease) = match member.effect {
        Effect::Read => {
            let guard = admit(ns, id, guard, Access::Read)?;
            let held = guard.lease.as_ref();
            let own = member.lease.as_ref().map(|lease| lease.as_bytes());
            let ends_lease = held.is_some() && held == own;
            (guard, ends_lease)
        }
        Effect::Write => {
            let guard = admit(ns, id, guard, Access::Write)?;
            let ends_lease = if judge_lock(ctx, txn, ns, id, &guard, lock_owner).await? {
                // The lock keeps every other writer out, one with a lease too.
                guard.lease.is_some()
            } else {
                judge_commit(ctx, txn, ns, entry, &guard, member.lease).await?
            };
            (guard, ends_lease)
        }
    };
    let lease = guard.lease.filter(|_| !ends_lease);
    Ok(Passed {
        guard: Guard { lease, ..guard },
        ends_lease,
    })
}
