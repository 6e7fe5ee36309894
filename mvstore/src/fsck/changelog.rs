//! The changelog of a namespace, in windows that fit into memory: page versions are compared with the
//! entries of one window at a time.

use mvsqlite_protocol::v2::PAGE_1;
use mvsqlite_protocol::{NamespaceId, PageIndex, PageSet, Version};

use super::facts::Facts;
use super::namespace::Round;
use super::reader::Walk;
use super::{Check, FsckError, Kind};
use crate::context::{Context, Failure, side_by_side};
use crate::error::StoreError;
use crate::kv::{Isolation, Transaction};
use crate::layout::{ChangeEntry, ChangeReader, LayerKind, PageKey, PageOneClass, Pages};
use crate::page::{Header, Lineage, View, page_one_at, predecessor, successor};

/// Entries and page runs of a window: some tens of megabytes.
const WINDOW: usize = 1 << 20;
/// Pages looked for at once.
const PROBES: usize = 64;

/// A commit's entry.
pub(super) struct Entry {
    pub version: Version,
    /// `None`: everything.
    pub pages: Option<PageSet>,
    /// Pages that it lists of which a version was found.
    pub seen: u64,
}

/// The entries of a stretch of history above the horizon.
pub(super) struct Window {
    /// The stretch begins behind this version, and ends at that one.
    after: Version,
    until: Option<Version>,
    /// Ascending.
    entries: Vec<Entry>,
}

impl Window {
    /// Where the first one begins.
    pub(super) fn first(facts: &Facts) -> Version {
        facts.guard.oldest(facts.id)
    }

    /// Where the next one begins.
    pub(super) fn next(&self) -> Option<Version> {
        self.until
    }

    /// Whether a version lies in the stretch.
    pub(super) fn covers(&self, version: Version) -> bool {
        version > self.after && self.until.is_none_or(|until| version <= until)
    }

    pub(super) fn entry(&mut self, version: Version) -> Option<&mut Entry> {
        let at = self
            .entries
            .binary_search_by_key(&version, |entry| entry.version);
        at.ok().map(|at| &mut self.entries[at])
    }
}

/// What the walk over the chunks is at.
#[derive(Default)]
struct Chunks {
    reader: ChangeReader,
    open: Option<Version>,
    /// Chunks of this version are passed over.
    torn: Option<Version>,
}

/// Loads the entries above `after`, as many as a window holds, and judges them; with those of the
/// first window also the older ones.
pub(super) async fn load(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    after: Version,
) -> Result<Window, FsckError> {
    let keys = &check.ctx.keys;
    let id = round.facts.id;
    let is_first = after == Window::first(&round.facts);
    let first = if is_first {
        Version::ZERO
    } else {
        successor(after)
    };
    let mut window = Window {
        after,
        until: None,
        entries: Vec::new(),
    };
    let mut weight = 0;
    let mut chunks = Chunks::default();
    let mut walk = Walk::over(keys.changes(id, first, None));
    while let Some(pairs) = walk.next(check, &mut round.reader).await? {
        for (key, value) in &pairs {
            let Some((_, PageKey::Change(version, chunk))) = keys.page_key(key) else {
                let detail = "it is none of the store's keys";
                round.find(Kind::UnknownKey, keys.describe(key), detail);
                continue;
            };
            for entry in chunks.push(round, version, chunk, value) {
                check.counts.commits += 1;
                if entry.version > after {
                    weight += 1 + entry.pages.as_ref().map_or(0, |pages| pages.runs().len());
                    window.entries.push(entry);
                }
            }
            if weight > WINDOW {
                window.until = window.entries.last().map(|entry| entry.version);
                return Ok(window);
            }
        }
    }
    if let Some(open) = chunks.open {
        let torn = chunks.give_up(round, open);
        window
            .entries
            .extend(Some(torn).filter(|torn| torn.version > after));
    }
    Ok(window)
}

impl Chunks {
    /// Takes the next chunk; returns the entries that are complete now, or that never will be.
    fn push(
        &mut self,
        round: &mut Round<'_>,
        version: Version,
        chunk: u16,
        value: &[u8],
    ) -> Vec<Entry> {
        let mut entries = Vec::new();
        if self.torn == Some(version) {
            return entries;
        }
        if let Some(open) = self.open.filter(|open| *open != version) {
            entries.push(self.give_up(round, open));
        }
        match self.reader.push(version, chunk, value) {
            Ok(None) => self.open = Some(version),
            Ok(Some((version, entry))) => {
                self.open = None;
                judge(round, version, &entry);
                entries.push(Entry {
                    version,
                    pages: match entry.pages {
                        Pages::Listed(pages) => Some(pages),
                        Pages::Everything => None,
                    },
                    seen: 0,
                });
            }
            Err(_) => entries.push(self.give_up(round, version)),
        }
        entries
    }

    /// Tells that an entry is torn. Which pages it lists is not known.
    fn give_up(&mut self, round: &mut Round<'_>, version: Version) -> Entry {
        let detail = "its chunks do not make an entry";
        note(round, version);
        let key = PageKey::Change(version, 0).to_string();
        let found = super::Finding::new(Kind::ChangelogTorn, key, detail);
        round.found.push(found.version(version));
        self.reader = ChangeReader::default();
        self.open = None;
        self.torn = Some(version);
        Entry {
            version,
            pages: None,
            seen: 0,
        }
    }
}

/// Notes that there is an entry at a version.
fn note(round: &mut Round<'_>, version: Version) {
    round.facts.needed.remove(&version);
    if version <= round.facts.head || !round.reader.is_torn() {
        round.newest = round.newest.max(version);
    }
}

