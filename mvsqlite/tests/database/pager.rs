//! What SQLite's pager does with a file, call by call: its cache and the check of its counter,
//! spills, commits, rollbacks with playback. Sequences as observed with 3.40 and 3.54.

use std::collections::{BTreeMap, BTreeSet};

use mvsqlite::{DatabaseFile, Error, LockLevel, Read, SqliteCode};
use mvsqlite_protocol::{PageIndex, Version};

pub(crate) const PAGE_SIZE: usize = 512;

/// How a COMMIT ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Committed,
    Failed(SqliteCode),
}

pub(crate) struct Pager {
    pub(crate) file: DatabaseFile,
    /// Clean and dirty pages, as SQLite holds them.
    cache: BTreeMap<PageIndex, Vec<u8>>,
    /// Bytes 24..40 as last read or written.
    remembered: Option<[u8; 16]>,
    /// Before-images of this write transaction.
    journal: BTreeMap<PageIndex, Vec<u8>>,
    /// Changed in the cache and not written since.
    dirty: BTreeSet<PageIndex>,
    original_count: u32,
    spilled: bool,
    /// What this transaction made use of, from its cache or not: page and content.
    pub(crate) used: BTreeMap<PageIndex, Vec<u8>>,
    pub(crate) snapshot: Option<Version>,
}

/// A page 1 with a header, and this text in a place that is neither counter nor allocation.
pub(crate) fn new_page1(count: u32, mark: u8) -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&(PAGE_SIZE as u16).to_be_bytes());
    page[18..20].fill(1);
    page[28..32].copy_from_slice(&count.to_be_bytes());
    page[200] = mark;
    page
}

pub(crate) fn page_with(mark: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE];
    page[..8].copy_from_slice(&mark.to_be_bytes());
    page[PAGE_SIZE - 8..].copy_from_slice(&mark.to_be_bytes());
    page
}

impl Pager {
    pub(crate) fn new(mut file: DatabaseFile) -> Self {
        // SQLite looks at the header when it opens a file, under no lock.
        let mut header = [0; 100];
        file.read(0, &mut header).unwrap();
        Self {
            file,
            cache: BTreeMap::new(),
            remembered: None,
            journal: BTreeMap::new(),
            dirty: BTreeSet::new(),
            original_count: 0,
            spilled: false,
            used: BTreeMap::new(),
            snapshot: None,
        }
    }

