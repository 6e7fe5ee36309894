//! Begin: the newest version, and what changed since the client last looked.
//!
//! Strict: one fresh read version at which everything in the answer is read, so that the answer
//! holds every commit acknowledged before the call.

use std::collections::HashSet;

use mvsqlite_protocol::v2::{BeginReply, BeginRequest, KnownState, MAX_OWN_COMMITS, PAGE_1};
use mvsqlite_protocol::{NamespaceId, NamespaceKey, PageImage, PageSet, Version};
use tokio::try_join;

use super::changes::{Interval, read_batch, successor};
use super::page_one::Header;
use super::read::page_one_at;
use crate::context::{Context, Failure, Reruns};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, Transaction};
use crate::namespace::{Access, admit, named};

/// Takes a snapshot of the newest version.
pub(crate) async fn begin(
    ctx: &Context,
    key: &NamespaceKey,
    request: BeginRequest,
) -> Result<BeginReply, StoreError> {
    let mut reruns = Reruns::new();
    loop {
        match try_begin(ctx, key, &request).await {
            Ok(reply) => return Ok(reply),
            Err(failure) => reruns.after(failure)?,
        }
    }
}

async fn try_begin(
    ctx: &Context,
    key: &NamespaceKey,
    request: &BeginRequest,
) -> Result<BeginReply, Failure> {
    let txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Snapshot;
    let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
    let entry = named(key, entry)?;
    let (guard, version) = try_join!(
        ctx.guard(&*txn, entry.id, isolation),
        ctx.head(&*txn, entry.id),
    )?;
    let horizon = admit(key, entry.id, guard, Access::Read)?;
    let (changed, page_one) = try_join!(
        changed_since(
            ctx,
            &*txn,
            entry.id,
            request.known.as_ref(),
            horizon,
            version
        ),
        page_one_at(ctx, &*txn, entry.id, version),
    )?;
    let header = match &page_one {
        Some(page) => Header::parse(&page.content)?,
        None => None,
    };
    let pages = page_one
        .filter(|_| request.want_pages)
        .map(|page| PageImage {
            index: PAGE_1,
            from: page.from,
            data: Some(page.content.to_vec().into()),
        });
    Ok(BeginReply {
        incarnation: ctx.incarnation,
        namespace: entry.id,
        version,
        read_version: txn.read_version().await?,
        page_size: header.map_or(0, |header| header.page_size),
        mode: entry.mode,
        limits: ctx.limits,
        changed,
        pages: pages.into_iter().collect(),
    })
}

/// Pages that others changed since the state a client knows; `None` is unknown.
async fn changed_since(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    known: Option<&KnownState>,
    horizon: Version,
    head: Version,
) -> Result<Option<PageSet>, Failure> {
    let Some(known) = known else {
        return Ok(None);
    };
    let comparable = known.incarnation == ctx.incarnation
        && known.namespace == id
        && known.own.len() <= MAX_OWN_COMMITS
        // The changelog below the horizon may have gaps, even where a pinned entry still stands.
        && (horizon..=head).contains(&known.version);
    if !comparable {
        return Ok(None);
    }
    let own: HashSet<Version> = known.own.iter().copied().collect();
    foreign_changes(ctx, txn, id, known.version, head, |version| {
        own.contains(&version)
    })
    .await
}

/// Pages changed in (from, to] by commits that are not `own`; `None` if there is no entry at `from`,
/// or if it is too much to tell.
pub(super) async fn foreign_changes(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    from: Version,
    to: Version,
    own: impl Fn(Version) -> bool,
) -> Result<Option<PageSet>, Failure> {
    let mut interval = Interval::new();
    let mut next = from;
    // An entry has to stand exactly at `from`, or nothing says that the walk begins where the
    // client's knowledge ends. Nothing can be missing behind the creation.
    let mut anchored = from == id.as_version();
    loop {
        let batch = read_batch(ctx, txn, id, next, Some(to)).await?;
        for (version, entry) in &batch.entries {
            next = successor(*version);
            if *version == from {
                anchored = true;
            } else if !anchored {
                return Ok(None);
            } else if !own(*version) {
                interval.add(entry);
            }
        }
        if batch.is_last || interval.is_unknown() {
            return Ok(interval.finish().filter(|_| anchored));
        }
    }
}
