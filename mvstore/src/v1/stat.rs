//! The newest version of a namespace, and which pages changed since another.

use mvsqlite_protocol::{NamespaceKey, PageIndex, PageSet, Version};
use tokio::try_join;

use crate::context::{Context, Failure, rerun};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation};
use crate::namespace::{Access, Standing, admit, lock_of, named, standing};
use crate::page::changes_between;

/// Most pages that an interval names; beyond that it is unknown, as in the original.
const MOST_PAGES: u64 = 1000;

/// What a caller knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatRequest {
    /// The last version it knows.
    pub from: Option<Version>,
    /// The lock that it thinks it holds.
    pub lock_owner: Option<String>,
}

/// Where a namespace stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The version of its last commit, or its id. While it is locked, for those who do not hold the
    /// lock: the lock's snapshot.
    pub version: Version,
    /// Pages changed since the version that the caller knows, ascending; `None` is unknown.
    pub interval: Option<Vec<PageIndex>>,
}

pub(super) async fn stat(
    ctx: &Context,
    key: &NamespaceKey,
    request: &StatRequest,
) -> Result<Option<Stat>, StoreError> {
    rerun(|| try_stat(ctx, key, request)).await
}

async fn try_stat(
    ctx: &Context,
    key: &NamespaceKey,
    request: &StatRequest,
) -> Result<Option<Stat>, Failure> {
    let txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Snapshot;
    let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
    let id = named(key, entry)?.id;
    let (guard, head) = try_join!(ctx.guard(&*txn, id, isolation), ctx.head(&*txn, id))?;
    let guard = admit(key, id, guard, Access::Read)?;
    let lock = lock_of(ctx, &*txn, id, &guard, isolation).await?;
    let version = match standing(lock.as_ref(), request.lock_owner.as_deref()) {
        Standing::Free => head,
        Standing::Outside(snapshot) => snapshot,
        Standing::Mistaken => return Ok(None),
    };
    let interval = match request.from {
        Some(from) if from == version => Some(PageSet::new()),
        Some(from) if (guard.horizon..version).contains(&from) => {
            let changes = changes_between(ctx, &*txn, id, from, version, |_| false).await?;
            changes.foreign
        }
        _ => None,
    };
    Ok(Some(Stat {
        version,
        interval: interval.and_then(|pages| listed(&pages)),
    }))
}

/// The pages of an interval, if they are few enough to name.
pub(super) fn listed(pages: &PageSet) -> Option<Vec<PageIndex>> {
    (pages.len() <= MOST_PAGES).then(|| pages.iter().collect())
}
