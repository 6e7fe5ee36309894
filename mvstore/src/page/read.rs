//! Reading pages at a version, as a client asks for them.
//!
//! The version must be one that exists: an entry of the changelog, or the namespace's id. What a
//! version between two commits holds is not settled before the read version has passed it.

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::{PAGE_1, ReadRequest};
use mvsqlite_protocol::{
    NamespaceId, NamespaceKey, PageImage, PageIndex, PageRun, ReadVersion, StageId, Version,
};
use tokio::try_join;

use super::cache::PageOne;
use super::catch_up::catch_up;
use super::lineage::Lineage;
use super::stage;
use super::view::{Found, View};
use crate::context::{Context, Failure, Reruns};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, Transaction};
use crate::layout::{Guard, StageState};
use crate::namespace::{Access, admit, expect_id, expect_kept};

/// Most neighbours that are read at once.
const SCAN_PAGES: u32 = 64;
/// Most scattered pages that are gathered before they are read.
const GATHERED_PAGES: usize = 32;

/// Reads pages at a version.
pub(crate) async fn read(
    ctx: &Context,
    key: &NamespaceKey,
    request: ReadRequest,
) -> Result<Vec<PageImage>, StoreError> {
    let asked = request.pages.len();
    if asked > u64::from(ctx.limits.read_pages) {
        return Err(StoreError::TooLarge {
            what: "pages in one read",
            amount: asked,
            limit: ctx.limits.read_pages.into(),
        });
    }
    let seen = ReadVersion(request.version.commit()).max(request.read_version);
    let mut freshness = Freshness::AtLeast(seen);
    let mut reruns = Reruns::new();
    loop {
        match try_read(ctx, key, &request, freshness).await {
            Ok(images) => return Ok(images),
            // Seen at a read version that may be a little old: no answer yet.
            Err(Failure::Refused(_)) if freshness != Freshness::Strict => (),
            Err(failure) => reruns.after(failure)?,
        }
        freshness = Freshness::Strict;
    }
}

async fn try_read(
    ctx: &Context,
    key: &NamespaceKey,
    request: &ReadRequest,
    freshness: Freshness,
) -> Result<Vec<PageImage>, Failure> {
    let txn = ctx.begin(freshness);
    let id = request.namespace;
    let isolation = Isolation::Snapshot;
    let (entry, guard, head) = try_join!(
        ctx.catalog_entry(&*txn, key.as_str(), isolation),
        ctx.guard(&*txn, id, isolation),
        ctx.head(&*txn, id),
    )?;
    expect_id(key, entry, id)?;
    let guard = admit(key, id, guard, Access::Read)?;
    let checked = !active(Bug::HorizonUnchecked);
    if checked {
        expect_kept(request.version, guard.horizon)?;
    }
    if checked && request.version != head && !is_commit(ctx, &*txn, id, request.version).await? {
        return Err(version_unknown(key, request.version).into());
    }
    if let Some(stage) = request.stage {
        expect_open(ctx, &*txn, id, stage).await?;
    }
    let kept = match request.stage {
        None => kept(ctx, &*txn, id, &guard, request).await?,
        // Its own pages come before all others.
        Some(_) => Vec::new(),
    };
    if kept.len() as u64 == request.pages.len() {
        return Ok(images(cut_to(kept, ctx.limits.read_bytes)));
    }
    let lineage = Lineage::read(ctx, &*txn, id, &guard).await?;
    let reader = Reader {
        ctx,
        view: View::new(ctx, &*txn, &lineage),
        id,
        version: request.version,
        own: request.stage,
        kept,
    };
    Ok(images(reader.pages(request.pages.runs()).await?))
}

/// What the page cache has of the pages asked for, ascending.
async fn kept(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
    request: &ReadRequest,
) -> Result<Vec<Found>, Failure> {
    if let [PageRun { first, count: 1 }] = request.pages.runs() {
        ctx.page_cache.asked_for(id, *first);
    }
    catch_up(ctx, txn, id, guard, request.version).await?;
    Ok(ctx.page_cache.find(id, request.version, &request.pages))
}

fn images(found: Vec<Found>) -> Vec<PageImage> {
    found.into_iter().map(Found::into_image).collect()
}

/// Whether a transaction may read its own pages in a stage.
async fn expect_open(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    stage: StageId,
) -> Result<(), Failure> {
    match stage::record(ctx, txn, id, stage).await? {
        Some(record) if record.state == StageState::Open => Ok(()),
        Some(_) => Err(stage::closed(stage).into()),
        None => Err(stage::unknown(stage).into()),
    }
}

pub(crate) fn version_unknown(key: &NamespaceKey, version: Version) -> StoreError {
    StoreError::VersionUnknown {
        key: key.to_string(),
        version,
    }
}

/// Whether a version is one of the namespace's commits, or its creation.
pub(crate) async fn is_commit(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    version: Version,
) -> Result<bool, Failure> {
    if version == id.as_version() {
        return Ok(true);
    }
    let key = ctx.keys.change(id, version, 0);
    Ok(txn.get(&key, Isolation::Snapshot).await?.is_some())
}

