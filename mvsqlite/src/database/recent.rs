//! Snapshots taken a moment ago, for programs that allow reads to be a little behind
//! (`MVSQLITE_READ_STALENESS_MS`): a transaction that begins soon after another of its process uses
//! that one's snapshot and asks nobody.
//!
//! Invariants:
//! - a snapshot is used at most as long after it was *asked for* as the program allows;
//! - whoever has written forgets what was known before its lock goes, and an answer that was asked for
//!   before is not kept: so a process always sees its own commits, and a statement that lost a
//!   conflict runs again on a new snapshot;
//! - a handle never goes back behind what it saw, and a connection not behind what it saw in another of
//!   its databases: a transaction over both could not show one moment.
//!
//! A transaction on such a snapshot may write: COMMIT finds out what others have changed, as for any
//! snapshot. Not where writers hold a lease: nobody there expects COMMIT to fail.

use std::collections::HashMap;
use std::time::Duration;

use mvsqlite_protocol::Version;
use mvsqlite_protocol::v2::Concurrency;

use super::cache::Identity;
use super::remote::Begun;

/// Namespaces remembered at once; beyond that all are forgotten.
const MAX_NAMESPACES: usize = 4096;

/// The snapshots of a process.
#[derive(Default)]
pub(crate) struct RecentSnapshots {
    /// When each was asked for, by the system's clock.
    by_namespace: HashMap<Identity, (Duration, Begun)>,
    epoch: Epoch,
}

/// What a transaction must not begin before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// The newest version that the handle has seen of this database.
    pub(super) here: Option<Version>,
    /// The newest that its connection has seen of any.
    pub(super) beside: Option<Version>,
}

/// Counts how often something was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Epoch(u64);

impl RecentSnapshots {
    /// The snapshot to begin at now, if there is one that is young enough and not behind `seen`.
    pub(super) fn get(
        &self,
        identity: Identity,
        now: Duration,
        staleness: Duration,
        seen: Seen,
    ) -> Option<Begun> {
        let (asked, begun) = self.by_namespace.get(&identity)?;
        let young = now.saturating_sub(*asked) <= staleness;
        let snapshot = &begun.snapshot;
        let beside = |version| snapshot.read_version.sees(version);
        let not_behind = seen.here <= Some(snapshot.version) && seen.beside.is_none_or(beside);
        (young && not_behind).then(|| begun.clone())
    }

    /// What to give to [`RecentSnapshots::put`]: to be asked for before the store is.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Remembers a snapshot that was asked for at a time.
    pub(super) fn put(&mut self, epoch: Epoch, asked: Duration, begun: &Begun) {
        if epoch != self.epoch || begun.mode != Concurrency::Optimistic {
            return;
        }
        let identity = begun.snapshot.identity;
        let newer = self.by_namespace.get(&identity);
        if newer.is_some_and(|(_, newer)| newer.snapshot.version > begun.snapshot.version) {
            return;
        }
        if self.by_namespace.len() >= MAX_NAMESPACES {
            self.by_namespace.clear();
        }
        self.by_namespace.insert(identity, (asked, begun.clone()));
    }

    /// Forgets a namespace's: this process wrote it, or failed to.
    pub(super) fn forget(&mut self, identity: Identity) {
        self.epoch.0 += 1;
        self.by_namespace.remove(&identity);
    }
}
