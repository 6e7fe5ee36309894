//! The embedded engine: one process, one directory, durable.
//!
//! Reads are made where they are asked for, on the caller's thread, over a snapshot of the storage
//! library: they mostly come from memory, and a hop to another thread would cost more than they do.
//! As they never wait, they draw on the runtime's budget, so that a task that only reads gives way.
//! Commits go to one thread ([`committer`]), which decides conflicts, shares an fsync among all
//! that wait, and makes them visible in version order afterwards.
//!
//! Lock order: the two locks of [`Shared`] are held for moments and never together.
//!
//! It deliberately does not retry, does not batch by waiting, and does not go on after a failed
//! write or fsync: what the disk holds is then unknown, and a restart finds out.

mod committer;
mod directory;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod group;
mod journal;
mod library;
mod runway;

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mvsqlite_protocol::{ReadVersion, Version};
use tokio::sync::{SetOnce, oneshot};
use tokio::task::consume_budget;

use self::committer::{Committer, Job, Message};
use self::directory::Directory;
pub use self::directory::OpenError;
pub(crate) use self::directory::is_no_store;
use self::library::{Contents, Library, View, WriteError};
use self::runway::Runway;
use super::clock::{Clock, EngineTime, MonotonicClock, micros};
use super::conflict::WindowLimits;
use super::request::{Draft, check_key, check_range};
use super::{
    Engine, Freshness, Isolation, KeyRange, KvError, Limits, Pair, RangeOptions, Transaction,
};

/// Commits that set no more than this go on as long as those that only remove: the mark that
/// deletes a namespace, that closes a stage, that settles a commit. Without them no room could be
/// made. The smallest commit of a page sets more.
const BOOKKEEPING_BYTES: u64 = 512;

/// How an embedded engine is opened.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// What a transaction may hold.
    pub limits: Limits,
    /// Bytes of memory for the library's cache of blocks and values; filled as reading goes on.
    pub cache_bytes: u64,
    /// Bytes of new writes kept in memory before they go from the journal to a table. There may be
    /// a few such lots at once while writing is faster than the disk, and about as much space is
    /// taken by removed values before it is won back. Fixed when the directory is
    /// made.
    pub memtable_bytes: u64,
    /// Most bytes of keys in the conflict window.
    pub window_bytes: usize,
    /// Bytes of the file system that are left alone: with less than that free, commits that set
    /// values are refused; commits that remove things and set next to nothing go on down to half of
    /// it. The library needs room to rewrite its files, and does not survive running out of it.
    pub reserve_bytes: u64,
    /// Decides when a transaction is too old.
    pub clock: Arc<dyn Clock>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            limits: Limits::EMBEDDED,
            cache_bytes: 256 << 20,
            memtable_bytes: 16 << 20,
            window_bytes: 64 << 20,
            // A journal of 64 MiB and its successor, four memtables on their way to tables, and as
            // much again for a compaction.
            reserve_bytes: 256 << 20,
            clock: Arc::new(MonotonicClock::default()),
        }
    }
}

impl EmbeddedOptions {
    fn window_limits(&self) -> WindowLimits {
        WindowLimits {
            age: self.limits.transaction_age,
            bytes: self.window_bytes,
        }
    }
}

/// An engine over a directory that it has to itself. Dropping it without [`Self::close`] closes it
/// too, but does not wait for that.
pub struct EmbeddedEngine {
    shared: Arc<Shared>,
    inbox: Sender<Message>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// Where an engine began: which version everything before lies at or below, and when.
#[derive(Debug, Clone, Copy)]
struct Opened {
    version: ReadVersion,
    at: Duration,
}

/// What the engine, its transactions and its committer share.
struct Shared {
    path: PathBuf,
    options: EmbeddedOptions,
    opened: Opened,
    /// `None` once closed: a view keeps the library's files open.
    published: RwLock<Option<Arc<Published>>>,
    stopped: SetOnce<Stopped>,
}

/// The newest commits that are durable.
struct Published {
    version: ReadVersion,
    view: View,
}

/// Why the engine serves no more.
#[derive(Debug, Clone)]
struct Stopped {
    reason: String,
}

impl EmbeddedEngine {
    /// Opens the directory, or makes it; blocks for as long as recovery takes.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is wrong with which directory and what to do.
    pub fn open(path: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let directory = Directory::open(path, |draft| create(draft, &options))?;
        let torn = journal::mend(&directory.database())?;
        if torn > 0 {
            tracing::info!(
                directory = %path.display(), bytes = torn,
                "cut off a commit that a crash interrupted"
            );
        }
        let library = Library::open(&directory.database(), &options)?;
        let newest = reserved(&library, path)?;
        let ceiling = newest + committer::RESERVED;
        reserve(&library, path, ceiling)?;
        Self::start(directory, library, options, newest, ceiling)
    }

