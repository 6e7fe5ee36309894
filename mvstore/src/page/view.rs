//! Pages at a version: a namespace's own page versions, its layers, and the namespaces below it.
//!
//! A page at version V, u being its newest own version at or below V:
//!
//! 1. Layers made above u, up to V, are asked, the newest first. A stage that holds the page answers
//!    with it; one that cut the page off answers that there is none; else the next is asked. A
//!    restore answers with the page at the version restored, whatever that is.
//! 2. If none answers: the page as of u.
//! 3. If there is no u: the page as the base had it at the version that was forked, by the same
//!    rules with the base's own layers; without a base there is none.
//!
//! The answer comes with a version that it is valid from. It may be later than the true one, never
//! earlier: the larger of its own and of each restore passed through; through a base, and where
//! nothing was found, at least the namespace's id.
//!
//! The version must be at or below the transaction's read version; it need not be a commit's. The
//! caller has checked that it is kept. What lies behind a redirection is kept by it: nothing is
//! checked there.
//!
//! One page is one reverse range read. Neighbours are read by one forward scan as long as scans meet
//! little history in between.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::{NamespaceId, PageImage, PageIndex, StageId, Version};

use super::lineage::Lineage;
use crate::context::{Context, Failure, corrupt_in, side_by_side};
use crate::error::StoreError;
use crate::kv::{Isolation, RangeOptions, Transaction};
use crate::layout::{Ancestor, LayerKind, PageValue};

/// A page as it is at the version that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Which page.
    pub index: PageIndex,
    /// A version from which on it is so.
    pub from: Version,
    /// Its content; `None` if there is no such page.
    pub content: Option<Bytes>,
}

/// A page's newest own version at or below some version, if there is one.
struct Newest {
    index: PageIndex,
    own: Option<(Version, Bytes)>,
}

impl Newest {
    /// Whether its own version is older than a layer, so that the layer is asked.
    fn is_below(&self, layer: Version) -> bool {
        self.own.as_ref().is_none_or(|(from, _)| *from < layer)
    }
}

/// Finds pages of a namespace and of those below it, in one transaction.
pub(crate) struct View<'a> {
    ctx: &'a Context,
    txn: &'a dyn Transaction,
    lineage: &'a Lineage,
    /// Scans have paid so far.
    scanning: AtomicBool,
}

type Search<'s> = Pin<Box<dyn Future<Output = Result<Vec<Found>, Failure>> + Send + 's>>;

impl<'a> View<'a> {
    pub(crate) fn new(ctx: &'a Context, txn: &'a dyn Transaction, lineage: &'a Lineage) -> Self {
        Self {
            ctx,
            txn,
            lineage,
            scanning: AtomicBool::new(true),
        }
    }

    /// Finds pages, which are named in ascending order, at a version. Read at once, so that there
    /// should be some dozens of them at most.
    pub(crate) async fn find(
        &self,
        id: NamespaceId,
        version: Version,
        indexes: &[PageIndex],
    ) -> Result<Vec<Found>, Failure> {
        let newest = self.newest(id, version, indexes).await?;
        let guard = self.lineage.guard(id)?;
        let mut found = Vec::with_capacity(newest.len());
        let mut open = newest;
        for layer in guard.layers.iter().rev() {
            if layer.at > version || open.is_empty() {
                continue;
            }
            let (asked, decided) = open.into_iter().partition(|page| page.is_below(layer.at));
            found.append(&mut self.contents(id, decided).await?);
            open = match layer.kind {
                LayerKind::Stage { stage, count, cuts } => {
                    let asked = if cuts {
                        cut_off(asked, count, layer.at, &mut found)
                    } else {
                        asked
                    };
                    match stage {
                        Some(stage) => {
                            let place = (id, stage, layer.at);
                            self.ask_stage(place, count, asked, &mut found).await?
                        }
                        None => asked,
                    }
                }
                LayerKind::Restore { to } => {
                    found.append(&mut self.redirected(id, to, layer.at, asked).await?);
                    Vec::new()
                }
            };
        }
        let (own, none) = open.into_iter().partition(|page| page.own.is_some());
        found.append(&mut self.contents(id, own).await?);
        let base = guard.base().map(|base| match active(Bug::ForkSeesPresent) {
            // What the base became afterwards is no part of the fork.
            true => Ancestor {
                at: version,
                ..base
            },
            false => base,
        });
        found.append(&mut self.in_base(id, base, none).await?);
        found.sort_unstable_by_key(|page| page.index);
        Ok(found)
    }

