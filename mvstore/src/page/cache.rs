//! Page 1 of recent versions.
//!
//! Every begin tells the page size and every commit is judged by page 1 at its base; both mostly
//! ask for versions that were just made. What page 1 was at a version never changes, so entries are
//! never wrong; they only stop being asked for. Whether the version may still be read is not decided
//! here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use mvsqlite_protocol::{NamespaceId, Version};

/// Most bytes kept: content, and what an entry takes besides.
const BUDGET: usize = 8 << 20;
const ENTRY_BYTES: usize = 256;

/// Page 1 as of some version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageOne {
    /// The version it was written at.
    pub from: Version,
    /// Its content.
    pub content: Bytes,
}

/// Keeps page 1 by namespace and version; the oldest entries go first.
#[derive(Debug, Default)]
pub(crate) struct PageOneCache {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    pages: HashMap<(NamespaceId, Version), PageOne>,
    order: VecDeque<(NamespaceId, Version)>,
    bytes: usize,
}

impl PageOneCache {
    /// Page 1 as of a version, if it is at hand.
    pub(crate) fn get(&self, id: NamespaceId, at: Version) -> Option<PageOne> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pages.get(&(id, at)).cloned()
    }

    /// Notes page 1 as of a version.
    pub(crate) fn put(&self, id: NamespaceId, at: Version, page: PageOne) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let size = page.content.len() + ENTRY_BYTES;
        if kept.pages.insert((id, at), page).is_some() {
            // The same content: a version's page 1 is what it is.
            return;
        }
        kept.order.push_back((id, at));
        kept.bytes += size;
        while kept.bytes > BUDGET {
            let Some(oldest) = kept.order.pop_front() else {
                break;
            };
            if let Some(page) = kept.pages.remove(&oldest) {
                kept.bytes -= page.content.len() + ENTRY_BYTES;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_go_when_the_budget_is_used_up() {
        let cache = PageOneCache::default();
        let id = NamespaceId::from_bytes([1; 10]);
        let page = PageOne {
            from: Version::ZERO,
            content: vec![0; 32768].into(),
        };
        for number in 0..300 {
            cache.put(id, Version::new(number, 0), page.clone());
            cache.put(id, Version::new(number, 0), page.clone());
        }
        let kept = (0..300).filter(|number| cache.get(id, Version::new(*number, 0)).is_some());
        assert_eq!(kept.collect::<Vec<_>>(), (46..300).collect::<Vec<_>>());
    }

    /// Symptom: memory grew with the number of commits. Cause: only content was counted, and a page 1
    /// may be of one byte. Fix: an entry counts as well.
    #[test]
    fn small_pages_do_not_make_endless_entries() {
        let cache = PageOneCache::default();
        let page = PageOne {
            from: Version::ZERO,
            content: vec![0].into(),
        };
        for number in 0..40_000 {
            let version = Version::new(number, 0);
            cache.put(NamespaceId::from_bytes([1; 10]), version, page.clone());
        }
        let kept = cache.kept.lock().unwrap();
        assert!(kept.pages.len() < 40_000);
        assert_eq!(kept.pages.len(), kept.order.len());
    }
}
