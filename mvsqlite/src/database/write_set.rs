//! What a write transaction has written and not yet committed.

use std::collections::BTreeMap;

use mvsqlite_protocol::page::{MAX_PAGE_SIZE, MIN_PAGE_SIZE};
use mvsqlite_protocol::{PageIndex, v2::PAGE_1};

use super::error::Cause;
use super::page1;

/// What is written.
#[derive(Debug)]
pub(super) struct WriteSet {
    /// In bytes; `None` until the first page of a new database is written.
    page_size: Option<u32>,
    /// Whether the database was there before.
    existed: bool,
    /// As SQLite wrote them.
    pages: BTreeMap<PageIndex, Vec<u8>>,
    /// The file's size, in bytes.
    size: u64,
    /// Pages from here on do not come from the snapshot: they were cut off, or never there.
    from_snapshot: u64,
}

/// How much may be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct WriteLimits {
    pub(super) pages: u64,
    pub(super) bytes: u64,
}

impl WriteSet {
    /// Nothing written over a file of this many pages.
    pub(super) fn new(page_size: Option<u32>, page_count: u32) -> Self {
        let size = u64::from(page_count) * u64::from(page_size.unwrap_or_default());
        Self {
            page_size,
            existed: page_size.is_some(),
            pages: BTreeMap::new(),
            size,
            from_snapshot: u64::from(page_count),
        }
    }

    pub(super) fn page_size(&self) -> Option<u32> {
        self.page_size
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(super) fn pages(&self) -> &BTreeMap<PageIndex, Vec<u8>> {
        &self.pages
    }

    pub(super) fn into_pages(self) -> BTreeMap<PageIndex, Vec<u8>> {
        self.pages
    }

    pub(super) fn page(&self, index: PageIndex) -> Option<&[u8]> {
        self.pages.get(&index).map(Vec::as_slice)
    }

    /// Whether a page that was not written is the snapshot's, rather than a hole.
    pub(super) fn is_from_snapshot(&self, index: PageIndex) -> bool {
        u64::from(index) < self.from_snapshot
    }

    /// The change counter of the newest page 1 written.
    pub(super) fn change_counter(&self) -> Option<u32> {
        self.page(PAGE_1).map(page1::change_counter)
    }

    /// Takes one write of SQLite's: a whole page.
    pub(super) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        limits: WriteLimits,
    ) -> Result<(), Cause> {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let page_size = match self.page_size {
            Some(page_size) => page_size,
            None if !length.is_power_of_two() || length < MIN_PAGE_SIZE => {
                return Err(Cause::Misuse("a write that is not a page"));
            }
            None if length > MAX_PAGE_SIZE => return Err(Cause::PageSizeUnsupported(length)),
            None => length,
        };
        let whole = length == page_size && offset.is_multiple_of(u64::from(page_size));
        if !whole {
            return Err(not_a_page(page_size, length));
        }
        let Ok(index) = PageIndex::try_from(offset / u64::from(page_size)) else {
            return Err(Cause::Misuse("a write beyond the last page there can be"));
        };
        if index == PAGE_1 {
            check_page1(data, page_size)?;
        }
        self.check_room(index, page_size, limits)?;
        self.page_size = Some(page_size);
        self.pages.insert(index, data.to_vec());
        self.size = self.size.max(offset + data.len() as u64);
        Ok(())
    }

    fn check_room(
        &self,
        index: PageIndex,
        page_size: u32,
        limits: WriteLimits,
    ) -> Result<(), Cause> {
        if self.pages.contains_key(&index) {
            return Ok(());
        }
        let pages = self.pages.len() as u64 + 1;
        let too_large = |limit, unit| Err(Cause::TooLarge { limit, unit });
        if pages > limits.pages {
            return too_large(limits.pages, "pages");
        }
        if pages * u64::from(page_size) > limits.bytes {
            return too_large(limits.bytes, "bytes");
        }
        Ok(())
    }

    /// Cuts the file off, or makes it longer by a hole.
    pub(super) fn truncate(&mut self, size: u64) {
        self.size = size;
        let Some(page_size) = self.page_size else {
            return;
        };
        let count = size.div_ceil(u64::from(page_size));
        self.from_snapshot = self.from_snapshot.min(count);
        if let Ok(first) = PageIndex::try_from(count) {
            drop(self.pages.split_off(&first));
        }
        if self.pages.is_empty() && !self.existed {
            // Still a new database: the next page written may have another size.
            self.page_size = None;
        }
    }
}

/// SQLite writes pages, all of one size: something else is another page size, which VACUUM and the
/// backup API can try to bring in.
fn not_a_page(page_size: u32, length: u32) -> Cause {
    match length.is_power_of_two() && length >= MIN_PAGE_SIZE && length != page_size {
        true => Cause::PageSizeChange {
            from: page_size,
            to: length,
        },
        false => Cause::Misuse("a write that is not a page"),
    }
}

/// A VACUUM to another page size goes on writing pages of the old size: only the header tells.
fn check_page1(page: &[u8], page_size: u32) -> Result<(), Cause> {
    if !page1::is_sqlite(page) {
        return Err(Cause::NotADatabase);
    }
    match page1::page_size(page) {
        to if to == page_size => Ok(()),
        to => Err(Cause::PageSizeChange {
            from: page_size,
            to,
        }),
    }
}
