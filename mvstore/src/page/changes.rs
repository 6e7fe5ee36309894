//! Walking the changelog of a namespace.

use mvsqlite_protocol::{NamespaceId, PageRun, PageSet, Version};

use crate::context::{Context, Failure, corrupt_in};
use crate::kv::{Isolation, RangeOptions, Transaction};
use crate::layout::{ChangeEntry, ChangeReader, Malformed, Pages};

/// Most chunks read at once. More than an entry can have, so that each batch gets on.
const CHUNKS_A_BATCH: usize = 512;

/// Most chunks that an entry may be cut into.
pub(crate) const MAX_CHUNKS: u16 = 128;

/// A stretch of the changelog.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Whole entries, ascending.
    pub entries: Vec<(Version, ChangeEntry)>,
    /// Nothing follows.
    pub is_last: bool,
}

/// Reads entries from `first` on, up to and including `last`, as far as one batch goes.
///
/// Entries are immutable and read without conflict; whoever relies on there being no further ones
/// says so to the engine in other ways.
pub(crate) async fn read_batch(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    first: Version,
    last: Option<Version>,
) -> Result<Batch, Failure> {
    let range = ctx.keys.changes(id, first, last);
    if range.is_empty() {
        return Ok(Batch {
            entries: Vec::new(),
            is_last: true,
        });
    }
    let options = RangeOptions {
        limit: CHUNKS_A_BATCH,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let pairs = txn.get_range(&range, options).await?;
    let is_last = pairs.len() < CHUNKS_A_BATCH;
    let place = || corrupt_in(format!("the changelog of namespace {id}"));
    let mut reader = ChangeReader::default();
    let mut entries = Vec::new();
    for (key, value) in &pairs {
        let (version, chunk) = ctx.keys.parse_change(key).map_err(place())?;
        entries.extend(reader.push(version, chunk, value).map_err(place())?);
    }
    // A batch without a whole entry would be read again for ever.
    if (is_last && reader.is_incomplete()) || (!is_last && entries.is_empty()) {
        let torn = Malformed::Short {
            what: "a changelog entry",
        };
        return Err(place()(torn).into());
    }
    Ok(Batch { entries, is_last })
}

/// The newest commit at or below a version that the read version has passed; the namespace's id if
/// there is none.
pub(crate) async fn newest_until(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    version: Version,
) -> Result<Version, Failure> {
    let range = ctx.keys.changes(id, id.as_version(), Some(version));
    if range.is_empty() {
        return Ok(id.as_version());
    }
    let options = RangeOptions {
        limit: 1,
        reverse: true,
        isolation: Isolation::Snapshot,
    };
    let pairs = txn.get_range(&range, options).await?;
    let Some((key, _)) = pairs.first() else {
        return Ok(id.as_version());
    };
    let parsed = ctx.keys.parse_change(key);
    let (newest, _) = parsed.map_err(corrupt_in(format_args!("the changelog of {id}")))?;
    Ok(newest)
}

/// The version behind this one.
pub(crate) fn successor(version: Version) -> Version {
    let mut bytes = *version.as_bytes();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Version::from_bytes(bytes);
        }
    }
    // There is none behind the last; no engine ever gives that one out.
    version
}

/// The version before this one.
pub(crate) fn predecessor(version: Version) -> Version {
    let mut bytes = *version.as_bytes();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != u8::MAX {
            break;
        }
    }
    Version::from_bytes(bytes)
}

/// Adds up what a stretch of commits changed, as long as that is little enough to tell.
#[derive(Debug)]
pub(crate) struct Interval {
    runs: Option<Vec<PageRun>>,
    commits: usize,
}

impl Interval {
    /// Most commits that are added up.
    pub(crate) const MAX_COMMITS: usize = 4096;
    /// Most page runs that are told.
    const MAX_RUNS: usize = 16_384;

    pub(crate) fn new() -> Self {
        Self {
            runs: Some(Vec::new()),
            commits: 0,
        }
    }

    /// Adds a commit's pages.
    pub(crate) fn add(&mut self, entry: &ChangeEntry) {
        self.commits += 1;
        let Some(runs) = &mut self.runs else {
            return;
        };
        match &entry.pages {
            Pages::Listed(pages) if self.commits <= Self::MAX_COMMITS => {
                runs.extend_from_slice(pages.runs());
                if runs.len() > 2 * Self::MAX_RUNS {
                    self.compact();
                }
            }
            _ => self.runs = None,
        }
    }

    /// Whether it cannot be told any more.
    pub(crate) fn is_unknown(&self) -> bool {
        self.runs.is_none()
    }

    /// What changed; `None` is unknown.
    pub(crate) fn finish(mut self) -> Option<PageSet> {
        self.compact();
        self.runs.and_then(|runs| PageSet::try_from(runs).ok())
    }

    /// Joins overlapping runs; gives up if too many are left.
    fn compact(&mut self) {
        // The runs come from page sets, so they are well-formed.
        let joined = self
            .runs
            .take()
            .and_then(|runs| PageSet::try_from(runs).ok());
        self.runs = joined
            .map(Vec::from)
            .filter(|runs: &Vec<PageRun>| runs.len() <= Self::MAX_RUNS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::PageOneClass;

    fn entry(pages: Pages) -> ChangeEntry {
        ChangeEntry {
            pages,
            page_one: PageOneClass::Untouched,
            millis: 0,
            sum: None,
        }
    }

    #[test]
    fn the_successor_carries_into_the_commit_version() {
        assert_eq!(successor(Version::new(1, 2)), Version::new(1, 3));
        assert_eq!(successor(Version::new(1, u16::MAX)), Version::new(2, 0));
    }

    #[test]
    fn the_predecessor_borrows_from_the_commit_version() {
        assert_eq!(predecessor(Version::new(2, 1)), Version::new(2, 0));
        assert_eq!(predecessor(Version::new(2, 0)), Version::new(1, u16::MAX));
    }

    #[test]
    fn an_interval_is_the_union_of_its_commits() {
        let mut interval = Interval::new();
        for pages in [[1, 5], [5, 6]] {
            interval.add(&entry(Pages::Listed(pages.into_iter().collect())));
        }
        assert_eq!(interval.finish(), Some([1, 5, 6].into_iter().collect()));
    }

    #[test]
    fn an_interval_that_is_too_much_to_tell_is_unknown() {
        let mut everything = Interval::new();
        everything.add(&entry(Pages::Everything));
        assert!(everything.is_unknown());
        assert_eq!(everything.finish(), None);

        let mut commits = Interval::new();
        (0..=Interval::MAX_COMMITS)
            .for_each(|_| commits.add(&entry(Pages::Listed(PageSet::new()))));
        assert_eq!(commits.finish(), None);

        let mut scattered = Interval::new();
        let pages = (0..40_000).map(|page| page * 2).collect();
        scattered.add(&entry(Pages::Listed(pages)));
        assert_eq!(scattered.finish(), None);
    }
}
