//! What a write transaction has written and not yet committed.
//!
//! The newest pages are in memory, what was uploaded is in the store: see [`super::upload`].

use std::sync::Arc;

use mvsqlite_protocol::page::{MAX_PAGE_SIZE, MIN_PAGE_SIZE};
use mvsqlite_protocol::{PageIndex, PageSet, v2::PAGE_1, v2::StageRef};

use super::error::Cause;
use super::page1;
use super::remote::Remote;
use super::snapshot::Snapshot;
use super::upload::{Channel, HeldPages, Page, Upload};

/// What is written.
pub(super) struct WriteSet {
    /// In bytes; `None` until the first page of a new database is written.
    page_size: Option<u32>,
    /// Whether the database was there before.
    existed: bool,
    /// As SQLite wrote them.
    held: HeldPages,
    /// From when on there is something to upload.
    upload: Option<Box<Upload>>,
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

/// Where a page's newest content is.
pub(super) enum Place<'a> {
    /// Here.
    Held(&'a Arc<[u8]>),
    /// In the transaction's stage.
    Staged,
    /// In the snapshot: it was not written.
    Snapshot,
    /// Nowhere: a hole.
    Hole,
}

/// A write set as a commit sends it.
pub(super) struct Gathered {
    /// Ascending, without page 1.
    pub(super) inline: Vec<Page>,
    pub(super) stage: Option<StageRef>,
}

impl WriteSet {
    /// Nothing written over a file of this many pages.
    pub(super) fn new(page_size: Option<u32>, page_count: u32) -> Self {
        let size = u64::from(page_count) * u64::from(page_size.unwrap_or_default());
        Self {
            page_size,
            existed: page_size.is_some(),
            held: HeldPages::default(),
            upload: None,
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

    /// Whether nothing was written. Page 1 is never uploaded, but it may be the only page that was
    /// not.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.stored_len() == 0
    }

    /// Where the newest content of a page is.
    pub(super) fn find(&self, index: PageIndex) -> Place<'_> {
        if let Some(content) = self.held.get(index) {
            return Place::Held(content);
        }
        match &self.upload {
            Some(upload) if upload.stored().contains_key(&index) => Place::Staged,
            _ if u64::from(index) < self.from_snapshot => Place::Snapshot,
            _ => Place::Hole,
        }
    }

    /// A page that [`Self::find`] found in the stage.
    pub(super) fn staged(
        &mut self,
        index: PageIndex,
        remote: &Remote,
        snapshot: &mut Snapshot,
    ) -> Result<Arc<[u8]>, Cause> {
        let (Some(page_size), Some(upload)) = (self.page_size, &mut self.upload) else {
            return Err(Cause::Misuse("a staged page without a stage"));
        };
        let channel = Channel {
            remote,
            snapshot,
            page_size,
        };
        upload.page(index, &self.held, &channel)
    }

    /// Page 1 as SQLite wrote it.
    pub(super) fn page1(&self) -> Option<&[u8]> {
        self.held.get(PAGE_1).map(|page| &**page)
    }

    /// The change counter of the newest page 1 written.
    pub(super) fn change_counter(&self) -> Option<u32> {
        self.page1().map(page1::change_counter)
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
        self.held.write(index, data);
        if let Some(upload) = &mut self.upload {
            upload.written(index);
        }
        self.size = self.size.max(offset + data.len() as u64);
        Ok(())
    }

    fn check_room(
        &self,
        index: PageIndex,
        page_size: u32,
        limits: WriteLimits,
    ) -> Result<(), Cause> {
        if !matches!(self.find(index), Place::Snapshot | Place::Hole) {
            return Ok(());
        }
        let pages = (self.held.len() + self.stored_len()) as u64 + 1;
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
            self.held.cut_off(first);
            if let Some(upload) = &mut self.upload {
                upload.cut_off(first);
            }
        }
        if self.is_empty() && !self.existed {
            // Still a new database: the next page written may have another size.
            self.page_size = None;
            self.upload = None;
        }
    }

    /// Uploads what is due, if anything; waits while there is too much in memory.
    ///
    /// # Errors
    /// If an upload failed, this one or an earlier one.
    pub(super) fn upload(&mut self, remote: &Remote, snapshot: &mut Snapshot) -> Result<(), Cause> {
        let Some(page_size) = self.page_size else {
            return Ok(());
        };
        let mut channel = Channel {
            remote,
            snapshot,
            page_size,
        };
        if self.upload.is_none() && self.held.len() <= channel.beginning() {
            return Ok(());
        }
        let new = || Box::new(Upload::new(&**remote.env.system()));
        let upload = self.upload.get_or_insert_with(new);
        upload.advance(&mut self.held, &mut channel)
    }

    /// Gets the pages 2 to `count` ready for a commit, of which at most `room` bytes inline.
    ///
    /// # Errors
    /// If an upload failed.
    pub(super) fn gather(
        &mut self,
        count: PageIndex,
        room: u64,
        remote: &Remote,
        snapshot: &mut Snapshot,
    ) -> Result<Gathered, Cause> {
        let page_size = self.page_size.unwrap_or_default();
        let mut channel = Channel {
            remote,
            snapshot,
            page_size,
        };
        let room = room / u64::from(page_size.max(1));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let upload = match &mut self.upload {
            None if self.held.len() <= room => None,
            upload => {
                let new = || Box::new(Upload::new(&**remote.env.system()));
                Some(upload.get_or_insert_with(new))
            }
        };
        let stage = match upload {
            Some(upload) => upload.finish(&mut self.held, count, room, &mut channel)?,
            None => None,
        };
        Ok(Gathered {
            inline: self.held_below(count).collect(),
            stage,
        })
    }

    /// Pages 2 to `count` that were written, wherever they are.
    pub(super) fn written(&self, count: PageIndex) -> PageSet {
        let mut written: PageSet = self.staged_below(count).collect();
        written.extend(&self.held.range(1..count).map(|(index, _)| index).collect());
        written
    }

    /// Contents of written pages below `count` that are at hand, without page 1.
    pub(super) fn contents(&self, count: PageIndex) -> Vec<Page> {
        let copies = self.upload.iter().flat_map(|upload| upload.copies(count));
        copies.chain(self.held_below(count)).collect()
    }

    /// Pages below `count` that are in the stage only, as far as memory goes.
    pub(super) fn staged_below(&self, count: PageIndex) -> impl Iterator<Item = PageIndex> {
        let stored = self.upload.iter().flat_map(|upload| upload.stored().keys());
        stored.copied().filter(move |index| *index < count)
    }

    fn held_below(&self, count: PageIndex) -> impl Iterator<Item = Page> {
        let held = self.held.range(1..count.max(1));
        held.map(|(index, content)| (index, Arc::clone(content)))
    }

    fn stored_len(&self) -> usize {
        self.upload
            .as_ref()
            .map_or(0, |upload| upload.stored().len())
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
