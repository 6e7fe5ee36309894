//! The cache against a history, with answers of the server that arrive late and in any order.

use std::collections::VecDeque;

use super::*;

const PAGES: PageIndex = 8;

/// A server's history: which pages commit `n`, from 1 on, changed.
#[derive(Default)]
struct History(Vec<PageSet>);

/// An answer that the server has given and that has not arrived yet.
enum Answer {
    Begin(Option<KnownState>, u64, Option<PageSet>),
    Read(PageIndex, u64),
    Commit {
        base: u64,
        version: u64,
        changed: PageSet,
    },
}

fn version(commit: u64) -> Version {
    Version::new(commit, 0)
}

impl History {
    fn head(&self) -> u64 {
        self.0.len() as u64
    }

    /// The pages that a commit changed.
    fn of(&self, commit: u64) -> &PageSet {
        &self.0[commit as usize - 1]
    }

    /// The commit that made a page what it is at a version; 0: it was so from the beginning.
    fn from(&self, page: PageIndex, at: u64) -> u64 {
        let wrote = |commit: &u64| self.of(*commit).contains(page);
        (1..=at).rev().find(wrote).unwrap_or(0)
    }

    /// What others changed in (after, through].
    fn changed(&self, after: u64, through: u64, own: &[Version]) -> PageSet {
        let mut changed = PageSet::new();
        let others = (after + 1..=through).filter(|commit| !own.contains(&version(*commit)));
        others.for_each(|commit| changed.extend(self.of(commit)));
        changed
    }

    /// The content of a page: which commit wrote it. Some do not exist.
    fn content(&self, page: PageIndex, at: u64) -> Content {
        let from = self.from(page, at);
        (from % 7 != 6).then(|| Arc::from([page as u8, from as u8, (from >> 8) as u8]))
    }
}

/// Whatever the cache gives is what the page is at that version.
///
/// First a byte for its budget, then steps of two bytes: what happens, and to which pages.
pub fn page_cache(bytes: &[u8]) {
    let (budget, steps) = bytes.split_first().unwrap_or((&0, &[]));
    let mut race = Race {
        cache: PageCache::new(u64::from(*budget) * 16),
        history: History::default(),
        under_way: VecDeque::new(),
        snapshots: vec![0],
    };
    for step in steps.chunks_exact(2) {
        race.step(step[0], step[1]);
    }
}

struct Race {
    cache: PageCache,
    history: History,
    under_way: VecDeque<Answer>,
    /// Versions that `begin` answered, and those of own commits.
    snapshots: Vec<u64>,
}

impl Race {
    fn step(&mut self, what: u8, pages: u8) {
        let set: PageSet = (0..PAGES).filter(|page| pages & 1 << page != 0).collect();
        match what & 7 {
            0 => self.history.0.push(set),
            1 => self.begin(pages),
            2 => {
                let at = self.snapshot(what >> 3);
                self.under_way
                    .push_back(Answer::Read(PageIndex::from(pages) % PAGES, at));
            }
            3 => self.commit(what >> 3, set),
            _ => self.arrive(what >> 3),
        }
        self.check(what >> 5);
    }

    /// One of the last snapshots.
    fn snapshot(&self, back: u8) -> u64 {
        let back = usize::from(back) % self.snapshots.len();
        self.snapshots[self.snapshots.len() - 1 - back]
    }

    fn begin(&mut self, forgets: u8) {
        let sent = self.cache.known(identity());
        let head = self.history.head();
        let changed = sent.as_ref().filter(|_| forgets % 8 != 7);
        let changed =
            changed.map(|sent| self.history.changed(sent.version.commit(), head, &sent.own));
        self.under_way.push_back(Answer::Begin(sent, head, changed));
    }

    /// An own commit, which nobody else's changes come in between for the pages it wrote.
    fn commit(&mut self, back: u8, pages: PageSet) {
        let base = self.snapshot(back);
        let head = self.history.head();
        if pages.is_empty()
            || self
                .history
                .changed(base, head, &[])
                .first_common(&pages)
                .is_some()
        {
            return;
        }
        let changed = self.history.changed(base, head, &[]);
        self.history.0.push(pages);
        let version = self.history.head();
        let answer = Answer::Commit {
            base,
            version,
            changed,
        };
        self.under_way.push_back(answer);
    }

    fn arrive(&mut self, which: u8) {
        if self.under_way.is_empty() {
            return;
        }
        let which = usize::from(which) % self.under_way.len();
        match self.under_way.remove(which) {
            Some(Answer::Begin(sent, head, changed)) => {
                let changed = changed.as_ref();
                self.cache
                    .began(identity(), sent.as_ref(), version(head), changed);
                self.snapshots.push(head);
            }
            Some(Answer::Read(page, at)) => {
                let from = version(self.history.from(page, at));
                let content = self.history.content(page, at);
                self.cache
                    .insert(identity(), page, from, version(at), content);
            }
            Some(Answer::Commit {
                base,
                version: made,
                changed,
            }) => {
                let written = self.history.of(made).clone();
                let contents = written
                    .iter()
                    .filter_map(|page| Some((page, self.history.content(page, made)?)));
                let commit = OwnCommit {
                    base: version(base),
                    version: version(made),
                    seen: version(made - 1),
                    changed: Some(&changed),
                    contents: contents.collect(),
                    written,
                };
                self.cache.committed(identity(), commit);
                self.snapshots.push(made);
            }
            None => {}
        }
    }

    fn check(&mut self, back: u8) {
        let (_, bytes, budget) = self.cache.fill();
        assert!(bytes <= budget);
        let at = self.snapshot(back);
        for page in 0..PAGES {
            if let Some(content) = self.cache.get(identity(), page, version(at)) {
                assert_eq!(
                    content,
                    self.history.content(page, at),
                    "page {page} at {at}"
                );
            }
        }
    }
}

fn identity() -> Identity {
    Identity {
        incarnation: Incarnation::from_bytes([1; 8]),
        namespace: NamespaceId::from_bytes([0; 10]),
    }
}
