//! One namespace of the store, read through the page cache of the process.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use mvsqlite_protocol::page::{MAX_PAGE_SIZE, MIN_PAGE_SIZE};
use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, Concurrency, Limits, PAGE_1, ResolveRequest,
};
use mvsqlite_protocol::{Moment, NamespaceKey, PageImage, ReadVersion};

use super::cache::{Content, Identity, PageCache};
use super::error::Cause;
use super::fetching::cached;
use super::page1;
use super::recent::Seen;
use super::snapshot::{Header, Snapshot};
use crate::client::CallError;
use crate::environment::{Environment, Shared};

/// One namespace of the store.
#[derive(Clone)]
pub(super) struct Remote {
    pub(super) env: Arc<Environment>,
    pub(super) key: NamespaceKey,
}

/// A snapshot and what goes with it for writers.
#[derive(Clone)]
pub(super) struct Begun {
    pub(super) snapshot: Snapshot,
    pub(super) mode: Concurrency,
}

pub(super) fn lock_cache(shared: &Shared) -> MutexGuard<'_, PageCache> {
    // The cache is consistent between calls, and its methods do not panic half way.
    shared.cache.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn bad_reply(text: impl Into<String>) -> Cause {
    Cause::Call(CallError::BadReply(text.into()))
}

impl Remote {
    /// Takes a snapshot of the newest version, or of the newest as of a read version. `expected`:
    /// what this database was opened as.
    pub(super) fn begin(
        &self,
        expected: Option<Identity>,
        as_of: Option<ReadVersion>,
    ) -> Result<Begun, Cause> {
        let shared = self.env.shared();
        let probably = expected.or_else(|| self.restore(&shared));
        let known = probably.and_then(|identity| lock_cache(&shared).known(identity));
        let has_page1 = match (expected, &known) {
            (Some(identity), Some(known)) => {
                let page1 = lock_cache(&shared).get(identity, PAGE_1, known.version);
                page1.is_some()
            }
            _ => false,
        };
        let request = BeginRequest {
            known,
            want_pages: !has_page1,
            as_of,
        };
        let reply = self.env.plane().begin(&self.key, &request)?;
        let identity = Identity {
            incarnation: reply.incarnation,
            namespace: reply.namespace,
        };
        if expected.is_some_and(|expected| expected != identity) {
            return Err(Cause::Replaced);
        }
        {
            let mut cache = lock_cache(&shared);
            // A reply about another namespace than the one named says nothing about what is known.
            let sent = request
                .known
                .as_ref()
                .filter(|_| probably == Some(identity));
            let changed = reply.changed.as_ref().filter(|_| sent.is_some());
            cache.began(identity, sent, reply.version, changed);
        }
        self.finish_begin(&shared, identity, reply, request.want_pages)
    }

    /// As [`Remote::begin`], or a snapshot that this process took as recently as the program allows
    /// and that is not behind `seen`.
    pub(super) fn begin_recent(
        &self,
        expected: Identity,
        staleness: Duration,
        seen: Seen,
    ) -> Result<Begun, Cause> {
        let shared = self.env.shared();
        let now = self.env.system().now();
        let epoch = {
            let recent = shared.lock_recent();
            if let Some(begun) = recent.get(expected, now, staleness, seen) {
                return Ok(begun);
            }
            recent.epoch()
        };
        let begun = self.begin(Some(expected), None)?;
        shared.lock_recent().put(epoch, now, &begun);
        Ok(begun)
    }

    /// The next transaction of this process on the namespace asks for the newest version.
    pub(super) fn forget_recent(&self, identity: Identity) {
        self.env.shared().lock_recent().forget(identity);
    }

    fn finish_begin(
        &self,
        shared: &Shared,
        identity: Identity,
        reply: BeginReply,
        asked_for_pages: bool,
    ) -> Result<Begun, Cause> {
        let mut snapshot = Snapshot {
            identity,
            version: reply.version,
            read_version: reply.read_version,
            content: None,
            limits: sane(reply.limits),
        };
        let page1 = reply.pages.iter().find(|image| image.index == PAGE_1);
        let page1 = page1.and_then(|image| image.data.as_ref());
        let page1: Content = page1.map(|data| Arc::from(data.as_slice()));
        let mut images = reply.pages;
        let page1 = match page1 {
            Some(page1) => Some(page1),
            // Asked for and not there.
            None if asked_for_pages && reply.page_size == 0 => None,
            None => self.page1(&snapshot, &mut images)?,
        };
        snapshot.content = header(page1, reply.page_size)?;
        self.keep(shared, &snapshot, images)?;
        Ok(Begun {
            snapshot,
            mode: reply.mode,
        })
    }

    /// The version that a moment is; its snapshot without content.
    pub(super) fn resolve_version(&self, moment: Moment) -> Result<(Snapshot, u32), Cause> {
        let request = ResolveRequest { moment };
        let reply = self.env.plane().resolve(&self.key, &request)?;
        let snapshot = Snapshot {
            identity: Identity {
                incarnation: reply.incarnation,
                namespace: reply.namespace,
            },
            version: reply.version,
            read_version: reply.read_version,
            content: None,
            limits: sane(reply.limits),
        };
        Ok((snapshot, reply.page_size))
    }

    /// Takes over what the disk cache has of the namespace; returns what it was then.
    fn restore(&self, shared: &Shared) -> Option<Identity> {
        let saved = shared.disk.as_ref()?.load(&self.key)?;
        lock_cache(shared).restore(&saved);
        Some(saved.identity())
    }

    /// A snapshot of the past.
    pub(super) fn resolve(&self, moment: Moment) -> Result<Snapshot, Cause> {
        self.restore(&self.env.shared());
        let (mut snapshot, page_size) = self.resolve_version(moment)?;
        let mut images = Vec::new();
        let page1 = self.page1(&snapshot, &mut images)?;
        snapshot.content = header(page1, page_size)?;
        self.keep(&self.env.shared(), &snapshot, images)?;
        Ok(snapshot)
    }

    /// Page 1 in stored form, whatever its size. What was fetched for it is added to `images`.
    fn page1(&self, snapshot: &Snapshot, images: &mut Vec<PageImage>) -> Result<Content, Cause> {
        let cached = cached(&self.env.shared(), snapshot, PAGE_1);
        if let Some(page1) = cached {
            return Ok(page1);
        }
        *images = self.fetch(snapshot, [PAGE_1].into_iter().collect())?;
        let page1 = images.first().and_then(|image| image.data.as_ref());
        Ok(page1.map(|data| Arc::from(data.as_slice())))
    }
}

/// A server that allows nothing at all would make loops that never end.
fn sane(limits: Limits) -> Limits {
    Limits {
        read_pages: limits.read_pages.max(1),
        ..limits
    }
}

/// What a stored page 1 says. `claimed`: the page size by the server, 0 for no database.
fn header(page1: Content, claimed: u32) -> Result<Option<Header>, Cause> {
    let Some(page1) = page1 else {
        return match claimed {
            0 => Ok(None),
            _ => Err(bad_reply("a database without a page 1")),
        };
    };
    if !page1::is_sqlite(&page1) {
        return Err(Cause::NotADatabase);
    }
    let size = page1::page_size(&page1);
    if !size.is_power_of_two() || !(MIN_PAGE_SIZE..=MAX_PAGE_SIZE).contains(&size) {
        return Err(Cause::PageSizeUnsupported(size));
    }
    if size != claimed || page1.len() != size as usize {
        return Err(bad_reply("a page 1 whose size is not what its header says"));
    }
    Ok(Some(Header::new(page1, size)))
}
