//! The page cache of a process, shared by all its databases.
//!
//! An entry is a page's content over an interval of versions. For each namespace the cache knows
//! one version, `known`: everything that changed up to there was reported to it. An entry is
//! either *current*, good through `known` however far that moves, or it is good through a fixed
//! version. When `known` moves, exactly the entries of changed pages stop being current.
//!
//! Invariants:
//! - a current entry was told about every change of its page by others up to `known`;
//! - own commits above `known` are named to the server, which then does not report their pages:
//!   so an entry of such a page is current only if it is that commit's content;
//! - own pages enter only after a commit that definitely succeeded.
//!
//! Nothing here does I/O; the lock around it is held for moments only.

#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;

use std::collections::HashMap;
use std::sync::Arc;

use lru::LruCache;
use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::{KnownState, MAX_OWN_COMMITS};
use mvsqlite_protocol::{Incarnation, NamespaceId, PageIndex, PageSet, Version};

use super::disk_cache::{SavedPages, Source, Stored, Unsaved};

/// What an entry takes besides its page, in bytes, roughly.
const ENTRY_OVERHEAD: u64 = 128;
/// Namespaces remembered at once; beyond that the cache starts afresh.
const MAX_NAMESPACES: usize = 4096;

/// A namespace of a store, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) incarnation: Incarnation,
    pub(crate) namespace: NamespaceId,
}

/// A page's content; `None` where the page does not exist.
pub(crate) type Content = Option<Arc<[u8]>>;

/// See the module.
pub(crate) struct PageCache {
    budget: u64,
    bytes: u64,
    namespaces: HashMap<Identity, Namespace>,
    pages: LruCache<(Slot, PageIndex), Entry>,
    next_slot: Slot,
}

/// Stands for an [`Identity`] in keys.
type Slot = u64;

struct Namespace {
    slot: Slot,
    known: Version,
    /// Entries that came since they were last saved on disk, and those that were saved then.
    unsaved: u64,
    saved: u64,
    /// Own commits above `known`, oldest first, with the pages they changed.
    own: Vec<(Version, PageSet)>,
}

struct Entry {
    /// `None`: on disk only.
    content: Option<Content>,
    /// Where it is on disk, if it is there.
    stored: Option<Stored>,
    from: Version,
    through: Through,
}

#[derive(Clone, Copy)]
enum Through {
    /// The namespace's `known`, and at least the entry's own `from`.
    Current,
    Fixed(Version),
}

/// A commit of this process that definitely succeeded.
pub(crate) struct OwnCommit<'a> {
    /// The version it read.
    pub(crate) base: Version,
    /// The version it made.
    pub(crate) version: Version,
    /// See [`mvsqlite_protocol::v2::CommitReply::seen`].
    pub(crate) seen: Version,
    /// See [`mvsqlite_protocol::v2::CommitReply::changed`].
    pub(crate) changed: Option<&'a PageSet>,
    /// Every page it changed, those it cut off included.
    pub(crate) written: PageSet,
    /// The content of some of them.
    pub(crate) contents: Vec<(PageIndex, Arc<[u8]>)>,
}

impl Entry {
    fn through(&self, known: Version) -> Version {
        match self.through {
            Through::Current => known.max(self.from),
            Through::Fixed(version) => version,
        }
    }

    fn is_good(&self, version: Version, known: Version) -> bool {
        self.from <= version && version <= self.through(known)
    }

    fn size(&self) -> u64 {
        let content = self.content.as_ref().and_then(|content| content.as_ref());
        ENTRY_OVERHEAD + content.map_or(0, |page| page.len() as u64)
    }
}

impl PageCache {
    /// The part of a cache's budget that one batch of guesses may fill: with two more on their way
    /// they do not push each other out before they are read.
    pub(crate) const READ_AHEAD_SHARE: u64 = 4;