    /// Finds pages somewhere else, where they are valid from `least` on at the earliest.
    fn redirected<'s>(
        &'s self,
        id: NamespaceId,
        version: Version,
        least: Version,
        pages: Vec<Newest>,
    ) -> Search<'s> {
        Box::pin(async move {
            if pages.is_empty() {
                return Ok(Vec::new());
            }
            let indexes: Vec<_> = pages.iter().map(|page| page.index).collect();
            let mut found = self.find(id, version, &indexes).await?;
            for page in &mut found {
                page.from = page.from.max(least);
            }
            Ok(found)
        })
    }

    /// Pages that the namespace itself says nothing about.
    async fn in_base(
        &self,
        id: NamespaceId,
        base: Option<Ancestor>,
        pages: Vec<Newest>,
    ) -> Result<Vec<Found>, Failure> {
        if let Some(base) = base {
            return self
                .redirected(base.id, base.at, id.as_version(), pages)
                .await;
        }
        // That a page was there, and when it ceased to be, is forgotten below the horizon.
        let from = self.lineage.guard(id)?.oldest(id);
        let nowhere = pages.into_iter().map(|page| Found {
            index: page.index,
            from,
            content: None,
        });
        Ok(nowhere.collect())
    }

    /// Asks a stage for pages; returns those it does not hold.
    async fn ask_stage(
        &self,
        (id, stage, at): (NamespaceId, StageId, Version),
        count: PageIndex,
        asked: Vec<Newest>,
        found: &mut Vec<Found>,
    ) -> Result<Vec<Newest>, Failure> {
        let inside = asked.iter().filter(|page| page.index < count);
        let inside: Vec<_> = inside.map(|page| page.index).collect();
        let mut held = self.held(id, stage, &inside).await?.into_iter().peekable();
        let mut rest = Vec::new();
        for page in asked {
            match held.next_if(|(index, _)| *index == page.index) {
                Some((index, content)) => found.push(Found {
                    index,
                    from: at,
                    content: Some(content),
                }),
                None => rest.push(page),
            }
        }
        Ok(rest)
    }

    /// Of these pages, named in ascending order, those that a stage holds, with their content.
    pub(crate) async fn held(
        &self,
        id: NamespaceId,
        stage: StageId,
        indexes: &[PageIndex],
    ) -> Result<Vec<(PageIndex, Bytes)>, Failure> {
        let keys = &self.ctx.keys;
        let place = |index| {
            corrupt_in(format!(
                "page {} of stage {stage} of {id}",
                u64::from(index) + 1
            ))
        };
        let pairs = match dense(indexes) {
            Some((first, last)) => {
                let range = keys.staged_pages(id, stage, first, last);
                let limit = (last - first) as usize + 2;
                let pairs = self.txn.get_range(&range, options(limit, false)).await?;
                let parsed = pairs.into_iter().map(|(key, value)| {
                    let index = keys.parse_staged(&key).map_err(place(first))?;
                    Ok((index, value))
                });
                let pairs: Vec<_> = parsed.collect::<Result<_, StoreError>>()?;
                let asked = |(index, _): &(PageIndex, Bytes)| indexes.binary_search(index).is_ok();
                pairs.into_iter().filter(asked).collect()
            }
            None => {
                let reads = indexes.iter().map(async |index| {
                    let key = keys.staged_page(id, stage, *index);
                    let value = self.txn.get(&key, Isolation::Snapshot).await?;
                    Ok(value.map(|value| (*index, value)))
                });
                let found = side_by_side(reads.collect()).await?;
                found.into_iter().flatten().collect::<Vec<_>>()
            }
        };
        let contents = pairs.into_iter().map(|(index, value)| {
            let value = PageValue::decode(&value, stage.as_bytes(), index);
            match value.map_err(place(index))? {
                PageValue::Raw(content) => Ok((index, content)),
                _ => Err(elsewhere(id, stage).into()),
            }
        });
        contents.collect()
    }

    /// The newest own version of each page at or below a version.
    async fn newest(
        &self,
        id: NamespaceId,
        version: Version,
        indexes: &[PageIndex],
    ) -> Result<Vec<Newest>, Failure> {
        let mut newest = Vec::with_capacity(indexes.len());
        if let Some((first, last)) =
            dense(indexes).filter(|_| self.scanning.load(Ordering::Relaxed))
        {
            self.scan(id, version, indexes, (first, last), &mut newest)
                .await?;
        }
        let rest = &indexes[newest.len()..];
        if let [index] = rest {
            newest.push(self.newest_of(id, version, *index).await?);
        } else {
            let reads = rest.iter().map(|index| self.newest_of(id, version, *index));
            newest.append(&mut side_by_side(reads.collect()).await?);
        }
        Ok(newest)
    }

    async fn newest_of(
        &self,
        id: NamespaceId,
        version: Version,
        index: PageIndex,
    ) -> Result<Newest, Failure> {
        let range = self.ctx.keys.page_until(id, index, version);
        let pairs = self.txn.get_range(&range, options(1, true)).await?;
        let Some((key, value)) = pairs.into_iter().next() else {
            return Ok(Newest { index, own: None });
        };
        let parsed = self.ctx.keys.parse_page(&key);
        let (_, from) = parsed.map_err(corrupt_in(format_args!("namespace {id}")))?;
        Ok(Newest {
            index,
            own: Some((from, value)),
        })
    }

    /// Reads pages by a scan that may meet as many versions again as pages lie in its range. Where it
    /// meets more, it finds some of them only, and there will be no further scans.
    async fn scan(
        &self,
        id: NamespaceId,
        version: Version,
        indexes: &[PageIndex],
        (first, last): (PageIndex, PageIndex),
        newest: &mut Vec<Newest>,
    ) -> Result<(), Failure> {
        let limit = 2 * ((last - first) as usize + 1) + 8;
        let range = self.ctx.keys.page_run_until(id, first, last, version);
        let pairs = self.txn.get_range(&range, options(limit, false)).await?;
        let got_through = pairs.len() < limit;
        let mut met = first;
        let mut wanted = indexes.iter().copied().peekable();
        for (key, value) in pairs {
            let parsed = self.ctx.keys.parse_page(&key);
            let (index, from) = parsed.map_err(corrupt_in(format_args!("namespace {id}")))?;
            met = index;
            while let Some(index) = wanted.next_if(|wanted| *wanted <= index) {
                newest.push(Newest { index, own: None });
            }
            if let Some(page) = newest.last_mut()
                && page.index == index
                && from <= version
            {
                page.own = Some((from, value));
            }
        }
        if got_through {
            newest.extend(wanted.map(|index| Newest { index, own: None }));
        } else {
            // The last page met may have newer versions behind the cut.
            newest.retain(|page| page.index < met);
            self.scanning.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The contents of own page versions.
    async fn contents(&self, id: NamespaceId, pages: Vec<Newest>) -> Result<Vec<Found>, Failure> {
        let found = pages.into_iter().filter_map(|page| {
            let (from, value) = page.own?;
            let place = PagePlace {
                id,
                index: page.index,
                from,
            };
            Some(self.content(place, value))
        });
        side_by_side(found.collect()).await
    }

    /// The content of a stored page, fetched from its stage if it lies there.
    async fn content(&self, place: PagePlace, value: Bytes) -> Result<Found, Failure> {
        let PagePlace { id, index, from } = place;
        let owner = id.as_bytes();
        let value = PageValue::decode(&value, owner, index).map_err(corrupt_in(&place))?;
        let content = match value {
            PageValue::Raw(content) => Some(content),
            PageValue::Absent => None,
            PageValue::Staged { stage, checksum } => {
                let key = self.ctx.keys.staged_page(id, stage, index);
                let staged = self.txn.get(&key, Isolation::Snapshot).await?;
                let staged = staged.unwrap_or_default();
                let staged = PageValue::decode(&staged, stage.as_bytes(), index);
                let PageValue::Raw(content) = staged.map_err(corrupt_in(&place))? else {
                    return Err(elsewhere(id, stage).into());
                };
                let verified = PageValue::verify_staged(owner, index, checksum, &content);
                verified.map_err(corrupt_in(&place))?;
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

/// Notes the pages that a layer cut off as absent; returns the others.
fn cut_off(
    asked: Vec<Newest>,
    count: PageIndex,
    at: Version,
    found: &mut Vec<Found>,
) -> Vec<Newest> {
    let (inside, outside): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|page| page.index < count);
    found.extend(outside.into_iter().map(|page| Found {
        index: page.index,
        from: at,
        content: None,
    }));
    inside
}

/// First and last of indexes, in ascending order, that lie close enough together for a scan.
fn dense(indexes: &[PageIndex]) -> Option<(PageIndex, PageIndex)> {
    let (first, last) = (*indexes.first()?, *indexes.last()?);
    let span = u64::from(last - first) + 1;
    (indexes.len() > 1 && span <= 2 * indexes.len() as u64).then_some((first, last))
}

fn elsewhere(id: NamespaceId, stage: StageId) -> StoreError {
    StoreError::Corrupt {
        reason: format!("a page of stage {stage} of {id} refers elsewhere"),
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
    /// Bytes of content.
    pub(crate) fn len(&self) -> u64 {
        self.content
            .as_ref()
            .map_or(0, |content| content.len() as u64)
    }

    pub(crate) fn into_image(self) -> PageImage {
        PageImage {
            index: self.index,
            from: self.from,
            data: self.content.map(|content| content.to_vec().into()),
        }
    }
}

fn options(limit: usize, reverse: bool) -> RangeOptions {
    RangeOptions {
        limit,
        reverse,
        isolation: Isolation::Snapshot,
    }
}
