//! Pages that were read lately, so that the engine need not be asked for them again.
//!
//! An entry is a page's content over an interval of versions. For each namespace the cache knows one
//! version, `known`. An entry is either *current*, good through `known` however far that moves, or
//! good through a fixed version. `known` moves by what the changelog says was changed in between:
//! those entries stop being current. So it does not matter which server made the commits, and a page
//! that is stored under a layer or a base is as good as any other.
//!
//! Invariants:
//! - every page changed between an entry's `from` and its end was reported to the cache;
//! - whether a version may still be read is not decided here: the caller reads the guard as without
//!   a cache.
//!
//! For cold starts it also keeps count of what clients ask for first: the roots and interior pages of
//! their trees, as it happens. One cold start in a few is only listened to, so that the count goes by
//! what is wanted and not by what is given.
//!
//! The lock is held for moments; nothing here does I/O.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::PAGE_1;
use mvsqlite_protocol::{NamespaceId, PageIndex, PageSet, Version};

use super::view::Found;

/// What an entry takes besides its content, in bytes, roughly.
const ENTRY_BYTES: u64 = 160;
/// Namespaces remembered at once; beyond that the cache starts afresh.
const MAX_NAMESPACES: usize = 4096;

/// Reads after a cold start that are listened to.
const FIRST_READS: u32 = 8;
/// Of so many cold starts one is listened to, once there is something to give.
const LISTEN_EVERY: u32 = 8;
/// Pages counted per namespace.
const COUNTED: usize = 32;
/// Counts are halved when one gets here: what was wanted long ago is forgotten.
const LARGEST_COUNT: u32 = 64;
/// How often a page was wanted first before it is given.
const WORTH_GIVING: u32 = 2;

/// See the module.
pub(crate) struct PageCache {
    budget: u64,
    state: Mutex<State>,
}

struct State {
    bytes: u64,
    namespaces: HashMap<NamespaceId, Namespace>,
    pages: LruCache<(NamespaceId, PageIndex), Entry>,
}

struct Namespace {
    known: Version,
    /// Entries.
    pages: u64,
    first: FirstReads,
}

/// What clients ask for first.
#[derive(Default)]
struct FirstReads {
    starts: u32,
    /// Reads that are still listened to.
    listening: u32,
    counts: Vec<(PageIndex, u32)>,
}

struct Entry {
    content: Option<Bytes>,
    from: Version,
    through: Through,
}

#[derive(Clone, Copy)]
enum Through {
    /// The namespace's `known`.
    Current,
    Fixed(Version),
}

impl Entry {
    fn through(&self, known: Version) -> Version {
        match self.through {
            Through::Current => known,
            Through::Fixed(version) => version,
        }
    }

    fn size(&self) -> u64 {
        ENTRY_BYTES
            + self
                .content
                .as_ref()
                .map_or(0, |content| content.len() as u64)
    }
}

