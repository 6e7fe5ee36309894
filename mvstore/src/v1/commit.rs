//! Commits: from pages named by their hashes to a commit of ours.
//!
//! 1. Find the namespaces, and whether an earlier sending was decided already.
//! 2. Gather the contents (`gather`): brought along, waiting, or put into a stage if they are too many.
//! 3. Commit them by the rules for the original's clients ([`Dialect::V1`]).
//! 4. Tell what others changed up to the new version.

use std::collections::BTreeMap;

use mvsqlite_protocol::v1::{CommitBody, CommitNamespace};
use mvsqlite_protocol::{NamespaceId, NamespaceKey, PageIndex, PageSet, ReadVersion, Version};

use super::gather::{self, Contents};
use super::{admits, stat};
use crate::context::{Context, Failure, Reruns};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation};
use crate::layout::Outcome;
use crate::namespace::named;
use crate::page::{
    Commit, ConflictRule, Dialect, Effect, Member, changes_between, commit_members, outcome,
};

/// When a commit is judged by the pages it read, and when by the whole namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitRules {
    /// With as many pages: by the whole namespace.
    pub whole_from_pages: usize,
    /// With a longer read set, over all namespaces: by the whole namespace.
    pub most_read: usize,
}

/// A commit that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The version it made.
    pub version: Version,
    /// By namespace key, as the request wrote it: pages that others changed between the snapshot and
    /// the commit. No entry: unknown.
    pub changelog: BTreeMap<String, Vec<PageIndex>>,
}

/// Why a commit did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A page is named by a hash that is not known in its namespace.
    #[error("bad page reference")]
    BadReference,
    /// A snapshot's version is not 20 hex digits.
    #[error("not a version: {0:?}")]
    Version(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A namespace of the commit.
pub(super) struct Target<'a> {
    pub key: NamespaceKey,
    pub id: NamespaceId,
    pub base: Version,
    pub part: &'a CommitNamespace<'a>,
}

pub(super) async fn commit(
    ctx: &Context,
    rules: CommitRules,
    body: &CommitBody<'_>,
) -> Result<Committed, CommitError> {
    // Before anything is looked at, so that what another sending has done meanwhile is found.
    let _slot = match is_large(body) {
        true => Some(ctx.v1_slots.take(body.key).await),
        false => None,
    };
    let (targets, decided) = look(ctx, body).await?;
    match decided {
        Some(Outcome::Committed { version, .. }) => {
            return Ok(Committed {
                version,
                changelog: BTreeMap::new(),
            });
        }
        Some(Outcome::Aborted) => return Err(StoreError::Aborted { key: body.key }.into()),
        None => (),
    }
    let contents = gather::gather(ctx, body.key, &targets).await?;
    let by_pages = is_judged_by_pages(rules, body);
    let bases: Vec<(NamespaceId, Version, &str)> = targets
        .iter()
        .map(|target| (target.id, target.base, target.part.init.ns_key))
        .collect();
    let commit = Commit {
        key: body.key,
        retry: body.retry,
        lock_owner: body.lock_owner.map(str::to_owned),
        read_version: contents
            .iter()
            .map(|contents| contents.read_version)
            .max()
            .unwrap_or_default(),
        members: targets
            .into_iter()
            .zip(contents)
            .map(|(target, contents)| member(target, contents, by_pages))
            .collect(),
    };
    let version = commit_members(ctx, commit).await?.version;
    let mut changelog = BTreeMap::new();
    for (id, base, name) in bases {
        // The commit has happened. What cannot be told, by whatever cause, is unknown.
        let others = others_changed(ctx, id, base, version).await;
        if let Some(pages) = others.ok().flatten().as_ref().and_then(stat::listed) {
            changelog.insert(name.to_owned(), pages);
        }
    }
    Ok(Committed { version, changelog })
}

/// Whether a commit names so many uploaded pages that gathering them takes its time, and memory.
fn is_large(body: &CommitBody<'_>) -> bool {
    let pages = body.namespaces.iter().flat_map(|part| &part.pages);
    pages.filter(|page| page.data.is_none()).count() > gather::PAGES_A_BATCH
}