    fn start(
        directory: Directory,
        library: Library,
        options: EmbeddedOptions,
        newest: u64,
        ceiling: u64,
    ) -> Result<Self, OpenError> {
        let path = directory.path().to_owned();
        let opened = Opened {
            version: ReadVersion(newest),
            at: options.clock.now(),
        };
        let shared = Arc::new(Shared {
            path: path.clone(),
            options,
            opened,
            published: RwLock::default(),
            stopped: SetOnce::new(),
        });
        shared.publish(ReadVersion(newest), library.view());
        let (inbox, messages) = mpsc::channel();
        let runway = Runway::new(directory.database());
        let committer = Committer::new(library, runway, shared.clone(), newest, ceiling);
        let left = shared.clone();
        let thread = std::thread::Builder::new()
            .name("kv-commit".to_owned())
            .spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| committer.run(&messages))).is_err() {
                    left.stop(Stopped::new("the commit thread panicked"));
                }
                left.set_published(None);
                // Only now may another process have it.
                drop(directory);
            })
            .map_err(OpenError::io("starting a thread for", &path))?;
        Ok(Self {
            shared,
            inbox,
            committer: Mutex::new(Some(thread)),
        })
    }

    /// Commits what waits, closes the files and gives up the directory; blocks until that is done.
    /// What is asked afterwards is [`KvError::Unavailable`]. Transactions that have read keep the
    /// files open until they are dropped.
    pub fn close(&self) {
        drop(self.inbox.send(Message::Close));
        let committer = self
            .committer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(committer) = committer {
            drop(committer.join());
        }
    }
}

/// Makes a new database that holds nothing but its first reserved versions, and closes it.
fn create(path: &Path, options: &EmbeddedOptions) -> Result<(), OpenError> {
    let library = Library::open(path, options)?;
    reserve(&library, path, committer::RESERVED)
}

/// Below which version everything was, or may have been, given out.
fn reserved(library: &Library, path: &Path) -> Result<u64, OpenError> {
    library
        .view()
        .ceiling()
        .map_err(|error| OpenError::corrupt(path, error.to_string()))?
        .ok_or_else(|| OpenError::corrupt(path, "the version ceiling is missing"))
}

fn reserve(library: &Library, path: &Path, ceiling: u64) -> Result<(), OpenError> {
    library.write(Contents::new(), Some(ceiling)).map_err(
        |(WriteError::Refused(reason) | WriteError::Unknown(reason))| {
            OpenError::io("writing to", path)(io::Error::other(reason))
        },
    )
}

impl fmt::Debug for EmbeddedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedEngine")
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}

impl Stopped {
    fn new(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
        }
    }

    fn error(&self) -> KvError {
        KvError::Unavailable {
            reason: format!(
                "writing failed earlier ({}), so the engine stopped; look at the disk and the kernel's log, then restart mvstore: it will recover",
                self.reason
            ),
        }
    }
}

impl Shared {
    fn published(&self) -> Result<Arc<Published>, KvError> {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(|| self.closed())
    }

    fn publish(&self, version: ReadVersion, view: View) {
        self.set_published(Some(Arc::new(Published { version, view })));
    }

    fn set_published(&self, published: Option<Arc<Published>>) {
        let mut current = self
            .published
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, published);
        drop(current);
        // The last view of a moment lets go of it in the library: outside the lock.
        drop(before);
    }

    /// The first reason stays.
    fn stop(&self, stopped: Stopped) {
        drop(self.stopped.set(stopped));
    }

    fn closed(&self) -> KvError {
        KvError::Unavailable {
            reason: format!("the store in {} is closed", self.path.display()),
        }
    }

    fn check_running(&self) -> Result<(), KvError> {
        match self.stopped.get() {
            None => Ok(()),
            Some(stopped) => Err(stopped.error()),
        }
    }

    /// Whether a commit that sets so many bytes leaves the reserve alone.
    fn check_space(&self, bytes_set: u64) -> Result<(), KvError> {
        let reserve = self.options.reserve_bytes;
        let needed = if bytes_set <= BOOKKEEPING_BYTES {
            reserve / 2
        } else {
            // Once in the journal, once in the tree.
            reserve.saturating_add(2 * bytes_set)
        };
        let free = match rustix::fs::statvfs(&self.path) {
            Ok(status) => status.f_bavail.saturating_mul(status.f_frsize),
            Err(error) => {
                return Err(KvError::Unavailable {
                    reason: format!("looking at {} failed: {error}", self.path.display()),
                });
            }
        };
        if free >= needed {
            return Ok(());
        }
        Err(KvError::StorageFull {
            reason: format!(
                "{} bytes are free on the file system of {}, and {needed} are needed; make room, and writing goes on",
                free,
                self.path.display()
            ),
        })
    }
}