impl PageCache {
    /// A cache of at most this many bytes; 0 keeps nothing.
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            state: Mutex::new(State {
                bytes: 0,
                namespaces: HashMap::new(),
                pages: LruCache::unbounded(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Consistent between calls; nothing panics half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A version from which on the changelog must be walked so that what is kept can be used at
    /// `version`; `None` if there is nothing to gain by it.
    pub(crate) fn behind(&self, id: NamespaceId, version: Version) -> Option<Version> {
        let state = self.lock();
        let namespace = state.namespaces.get(&id)?;
        (namespace.known < version && namespace.pages > 0).then_some(namespace.known)
    }

    /// These pages were changed in (from, to], and no others; `None`: perhaps any.
    pub(crate) fn advance(
        &self,
        id: NamespaceId,
        from: Version,
        to: Version,
        changed: Option<&PageSet>,
    ) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(namespace) = state.namespaces.get_mut(&id) else {
            return;
        };
        // Another call has moved it meanwhile.
        if namespace.known != from || to <= from {
            return;
        }
        let fix = |entry: &mut Entry| {
            // What was changed is good no further.
            if !active(Bug::ServerCacheStale) {
                entry.through = Through::Fixed(entry.through(from));
            }
        };
        match changed {
            // Whichever is shorter: the list of pages, or everything that is kept.
            Some(changed) if changed.len() <= state.pages.len() as u64 => {
                for page in changed.iter() {
                    if let Some(entry) = state.pages.peek_mut(&(id, page)) {
                        fix(entry);
                    }
                }
            }
            _ => {
                let entries = state.pages.iter_mut();
                entries
                    .filter(|((of, page), _)| {
                        *of == id && changed.is_none_or(|changed| changed.contains(*page))
                    })
                    .for_each(|(_, entry)| fix(entry));
            }
        }
        namespace.known = to;
    }

    /// Those of the pages that are kept as they are at this version, ascending.
    pub(crate) fn find(&self, id: NamespaceId, version: Version, pages: &PageSet) -> Vec<Found> {
        let mut state = self.lock();
        let Some(known) = state.namespaces.get(&id).map(|namespace| namespace.known) else {
            return Vec::new();
        };
        let kept = |index: PageIndex| state.good(id, index, version, known);
        pages.iter().filter_map(kept).collect()
    }

    /// These pages were read at this version.
    pub(crate) fn insert(&self, id: NamespaceId, version: Version, found: &[Found]) {
        if self.budget == 0 {
            return;
        }
        let mut state = self.lock();
        let known = state.enter(id, version).known;
        let through = match known == version {
            true => Through::Current,
            false => Through::Fixed(version),
        };
        for page in found {
            let entry = Entry {
                content: page.content.clone(),
                from: page.from,
                through,
            };
            state.put(id, page.index, entry, known, self.budget);
        }
    }

    /// A client that knows nothing begins. The pages to give it, as they are at this version and as
    /// far as they are kept, within so many bytes.
    pub(crate) fn cold_start(
        &self,
        id: NamespaceId,
        version: Version,
        most_bytes: u64,
    ) -> Vec<Found> {
        if self.budget == 0 {
            return Vec::new();
        }
        let mut state = self.lock();
        let namespace = state.enter(id, version);
        let known = namespace.known;
        let mut bytes = 0;
        let mut given = Vec::new();
        for index in namespace.first.start() {
            if let Some(found) = state.good(id, index, version, known) {
                bytes += found.len();
                if bytes > most_bytes {
                    break;
                }
                given.push(found);
            }
        }
        given.sort_unstable_by_key(|found| found.index);
        given
    }

    /// A client asks for just this page.
    pub(crate) fn asked_for(&self, id: NamespaceId, page: PageIndex) {
        let mut state = self.lock();
        if let Some(namespace) = state.namespaces.get_mut(&id)
            && page != PAGE_1
        {
            namespace.first.asked_for(page);
        }
    }
}

impl State {
    fn enter(&mut self, id: NamespaceId, version: Version) -> &mut Namespace {
        if self.namespaces.len() >= MAX_NAMESPACES && !self.namespaces.contains_key(&id) {
            self.namespaces.clear();
            self.pages.clear();
            self.bytes = 0;
        }
        let namespace = self.namespaces.entry(id).or_insert_with(|| Namespace {
            known: version,
            pages: 0,
            first: FirstReads::default(),
        });
        if namespace.pages == 0 {
            namespace.known = namespace.known.max(version);
        }
        namespace
    }

    fn good(
        &mut self,
        id: NamespaceId,
        index: PageIndex,
        version: Version,
        known: Version,
    ) -> Option<Found> {
        let entry = self.pages.get(&(id, index))?;
        let good = entry.from <= version && version <= entry.through(known);
        good.then(|| Found {
            index,
            from: entry.from,
            content: entry.content.clone(),
        })
    }

    /// Adds an entry unless there is one that is good for longer; then makes room.
    fn put(
        &mut self,
        id: NamespaceId,
        index: PageIndex,
        entry: Entry,
        known: Version,
        budget: u64,
    ) {
        let key = (id, index);
        if let Some(present) = self.pages.peek(&key)
            && present.through(known) > entry.through(known)
        {
            return;
        }
        self.bytes += entry.size();
        match self.pages.put(key, entry) {
            Some(old) => self.bytes -= old.size(),
            None => self.count(id, 1),
        }
        while self.bytes > budget
            && let Some(((of, _), evicted)) = self.pages.pop_lru()
        {
            self.bytes -= evicted.size();
            self.count(of, -1);
        }
    }

    fn count(&mut self, id: NamespaceId, change: i64) {
        if let Some(namespace) = self.namespaces.get_mut(&id) {
            namespace.pages = namespace.pages.saturating_add_signed(change);
        }
    }
}

impl FirstReads {
    /// A client starts cold: what it will want first, the most wanted first. Nothing, if it is
    /// listened to instead.
    fn start(&mut self) -> Vec<PageIndex> {
        self.starts = self.starts.wrapping_add(1);
        let worth = |(_, count): &&(PageIndex, u32)| *count >= WORTH_GIVING;
        let mut wanted: Vec<_> = self.counts.iter().filter(worth).copied().collect();
        if wanted.is_empty() || self.starts.is_multiple_of(LISTEN_EVERY) {
            self.listening = FIRST_READS;
            return Vec::new();
        }
        wanted.sort_unstable_by_key(|(page, count)| (std::cmp::Reverse(*count), *page));
        wanted.into_iter().map(|(page, _)| page).collect()
    }

    /// Counts the pages that are asked for often among many (Misra and Gries, "Finding repeated
    /// elements", 1982).
    fn asked_for(&mut self, page: PageIndex) {
        let Some(left) = self.listening.checked_sub(1) else {
            return;
        };
        self.listening = left;
        if let Some((_, count)) = self.counts.iter_mut().find(|(of, _)| *of == page) {
            *count += 1;
            if *count >= LARGEST_COUNT {
                self.counts.iter_mut().for_each(|(_, count)| *count /= 2);
            }
        } else if self.counts.len() < COUNTED {
            self.counts.push((page, 1));
        } else {
            self.counts.iter_mut().for_each(|(_, count)| *count -= 1);
        }
        self.counts.retain(|(_, count)| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 10] = [1; 10];

    fn version(n: u64) -> Version {
        Version::new(n, 0)
    }

    fn found(index: PageIndex, from: u64) -> Found {
        Found {
            index,
            from: version(from),
            content: Some(Bytes::from(vec![from as u8; 512])),
        }
    }

    fn kept(cache: &PageCache, at: u64) -> Vec<PageIndex> {
        let all = (0..400).collect();
        let found = cache.find(NamespaceId::from_bytes(ID), version(at), &all);
        found.into_iter().map(|found| found.index).collect()
    }

    #[test]
    fn what_is_not_named_as_changed_is_good_further_on_and_the_rest_where_it_was() {
        let id = NamespaceId::from_bytes(ID);
        let cache = PageCache::new(1 << 20);
        cache.insert(id, version(10), &[found(1, 3), found(2, 7), found(3, 9)]);
        assert_eq!(cache.behind(id, version(12)), Some(version(10)));
        assert!(kept(&cache, 12).is_empty());
        let changed = [2].into_iter().collect();
        cache.advance(id, version(10), version(12), Some(&changed));
        assert_eq!(cache.behind(id, version(12)), None);
        assert_eq!(kept(&cache, 12), [1, 3]);
        assert_eq!(kept(&cache, 8), [1, 2]);
        // A walk that another one has overtaken says nothing.
        cache.advance(id, version(10), version(20), Some(&changed));
        assert!(kept(&cache, 20).is_empty());
        cache.advance(id, version(12), version(20), None);
        assert!(kept(&cache, 20).is_empty());
        assert_eq!(kept(&cache, 12), [1, 3]);
    }

    #[test]
    fn a_page_read_at_an_old_version_does_not_replace_what_is_good_for_longer() {
        let id = NamespaceId::from_bytes(ID);
        let cache = PageCache::new(1 << 20);
        cache.insert(id, version(10), &[found(1, 8)]);
        cache.insert(id, version(5), &[found(1, 2), found(2, 2)]);
        assert_eq!(kept(&cache, 10), [1]);
        assert_eq!(kept(&cache, 5), [2]);
        let changed = PageSet::new();
        cache.advance(id, version(10), version(11), Some(&changed));
        // Nobody said that page 2 stayed the same from 5 to 10.
        assert_eq!(kept(&cache, 11), [1]);
    }

    #[test]
    fn the_budget_is_kept_and_without_one_nothing_is() {
        let id = NamespaceId::from_bytes(ID);
        let cache = PageCache::new(10 * (512 + ENTRY_BYTES));
        let pages: Vec<_> = (0..100).map(|index| found(index, 1)).collect();
        cache.insert(id, version(2), &pages);
        assert_eq!(kept(&cache, 2), (90..100).collect::<Vec<_>>());
        assert_eq!(cache.lock().namespaces[&id].pages, 10);
        let none = PageCache::new(0);
        none.insert(id, version(2), &pages);
        assert!(kept(&none, 2).is_empty());
        assert!(none.cold_start(id, version(2), 1 << 20).is_empty());
    }

    #[test]
    fn what_is_wanted_first_is_found_among_much_that_is_not() {
        let mut first = FirstReads::default();
        for client in 0..200u32 {
            let given = first.start();
            for page in [3, 4]
                .into_iter()
                .chain((0..50).map(|n| 100 + client * 7 + n))
            {
                if !given.contains(&page) {
                    first.asked_for(page);
                }
            }
            assert!(first.counts.len() <= COUNTED);
        }
        first.starts = 0;
        assert_eq!(first.start()[..2], [3, 4]);
    }
}
