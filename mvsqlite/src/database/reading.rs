//! Reading: own writes over own commits over the snapshot.

use std::sync::Arc;

use mvsqlite_protocol::PageIndex;
use mvsqlite_protocol::v2::PAGE_1;

use super::cache::Content;
use super::error::{Cause, Error, Operation};
use super::prefetch::Prefetch;
use super::remote::Remote;
use super::snapshot::Snapshot;
use super::write_set::Place;
use super::{DatabaseFile, Phase, Read, Transaction, page1};

impl DatabaseFile {
    /// `xRead`: any offset and length, under any lock or none. What lies beyond the end of the
    /// file reads as zeros.
    ///
    /// # Errors
    /// If pages could not be fetched.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<Read, Error> {
        self.try_read(offset, buffer)
            .map_err(|cause| self.fail(Operation::Read, cause))
    }

    /// `xFileSize`, in bytes.
    ///
    /// # Errors
    /// If no snapshot is held and none could be taken.
    pub fn size(&mut self) -> Result<u64, Error> {
        self.check_process()
            .map_err(|cause| self.fail(Operation::Read, cause))?;
        match &self.transaction {
            Some(transaction) => Ok(transaction.size()),
            None => {
                let snapshot = self.unlocked_snapshot();
                let snapshot = snapshot.map_err(|cause| self.fail(Operation::Read, cause))?;
                Ok(snapshot.size())
            }
        }
    }

    fn try_read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<Read, Cause> {
        self.check_process()?;
        if self.transaction.is_none() {
            let snapshot = self.unlocked_snapshot()?;
            let counter = self.counter.held();
            let (remote, prefetch) = (&self.remote, &mut self.prefetch);
            let extent = Extent::new(snapshot.size(), snapshot.page_size());
            return extent.read(offset, buffer, |index, _| {
                snapshot_page(remote, &snapshot, index, prefetch, counter)
            });
        }
        self.read_in_transaction(offset, buffer)
    }

    fn read_in_transaction(&mut self, offset: u64, buffer: &mut [u8]) -> Result<Read, Cause> {
        let Some(transaction) = &mut self.transaction else {
            return Err(Cause::Misuse("no transaction"));
        };
        if transaction.kept_back {
            return Err(Cause::CommitGroupPending);
        }
        let (remote, prefetch) = (&self.remote, &mut self.prefetch);
        let (counter, read_set) = (&mut self.counter, &mut self.read_set);
        let extent = Extent::new(transaction.size(), transaction.page_size());
        extent.read(offset, buffer, |index, bytes| {
            let checks_cache =
                bytes.start < page1::CACHE_CHECK.end && bytes.end > page1::CACHE_CHECK.start;
            if index == PAGE_1 && checks_cache && counter.seen() {
                // SQLite drops its cache: what it read before counts no longer.
                read_set.clear();
            }
            read_set.insert(index);
            transaction.page(remote, index, prefetch, counter.held())
        })
    }

    /// The snapshot for a read under no lock: SQLite looks at the header when it opens a file.
    fn unlocked_snapshot(&mut self) -> Result<Snapshot, Cause> {
        if let Some(snapshot) = self.pinned.as_ref().or(self.held.as_ref()) {
            return Ok(snapshot.clone());
        }
        if let Some(snapshot) = &self.opening {
            return Ok(snapshot.clone());
        }
        Ok(self.remote.begin(Some(self.identity), None)?.snapshot)
    }
}

/// The file as far as there is one.
struct Extent {
    size: u64,
    page_size: u64,
}

impl Extent {
    fn new(size: u64, page_size: Option<u32>) -> Self {
        Self {
            size,
            page_size: u64::from(page_size.unwrap_or_default()),
        }
    }

    /// Copies from the pages that a read touches. `page` gets an index and which bytes of the page
    /// are wanted, and answers `None` for a page of zeros.
    fn read(
        &self,
        offset: u64,
        buffer: &mut [u8],
        mut page: impl FnMut(PageIndex, std::ops::Range<u64>) -> Result<Content, Cause>,
    ) -> Result<Read, Cause> {
        let there = self.size.saturating_sub(offset).min(buffer.len() as u64);
        let mut done: u64 = 0;
        while done < there && self.page_size > 0 {
            let at = offset + done;
            let start = at % self.page_size;
            let end = self.page_size.min(start + there - done);
            let Ok(index) = PageIndex::try_from(at / self.page_size) else {
                return Err(Cause::Misuse("a read beyond the last page there can be"));
            };
            let target = &mut buffer[done as usize..(done + end - start) as usize];
            let content = page(index, start..end)?;
            // Every page has the full size: checked where it came in.
            let bytes = content.as_ref();
            match bytes.and_then(|content| content.get(start as usize..end as usize)) {
                Some(bytes) => target.copy_from_slice(bytes),
                None => target.fill(0),
            }
            done += end - start;
        }
        // Behind the end of the file.
        buffer[done as usize..].fill(0);
        match there == buffer.len() as u64 {
            true => Ok(Read::Full),
            false => Ok(Read::Short(there as usize)),
        }
    }
}

/// A page of a snapshot as SQLite gets to see it.
fn snapshot_page(
    remote: &Remote,
    snapshot: &Snapshot,
    index: PageIndex,
    prefetch: &mut Prefetch,
    counter: u32,
) -> Result<Content, Cause> {
    let page = remote.page(snapshot, index, prefetch)?;
    Ok(page.map(|page| match index {
        PAGE_1 => Arc::from(page1::served(&page, counter)),
        _ => page,
    }))
}

impl Transaction {
    /// Size of the file, in bytes.
    pub(super) fn size(&self) -> u64 {
        match (&self.phase, &self.own) {
            (Phase::Writing(writes), _) => writes.size(),
            (_, Some(own)) => own.snapshot.size(),
            _ => self.snapshot.size(),
        }
    }

    /// In bytes; `None` while the file is empty.
    pub(super) fn page_size(&self) -> Option<u32> {
        match (&self.phase, &self.own) {
            (Phase::Writing(writes), _) => writes.page_size(),
            (_, Some(own)) => own.snapshot.page_size(),
            _ => self.snapshot.page_size(),
        }
    }

    /// A page of the file, `None` for a hole.
    fn page(
        &mut self,
        remote: &Remote,
        index: PageIndex,
        prefetch: &mut Prefetch,
        counter: u32,
    ) -> Result<Content, Cause> {
        if let Phase::Writing(writes) = &mut self.phase {
            match writes.find(index) {
                Place::Held(page) => return Ok(Some(Arc::clone(page))),
                Place::Staged => return writes.staged(index, remote, &mut self.snapshot).map(Some),
                Place::Hole => return Ok(None),
                Place::Snapshot => {}
            }
        } else if let Some(own) = &self.own {
            if let Some(page) = own.pages.get(&index) {
                return Ok(Some(Arc::clone(page)));
            }
            if own.stored.contains(index) {
                return snapshot_page(remote, &own.snapshot, index, prefetch, counter);
            }
        }
        snapshot_page(remote, &self.snapshot, index, prefetch, counter)
    }
}