#[async_trait]
impl Engine for EmbeddedEngine {
    fn begin(&self, _freshness: Freshness) -> Box<dyn Transaction> {
        // The newest is at hand, whatever would do.
        Box::new(EmbeddedTransaction {
            shared: self.shared.clone(),
            inbox: self.inbox.clone(),
            started: OnceLock::new(),
            draft: Draft::new(self.limits()),
        })
    }

    fn limits(&self) -> Limits {
        self.shared.options.limits
    }

    fn describe(&self) -> String {
        format!("embedded in {}", self.shared.path.display())
    }

    async fn check(&self) -> Result<(), KvError> {
        self.shared.check_running()?;
        self.shared.check_space(BOOKKEEPING_BYTES + 1)
    }

    async fn stopped(&self) -> KvError {
        self.shared.stopped.wait().await.error()
    }

    /// What the file system gave to the files, journals included.
    fn physical_bytes(&self) -> Option<u64> {
        allocated_bytes(&self.shared.path).ok()
    }

    /// The directory has one process at a time, whose monotonic clock starts anew with it. The run
    /// is named by the version it was opened at, which no other run begins with.
    fn time(&self, _read_version: ReadVersion) -> EngineTime {
        let since = self.shared.options.clock.now();
        EngineTime {
            run: self.shared.opened.version.0,
            micros: micros(since.saturating_sub(self.shared.opened.at)),
        }
    }
}

fn allocated_bytes(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => allocated_bytes(&entry.path())?,
            Ok(metadata) => metadata.blocks() * 512,
            // Files come and go while the library works.
            Err(_) => 0,
        };
    }
    Ok(bytes)
}

struct EmbeddedTransaction {
    shared: Arc<Shared>,
    inbox: Sender<Message>,
    started: OnceLock<Started>,
    draft: Draft,
}

/// What a transaction reads, and since when.
struct Started {
    published: Arc<Published>,
    at: Duration,
}

impl EmbeddedTransaction {
    /// What it reads, chosen now if it was not before.
    fn start(&self) -> Result<&Started, KvError> {
        self.shared.check_running()?;
        let now = self.shared.options.clock.now();
        let started = match self.started.get() {
            Some(started) => started,
            None => {
                let published = self.shared.published()?;
                self.started.get_or_init(|| Started { published, at: now })
            }
        };
        if now.saturating_sub(started.at) > self.shared.options.limits.transaction_age {
            return Err(KvError::TooOld);
        }
        Ok(started)
    }
}

#[async_trait]
impl Transaction for EmbeddedTransaction {
    async fn read_version(&self) -> Result<ReadVersion, KvError> {
        Ok(self.start()?.published.version)
    }

    async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, KvError> {
        consume_budget().await;
        check_key(key, &self.shared.options.limits)?;
        let value = self.start()?.published.view.get(key)?;
        self.draft.note_get(key, isolation);
        Ok(value)
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<Vec<Pair>, KvError> {
        consume_budget().await;
        if range.is_empty() {
            return Ok(Vec::new());
        }
        check_range(range, &self.shared.options.limits)?;
        let view = &self.start()?.published.view;
        let pairs = view.get_range(range, options.limit, options.reverse)?;
        self.draft.note_range(range, options, &pairs);
        Ok(pairs)
    }

    fn draft(&self) -> &Draft {
        &self.draft
    }

    fn draft_mut(&mut self) -> &mut Draft {
        &mut self.draft
    }

    async fn commit(self: Box<Self>) -> Result<Version, KvError> {
        if self.draft.is_read_only() {
            let read = self.started.get().map(|started| started.published.version);
            return Ok(Version::new(read.unwrap_or_default().0, 0));
        }
        let read_version = self.start()?.published.version;
        let request = self.draft.finish()?;
        // Its view is not needed any more, and keeps old versions alive.
        drop(self.started);
        let (answer, outcome) = oneshot::channel();
        let job = Job {
            read_version,
            request,
            answer,
        };
        self.inbox
            .send(Message::Commit(Box::new(job)))
            .map_err(|_| self.shared.closed())?;
        outcome.await.unwrap_or_else(|_| {
            Err(KvError::MaybeCommitted {
                reason: "the commit thread ended without an answer".to_owned(),
            })
        })
    }
}
