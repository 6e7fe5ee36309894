//! Pages by version or by content.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mvsqlite_protocol::v1::PageHash;
use mvsqlite_protocol::{NamespaceId, NamespaceKey, PageIndex, ReadVersion, Version};

use crate::context::{Context, Failure, Reruns};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, Transaction};
use crate::layout::Guard;
use crate::namespace::{Access, admit, expect_kept, named};
use crate::page::{find_waiting, pages_at, version_unknown};

/// Most pages that are looked for side by side.
const PAGES_A_READ: usize = 64;

/// A page that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadItem {
    /// As of a version, whichever.
    At {
        /// Which page.
        index: PageIndex,
        /// The newest one at or below this is meant.
        version: Version,
    },
    /// Whatever page it is.
    Content {
        /// The hash of its content.
        hash: PageHash,
    },
}

/// A page that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPage {
    /// The version it was written at; `None` if it was asked for by its content.
    pub from: Option<Version>,
    /// Its content; never empty.
    pub content: Bytes,
}

pub(super) async fn read(
    ctx: &Context,
    key: &NamespaceKey,
    items: &[ReadItem],
) -> Result<Vec<Option<ReadPage>>, StoreError> {
    let versions = items.iter().filter_map(|item| match item {
        ReadItem::At { version, .. } => Some(version.commit()),
        ReadItem::Content { .. } => None,
    });
    let mut freshness = Freshness::AtLeast(ReadVersion(versions.max().unwrap_or(0)));
    let mut reruns = Reruns::new();
    loop {
        match try_read(ctx, key, items, freshness).await {
            // Another server may have taken a page in after this read version.
            Ok(pages) if freshness == Freshness::Strict || all_contents(items, &pages) => {
                return Ok(pages);
            }
            Ok(_) => (),
            Err(Failure::Refused(_)) if freshness != Freshness::Strict => (),
            Err(failure) => reruns.after(failure)?,
        }
        freshness = Freshness::Strict;
    }
}

/// Whether everything was found that was asked for by its content.
fn all_contents(items: &[ReadItem], pages: &[Option<ReadPage>]) -> bool {
    let found = |(item, page): (&ReadItem, &Option<ReadPage>)| {
        page.is_some() || !matches!(item, ReadItem::Content { .. })
    };
    items.iter().zip(pages).all(found)
}

async fn try_read(
    ctx: &Context,
    key: &NamespaceKey,
    items: &[ReadItem],
    freshness: Freshness,
) -> Result<Vec<Option<ReadPage>>, Failure> {
    let txn = ctx.begin(freshness);
    let isolation = Isolation::Snapshot;
    let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
    let id = named(key, entry)?.id;
    let guard = ctx.guard(&*txn, id, isolation).await?;
    let guard = admit(key, id, guard, Access::Read)?;
    let read_version = txn.read_version().await?;

    // In one go for each version: as a rule there is one.
    let mut at: BTreeMap<Version, Vec<usize>> = BTreeMap::new();
    let mut by_content = Vec::new();
    for (place, item) in items.iter().enumerate() {
        match item {
            ReadItem::At { version, .. } => at.entry(*version).or_default().push(place),
            ReadItem::Content { hash } => by_content.push((place, *hash)),
        }
    }
    let mut pages = vec![None; items.len()];
    for (version, places) in at {
        // What lies above the read version is not settled yet.
        if !read_version.sees(version) {
            return Err(version_unknown(key, version).into());
        }
        // A new namespace has no history that could have been cut off.
        if guard.horizon > id.as_version() {
            expect_kept(version, guard.horizon)?;
        }
        let indexes = places.iter().map(|place| index_of(&items[*place]));
        let found = read_at(ctx, &*txn, (id, &guard), version, indexes.collect()).await?;
        for place in places {
            pages[place] = found.get(&index_of(&items[place])).cloned();
        }
    }
    let hashes: Vec<PageHash> = by_content.iter().map(|(_, hash)| *hash).collect();
    let contents = find_waiting(ctx, &*txn, id, &hashes).await?;
    for ((place, _), content) in by_content.into_iter().zip(contents) {
        pages[place] = content.map(|content| ReadPage {
            from: None,
            content,
        });
    }
    Ok(pages)
}

fn index_of(item: &ReadItem) -> PageIndex {
    match item {
        ReadItem::At { index, .. } => *index,
        ReadItem::Content { .. } => 0,
    }
}

/// Pages at one version; those that exist.
async fn read_at(
    ctx: &Context,
    txn: &dyn Transaction,
    (id, guard): (NamespaceId, &Guard),
    version: Version,
    indexes: BTreeSet<PageIndex>,
) -> Result<BTreeMap<PageIndex, ReadPage>, Failure> {
    let indexes: Vec<PageIndex> = indexes.into_iter().collect();
    let mut pages = BTreeMap::new();
    for some in indexes.chunks(PAGES_A_READ) {
        for found in pages_at(ctx, txn, id, guard, version, some).await? {
            if let Some(content) = found.content {
                let from = Some(found.from);
                pages.insert(found.index, ReadPage { from, content });
            }
        }
    }
    Ok(pages)
}