fn judge(round: &mut Round<'_>, version: Version, entry: &ChangeEntry) {
    note(round, version);
    let wrong = if version <= round.facts.id.as_version() {
        Some("it lies before the namespace's creation")
    } else if let Pages::Listed(pages) = &entry.pages
        && pages.contains(PAGE_1) != (entry.page_one != PageOneClass::Untouched)
    {
        Some("whether it lists page 1 and what it says of page 1 do not agree")
    } else {
        None
    };
    if let Some(detail) = wrong {
        let key = PageKey::Change(version, 0).to_string();
        let found = super::Finding::new(Kind::ChangelogWrong, key, detail);
        round.found.push(found.version(version));
    }
}

/// The head is the newest entry, and whoever needs an entry has it.
pub(super) async fn expect_needed(
    _check: &mut Check<'_>,
    round: &mut Round<'_>,
) -> Result<(), FsckError> {
    let (head, newest) = (round.facts.head, round.newest);
    if newest != head {
        let detail = format!("it is {head}, and the newest changelog entry's version {newest}");
        round.find(Kind::HeadWrong, PageKey::Head, detail);
    }
    let id = round.facts.id.as_version();
    for (version, whose) in std::mem::take(&mut round.facts.needed) {
        if version == id {
            continue;
        }
        let key = PageKey::Change(version, 0).to_string();
        let detail = format!("there is none, and {whose} stands at it");
        let found = super::Finding::new(Kind::ChangelogMissing, key, detail);
        round.found.push(found.version(version));
    }
    Ok(())
}

/// Every page that the entries list has a version, or need not have one.
pub(super) async fn expect_all(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    window: &Window,
) -> Result<(), FsckError> {
    for entry in &window.entries {
        let Some(pages) = &entry.pages else { continue };
        if entry.seen >= pages.len() || entry.version > round.facts.head {
            continue;
        }
        // An entry may list four billion pages in one run: never all of them at once.
        let mut indexes = pages.iter();
        let mut missing = pages.len() - entry.seen;
        loop {
            let some: Vec<PageIndex> = indexes.by_ref().take(PROBES).collect();
            if some.is_empty() {
                break;
            }
            for index in absent_of(check, round, entry.version, &some).await? {
                missing = missing.saturating_sub(1);
                if !may_be_absent(check, round, entry.version, index).await? {
                    let key = PageKey::Page(index, entry.version).to_string();
                    let detail = "the commit's entry lists the page, and it is not there";
                    let found = super::Finding::new(Kind::PageMissing, key, detail);
                    round.found.push(found.version(entry.version).page(index));
                }
            }
            if missing == 0 || round.found.len() > check.options.most_findings {
                break;
            }
        }
    }
    Ok(())
}

/// Of these pages, those without a version of their own there.
async fn absent_of(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    version: Version,
    indexes: &[PageIndex],
) -> Result<Vec<PageIndex>, FsckError> {
    let (ctx, id) = (check.ctx, round.facts.id);
    loop {
        let txn = round.reader.txn();
        let reads = indexes.iter().map(async |index| {
            let key = ctx.keys.page_at(id, *index, version);
            Ok(txn.get(&key, Isolation::Snapshot).await?.is_none())
        });
        match side_by_side(reads.collect()).await {
            Ok(absent) => {
                let absent = indexes.iter().zip(absent).filter(|(_, absent)| *absent);
                return Ok(absent.map(|(index, _)| *index).collect());
            }
            Err(failure) => round.reader.renew(failure)?,
        }
    }
}

/// Whether a page that a commit changed need not have a version there.
async fn may_be_absent(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    version: Version,
    index: PageIndex,
) -> Result<bool, FsckError> {
    loop {
        let txn = round.reader.txn();
        match try_may_be_absent(check.ctx, txn, round.facts.id, version, index).await {
            Ok(may) => return Ok(may),
            // What it would have to know is damaged, which is told where that lies.
            Err(Failure::Refused(StoreError::Corrupt { .. } | StoreError::BadPages { .. })) => {
                return Ok(true);
            }
            Err(failure) => round.reader.renew(failure)?,
        }
    }
}

async fn try_may_be_absent(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    version: Version,
    index: PageIndex,
) -> Result<bool, Failure> {
    let Some(guard) = ctx.guard(txn, id, Isolation::Snapshot).await? else {
        return Ok(true);
    };
    let layer = guard.layers.iter().find(|layer| layer.at == version);
    if let Some(LayerKind::Stage { stage, count, cuts }) = layer.map(|layer| layer.kind) {
        if cuts && index >= count {
            return Ok(true);
        }
        if let Some(stage) = stage.filter(|_| index < count) {
            let key = ctx.keys.staged_page(id, stage, index);
            if txn.get(&key, Isolation::Snapshot).await?.is_some() {
                return Ok(true);
            }
        }
    }
    // Cut off by a commit, though it was not there to be seen.
    let page_one = page_one_at(ctx, txn, id, &guard, version).await?;
    let header = match &page_one {
        Some(page) => Header::parse(&page.content)?,
        None => None,
    };
    if header.is_none_or(|header| header.page_count == 0 || index < header.page_count) {
        return Ok(false);
    }
    let lineage = Lineage::read(ctx, txn, id, &guard).await?;
    let view = View::new(ctx, txn, &lineage);
    let before = view.find(id, predecessor(version), &[index]).await?;
    Ok(before.iter().all(|page| page.content.is_none()))
}
