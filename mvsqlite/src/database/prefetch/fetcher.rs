//! Fetches pages in the background, while SQLite works on those it has.
//!
//! Up to [`THREADS`] threads of the process, made when there is work for them and gone after
//! [`IDLE`] without any. A batch is tried once: whoever needs its pages after all asks for them, and
//! reports what is wrong.
//!
//! Lock order: the lock here is held for moments, never with another, and not during I/O. A forked
//! child has a fetcher of its own, without threads.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mvsqlite_protocol::{PageIndex, PageSet, Version};

use crate::database::cache::Identity;
use crate::system::{Event, System};

/// So that one batch is on its way while another one is read.
const THREADS: usize = 2;
/// Batches that wait for a thread.
const MOST_WAITING: usize = 8;
/// How long a thread waits for work.
const IDLE: Duration = Duration::from_secs(5);
/// How long a reader waits for a batch that is on its way. A server that takes longer is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// A page of a snapshot.
type Place = (Identity, Version, PageIndex);

/// Pages of one snapshot to be fetched.
pub(crate) struct Batch {
    pub(crate) identity: Identity,
    pub(crate) version: Version,
    pub(crate) pages: PageSet,
    /// Fetches pages of that snapshot into the page cache.
    pub(crate) fetch: Box<dyn FnOnce(PageSet) + Send>,
}

impl Batch {
    fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.pages
            .iter()
            .map(|page| (self.identity, self.version, page))
    }
}

/// The background fetching of a process.
pub(crate) struct Fetcher {
    system: Arc<dyn System>,
    state: Mutex<State>,
    /// There is work, or a batch is done.
    changed: Arc<dyn Event>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Batch>,
    /// The pages of all batches that wait or are being fetched.
    awaited: HashSet<Place>,
    threads: usize,
    idle: usize,
}

impl State {
    fn forget(&mut self, batch: &Batch) {
        for place in batch.places() {
            self.awaited.remove(&place);
        }
    }
}

impl Fetcher {
    /// No thread yet.
    pub(crate) fn new(system: Arc<dyn System>) -> Self {
        Self {
            state: Mutex::default(),
            changed: system.event(),
            system,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody is fetching a page.
    pub(crate) fn awaits(&self, identity: Identity, version: Version, page: PageIndex) -> bool {
        self.lock().awaited.contains(&(identity, version, page))
    }

    /// Has a batch fetched. False: it will not be, since there is too much to do or no thread.
    pub(crate) fn start(self: &Arc<Self>, batch: Batch) -> bool {
        let mut state = self.lock();
        if state.waiting.len() >= MOST_WAITING {
            return false;
        }
        let lacks_thread = state.idle <= state.waiting.len() && state.threads < THREADS;
        if lacks_thread {
            state.threads += 1;
            drop(state);
            let fetcher = Arc::clone(self);
            let work = Box::new(move || fetcher.work());
            let spawned = self.system.spawn("mvsqlite-fetch", work);
            state = self.lock();
            if spawned.is_err() {
                state.threads -= 1;
            }
        }
        if state.threads == 0 {
            return false;
        }
        state.awaited.extend(batch.places());
        state.waiting.push_back(batch);
        drop(state);
        self.changed.happen();
        true
    }

    /// Waits for a page that is being fetched, or takes over the batch if nobody has begun with it:
    /// then its pages are the caller's to fetch. Otherwise there are none, and the page has come or
    /// nobody will fetch it.
    pub(crate) fn claim(&self, identity: Identity, version: Version, page: PageIndex) -> PageSet {
        let place = (identity, version, page);
        let mut state = self.lock();
        let holds = |batch: &Batch| {
            batch.identity == identity && batch.version == version && batch.pages.contains(page)
        };
        if let Some(at) = state.waiting.iter().position(holds)
            && let Some(batch) = state.waiting.remove(at)
        {
            state.forget(&batch);
            return batch.pages;
        }
        let deadline = self.system.now() + PATIENCE;
        while state.awaited.contains(&place) {
            let left = deadline.saturating_sub(self.system.now());
            if left.is_zero() {
                break;
            }
            let epoch = self.changed.epoch();
            drop(state);
            self.changed.wait(epoch, left);
            state = self.lock();
        }
        PageSet::new()
    }

    /// The life of a thread.
    fn work(&self) {
        let _leaving = Leaving(self);
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.waiting.pop_front() {
                drop(state);
                let done = Done {
                    fetcher: self,
                    places: batch.places().collect(),
                };
                (batch.fetch)(batch.pages);
                drop(done);
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let epoch = self.changed.epoch();
            drop(state);
            let changed = self.changed.wait(epoch, IDLE);
            state = self.lock();
            state.idle -= 1;
            if !changed && state.waiting.is_empty() {
                return;
            }
        }
    }
}

/// Nobody waits for the pages of a batch any more, however its fetching ended.
struct Done<'a> {
    fetcher: &'a Fetcher,
    places: Vec<Place>,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut state = self.fetcher.lock();
        for place in &self.places {
            state.awaited.remove(place);
        }
        drop(state);
        self.fetcher.changed.happen();
    }
}

