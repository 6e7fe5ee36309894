//! What a commit will write to a namespace and what it relies on there, worked out from its request,
//! page 1 at its base and the list of its staged pages.
//!
//! All of that is immutable (staged pages: as long as the stage's count and sum are what the client
//! said, which the committing transaction checks), so it is worked out once, whatever the number of
//! attempts.

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::PAGE_1;
use mvsqlite_protocol::{PageIndex, PageRun, PageSet};

use super::layer::Layered;
use super::plan::{InlinePage, MemberPlan, impossible};
use super::request::{ConflictRule, Dialect, Effect};
use super::staged::StagedPage;
use crate::context::Bounds;
use crate::error::StoreError;
use crate::layout::PageOneClass;
use crate::page::conflict::{Footprint, merge_to};
use crate::page::page_one::{Header, classify};

/// What a commit will write to a namespace and what it relies on there.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    /// Page 1, if it is written.
    pub page_one: Option<InlinePage<'a>>,
    /// What happens to page 1.
    pub page_one_class: PageOneClass,
    /// Other pages written with their content, ascending.
    pub inline: Vec<InlinePage<'a>>,
    /// Pages written by reference to the stage, ascending.
    pub staged: Vec<StagedPage>,
    /// Staged pages from here on are not part of the commit: they were cut off again.
    pub leftover_from: Option<PageIndex>,
    /// Pages that cease to exist.
    pub removed: Option<PageRun>,
    /// Which of these a layer shows, if there are too many of them to write.
    pub layered: Option<Layered>,
    /// What must not have been changed by others.
    pub footprint: Footprint,
    /// The footprint's pages as few enough ranges.
    pub watched: Vec<PageRun>,
    /// Everything written or removed.
    pub changed: PageSet,
    /// Most chunks that the changelog may tell it in.
    pub changelog_chunks: u16,
}

impl<'a> Prepared<'a> {
    /// Whether page 1 at the base is needed to work it out.
    pub(super) fn needs_base(plan: &MemberPlan<'_>) -> bool {
        match (plan.member.effect, plan.member.dialect) {
            (Effect::Read, _) => false,
            (Effect::Write, Dialect::V2) => true,
            (Effect::Write, Dialect::V1) => plan.page_one.is_some(),
        }
    }

    /// Works it out. `base` is page 1 at the base, `staged` what the stage holds, in pages of
    /// `staged_size` bytes.
    pub(super) fn new(
        plan: &MemberPlan<'a>,
        base: Option<&[u8]>,
        staged: Vec<StagedPage>,
        staged_size: u32,
        limits: &CommitLimits<'_>,
    ) -> Result<Self, StoreError> {
        let extent = Extent::new(plan, base)?;
        extent.expect_page_sizes(plan, staged_size)?;
        let (page_one, page_one_class) = page_one(plan, base);
        // Pages that were written and cut off again within the transaction are not part of it.
        let (staged, leftover): (Vec<_>, Vec<_>) = staged
            .into_iter()
            .partition(|(index, _)| extent.holds(*index));
        let inline = plan.pages.iter().filter(|page| extent.holds(page.index));
        let inline: Vec<_> = inline.copied().collect();
        let removed = extent.removed();
        let layered = Layered::new(&staged, removed, extent.count(), limits);

        let mut runs: Vec<PageRun> = removed.into_iter().collect();
        runs.extend(inline.iter().map(|page| single(page.index)));
        runs.extend(staged.iter().map(|(index, _)| single(*index)));
        let amount = runs.iter().map(|run| u64::from(run.count)).sum();
        let mut changed = page_set(runs)?;
        if changed.len() < amount {
            return Err(StoreError::BadPages {
                reason: "a page is both staged and brought by the commit".to_owned(),
                hint: "this is a fault of the client program: update it",
            });
        }
        let footprint = footprint(&plan.member.rule, &changed, page_one_class)?;
        let watched = match &footprint {
            Footprint::Whole => Vec::new(),
            Footprint::Pages { pages, .. } => merge_to(pages, limits.watched_ranges()),
        };
        if page_one.is_some() {
            changed.insert(PAGE_1);
        }
        Ok(Self {
            page_one,
            page_one_class,
            inline,
            staged,
            leftover_from: leftover.first().map(|(index, _)| *index),
            removed,
            layered,
            footprint,
            watched,
            changed,
            changelog_chunks: limits.changelog_chunks(),
        })
    }
}