/// Page 1 at a version that is known to exist.
pub(crate) async fn page_one_at(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
    version: Version,
) -> Result<Option<PageOne>, Failure> {
    if let Some(page) = ctx.page_one.get(id, version) {
        return Ok(Some(page));
    }
    let found = pages_at(ctx, txn, id, guard, version, &[PAGE_1]).await?;
    let page = found.into_iter().next().and_then(|found| {
        Some(PageOne {
            from: found.from,
            content: found.content?,
        })
    });
    if let Some(page) = &page {
        ctx.page_one.put(id, version, page.clone());
    }
    Ok(page)
}

/// Pages at any version that lies at or below the transaction's read version and is kept. They are
/// named in ascending order, some dozens at most.
pub(crate) async fn pages_at(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
    version: Version,
    indexes: &[PageIndex],
) -> Result<Vec<Found>, Failure> {
    let lineage = Lineage::read(ctx, txn, id, guard).await?;
    View::new(ctx, txn, &lineage)
        .find(id, version, indexes)
        .await
}

/// Reads what one request asks for, as far as its budget goes.
struct Reader<'a> {
    ctx: &'a Context,
    view: View<'a>,
    id: NamespaceId,
    version: Version,
    /// The transaction's own stage, whose pages come before all others.
    own: Option<StageId>,
    /// Pages that need not be looked for, ascending.
    kept: Vec<Found>,
}

impl Reader<'_> {
    /// Pages of the runs, ascending, until the byte budget is used up; at least one.
    async fn pages(&self, runs: &[PageRun]) -> Result<Vec<Found>, Failure> {
        let budget = self.ctx.limits.read_bytes;
        let mut all: Vec<Found> = Vec::new();
        let mut bytes = 0;
        let mut gathered: Vec<PageIndex> = Vec::new();
        for run in runs {
            if run.count == 1 {
                // Scattered pages are gathered and read side by side.
                gathered.push(run.first);
                if gathered.len() < GATHERED_PAGES {
                    continue;
                }
            }
            bytes += self.batch(&mut gathered, &mut all).await?;
            let mut at = u64::from(run.first);
            while run.count > 1 && at < run.end() && bytes < budget {
                let end = run.end().min(at + u64::from(SCAN_PAGES));
                // A page set ends below 2^32.
                gathered.extend((at..end).filter_map(|index| PageIndex::try_from(index).ok()));
                bytes += self.batch(&mut gathered, &mut all).await?;
                at = end;
            }
            if bytes >= budget {
                break;
            }
        }
        if bytes < budget {
            self.batch(&mut gathered, &mut all).await?;
        }
        Ok(cut_to(all, budget))
    }

    /// Reads the gathered pages; returns their bytes.
    async fn batch(
        &self,
        indexes: &mut Vec<PageIndex>,
        all: &mut Vec<Found>,
    ) -> Result<u64, Failure> {
        let mut found = match self.own {
            None => self.kept_first(indexes).await?,
            Some(stage) => self.own_first(stage, indexes).await?,
        };
        indexes.clear();
        let bytes = found.iter().map(Found::len).sum();
        all.append(&mut found);
        Ok(bytes)
    }

    /// Pages as everybody sees them; what has to be looked for is kept from then on.
    async fn kept_first(&self, indexes: &[PageIndex]) -> Result<Vec<Found>, Failure> {
        let place = |index: &PageIndex| self.kept.binary_search_by_key(index, |page| page.index);
        let others = indexes
            .iter()
            .copied()
            .filter(|index| place(index).is_err());
        let others: Vec<_> = others.collect();
        let mut found = self.view.find(self.id, self.version, &others).await?;
        self.ctx.page_cache.insert(self.id, self.version, &found);
        if others.len() < indexes.len() {
            let kept = indexes.iter().filter_map(|index| place(index).ok());
            found.extend(kept.map(|at| self.kept[at].clone()));
            found.sort_unstable_by_key(|page| page.index);
        }
        Ok(found)
    }

    /// Pages as the transaction sees them that wrote some of them itself.
    async fn own_first(
        &self,
        stage: StageId,
        indexes: &[PageIndex],
    ) -> Result<Vec<Found>, Failure> {
        let own = self.view.held(self.id, stage, indexes).await?;
        let is_own = |index: &PageIndex| own.binary_search_by_key(index, |page| page.0).is_ok();
        let others = indexes.iter().copied().filter(|index| !is_own(index));
        let others: Vec<_> = others.collect();
        let mut found = self.view.find(self.id, self.version, &others).await?;
        found.extend(own.into_iter().map(|(index, content)| Found {
            index,
            from: self.version,
            content: Some(content),
        }));
        found.sort_unstable_by_key(|page| page.index);
        Ok(found)
    }
}

/// Keeps pages until the budget is used up; at least one.
fn cut_to(mut found: Vec<Found>, budget: u64) -> Vec<Found> {
    let mut bytes = 0;
    let kept = found.iter().take_while(|page| {
        let fits = bytes < budget;
        bytes += page.len();
        fits
    });
    let kept = kept.count().max(1);
    found.truncate(kept);
    found
}
