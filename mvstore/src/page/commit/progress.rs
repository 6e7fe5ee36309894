//! What a commit knows from its earlier attempts.

use mvsqlite_protocol::{IdempotencyKey, ReadVersion, Version};
use tokio::sync::OwnedSemaphorePermit;

use super::prepare::Prepared;
use super::request::{Commit, Member};
use crate::context::{Context, Failure};
use crate::error::StoreError;
use crate::kv::{Freshness, KvError};
use crate::page::changes::Interval;
use crate::page::fold::make_room;

/// Failed attempts after which a commit is given up.
const MOST_FAILURES: u32 = 5;
/// A commit that changes more pages is large: few of them are let in at once.
const LARGE_PAGES: u64 = 10_000;

/// What is known from earlier attempts.
pub(super) struct Progress<'a> {
    /// How new the next attempt's read version has to be.
    pub freshness: Freshness,
    /// An attempt may have committed, and nobody looked since.
    pub uncertain: bool,
    /// What is known of each member.
    pub members: Vec<MemberProgress<'a>>,
    /// Failed attempts so far, and what the last one failed of.
    failures: u32,
    last_failure: Option<KvError>,
    /// It has helped to fold layers, to make room for its own.
    helped: bool,
    /// Its place among the large commits, if it is one.
    place: Option<OwnedSemaphorePermit>,
}

/// What is known of one namespace.
pub(super) struct MemberProgress<'a> {
    /// The next changelog entry to compare with.
    pub next: Version,
    /// What others changed from the base up to there.
    pub interval: Interval,
    /// What will be written and watched, once it was worked out.
    pub prepared: Option<Prepared<'a>>,
}

impl MemberProgress<'_> {
    fn new(member: &Member) -> Self {
        Self {
            next: member.base,
            interval: Interval::new(),
            prepared: None,
        }
    }
}

impl Progress<'_> {
    pub(super) fn new(commit: &Commit) -> Self {
        let bases = commit.members.iter().map(|member| member.base.commit());
        let seen = bases.map(ReadVersion).fold(commit.read_version, Ord::max);
        Self {
            freshness: Freshness::AtLeast(seen),
            uncertain: false,
            members: commit.members.iter().map(MemberProgress::new).collect(),
            failures: 0,
            last_failure: None,
            helped: false,
            place: None,
        }
    }

    /// Whether a commit that changes so many pages still has to wait for its place.
    pub(super) fn must_wait(&self, pages: u64) -> bool {
        pages > LARGE_PAGES && self.place.is_none()
    }

    /// Whether it makes a layer, in any of its namespaces.
    pub(super) fn makes_layer(&self) -> bool {
        let mut prepared = self
            .members
            .iter()
            .filter_map(|known| known.prepared.as_ref());
        prepared.any(|prepared| prepared.layered.is_some())
    }

    /// Folds a layer of a namespace that has as many as it can have; once.
    pub(super) async fn make_room(&mut self, ctx: &Context, full: &Member) -> Result<(), Failure> {
        if self.helped || !make_room(ctx, full.id).await? {
            return Err(StoreError::Unavailable {
                reason: format!(
                    "'{}' is busy: its last large commits are not worked off yet, and nothing was written",
                    full.ns
                ),
            }
            .into());
        }
        self.helped = true;
        self.freshness = Freshness::Strict;
        Ok(())
    }

    /// Waits until there is a place among the large commits.
    pub(super) async fn wait(&mut self, ctx: &Context) -> Result<(), Failure> {
        let place = ctx.large_commits.clone().acquire_owned().await;
        self.place = Some(place.map_err(|error| StoreError::Internal {
            reason: format!("large commits are not let in: {error}"),
        })?);
        Ok(())
    }

    /// Takes an engine's failure: `Ok` if another attempt is worth while.
    pub(super) fn note(&mut self, error: KvError, key: IdempotencyKey) -> Result<(), StoreError> {
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
                key,
                reason: error.to_string(),
            });
        }
        self.last_failure = Some(error);
        Ok(())
    }

    /// Whether to give up, now that it is certain that nothing was committed.
    pub(super) fn give_up(&self) -> Option<StoreError> {
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
