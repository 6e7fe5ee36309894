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

use std::collections::HashMap;
use std::sync::Arc;

use lru::LruCache;
use mvsqlite_protocol::v2::{KnownState, MAX_OWN_COMMITS};
use mvsqlite_protocol::{Incarnation, NamespaceId, PageIndex, PageSet, Version};

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
    /// Own commits above `known`, oldest first, with the pages they changed.
    own: Vec<(Version, PageSet)>,
}

struct Entry {
    content: Content,
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

    fn size(&self) -> u64 {
        ENTRY_OVERHEAD + self.content.as_ref().map_or(0, |page| page.len() as u64)
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
        let good = entry.from <= version && version <= entry.through(namespace.known);
        good.then(|| entry.content.clone())
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
            content,
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
                content: Some(content),
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
        let own = Vec::new();
        self.namespaces
            .insert(identity, Namespace { slot, known, own });
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
        let fix = |entry: &mut Entry| entry.through = Through::Fixed(entry.through(known));
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
    fn put(&mut self, identity: Identity, page: PageIndex, entry: Entry) {
        let Some(namespace) = self.namespaces.get(&identity) else {
            return;
        };
        let key = (namespace.slot, page);
        let known = namespace.known;
        if let Some(present) = self.pages.peek(&key)
            && present.through(known) > entry.through(known)
        {
            return;
        }
        self.bytes += entry.size();
        if let Some(old) = self.pages.put(key, entry) {
            self.bytes -= old.size();
        }
        while self.bytes > self.budget
            && let Some((_, evicted)) = self.pages.pop_lru()
        {
            self.bytes -= evicted.size();
        }
    }
}

#[cfg(test)]
mod tests;
