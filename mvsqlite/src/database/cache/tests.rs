//! The cache against a history, with answers that arrive in any order.

use super::*;
use crate::database::DiskCache;
use proptest::prelude::*;
use std::collections::VecDeque;

const PAGES: u32 = 6;
const PAGE_SIZE: usize = 512;

fn identity() -> Identity {
    Identity {
        incarnation: Incarnation::from_bytes([1; 8]),
        namespace: NamespaceId::from_bytes([0; 10]),
    }
}

fn version(n: usize) -> Version {
    Version::new(n as u64, 0)
}

/// A server's history: which pages commit `n` (from 1 on) changed.
#[derive(Default)]
struct History(Vec<PageSet>);

impl History {
    fn commit(&mut self, pages: &[u32]) -> usize {
        self.0.push(pages.iter().copied().collect());
        self.0.len()
    }

    fn head(&self) -> usize {
        self.0.len()
    }

    /// The version whose content the page has at `at`.
    fn from(&self, page: u32, at: usize) -> usize {
        let changed = |n: &usize| self.0[n - 1].contains(page);
        (1..=at).rev().find(changed).unwrap_or(0)
    }

    fn changed(&self, after: usize, through: usize, own: &[Version]) -> PageSet {
        let mut changed = PageSet::new();
        (after + 1..=through)
            .filter(|n| !own.contains(&version(*n)))
            .for_each(|n| changed.extend(&self.0[n - 1]));
        changed
    }
}

/// The content of a page: the commit it comes from.
fn content(from: usize) -> Content {
    let mut page = vec![0; PAGE_SIZE];
    page[..8].copy_from_slice(&(from as u64).to_be_bytes());
    Some(Arc::from(page))
}

/// An answer that the server has given and that has not arrived yet.
enum Answer {
    Begin {
        sent: Option<KnownState>,
        head: usize,
        changed: Option<PageSet>,
    },
    Read {
        page: u32,
        at: usize,
        from: usize,
    },
    Commit {
        base: usize,
        version: usize,
        seen: usize,
        changed: PageSet,
        pages: Vec<u32>,
    },
}

#[derive(Debug, Clone)]
enum Step {
    Begin {
        forgets: bool,
    },
    Read {
        page: u32,
    },
    OwnCommit {
        pages: Vec<u32>,
        seen_before: usize,
    },
    ForeignCommit {
        pages: Vec<u32>,
    },
    Arrive {
        which: usize,
    },
    /// The process ends and another one begins with what is on disk, or goes on after saving.
    Save {
        restart: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pages = || prop::collection::vec(0..PAGES, 1..4);
    let own = (pages(), 0..3usize);
    let step = prop_oneof![
        3 => prop::bool::weighted(0.1).prop_map(|forgets| Step::Begin { forgets }),
        4 => (0..PAGES).prop_map(|page| Step::Read { page }),
        2 => own.prop_map(|(pages, seen_before)| Step::OwnCommit { pages, seen_before }),
        2 => pages().prop_map(|pages| Step::ForeignCommit { pages }),
        8 => (0..4usize).prop_map(|which| Step::Arrive { which }),
        1 => any::<bool>().prop_map(|restart| Step::Save { restart }),
    ];
    prop::collection::vec(step, 0..120)
}

struct Race {
    cache: PageCache,
    history: History,
    under_way: VecDeque<Answer>,
    /// Versions that `begin` answered: those that transactions read at.
    snapshots: Vec<usize>,
    disk: DiskCache,
    budget: u64,
}

impl Race {
    fn step(&mut self, step: Step) {
        match step {
            Step::Begin { forgets } => {
                let sent = self.cache.known(identity());
                let head = self.history.head();
                let changed = sent.as_ref().filter(|_| !forgets).map(|known| {
                    let after = known.version.commit() as usize;
                    self.history.changed(after, head, &known.own)
                });
                self.under_way.push_back(Answer::Begin {
                    sent,
                    head,
                    changed,
                });
            }
            Step::Read { page } => {
                let Some(at) = self.snapshots.last().copied() else {
                    return;
                };
                let from = self.history.from(page, at);
                self.under_way.push_back(Answer::Read { page, at, from });
            }
            Step::OwnCommit { pages, seen_before } => self.commit(pages, seen_before),
            Step::ForeignCommit { pages } => {
                self.history.commit(&pages);
            }
            Step::Arrive { which } => {
                let which = which.min(self.under_way.len().saturating_sub(1));
                if let Some(answer) = self.under_way.remove(which) {
                    self.arrive(answer);
                }
            }
            Step::Save { restart } => self.save(restart),
        }
    }

