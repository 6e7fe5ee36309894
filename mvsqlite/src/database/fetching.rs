//! Pages of a snapshot: from the page cache, from a batch on its way, or from the server.
//!
//! What is guessed goes into the cache only; it is served when SQLite asks for it.

use std::sync::Arc;

use mvsqlite_protocol::v2::{Limits, PAGE_1, ReadRequest};
use mvsqlite_protocol::{PageImage, PageIndex, PageSet, Version};

use super::cache::{Content, Identity, PageCache};
use super::disk_cache::Unsaved;
use super::error::Cause;
use super::prefetch::fetcher::Batch;
use super::prefetch::{Prefetch, Reading};
use super::remote::{Remote, bad_reply, lock_cache};
use super::snapshot::{Header, Snapshot};
use crate::environment::Shared;

impl Remote {
    /// A page at the snapshot. `None`: it does not exist there. The pages that SQLite will want next
    /// come along, or are fetched in the background.
    pub(super) fn page(
        &self,
        snapshot: &Snapshot,
        index: PageIndex,
        prefetch: &mut Prefetch,
    ) -> Result<Content, Cause> {
        let Some(header) = &snapshot.content else {
            return Ok(None);
        };
        if index == PAGE_1 {
            prefetch.learn(PAGE_1, &header.page1);
            return Ok(Some(Arc::clone(&header.page1)));
        }
        if index >= header.page_count {
            return Ok(None);
        }
        let shared = self.env.shared();
        let at_hand = |page| cached(&shared, snapshot, page).flatten();
        let reading = Reading {
            index,
            usable: header.usable(),
            most: most_pages(&snapshot.limits, header, self.env.config().cache_bytes),
            at_hand: &at_hand,
        };
        let content = match cached(&shared, snapshot, index) {
            Some(content) => content,
            None => self.missing_page(&shared, snapshot, &reading, prefetch)?,
        };
        if let Some(page) = &content {
            let next = prefetch.read(&reading, page);
            if !next.is_empty() {
                self.fetch_ahead(&shared, snapshot, next, prefetch);
            }
        }
        Ok(content)
    }

    /// A page that is not in the cache.
    fn missing_page(
        &self,
        shared: &Arc<Shared>,
        snapshot: &Snapshot,
        reading: &Reading<'_>,
        prefetch: &mut Prefetch,
    ) -> Result<Content, Cause> {
        let index = reading.index;
        let (identity, version) = (snapshot.identity, snapshot.version);
        let mut wanted = shared.fetcher.claim(identity, version, index);
        if wanted.is_empty()
            && let Some(content) = cached(shared, snapshot, index)
        {
            return Ok(content);
        }
        let mut guessed = prefetch.missing(reading);
        if !wanted.is_empty() {
            guessed.clear();
        }
        self.keep_unknown(shared, snapshot, &mut guessed);
        prefetch.asked(guessed.iter().copied());
        wanted.extend(&guessed.into_iter().collect());
        wanted.insert(index);
        let images = self.fetch(snapshot, wanted)?;
        let found = images.iter().find(|image| image.index == index);
        let content = found.map(|image| image.data.as_ref().map(|data| Arc::from(&data[..])));
        self.keep(shared, snapshot, images)?;
        match content {
            Some(content) => Ok(content),
            // The answer ended before it came to this page.
            None => self.single_page(shared, snapshot, index),
        }
    }

    fn single_page(
        &self,
        shared: &Shared,
        snapshot: &Snapshot,
        index: PageIndex,
    ) -> Result<Content, Cause> {
        let images = self.fetch(snapshot, [index].into_iter().collect())?;
        // The client checked that the answer begins with the first page asked for.
        let content = images.first().and_then(|image| image.data.as_ref());
        let content = content.map(|data| Arc::from(&data[..]));
        self.keep(shared, snapshot, images)?;
        Ok(content)
    }

    /// Has pages fetched in the background, as far as they are not there yet.
    fn fetch_ahead(
        &self,
        shared: &Arc<Shared>,
        snapshot: &Snapshot,
        mut pages: Vec<PageIndex>,
        prefetch: &mut Prefetch,
    ) {
        if self.keep_unknown(shared, snapshot, &mut pages) {
            prefetch.rest();
        }
        let pages: PageSet = pages.into_iter().collect();
        if pages.is_empty() {
            return;
        }
        let remote = self.clone();
        let (at, into) = (snapshot.clone(), Arc::clone(shared));
        let batch = Batch {
            identity: snapshot.identity,
            version: snapshot.version,
            pages: pages.clone(),
            fetch: Box::new(move |pages| remote.fetch_once(&into, &at, pages)),
        };
        if shared.fetcher.start(batch) {
            prefetch.asked(pages.iter());
        }
    }

    /// Leaves those pages that exist and are neither in the cache nor on their way. Whether all were
    /// in the cache.
    fn keep_unknown(
        &self,
        shared: &Shared,
        snapshot: &Snapshot,
        pages: &mut Vec<PageIndex>,
    ) -> bool {
        let count = snapshot.page_count();
        pages.retain(|page| *page < count);
        {
            let cache = lock_cache(shared);
            let (identity, version) = (snapshot.identity, snapshot.version);
            pages.retain(|page| !cache.holds(identity, *page, version));
        }
        let all_there = pages.is_empty();
        pages.retain(|page| {
            !shared
                .fetcher
                .awaits(snapshot.identity, snapshot.version, *page)
        });
        all_there
    }

