//! Exclusive mode: RESERVED takes the namespace's write lease, COMMIT or whatever else ends the write
//! transaction gives it back.
//!
//! The namespace is in this mode, or this process asks for it on every namespace
//! (`MVSQLITE_CONCURRENCY=exclusive`). While a lease is held COMMIT meets no conflict, since nobody
//! commits between the snapshot and it: a grant is used only if the snapshot is the newest version.

use std::sync::Arc;
use std::time::Duration;

use mvsqlite_protocol::LeaseNonce;
use mvsqlite_protocol::v2::Concurrency;

use super::error::Cause;
use super::lease::{Asked, Claim, Grant, note_refusal};
use super::{DatabaseFile, Transaction};
use crate::keeper::Keeper;

/// A lease that was granted, and its claim.
pub(super) struct Taken {
    claim: Arc<Claim>,
    grant: Grant,
}

impl DatabaseFile {
    /// Takes the write lease if the transaction needs one to write.
    pub(super) fn take_lease(&mut self) -> Result<Option<Taken>, Cause> {
        let asked_for = self.remote.env.config().exclusive;
        let needs_one =
            |transaction: &Transaction| asked_for || transaction.mode != Concurrency::Optimistic;
        if !self.transaction.as_ref().is_some_and(needs_one) {
            return Ok(None);
        }
        let claim = self.claim();
        match claim.ask(&self.remote.env, self.identity)? {
            Asked::Granted(grant) => {
                // From here on: it may come too late for the snapshot, and the retry may never come.
                Keeper::watch(&self.remote.env, &claim);
                Ok(Some(Taken { claim, grant }))
            }
            Asked::Busy { retry } => {
                note_refusal(&self.remote.env, &claim, self.identity, retry);
                Err(Cause::LeaseBusy)
            }
        }
    }

    /// Begins the write transaction under the lease, if the snapshot is still the newest version. If
    /// not, the lease is kept for the retry, which a new snapshot will find to be the newest.
    pub(super) fn use_lease(&mut self, taken: &Taken) -> Result<(), Cause> {
        let Some(transaction) = &mut self.transaction else {
            return Err(Cause::Misuse("a lease without a transaction"));
        };
        let (claim, grant) = (&taken.claim, taken.grant);
        let snapshot = &mut transaction.snapshot;
        if snapshot.version < grant.head {
            note_refusal(&self.remote.env, claim, self.identity, Duration::ZERO);
            self.leave_moment();
            return Err(Cause::Overtaken);
        }
        // Above the head that came with the grant only if the lease was lost since. Also if it was kept
        // for too long.
        if snapshot.version > grant.head || !claim.put_to_use() {
            claim.give_up(&self.remote.env);
            note_refusal(&self.remote.env, claim, self.identity, Duration::ZERO);
            return Err(Cause::LeaseBusy);
        }
        snapshot.read_version = snapshot.read_version.max(grant.read_version);
        self.update_participant(|participant| participant.frozen = true);
        Ok(())
    }

    /// What a commit has to bring.
    pub(super) fn lease_in_use(&self) -> Option<LeaseNonce> {
        self.own_claim()?.in_use()
    }

    /// The write transaction has ended. One that was not committed still has its lease.
    pub(super) fn end_lease_use(&self) {
        self.update_participant(|participant| participant.frozen = false);
        if let Some(claim) = self.own_claim() {
            claim.end_use(&self.remote.env);
        }
    }

    /// Gives back whatever there is: the write lease, or the place in its queue. A write transaction
    /// that had it cannot be committed any more. Waits for a second at most.
    pub fn give_up_lease(&self) {
        if let Some(claim) = self.own_claim() {
            claim.give_up(&self.remote.env);
        }
    }

    /// The claim, unless it is that of the process this one was forked from.
    fn own_claim(&self) -> Option<&Arc<Claim>> {
        let process = self.remote.env.process_id();
        self.claim.as_ref().filter(|claim| claim.is_of(process))
    }

    fn claim(&mut self) -> Arc<Claim> {
        if let Some(claim) = self.own_claim() {
            return Arc::clone(claim);
        }
        let claim = Claim::new(&self.remote.env, &self.remote.key);
        self.claim = Some(Arc::clone(&claim));
        claim
    }
}