impl Prepared<'_> {
    /// Pages of the stage that are written as page versions.
    pub(super) fn staged_versions(&self) -> &[StagedPage] {
        if self.layered.is_some_and(|layered| layered.staged) {
            return &[];
        }
        &self.staged
    }

    /// Pages that cease to exist, if that is written as page versions.
    pub(super) fn removed_versions(&self) -> Option<PageRun> {
        self.removed
            .filter(|_| self.layered.is_none_or(|layered| !layered.removed))
    }

    /// How many page versions are written.
    pub(super) fn versions(&self) -> u64 {
        let removed = self.removed_versions().map_or(0, |run| run.count.into());
        let content = self.inline.len() + usize::from(self.page_one.is_some());
        (content + self.staged_versions().len()) as u64 + removed
    }
}

/// Page 1 as it is written, and its class.
fn page_one<'a>(
    plan: &MemberPlan<'a>,
    base: Option<&[u8]>,
) -> (Option<InlinePage<'a>>, PageOneClass) {
    let Some(page) = plan.page_one else {
        return (None, PageOneClass::Untouched);
    };
    let class = classify(base, page.content);
    match plan.member.dialect {
        // Stored as it comes it would undo what others allocated since the base.
        Dialect::V2 if class == PageOneClass::Untouched && !active(Bug::CountersStored) => {
            (None, class)
        }
        Dialect::V2 => (Some(page), class),
        // Written blindly, it may undo what others changed since the base.
        Dialect::V1 if !judges_page_one(&plan.member.rule) => (Some(page), PageOneClass::Schema),
        // Stored as it comes, it says a page count whether it changed or not, and must undo
        // nobody's growth.
        Dialect::V1 => (Some(page), class.max(PageOneClass::Allocation)),
    }
}

/// Whether others must not have changed page 1.
fn judges_page_one(rule: &ConflictRule) -> bool {
    match rule {
        ConflictRule::Whole => true,
        ConflictRule::Pages {
            read,
            written_count_as_read,
        } => *written_count_as_read || read.contains(PAGE_1),
    }
}

/// What the conflict rule makes of the pages `changed`, page 1 not among them.
fn footprint(
    rule: &ConflictRule,
    changed: &PageSet,
    page_one: PageOneClass,
) -> Result<Footprint, StoreError> {
    let ConflictRule::Pages {
        read,
        written_count_as_read,
    } = rule
    else {
        return Ok(Footprint::Whole);
    };
    let mut pages = without_page_one(read)?;
    let judged = judges_page_one(rule);
    if *written_count_as_read {
        pages.extend(changed);
    }
    Ok(Footprint::Pages {
        pages,
        page_one: judged.then_some(page_one),
    })
}

/// What bounds a commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitLimits<'a> {
    /// What the engine's transactions take.
    pub bounds: &'a Bounds,
    /// How many namespaces share one.
    pub members: u64,
    /// Pages that come inline, over all of them.
    pub inline: u64,
}

impl CommitLimits<'_> {
    /// Whether so many page versions may be written.
    pub(super) fn expect_versions(&self, amount: u64) -> Result<(), StoreError> {
        let limit = self.bounds.transaction_pages;
        if amount <= limit {
            return Ok(());
        }
        Err(StoreError::TooLarge {
            what: "pages brought inline by one commit",
            amount,
            limit,
        })
    }

    /// Most page versions that are written in one namespace besides the inline pages.
    pub(super) fn versions_behind_inline(&self) -> u64 {
        let Bounds {
            transaction_pages,
            layer_bytes,
            page_cost,
            ..
        } = self.bounds;
        let left = transaction_pages.saturating_sub(self.inline);
        left.min(layer_bytes / page_cost) / self.members.max(1)
    }

    /// Most chunks of one namespace's changelog entry.
    fn changelog_chunks(&self) -> u16 {
        let members = u16::try_from(self.members).unwrap_or(u16::MAX);
        (self.bounds.changelog_chunks / members.max(1)).max(1)
    }

    /// Most ranges watched in one namespace.
    fn watched_ranges(&self) -> usize {
        let members = usize::try_from(self.members).unwrap_or(usize::MAX);
        (self.bounds.watched_ranges / members).max(1)
    }
}

