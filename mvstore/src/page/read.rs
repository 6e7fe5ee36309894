//! Reading pages at a version.
//!
//! One page is one reverse range read: the newest version at or below the one asked for. A run of
//! neighbours is read by one forward scan as long as that meets little history in between.
//!
//! The version must be one that exists: an entry of the changelog, or the namespace's id. What a
//! version between two commits holds is not settled before the read version has passed it.

use std::fmt;

use bytes::Bytes;
use mvsqlite_protocol::v2::{PAGE_1, ReadRequest};
use mvsqlite_protocol::{
    NamespaceId, NamespaceKey, PageImage, PageIndex, PageRun, ReadVersion, Version,
};
use tokio::try_join;

use super::cache::PageOne;
use crate::context::{Context, Failure, Reruns, corrupt_in, side_by_side};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, Pair, RangeOptions, Transaction};
use crate::layout::PageValue;
use crate::namespace::{Access, admit, expect_id, expect_kept};

/// Most pages of one forward scan.
const SCAN_PAGES: u32 = 64;
/// Most scattered pages that are gathered before they are read.
const GATHERED_PAGES: usize = 32;

/// A page's key, taken apart, and its value.
type Stored = (PageIndex, Version, Bytes);

/// A page as it is at the version that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    index: PageIndex,
    from: Version,
    content: Option<Bytes>,
}

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
    let horizon = admit(key, id, guard, Access::Read)?.horizon;
    expect_kept(request.version, horizon)?;
    if request.version != head && !is_commit(ctx, &*txn, id, request.version).await? {
        return Err(version_unknown(key, request.version).into());
    }
    let found = Reader {
        ctx,
        txn: &*txn,
        id,
        version: request.version,
    };
    let found = found.pages(request.pages.runs()).await?;
    Ok(found.into_iter().map(Found::into_image).collect())
}

pub(crate) fn version_unknown(key: &NamespaceKey, version: Version) -> StoreError {
    StoreError::VersionUnknown {
        key: key.to_string(),
        version,
    }
}

/// Whether a version is one of the namespace's commits, or its creation.
async fn is_commit(
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
    version: Version,
) -> Result<Option<PageOne>, Failure> {
    if let Some(page) = ctx.page_one.get(id, version) {
        return Ok(Some(page));
    }
    let reader = Reader {
        ctx,
        txn,
        id,
        version,
    };
    let found = reader.single(PAGE_1).await?;
    let page = found.content.map(|content| PageOne {
        from: found.from,
        content,
    });
    if let Some(page) = &page {
        ctx.page_one.put(id, version, page.clone());
    }
    Ok(page)
}

/// Reads pages of one namespace at one version in one transaction.
struct Reader<'a> {
    ctx: &'a Context,
    txn: &'a dyn Transaction,
    id: NamespaceId,
    version: Version,
}