/// A thread that ends makes room for another.
struct Leaving<'a>(&'a Fetcher);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Os;
    use mvsqlite_protocol::{Incarnation, NamespaceId};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    fn identity() -> Identity {
        Identity {
            incarnation: Incarnation::from_bytes([1; 8]),
            namespace: NamespaceId::from_bytes([2; 10]),
        }
    }

    fn batch(pages: &[PageIndex], fetch: impl FnOnce(PageSet) + Send + 'static) -> Batch {
        Batch {
            identity: identity(),
            version: Version::ZERO,
            pages: pages.iter().copied().collect(),
            fetch: Box::new(fetch),
        }
    }

    fn claim(fetcher: &Fetcher, page: PageIndex) -> PageSet {
        fetcher.claim(identity(), Version::ZERO, page)
    }

    #[test]
    fn a_reader_waits_for_a_page_on_its_way_and_takes_over_one_that_is_not() {
        let fetcher = Arc::new(Fetcher::new(Arc::new(Os::new())));
        let (begun, has_begun) = mpsc::channel();
        let fetched = Arc::new(AtomicU32::new(0));
        let mut releases = Vec::new();
        for page in 0..THREADS as u32 {
            let (release, released) = mpsc::channel::<()>();
            let (begun, fetched) = (begun.clone(), Arc::clone(&fetched));
            let fetch = move |_| {
                begun.send(()).unwrap();
                let _ = released.recv();
                fetched.fetch_or(1 << page, Ordering::SeqCst);
            };
            assert!(fetcher.start(batch(&[page], fetch)));
            releases.push(release);
        }
        (0..THREADS).for_each(|_| has_begun.recv().unwrap());
        let never = |_| panic!("the reader has taken it over");
        assert!(fetcher.start(batch(&[7, 8], never)));
        assert!(claim(&fetcher, 9).is_empty());
        let both: PageSet = [7, 8].into_iter().collect();
        assert_eq!(claim(&fetcher, 8), both);
        assert!(claim(&fetcher, 7).is_empty());
        let releaser = std::thread::spawn(move || drop(releases));
        for page in 0..THREADS as u32 {
            assert!(claim(&fetcher, page).is_empty());
            assert_ne!(fetched.load(Ordering::SeqCst) & 1 << page, 0);
        }
        releaser.join().unwrap();
    }

    #[test]
    fn a_fetch_that_panics_leaves_nobody_waiting_and_the_next_one_gets_a_thread() {
        let fetcher = Arc::new(Fetcher::new(Arc::new(Os::new())));
        for page in 0..4 {
            let fetch = |_| std::panic::resume_unwind(Box::new("a bug"));
            assert!(fetcher.start(batch(&[page], fetch)));
            claim(&fetcher, page);
            assert!(!fetcher.awaits(identity(), Version::ZERO, page));
        }
    }

    #[test]
    fn without_threads_nothing_is_promised() {
        struct NoThreads;
        impl System for NoThreads {
            fn now(&self) -> Duration {
                Duration::ZERO
            }
            fn sleep(&self, _: Duration) {}
            fn fill_random(&self, _: &mut [u8]) -> Result<(), crate::system::RandomError> {
                Ok(())
            }
            fn process_id(&self) -> u32 {
                1
            }
        }
        let fetcher = Arc::new(Fetcher::new(Arc::new(NoThreads)));
        let fetch = |_| panic!("nobody is there to fetch");
        assert!(!fetcher.start(batch(&[1], fetch)));
        assert!(claim(&fetcher, 1).is_empty());
    }
}