    /// Fetches pages on a guess: one attempt, and what is wrong is for those to find out who need
    /// them.
    fn fetch_once(&self, shared: &Shared, snapshot: &Snapshot, pages: PageSet) {
        let request = read_request(snapshot, pages);
        if let Ok(images) = self.env.plane().read_once(&self.key, &request)
            && fit(&images, snapshot)
        {
            let _ = self.keep(shared, snapshot, images);
        }
    }

    pub(super) fn fetch(
        &self,
        snapshot: &Snapshot,
        pages: PageSet,
    ) -> Result<Vec<PageImage>, Cause> {
        let request = read_request(snapshot, pages);
        let images = self.env.plane().read(&self.key, &request)?;
        match fit(&images, snapshot) {
            true => Ok(images),
            false => Err(misfit()),
        }
    }

    /// Puts pages that were read at the snapshot into the cache.
    pub(super) fn keep(
        &self,
        shared: &Shared,
        snapshot: &Snapshot,
        images: Vec<PageImage>,
    ) -> Result<(), Cause> {
        if !fit(&images, snapshot) {
            return Err(misfit());
        }
        let page = |image: PageImage| {
            let content: Content = image.data.map(|data| Arc::from(data.into_vec()));
            (image.index, image.from, content)
        };
        // Made before the lock is taken: whoever reads waits for it.
        let pages: Vec<_> = images.into_iter().map(page).collect();
        {
            let mut cache = lock_cache(shared);
            for (index, from, content) in pages {
                cache.insert(snapshot.identity, index, from, snapshot.version, content);
            }
        }
        let worth = (SAVED_AT_LEAST, 2);
        if shared.disk.is_some()
            && lock_cache(shared).is_worth_saving(snapshot.identity, worth.0, worth.1)
        {
            self.save_in_background(shared, snapshot.identity);
        }
        Ok(())
    }

    /// Saves on disk what the page cache has of a namespace, without making anybody wait if there are
    /// threads.
    fn save_in_background(&self, shared: &Shared, identity: Identity) {
        let Some(saving) = Saving::begin(shared, identity) else {
            return;
        };
        let remote = self.clone();
        // Without a thread it stays unsaved until the next time.
        let work = move || saving.finish(&remote);
        let _ = self.env.system().spawn("mvsqlite-save", Box::new(work));
    }

    /// Saves on disk what came into the page cache since the last time, if it is worth while: the
    /// database is closed.
    pub(super) fn save_at_close(&self, identity: Identity) {
        let shared = self.env.shared();
        if shared.disk.is_some()
            && lock_cache(&shared).is_worth_saving(identity, 1, 8)
            && let Some(saving) = Saving::begin(&shared, identity)
        {
            saving.finish(self);
        }
    }
}

/// Pages that come before a namespace is saved on disk while it is open.
const SAVED_AT_LEAST: u64 = 256;

/// A namespace that is being saved on disk: what it held a moment ago.
struct Saving {
    identity: Identity,
    known: Version,
    pages: Vec<Unsaved>,
}

impl Saving {
    fn begin(shared: &Shared, identity: Identity) -> Option<Self> {
        let (known, pages) = lock_cache(shared).take_unsaved(identity)?;
        Some(Self {
            identity,
            known,
            pages,
        })
    }

    fn finish(self, remote: &Remote) {
        let shared = remote.env.shared();
        let Some(disk) = &shared.disk else {
            return;
        };
        let saved = disk.save(&remote.key, self.identity, self.known, self.pages);
        if let Some(saved) = saved {
            lock_cache(&shared).saved(&saved);
        }
    }
}

fn read_request(snapshot: &Snapshot, pages: PageSet) -> ReadRequest {
    ReadRequest {
        namespace: snapshot.identity.namespace,
        version: snapshot.version,
        read_version: snapshot.read_version,
        pages,
        incarnation: Some(snapshot.identity.incarnation),
        stage: None,
    }
}

/// Whether pages can be those of a snapshot.
fn fit(images: &[PageImage], snapshot: &Snapshot) -> bool {
    let page_size = snapshot.page_size().map(|size| size as usize);
    images.iter().all(|image| {
        let size = image.data.as_ref().map(|data| data.len());
        let fits = |size| page_size.is_none_or(|page_size| size == page_size);
        image.from <= snapshot.version && size.is_none_or(fits)
    })
}

fn misfit() -> Cause {
    bad_reply("a page of another size or from a later version")
}

/// A page that is in memory or on disk.
pub(super) fn cached(shared: &Shared, snapshot: &Snapshot, index: PageIndex) -> Option<Content> {
    let (identity, version) = (snapshot.identity, snapshot.version);
    let stored = {
        let mut cache = lock_cache(shared);
        if let Some(content) = cache.get(identity, index, version) {
            return Some(content);
        }
        cache.stored(identity, index, version)?
    };
    let content = stored.read();
    // Of the size that the snapshot has, or it is of no use here.
    let size = snapshot.page_size().map(|size| size as usize);
    let content = content.filter(|page| size.is_none_or(|size| page.len() == size));
    lock_cache(shared).read_from_disk(identity, index, &stored, content.clone());
    content.map(Some)
}

/// The most pages that one read asks for: what the server allows, and what a cache of that many bytes
/// can keep beside two more batches.
fn most_pages(limits: &Limits, header: &Header, cache_bytes: u64) -> u32 {
    let bytes = limits
        .read_bytes
        .min(cache_bytes / PageCache::READ_AHEAD_SHARE);
    let pages = bytes / u64::from(header.page_size);
    u32::try_from(pages)
        .unwrap_or(u32::MAX)
        .clamp(1, limits.read_pages)
}