    fn save(&mut self, restart: bool) {
        let key = "db".parse().unwrap();
        if let Some((known, pages)) = self.cache.take_unsaved(identity()) {
            let saved = self.disk.save(&key, identity(), known, pages);
            if let Some(saved) = saved {
                self.cache.saved(&saved);
            }
        }
        if restart {
            self.cache = PageCache::new(self.budget);
            self.under_way.clear();
            self.snapshots.clear();
            if let Some(saved) = self.disk.load(&key) {
                self.cache.restore(&saved);
            }
        }
    }

    /// A page from memory or from disk.
    fn get(&mut self, page: u32, at: usize) -> Option<Content> {
        let at = version(at);
        let Some(stored) = self.cache.stored(identity(), page, at) else {
            return self.cache.get(identity(), page, at);
        };
        assert_eq!(self.cache.get(identity(), page, at), None);
        let content = stored.read();
        self.cache
            .read_from_disk(identity(), page, &stored, content.clone());
        Some(Some(content.unwrap()))
    }

    /// A commit on the newest snapshot, if it conflicts with nothing.
    fn commit(&mut self, pages: Vec<u32>, seen_before: usize) {
        let Some(base) = self.snapshots.last().copied() else {
            return;
        };
        let head = self.history.head();
        let since = self.history.changed(base, head, &[]);
        if pages.iter().any(|page| since.contains(*page)) {
            return;
        }
        let seen = head.saturating_sub(seen_before).max(base);
        let changed = self.history.changed(base, seen, &[]);
        let version = self.history.commit(&pages);
        self.under_way.push_back(Answer::Commit {
            base,
            version,
            seen,
            changed,
            pages,
        });
    }

    fn arrive(&mut self, answer: Answer) {
        match answer {
            Answer::Begin {
                sent,
                head,
                changed,
            } => {
                let cache = &mut self.cache;
                cache.began(identity(), sent.as_ref(), version(head), changed.as_ref());
                self.snapshots.push(head);
            }
            Answer::Read { page, at, from } => {
                let (from, content) = (version(from), content(from));
                self.cache
                    .insert(identity(), page, from, version(at), content);
            }
            Answer::Commit {
                base,
                version: made,
                seen,
                changed,
                pages,
            } => {
                let written = pages.iter().copied().collect();
                let page = |page: u32| content(made).map(|content| (page, content));
                let commit = OwnCommit {
                    base: version(base),
                    version: version(made),
                    seen: version(seen),
                    changed: Some(&changed),
                    written,
                    contents: pages.iter().copied().filter_map(page).collect(),
                };
                self.cache.committed(identity(), commit);
            }
        }
    }

    /// Whatever the cache answers, at whatever version, is what the history says.
    fn check(&mut self) {
        for page in 0..PAGES {
            for at in 0..=self.history.head() {
                if let Some(found) = self.get(page, at) {
                    assert_eq!(
                        found,
                        content(self.history.from(page, at)),
                        "{page} at {at}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn a_hit_is_always_the_page_at_that_version_in_whatever_order_answers_arrive(
        steps in steps(),
        budget in prop_oneof![Just(3 * (PAGE_SIZE as u64 + ENTRY_OVERHEAD)), Just(1 << 20)],
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut race = Race {
            disk: DiskCache::new(directory.path().to_owned(), 1 << 20),
            budget,
            cache: PageCache::new(budget),
            history: History::default(),
            under_way: VecDeque::new(),
            snapshots: Vec::new(),
        };
        for step in steps {
            race.step(step);
            race.check();
            prop_assert!(race.cache.bytes <= budget);
        }
    }
}

#[test]
fn own_pages_are_still_there_after_the_next_begin() {
    let mut cache = PageCache::new(1 << 20);
    cache.began(identity(), None, version(1), None);
    let commit = OwnCommit {
        base: version(1),
        version: version(2),
        seen: version(1),
        changed: Some(&PageSet::new()),
        written: [3].into_iter().collect(),
        contents: vec![(3, content(2).unwrap())],
    };
    cache.committed(identity(), commit);
    let known = cache.known(identity()).unwrap();
    assert_eq!(
        (known.version, &known.own[..]),
        (version(1), &[version(2)][..])
    );
    let nothing = PageSet::new();
    cache.began(identity(), Some(&known), version(2), Some(&nothing));
    assert_eq!(cache.get(identity(), 3, version(2)), Some(content(2)));
    assert!(cache.known(identity()).unwrap().own.is_empty());
}
