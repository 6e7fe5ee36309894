//! Begin: the newest version, and what changed since the client last looked.
//!
//! Strict: one fresh read version at which everything in the answer is read, so that the answer
//! holds every commit acknowledged before the call. As of an earlier read version: any read version
//! from there on will do, since what lies below one never changes.

use std::collections::HashSet;

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::{BeginReply, BeginRequest, KnownState, MAX_OWN_COMMITS, PAGE_1};
use mvsqlite_protocol::{NamespaceId, NamespaceKey, PageImage, PageSet, ReadVersion, Version};
use tokio::try_join;

use super::cache::PageOne;
use super::catch_up::catch_up;
use super::changes::{Interval, newest_until, read_batch, successor};
use super::page_one::Header;
use super::read::{page_one_at, version_unknown};
use super::view::Found;
use crate::context::{Context, Failure, Reruns};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, Transaction};
use crate::layout::{Guard, PageOneClass};
use crate::namespace::{Access, Standing, admit, expect_kept, lock_of, named, standing};

/// Takes a snapshot of the newest version, for the owner of the namespace's lock or for anybody.
pub(crate) async fn begin(
    ctx: &Context,
    key: &NamespaceKey,
    lock_owner: Option<&str>,
    request: BeginRequest,
) -> Result<BeginReply, StoreError> {
    let mut freshness = match request.as_of {
        Some(moment) => Freshness::AtLeast(moment),
        None => Freshness::Strict,
    };
    let mut reruns = Reruns::new();
    loop {
        match try_begin(ctx, key, lock_owner, &request, freshness).await {
            Ok(reply) => return Ok(reply),
            // Seen at a read version that may be a little old: no answer yet.
            Err(Failure::Refused(_)) if freshness != Freshness::Strict => (),
            Err(failure) => reruns.after(failure)?,
        }
        freshness = Freshness::Strict;
    }
}

async fn try_begin(
    ctx: &Context,
    key: &NamespaceKey,
    lock_owner: Option<&str>,
    request: &BeginRequest,
    freshness: Freshness,
) -> Result<BeginReply, Failure> {
    let txn = ctx.begin(freshness);
    let isolation = Isolation::Snapshot;
    let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
    let entry = named(key, entry)?;
    let (guard, head) = try_join!(
        ctx.guard(&*txn, entry.id, isolation),
        ctx.head(&*txn, entry.id),
    )?;
    let guard = admit(key, entry.id, guard, Access::Read)?;
    let lock = lock_of(ctx, &*txn, entry.id, &guard, isolation).await?;
    let visible = match standing(lock.as_ref(), lock_owner) {
        Standing::Free => head,
        Standing::Outside(snapshot) => snapshot,
        Standing::Mistaken => {
            let key = key.to_string();
            return Err(StoreError::LockNotHeld { key }.into());
        }
    };
    let version = match request.as_of {
        None => visible,
        Some(moment) => {
            let version = head_as_of(ctx, &*txn, key, entry.id, head, moment).await?;
            expect_kept(version, guard.horizon)?;
            version.min(visible)
        }
    };
    let (changes, page_one) = changes_and_page_one(
        ctx,
        &*txn,
        entry.id,
        request.known.as_ref(),
        &guard,
        version,
    )
    .await?;
    let header = match &page_one {
        Some(page) => Header::parse(&page.content)?,
        None => None,
    };
    let pages = match request.want_pages {
        true => first_pages(ctx, &*txn, request, entry.id, &guard, version, page_one).await?,
        false => Vec::new(),
    };
    Ok(BeginReply {
        incarnation: ctx.incarnation,
        namespace: entry.id,
        version,
        read_version: txn.read_version().await?,
        page_size: header.map_or(0, |header| header.page_size),
        mode: entry.mode,
        limits: ctx.limits,
        changed: changes.foreign,
        pages,
    })
}

/// Most bytes of pages that a begin brings.
const FIRST_BYTES: u64 = 64 << 10;