    /// SHARED.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        self.file.lock(LockLevel::Shared)?;
        self.snapshot = self.file.last_known_version();
        self.used.clear();
        let mut check = [0; 16];
        if let Err(error) = self.file.read(24, &mut check) {
            self.file.unlock(LockLevel::None);
            return Err(error);
        }
        if self.remembered != Some(check) {
            self.cache.clear();
        }
        // Every statement begins with page 1.
        match self.count() {
            Ok(_) => Ok(()),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    /// How many pages there are, by page 1.
    pub(crate) fn count(&mut self) -> Result<u32, Error> {
        if self.file.size()? == 0 && !self.cache.contains_key(&0) {
            return Ok(0);
        }
        let page1 = self.page(0)?;
        Ok(u32::from_be_bytes(page1[28..32].try_into().unwrap()))
    }

    /// A page, from the cache or the file.
    pub(crate) fn page(&mut self, index: PageIndex) -> Result<Vec<u8>, Error> {
        if let Some(page) = self.cache.get(&index).cloned() {
            self.used.entry(index).or_insert_with(|| page.clone());
            return Ok(page);
        }
        let mut page = vec![0xEE; PAGE_SIZE];
        let read = self
            .file
            .read(u64::from(index) * PAGE_SIZE as u64, &mut page)?;
        assert_eq!(read, Read::Full, "page {index} lies beyond the end");
        if index == 0 {
            self.remembered = Some(page[24..40].try_into().unwrap());
            assert_eq!(page[24..28], page[92..96], "the two counters differ");
        }
        self.cache.insert(index, page.clone());
        self.used.entry(index).or_insert_with(|| page.clone());
        Ok(page)
    }

    /// RESERVED.
    pub(crate) fn reserve(&mut self) -> Result<(), Error> {
        self.file.lock(LockLevel::Reserved)?;
        self.journal.clear();
        self.dirty.clear();
        self.original_count = self.count()?;
        self.spilled = false;
        Ok(())
    }

    /// Changes a page in the cache, below or beyond the end.
    pub(crate) fn change(&mut self, index: PageIndex, content: Vec<u8>) -> Result<(), Error> {
        if index < self.original_count {
            let before = self.page(index)?;
            self.journal.entry(index).or_insert(before);
        } else {
            self.journal.entry(index).or_default();
        }
        self.cache.insert(index, content);
        self.dirty.insert(index);
        Ok(())
    }

    /// Changes the page count in page 1.
    pub(crate) fn set_count(&mut self, count: u32) -> Result<(), Error> {
        let mut page1 = self.page(0)?;
        page1[28..32].copy_from_slice(&count.to_be_bytes());
        self.change(0, page1)
    }

    /// Writes what is dirty into the file in the middle of a transaction, and drops it from the
    /// cache.
    pub(crate) fn spill(&mut self) -> Result<(), Error> {
        self.file.lock(LockLevel::Exclusive)?;
        self.spilled = true;
        for index in self.write_dirty()? {
            if index != 0 {
                self.cache.remove(&index);
            }
        }
        Ok(())
    }

    fn write_dirty(&mut self) -> Result<BTreeSet<PageIndex>, Error> {
        for index in &self.dirty {
            let page = &self.cache[index];
            self.file
                .write(u64::from(*index) * PAGE_SIZE as u64, page)?;
            if *index == 0 {
                self.remembered = Some(page[24..40].try_into().unwrap());
            }
        }
        Ok(std::mem::take(&mut self.dirty))
    }

    /// COMMIT. `stay`: another statement keeps SHARED.
    pub(crate) fn commit(&mut self, stay: bool) -> Ended {
        match self.commit_phases() {
            Ok(()) => {
                self.file.commit_phase_two().unwrap();
                self.file.unlock(LockLevel::Shared);
                if !stay {
                    self.end();
                }
                Ended::Committed
            }
            Err(error) => {
                let code = error.sqlite_code();
                self.play_back()
                    .expect("a playback after a failure cannot fail");
                self.file.unlock(LockLevel::Shared);
                if !stay {
                    self.end();
                }
                Ended::Failed(code)
            }
        }
    }

    fn commit_phases(&mut self) -> Result<(), Error> {
        self.file.lock(LockLevel::Exclusive)?;
        // The change counter.
        let mut page1 = self.page(0)?;
        let held = self.remembered.map_or(0, |bytes| {
            u32::from_be_bytes(bytes[..4].try_into().unwrap())
        });
        let counter = held.wrapping_add(1).to_be_bytes();
        page1[24..28].copy_from_slice(&counter);
        page1[92..96].copy_from_slice(&counter);
        page1[96..100].copy_from_slice(&3_040_001u32.to_be_bytes());
        self.change(0, page1)?;
        self.write_dirty()?;
        self.file.sync(None)?;
        let size = u64::from(self.count()?) * PAGE_SIZE as u64;
        if self.file.size()? > size {
            self.file.truncate(size)?;
        }
        // What was cut off is no longer in the cache.
        let count = self.count()?;
        drop(self.cache.split_off(&count));
        Ok(())
    }

    /// ROLLBACK.
    pub(crate) fn rollback(&mut self, stay: bool) {
        if !self.spilled {
            self.restore_cache();
        } else if self.play_back().is_err() {
            // An upload of what was spilled has failed. SQLite gives up its cache, and goes on from
            // what the file holds without this transaction.
            self.cache.clear();
            self.remembered = None;
        }
        self.file.unlock(LockLevel::Shared);
        if !stay {
            self.end();
        }
    }

    fn restore_cache(&mut self) {
        for (index, before) in std::mem::take(&mut self.journal) {
            match before.is_empty() {
                true => self.cache.remove(&index),
                false => self.cache.insert(index, before),
            };
        }
        let original_count = self.original_count;
        drop(self.cache.split_off(&original_count));
    }

    /// A rollback's writes and its SYNC.
    fn play_back(&mut self) -> Result<(), Error> {
        let size = u64::from(self.original_count) * PAGE_SIZE as u64;
        self.file.truncate(size)?;
        for (index, before) in &self.journal {
            if !before.is_empty() {
                let offset = u64::from(*index) * PAGE_SIZE as u64;
                self.file.write(offset, before)?;
                if *index == 0 {
                    self.remembered = Some(before[24..40].try_into().unwrap());
                }
            }
        }
        self.restore_cache();
        self.file.sync(None)
    }

    /// Gives up SHARED.
    pub(crate) fn end(&mut self) {
        self.file.unlock(LockLevel::None);
        self.snapshot = None;
    }
}