    /// A cache of at most this many bytes; 0 keeps nothing.
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            bytes: 0,
            namespaces: HashMap::new(),
            pages: LruCache::unbounded(),
            next_slot: 0,
        }
    }

    /// Pages held, the bytes they take, and the most that they may take.
    pub(crate) fn fill(&self) -> (usize, u64, u64) {
        (self.pages.len(), self.bytes, self.budget)
    }

    /// What to tell the server at `begin`.
    pub(crate) fn known(&self, identity: Identity) -> Option<KnownState> {
        let namespace = self.namespaces.get(&identity)?;
        Some(KnownState {
            incarnation: identity.incarnation,
            namespace: identity.namespace,
            version: namespace.known,
            own: namespace.own.iter().map(|(version, _)| *version).collect(),
        })
    }

    /// The page at this version.
    pub(crate) fn get(
        &mut self,
        identity: Identity,
        page: PageIndex,
        version: Version,
    ) -> Option<Content> {
        let namespace = self.namespaces.get(&identity)?;
        let entry = self.pages.get(&(namespace.slot, page))?;
        let good = entry.is_good(version, namespace.known);
        entry.content.as_ref().filter(|_| good).cloned()
    }

    /// Whether the page at this version is in memory or on disk.
    pub(crate) fn holds(&self, identity: Identity, page: PageIndex, version: Version) -> bool {
        self.peek(identity, page, version).is_some()
    }

    /// Where the page at this version is on disk, if it is there alone.
    pub(crate) fn stored(
        &self,
        identity: Identity,
        page: PageIndex,
        version: Version,
    ) -> Option<Stored> {
        let entry = self.peek(identity, page, version)?;
        entry.stored.clone().filter(|_| entry.content.is_none())
    }

    fn peek(&self, identity: Identity, page: PageIndex, version: Version) -> Option<&Entry> {
        let namespace = self.namespaces.get(&identity)?;
        let entry = self.pages.peek(&(namespace.slot, page))?;
        entry.is_good(version, namespace.known).then_some(entry)
    }

    /// What was read from disk for an entry; `None`: it is not there as it was written.
    pub(crate) fn read_from_disk(
        &mut self,
        identity: Identity,
        page: PageIndex,
        stored: &Stored,
        content: Option<Arc<[u8]>>,
    ) {
        let Some(namespace) = self.namespaces.get(&identity) else {
            return;
        };
        let key = (namespace.slot, page);
        let Some(entry) = self.pages.get_mut(&key) else {
            return;
        };
        let still = entry.stored.as_ref().is_some_and(|now| now.is(stored));
        if !still || entry.content.is_some() {
            return;
        }
        match content {
            Some(content) => {
                self.bytes += content.len() as u64;
                entry.content = Some(Some(content));
                self.make_room();
            }
            None => {
                if let Some(entry) = self.pages.pop(&key) {
                    self.bytes -= entry.size();
                }
            }
        }
    }

    /// Takes over what is kept on disk of a namespace that nothing is known of.
    pub(crate) fn restore(&mut self, saved: &Arc<SavedPages>) {
        let identity = saved.identity();
        if self.budget == 0 || self.namespaces.contains_key(&identity) {
            return;
        }
        self.add_namespace(identity, saved.version());
        let mut count = 0;
        for (page, from, stored) in saved.stored() {
            let entry = Entry {
                content: None,
                stored: Some(stored),
                from,
                through: Through::Current,
            };
            self.put(identity, page, entry);
            count += 1;
        }
        self.set_saved(identity, count);
    }

    /// Whether so much came since the last time that a namespace is worth saving on disk: more than
    /// one part in `share` of what was saved then, and at least `least` pages.
    pub(crate) fn is_worth_saving(&self, identity: Identity, least: u64, share: u64) -> bool {
        let namespace = self.namespaces.get(&identity);
        namespace.is_some_and(|namespace| {
            namespace.unsaved >= least.max(1) && namespace.unsaved > namespace.saved / share
        })
    }

    /// The pages of a namespace that are good at its `known`, which comes with them; those last used
    /// first. What comes from now on is unsaved.
    pub(crate) fn take_unsaved(&mut self, identity: Identity) -> Option<(Version, Vec<Unsaved>)> {
        let namespace = self.namespaces.get(&identity)?;
        let (slot, known) = (namespace.slot, namespace.known);
        let of_namespace = self.pages.iter().filter(|((of, _), _)| *of == slot);
        let unsaved = |page: PageIndex, entry: &Entry| {
            let current = matches!(entry.through, Through::Current) && entry.from <= known;
            let content = match (&entry.content, &entry.stored) {
                (_, Some(stored)) => Source::Disk(stored.clone()),
                (Some(Some(content)), None) => Source::Memory(Arc::clone(content)),
                _ => return None,
            };
            let from = entry.from;
            current.then_some(Unsaved {
                page,
                from,
                content,
            })
        };
        let pages = of_namespace.filter_map(|((_, page), entry)| unsaved(*page, entry));
        let pages: Vec<Unsaved> = pages.collect();
        self.set_saved(identity, pages.len() as u64);
        Some((known, pages))
    }

    /// A namespace was saved: these are the places of its pages from now on.
    pub(crate) fn saved(&mut self, saved: &Arc<SavedPages>) {
        let Some(namespace) = self.namespaces.get(&saved.identity()) else {
            return;
        };
        let slot = namespace.slot;
        for (page, from, stored) in saved.stored() {
            if let Some(entry) = self.pages.peek_mut(&(slot, page))
                && entry.from == from
            {
                entry.stored = Some(stored);
            }
        }
    }

    fn set_saved(&mut self, identity: Identity, count: u64) {
        if let Some(namespace) = self.namespaces.get_mut(&identity) {
            (namespace.unsaved, namespace.saved) = (0, count);
        }
    }

    /// A `begin` that sent `known` was answered with `version` and the pages changed in between.
    pub(crate) fn began(
        &mut self,
        identity: Identity,
        sent: Option<&KnownState>,
        version: Version,
        changed: Option<&PageSet>,
    ) {
        if self.budget == 0 {
            return;
        }
        let Some(namespace) = self.namespaces.get(&identity) else {
            self.add_namespace(identity, version);
            return;
        };
        let known = namespace.known;
        // An answer that another thread's has overtaken says nothing new.
        if version <= known {
            return;
        }
        // What was sent may be older than what is known now: the answer then covers more than is
        // needed, and own commits it did not name are among the changed pages.
        match changed {
            Some(changed) if sent.is_some_and(|sent| sent.version <= known) => {
                self.freeze(identity, changed);
            }
            _ => self.freeze_all(identity),
        }
        self.advance(identity, version);
    }

    /// A page was read at a version.
    pub(crate) fn insert(
        &mut self,
        identity: Identity,
        page: PageIndex,
        from: Version,
        read_at: Version,
        content: Content,
    ) {
        let Some(namespace) = self.namespaces.get(&identity) else {
            return;
        };
        let overwritten =
            |(version, pages): &(Version, PageSet)| *version > read_at && pages.contains(page);
        let current = read_at == namespace.known && !namespace.own.iter().any(overwritten);
        let through = match current {
            true => Through::Current,
            false => Through::Fixed(read_at),
        };
        let entry = Entry {
            content: Some(content),
            stored: None,
            from,
            through,
        };
        self.put(identity, page, entry);
    }

    /// A commit of this process succeeded.
    pub(crate) fn committed(&mut self, identity: Identity, commit: OwnCommit<'_>) {
        let Some(namespace) = self.namespaces.get(&identity) else {
            return;
        };
        let known = namespace.known;
        if let Some(changed) = commit.changed
            && commit.base <= known
            && known < commit.seen
            && commit.seen < commit.version
        {
            self.freeze(identity, changed);
            self.advance(identity, commit.seen);
        }
        let Some(namespace) = self.namespaces.get_mut(&identity) else {
            return;
        };
        // If a later `begin` was answered before this, it has reported these pages as changed, and
        // there is no telling whether they changed again.
        let through = match namespace.known < commit.version {
            true => Through::Current,
            false => Through::Fixed(commit.version),
        };
        if matches!(through, Through::Current) {
            if namespace.own.len() == MAX_OWN_COMMITS {
                // A commit that is not named is reported as anybody's.
                namespace.own.remove(0);
            }
            namespace.own.push((commit.version, commit.written.clone()));
            self.freeze(identity, &commit.written);
        }
        for (page, content) in commit.contents {
            let entry = Entry {
                content: Some(Some(content)),
                stored: None,
                from: commit.version,
                through,
            };
            self.put(identity, page, entry);
        }
    }

    fn add_namespace(&mut self, identity: Identity, known: Version) {
        if self.namespaces.len() >= MAX_NAMESPACES {
            self.namespaces.clear();
            self.pages.clear();
            self.bytes = 0;
        }
        let slot = self.next_slot;
        self.next_slot += 1;
        let namespace = Namespace {
            slot,
            known,
            unsaved: 0,
            saved: 0,
            own: Vec::new(),
        };
        self.namespaces.insert(identity, namespace);
    }

    fn advance(&mut self, identity: Identity, version: Version) {
        if let Some(namespace) = self.namespaces.get_mut(&identity) {
            namespace.known = version;
            namespace.own.retain(|(own, _)| *own > version);
        }
    }

    /// Ends the entries of these pages where they are known to be good.
    fn freeze(&mut self, identity: Identity, changed: &PageSet) {
        let Some(namespace) = self.namespaces.get(&identity) else {
            return;
        };
        let (slot, known) = (namespace.slot, namespace.known);
        let fix = |entry: &mut Entry| {
            // What was changed is good no further.
            if !active(Bug::ClientCacheStale) {
                entry.through = Through::Fixed(entry.through(known));
            }
        };
        if changed.len() > self.pages.len() as u64 {
            let of_namespace = self.pages.iter_mut();
            of_namespace
                .filter(|((of, page), _)| *of == slot && changed.contains(*page))
                .for_each(|(_, entry)| fix(entry));
        } else {
            for page in changed.iter() {
                if let Some(entry) = self.pages.peek_mut(&(slot, page)) {
                    fix(entry);
                }
            }
        }
    }

    fn freeze_all(&mut self, identity: Identity) {
        let Some(namespace) = self.namespaces.get(&identity) else {
            return;
        };
        let (slot, known) = (namespace.slot, namespace.known);
        for ((of, _), entry) in self.pages.iter_mut() {
            if *of == slot {
                entry.through = Through::Fixed(entry.through(known));
            }
        }
    }

    /// Adds an entry unless there is one that is good for longer; then makes room.
    fn put(&mut self, identity: Identity, page: PageIndex, mut entry: Entry) {
        let Some(namespace) = self.namespaces.get_mut(&identity) else {
            return;
        };
        let key = (namespace.slot, page);
        let known = namespace.known;
        if let Some(present) = self.pages.peek(&key) {
            if present.through(known) > entry.through(known) {
                return;
            }
            if present.from == entry.from && entry.stored.is_none() {
                entry.stored = present.stored.clone();
            }
        }
        namespace.unsaved += u64::from(entry.stored.is_none());
        self.bytes += entry.size();
        if let Some(old) = self.pages.put(key, entry) {
            self.bytes -= old.size();
        }
        self.make_room();
    }

    /// What is on disk too is dropped from memory first; its place is remembered for longer.
    fn make_room(&mut self) {
        while self.bytes > self.budget
            && let Some((key, mut evicted)) = self.pages.pop_lru()
        {
            self.bytes -= evicted.size();
            if evicted.stored.is_some() && evicted.content.take().is_some() {
                self.bytes += evicted.size();
                self.pages.put(key, evicted);
            }
        }
    }
}

#[cfg(test)]
mod tests;