/// Page 1, and on a cold start other pages that clients want first, as far as they are at hand.
async fn first_pages(
    ctx: &Context,
    txn: &dyn Transaction,
    request: &BeginRequest,
    id: NamespaceId,
    guard: &Guard,
    version: Version,
    page_one: Option<PageOne>,
) -> Result<Vec<PageImage>, Failure> {
    let Some(page_one) = page_one else {
        return Ok(Vec::new());
    };
    let left = FIRST_BYTES.saturating_sub(page_one.content.len() as u64);
    let mut pages = vec![PageImage {
        index: PAGE_1,
        from: page_one.from,
        data: Some(page_one.content.to_vec().into()),
    }];
    if request.known.is_none() && request.as_of.is_none() {
        catch_up(ctx, txn, id, guard, version).await?;
        let wanted = ctx.page_cache.cold_start(id, version, left);
        let wanted = wanted.into_iter().filter(|page| page.index != PAGE_1);
        pages.extend(wanted.map(Found::into_image));
    }
    Ok(pages)
}

/// The newest commit that a read at an earlier moment saw; the namespace's id if there was none.
async fn head_as_of(
    ctx: &Context,
    txn: &dyn Transaction,
    key: &NamespaceKey,
    id: NamespaceId,
    head: Version,
    moment: ReadVersion,
) -> Result<Version, Failure> {
    let newest = Version::new(moment.0, u16::MAX);
    if txn.read_version().await? < moment {
        // Commits may still appear below it.
        return Err(version_unknown(key, newest).into());
    }
    if moment.sees(head) {
        return Ok(head);
    }
    newest_until(ctx, txn, id, newest).await
}

/// What happened in a stretch of the changelog.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Pages that others changed; `None` is unknown.
    pub(crate) foreign: Option<PageSet>,
    /// Page 1 is certain to be the same at both ends.
    pub(crate) same_page_one: bool,
}

impl Changes {
    const UNKNOWN: Self = Self {
        foreign: None,
        same_page_one: false,
    };
}

/// What changed since the state a client knows, and page 1 at the head.
///
/// Most begins of a client that is at work follow a commit that left page 1 alone. Then page 1 is at
/// hand from the version before, and reading it again would be the larger half of the call.
async fn changes_and_page_one(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    known: Option<&KnownState>,
    guard: &Guard,
    head: Version,
) -> Result<(Changes, Option<PageOne>), Failure> {
    let earlier = known.and_then(|known| ctx.page_one.get(id, known.version));
    let walk = changed_since(ctx, txn, id, known, guard.horizon, head);
    let Some(earlier) = earlier else {
        return try_join!(walk, page_one_at(ctx, txn, id, guard, head));
    };
    let changes = walk.await?;
    if changes.same_page_one {
        ctx.page_one.put(id, head, earlier.clone());
        return Ok((changes, Some(earlier)));
    }
    let page_one = page_one_at(ctx, txn, id, guard, head).await?;
    Ok((changes, page_one))
}

/// What changed since the state a client knows.
async fn changed_since(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    known: Option<&KnownState>,
    horizon: Version,
    head: Version,
) -> Result<Changes, Failure> {
    let Some(known) = known else {
        return Ok(Changes::UNKNOWN);
    };
    let comparable = known.incarnation == ctx.incarnation
        && known.namespace == id
        && known.own.len() <= MAX_OWN_COMMITS
        // The changelog below the horizon may have gaps, even where a pinned entry still stands.
        && (horizon..=head).contains(&known.version);
    if !comparable {
        return Ok(Changes::UNKNOWN);
    }
    let own: HashSet<Version> = known.own.iter().copied().collect();
    changes_between(ctx, txn, id, known.version, head, |version| {
        own.contains(&version)
    })
    .await
}

/// What changed in (from, to], by commits that are not `own` as far as pages go. Unknown if there is
/// no entry at `from`, or if it is too much to tell.
pub(crate) async fn changes_between(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    from: Version,
    to: Version,
    own: impl Fn(Version) -> bool,
) -> Result<Changes, Failure> {
    let mut interval = Interval::new();
    let mut same_page_one = true;
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
                continue;
            }
            if !anchored {
                return Ok(Changes::UNKNOWN);
            }
            // Whoever changed it: the client's own commits too.
            let is_kept = entry.page_one == PageOneClass::Untouched;
            same_page_one &= is_kept || (active(Bug::PageOneStale) && own(*version));
            if !own(*version) {
                interval.add(entry);
            }
        }
        if interval.is_unknown() || (batch.is_last && !anchored) {
            return Ok(Changes::UNKNOWN);
        }
        if batch.is_last {
            return Ok(Changes {
                foreign: interval.finish(),
                same_page_one,
            });
        }
    }
}