/// How large the database was and will be, as far as page 1 tells. Of what follows other rules than
/// SQLite's nothing is known.
#[derive(Debug)]
struct Extent {
    before: Option<Header>,
    after: Option<Header>,
}

impl Extent {
    fn new(plan: &MemberPlan<'_>, base: Option<&[u8]>) -> Result<Self, StoreError> {
        if plan.member.dialect == Dialect::V1 || !plan.member.is_written() {
            return Ok(Self {
                before: None,
                after: None,
            });
        }
        let before = base.map_or(Ok(None), Header::parse)?;
        let after = match plan.page_one {
            Some(page) => Header::parse(page.content)?,
            None => before,
        };
        Ok(Self { before, after })
    }

    /// Whether all pages are of the database's page size, and that is the one it had.
    fn expect_page_sizes(&self, plan: &MemberPlan<'_>, staged_size: u32) -> Result<(), StoreError> {
        let Some(after) = self.after else {
            return Ok(());
        };
        let size = after.page_size;
        if let Some(before) = self.before.filter(|before| before.page_size != size) {
            return Err(StoreError::BadPages {
                reason: format!(
                    "the page size cannot be changed from {} to {size} bytes",
                    before.page_size
                ),
                hint: "dump the database and load it into a new namespace with the other page size",
            });
        }
        let brought = plan.page_one.iter().chain(&plan.pages);
        let mut lengths = brought.map(|page| (page.index, page.content.len()));
        if let Some((index, length)) = lengths.find(|(_, length)| *length != size as usize) {
            let what = format!("has {length} bytes in a database with pages of {size}");
            return Err(impossible(index, &what));
        }
        if staged_size != 0 && staged_size != size {
            return Err(StoreError::BadPages {
                reason: format!(
                    "staged pages of {staged_size} bytes in a database with pages of {size}"
                ),
                hint: "this is a fault of the client program: update it",
            });
        }
        Ok(())
    }

    /// The page count behind the commit, if the header tells it.
    fn count(&self) -> Option<u32> {
        let count = self.after.map(|header| header.page_count);
        count.filter(|count| *count > 0)
    }

    fn holds(&self, index: PageIndex) -> bool {
        self.count().is_none_or(|count| index < count)
    }

    /// The pages that the commit cuts off.
    fn removed(&self) -> Option<PageRun> {
        let before = self.before?.page_count;
        let after = self.count()?;
        let count = before.checked_sub(after).filter(|count| *count > 0)?;
        Some(PageRun {
            first: after,
            count,
        })
    }
}

fn single(first: PageIndex) -> PageRun {
    PageRun { first, count: 1 }
}

fn page_set(runs: Vec<PageRun>) -> Result<PageSet, StoreError> {
    PageSet::try_from(runs).map_err(|error| StoreError::BadPages {
        reason: error.to_string(),
        hint: "this is a fault of the client program: update it",
    })
}

/// Page 1 is judged by what changes in it, not by having been read.
fn without_page_one(pages: &PageSet) -> Result<PageSet, StoreError> {
    if !pages.contains(PAGE_1) {
        return Ok(pages.clone());
    }
    let mut runs = pages.runs().to_vec();
    // The set is sorted, and page 1 is the lowest page there is.
    runs[0].first += 1;
    runs[0].count -= 1;
    if runs[0].count == 0 {
        runs.remove(0);
    }
    page_set(runs)
}