impl Reader<'_> {
    /// Pages of the runs, ascending, until the byte budget is used up; at least one.
    async fn pages(&self, runs: &[PageRun]) -> Result<Vec<Found>, Failure> {
        let budget = self.ctx.limits.read_bytes;
        let mut all: Vec<Found> = Vec::new();
        let mut bytes = 0;
        let mut singles: Vec<PageIndex> = Vec::new();
        for run in runs {
            if run.count == 1 {
                // Scattered pages are gathered and read side by side.
                singles.push(run.first);
                if singles.len() < GATHERED_PAGES {
                    continue;
                }
            }
            self.singles(&mut singles, &mut all).await?;
            if run.count > 1 {
                self.run(*run, &mut all, &mut bytes).await?;
            }
            bytes = all.iter().map(Found::len).sum();
            if bytes >= budget {
                break;
            }
        }
        if bytes < budget {
            self.singles(&mut singles, &mut all).await?;
        }
        Ok(cut_to(all, budget))
    }

    /// Reads the gathered pages side by side.
    async fn singles(
        &self,
        indexes: &mut Vec<PageIndex>,
        all: &mut Vec<Found>,
    ) -> Result<(), Failure> {
        if let [index] = indexes[..] {
            all.push(self.single(index).await?);
        } else {
            let reads = indexes.iter().map(|index| self.single(*index));
            all.append(&mut side_by_side(reads.collect()).await?);
        }
        indexes.clear();
        Ok(())
    }

    /// Reads a run, by forward scans while they pay.
    async fn run(
        &self,
        run: PageRun,
        all: &mut Vec<Found>,
        bytes: &mut u64,
    ) -> Result<(), Failure> {
        let mut at = run.first;
        let mut scanning = true;
        while u64::from(at) < run.end() && *bytes < self.ctx.limits.read_bytes {
            let left = run.count - (at - run.first);
            let pages = left.min(SCAN_PAGES);
            let before = all.len();
            if scanning {
                scanning = self.scan(at, pages, all).await?;
            } else {
                let mut indexes = (at..at + pages).collect();
                self.singles(&mut indexes, all).await?;
            }
            *bytes += all[before..].iter().map(Found::len).sum::<u64>();
            // Each round finds a page at least, so the run comes to its end.
            at = all.last().map_or(at + pages, |found| found.index + 1);
        }
        Ok(())
    }

    /// Reads the first of `pages` neighbours by a scan that may meet as many versions again as it
    /// looks for. Returns whether it got through, so that scanning on is worth while.
    async fn scan(
        &self,
        first: PageIndex,
        pages: u32,
        all: &mut Vec<Found>,
    ) -> Result<bool, Failure> {
        let limit = 2 * pages as usize + 8;
        let last = first + (pages - 1);
        let range = self
            .ctx
            .keys
            .page_run_until(self.id, first, last, self.version);
        let pairs = self.txn.get_range(&range, forward(limit)).await?;
        let got_through = pairs.len() < limit;
        let (newest, met) = self.newest_of_each(&pairs)?;
        // Where the limit cut the scan, the last page met may have newer versions behind the cut.
        let end = if got_through {
            last + 1
        } else {
            met.unwrap_or(first)
        };
        if end == first {
            all.push(self.single(first).await?);
            return Ok(false);
        }
        let mut newest = newest.into_iter().peekable();
        let mut located = Vec::new();
        for index in first..end {
            let hit = newest.next_if(|(found, _, _)| *found == index);
            located.push((index, hit.map(|(_, from, value)| (from, value))));
        }
        let contents = located
            .into_iter()
            .map(|(index, value)| self.resolve(index, value));
        all.append(&mut side_by_side(contents.collect()).await?);
        Ok(got_through)
    }

    /// Of pairs in key order, the newest of each page at or below the version; and the last page
    /// met.
    fn newest_of_each(&self, pairs: &[Pair]) -> Result<(Vec<Stored>, Option<PageIndex>), Failure> {
        let mut newest: Vec<Stored> = Vec::new();
        let mut met = None;
        for (key, value) in pairs {
            let parsed = self.ctx.keys.parse_page(key);
            let (index, from) =
                parsed.map_err(corrupt_in(format_args!("namespace {}", self.id)))?;
            met = Some(index);
            if from > self.version {
                continue;
            }
            match newest.last_mut() {
                Some(last) if last.0 == index => *last = (index, from, value.clone()),
                _ => newest.push((index, from, value.clone())),
            }
        }
        Ok((newest, met))
    }

    /// Reads one page.
    async fn single(&self, index: PageIndex) -> Result<Found, Failure> {
        let range = self.ctx.keys.page_until(self.id, index, self.version);
        let options = RangeOptions {
            limit: 1,
            reverse: true,
            isolation: Isolation::Snapshot,
        };
        let pairs = self.txn.get_range(&range, options).await?;
        let Some((key, value)) = pairs.into_iter().next() else {
            return self.resolve(index, None).await;
        };
        let parsed = self.ctx.keys.parse_page(&key);
        let (_, from) = parsed.map_err(corrupt_in(format_args!("namespace {}", self.id)))?;
        self.resolve(index, Some((from, value))).await
    }

    /// The content of a stored page, fetched from its stage if it lies there.
    async fn resolve(
        &self,
        index: PageIndex,
        value: Option<(Version, Bytes)>,
    ) -> Result<Found, Failure> {
        let Some((from, value)) = value else {
            return Ok(Found {
                index,
                from: self.id.as_version(),
                content: None,
            });
        };
        let owner = self.id.as_bytes();
        let place = || {
            corrupt_in(PagePlace {
                id: self.id,
                index,
                from,
            })
        };
        let value = PageValue::decode(&value, owner, index).map_err(place())?;
        let content = match value {
            PageValue::Raw(content) => Some(content),
            PageValue::Absent => None,
            PageValue::Staged { stage, checksum } => {
                let key = self.ctx.keys.staged_page(self.id, stage, index);
                let staged = self.txn.get(&key, Isolation::Snapshot).await?;
                let staged = staged.unwrap_or_default();
                let staged = PageValue::decode(&staged, stage.as_bytes(), index);
                let PageValue::Raw(content) = staged.map_err(place())? else {
                    let reason = format!("stage {stage} of {} refers elsewhere", self.id);
                    return Err(StoreError::Corrupt { reason }.into());
                };
                PageValue::verify_staged(owner, index, checksum, &content).map_err(place())?;
                Some(content)
            }
        };
        Ok(Found {
            index,
            from,
            content,
        })
    }
}

/// Where a page lies; written out only when something is wrong with it.
struct PagePlace {
    id: NamespaceId,
    index: PageIndex,
    from: Version,
}

impl fmt::Display for PagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u64::from(self.index) + 1;
        write!(f, "page {number} at {} of namespace {}", self.from, self.id)
    }
}

impl Found {
    fn len(&self) -> u64 {
        self.content
            .as_ref()
            .map_or(0, |content| content.len() as u64)
    }

    fn into_image(self) -> PageImage {
        PageImage {
            index: self.index,
            from: self.from,
            data: self.content.map(|content| content.to_vec().into()),
        }
    }
}

fn forward(limit: usize) -> RangeOptions {
    RangeOptions {
        limit,
        reverse: false,
        isolation: Isolation::Snapshot,
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
