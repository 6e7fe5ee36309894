//! The simulated engine: one ordered content, a disk that takes its time, and what goes wrong with
//! both.
//!
//! The rules of transactions are those of [`MemoryEngine`], whose content is what is *durable* here.
//! A commit waits in a queue until the next fsync has ended, and only then is judged, applied and
//! answered. So what is visible is durable, and what a crash may lose is exactly the queue: it keeps
//! any prefix of it, as the journal of a real engine does, torn at the end or not.
//!
//! Each operation takes a little time, in which others run.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mvsqlite_protocol::{ReadVersion, Version};
use mvstore::kv::clock::Clock;
use mvstore::kv::memory::{MemoryEngine, MemoryOptions};
use mvstore::kv::{
    Draft, Engine, EngineTime, Freshness, Isolation, KeyRange, KvError, Limits, Pair, RangeOptions,
    Transaction,
};
use tokio::sync::oneshot;

use crate::random::Random;
use crate::scheduler::{Group, Scheduler};

/// How an engine behaves when nothing is wrong.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// What a transaction may hold.
    pub limits: Limits,
    /// How long a read takes.
    pub read: Range<Duration>,
    /// How long an fsync takes.
    pub fsync: Range<Duration>,
}

/// A simulated engine. Clones share their content.
#[derive(Clone)]
pub(crate) struct SimEngine {
    shared: Arc<Shared>,
}

struct Shared {
    scheduler: Scheduler,
    options: EngineOptions,
    durable: MemoryEngine,
    /// The tasks of the engine itself.
    group: Group,
    state: Mutex<State>,
}

struct State {
    random: Random,
    /// Commits that wait for an fsync, in the order in which they came.
    queue: VecDeque<Waiting>,
    /// A task is busy with them.
    writes: bool,
}

struct Waiting {
    transaction: Box<dyn Transaction>,
    reply: oneshot::Sender<Result<Version, KvError>>,
}

/// The scheduler's time.
struct SimClock(Scheduler);

impl fmt::Debug for SimClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated")
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        self.0.now()
    }
}

impl SimEngine {
    pub(crate) fn new(
        scheduler: &Scheduler,
        group: Group,
        options: EngineOptions,
        random: Random,
    ) -> Self {
        let durable = MemoryEngine::with_options(MemoryOptions {
            limits: options.limits,
            clock: Arc::new(SimClock(scheduler.clone())),
            ..MemoryOptions::default()
        });
        Self {
            shared: Arc::new(Shared {
                scheduler: scheduler.clone(),
                options,
                durable,
                group,
                state: Mutex::new(State {
                    random,
                    queue: VecDeque::new(),
                    writes: false,
                }),
            }),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self, time: &Range<Duration>) {
        let time = self.lock().random.duration(time.clone());
        self.scheduler.sleep(time).await;
    }

    /// Writes what waits, batch by batch, until nothing does.
    async fn write(self: Arc<Self>) {
        loop {
            let batch = {
                let mut state = self.lock();
                if state.queue.is_empty() {
                    state.writes = false;
                    return;
                }
                state.queue.len()
            };
            self.take(&self.options.fsync).await;
            let synced: Vec<_> = self.lock().queue.drain(..batch).collect();
            for commit in synced {
                let done = commit.transaction.commit().await;
                // Whoever asked may have gone.
                let _ = commit.reply.send(done);
            }
        }
    }

    async fn commit(
        self: Arc<Self>,
        transaction: Box<dyn Transaction>,
    ) -> Result<Version, KvError> {
        let (reply, answer) = oneshot::channel();
        let starts = {
            let mut state = self.lock();
            state.queue.push_back(Waiting { transaction, reply });
            !std::mem::replace(&mut state.writes, true)
        };
        if starts {
            let writes = Arc::clone(&self).write();
            self.scheduler.spawn(self.group, "engine: fsync", writes);
        }
        answer.await.unwrap_or_else(|_| {
            Err(KvError::MaybeCommitted {
                reason: "the engine ended".to_owned(),
            })
        })
    }
}

#[async_trait]
impl Engine for SimEngine {
    fn begin(&self, freshness: Freshness) -> Box<dyn Transaction> {
        Box::new(SimTransaction {
            inner: self.shared.durable.begin(freshness),
            engine: Arc::clone(&self.shared),
        })
    }

    fn limits(&self) -> Limits {
        self.shared.options.limits
    }

    fn describe(&self) -> String {
        "simulated".to_owned()
    }

    async fn check(&self) -> Result<(), KvError> {
        Ok(())
    }

    fn physical_bytes(&self) -> Option<u64> {
        None
    }

    fn time(&self, read_version: ReadVersion) -> EngineTime {
        self.shared.durable.time(read_version)
    }
}

struct SimTransaction {
    inner: Box<dyn Transaction>,
    engine: Arc<Shared>,
}

#[async_trait]
impl Transaction for SimTransaction {
    async fn read_version(&self) -> Result<ReadVersion, KvError> {
        self.engine.take(&self.engine.options.read).await;
        self.inner.read_version().await
    }

    async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, KvError> {
        // The read version is chosen when the call begins, as everywhere.
        self.inner.read_version().await?;
        self.engine.take(&self.engine.options.read).await;
        self.inner.get(key, isolation).await
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<Vec<Pair>, KvError> {
        self.inner.read_version().await?;
        self.engine.take(&self.engine.options.read).await;
        self.inner.get_range(range, options).await
    }

    fn draft(&self) -> &Draft {
        self.inner.draft()
    }

    fn draft_mut(&mut self) -> &mut Draft {
        self.inner.draft_mut()
    }

    async fn commit(self: Box<Self>) -> Result<Version, KvError> {
        if self.inner.draft().is_read_only() {
            return self.inner.commit().await;
        }
        self.engine.commit(self.inner).await
    }
}