fn is_judged_by_pages(rules: CommitRules, body: &CommitBody<'_>) -> bool {
    let parts = &body.namespaces;
    let pages: usize = parts.iter().map(|part| part.pages.len()).sum();
    let read_sets = parts.iter().filter_map(|part| part.init.read_set.as_ref());
    let read: usize = read_sets.map(Vec::len).sum();
    pages < rules.whole_from_pages && read <= rules.most_read
}

fn member(target: Target<'_>, contents: Contents, by_pages: bool) -> Member {
    let rule = match &target.part.init.read_set {
        Some(read) if by_pages => ConflictRule::Pages {
            // No page lies at the last index there is, which a page set does not take.
            read: read
                .iter()
                .copied()
                .filter(|page| *page < PageIndex::MAX)
                .collect::<PageSet>(),
            written_count_as_read: false,
        },
        _ => ConflictRule::Whole,
    };
    Member {
        ns: target.key,
        id: target.id,
        base: target.base,
        rule,
        effect: Effect::Write,
        dialect: Dialect::V1,
        pages: contents.pages,
        stage: contents.stage,
        lease: None,
        noted: contents.noted,
    }
}

/// Finds the namespaces, and what is known about an earlier sending.
async fn look<'a>(
    ctx: &Context,
    body: &'a CommitBody<'a>,
) -> Result<(Vec<Target<'a>>, Option<Outcome>), CommitError> {
    let mut named = Vec::new();
    for part in &body.namespaces {
        let (key, proof) = (part.init.ns_key, part.init.ns_key_hashproof);
        let unknown = || StoreError::NamespaceNotFound {
            key: key.to_owned(),
        };
        let namespace = NamespaceKey::of_original(key).map_err(|_| unknown())?;
        if !admits(key, proof) {
            return Err(unknown().into());
        }
        let version = part.init.version;
        let base: Version = version
            .parse()
            .map_err(|_| CommitError::Version(version.to_owned()))?;
        named.push((namespace, base, part));
    }
    let newest = named.iter().map(|(_, base, _)| base.commit()).max();
    let mut freshness = match body.retry {
        // What another server decided just now must be seen.
        true => Freshness::Strict,
        false => Freshness::AtLeast(ReadVersion(newest.unwrap_or(0))),
    };
    let mut reruns = Reruns::new();
    let (ids, outcome) = loop {
        match try_look(ctx, body, &named, freshness).await {
            Ok(found) => break found,
            Err(Failure::Refused(_)) if freshness != Freshness::Strict => (),
            Err(failure) => reruns.after(failure)?,
        }
        freshness = Freshness::Strict;
    };
    let targets = named.into_iter().zip(ids);
    let targets = targets.map(|((key, base, part), id)| Target {
        key,
        id,
        base,
        part,
    });
    Ok((targets.collect(), outcome))
}

async fn try_look(
    ctx: &Context,
    body: &CommitBody<'_>,
    keys: &[(NamespaceKey, Version, &CommitNamespace<'_>)],
    freshness: Freshness,
) -> Result<(Vec<NamespaceId>, Option<Outcome>), Failure> {
    let txn = ctx.begin(freshness);
    let mut ids = Vec::new();
    for (key, _, _) in keys {
        let isolation = Isolation::Snapshot;
        let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
        ids.push(named(key, entry)?.id);
    }
    let outcome = match ids.iter().min() {
        Some(home) if body.retry => outcome(ctx, &*txn, *home, body.key).await?,
        _ => None,
    };
    Ok((ids, outcome))
}

/// The pages that others changed between the snapshot and this commit; `None` is unknown.
async fn others_changed(
    ctx: &Context,
    id: NamespaceId,
    base: Version,
    version: Version,
) -> Result<Option<PageSet>, Failure> {
    let txn = ctx.begin(Freshness::AtLeast(ReadVersion(version.commit())));
    let guard = ctx.guard(&*txn, id, Isolation::Snapshot).await?;
    // The changelog below the horizon may have gaps.
    if guard.is_none_or(|guard| base < guard.oldest(id)) {
        return Ok(None);
    }
    let changes = changes_between(ctx, &*txn, id, base, version, |at| at == version).await?;
    Ok(changes.foreign)
}
