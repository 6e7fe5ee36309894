//! From a moment, as a user names it, to a version that exists.
//!
//! A moment is resolved to the newest commit at or below it, read at a fresh read version that is
//! not older than it: what lies below a read version never changes, so the answer holds for ever.

use mvsqlite_protocol::v2::{ResolveReply, ResolveRequest};
use mvsqlite_protocol::{Moment, NamespaceId, NamespaceKey, ReadVersion, Version};
use tokio::try_join;

use super::time::{records_around, version_of};
use crate::context::{Context, Failure, rerun};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, Transaction};
use crate::namespace::{Access, admit, expect_kept, named};
use crate::page::{Header, newest_until, page_one_at, read_batch, successor, version_unknown};

/// Finds the version that a moment is.
pub(crate) async fn resolve(
    ctx: &Context,
    key: &NamespaceKey,
    request: ResolveRequest,
) -> Result<ResolveReply, StoreError> {
    rerun(|| try_resolve(ctx, key, request.moment)).await
}

async fn try_resolve(
    ctx: &Context,
    key: &NamespaceKey,
    moment: Moment,
) -> Result<ResolveReply, Failure> {
    let txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Snapshot;
    let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
    let id = named(key, entry)?.id;
    let (guard, head) = try_join!(ctx.guard(&*txn, id, isolation), ctx.head(&*txn, id))?;
    let guard = admit(key, id, guard, Access::Read)?;
    let read_version = txn.read_version().await?;
    let namespace = Namespace {
        ctx,
        txn: &*txn,
        key,
        id,
        head,
    };
    let version = match moment {
        Moment::Version(version) => namespace.at_version(version, read_version).await?,
        Moment::UnixMillis(millis) => namespace.at_time(millis).await?,
    };
    expect_kept(version, guard.horizon)?;
    let page_one = page_one_at(ctx, &*txn, id, &guard, version).await?;
    let header = match &page_one {
        Some(page) => Header::parse(&page.content)?,
        None => None,
    };
    Ok(ResolveReply {
        incarnation: ctx.incarnation,
        namespace: id,
        version,
        read_version,
        page_size: header.map_or(0, |header| header.page_size),
        limits: ctx.limits,
    })
}

struct Namespace<'a> {
    ctx: &'a Context,
    txn: &'a dyn Transaction,
    key: &'a NamespaceKey,
    id: NamespaceId,
    head: Version,
}

impl Namespace<'_> {
    async fn at_version(
        &self,
        version: Version,
        read_version: ReadVersion,
    ) -> Result<Version, Failure> {
        // Above the read version commits may still appear below the one asked for.
        if !read_version.sees(version) || version < self.id.as_version() {
            return Err(version_unknown(self.key, version).into());
        }
        self.newest_until(version).await
    }

    /// The newest commit at or below a version; the namespace's id if there is none.
    async fn newest_until(&self, version: Version) -> Result<Version, Failure> {
        if version >= self.head {
            return Ok(self.head);
        }
        newest_until(self.ctx, self.txn, self.id, version).await
    }

    /// The last commit before the first one, in version order, with a later time. The store-wide
    /// records of time say where to look; clocks of several servers need not agree better than that.
    async fn at_time(&self, millis: u64) -> Result<Version, Failure> {
        let refused = |reason| StoreError::MomentUnknown {
            key: self.key.to_string(),
            unix_millis: millis,
            reason,
        };
        if millis > self.ctx.now() {
            return Err(refused("it has not come yet").into());
        }
        let behind = millis.saturating_add(1);
        let (before, after) = records_around(self.ctx, self.txn, behind).await?;
        let last = after.as_ref().map(version_of).transpose()?;
        if last.is_some_and(|last| last < self.id.as_version()) {
            return Err(refused("the namespace did not exist yet").into());
        }
        let mut version = match before.as_ref().map(version_of).transpose()? {
            Some(record) => self.newest_until(record).await?,
            None => self.id.as_version(),
        };
        loop {
            let next = successor(version);
            let batch = read_batch(self.ctx, self.txn, self.id, next, last).await?;
            for (at, entry) in &batch.entries {
                if entry.millis > millis {
                    return Ok(version);
                }
                version = *at;
            }
            if batch.is_last {
                return Ok(version);
            }
        }
    }
}
