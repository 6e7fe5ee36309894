//! The simulated engine: one ordered content, a disk that takes its time, and what goes wrong with
//! both.
//!
//! The rules of transactions are those of [`MemoryEngine`], whose content is what is *durable* here.
//! A commit waits in a queue until the next fsync has ended, and only then is judged, applied and
//! answered. So what is visible is durable, and what a crash may lose is exactly the queue: it keeps
//! any prefix of it, as the journal of a real engine does, torn at the end or not.
//!
//! Each operation takes a little time, in which others run.

mod commit;
mod transaction;

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::{ReadVersion, Version};
use mvstore::kv::clock::Clock;
use mvstore::kv::memory::{MemoryEngine, MemoryOptions};
use mvstore::kv::{Engine, EngineTime, Freshness, KvError, Limits, Transaction};
use tokio::sync::{oneshot, watch};

use crate::faults::Switch;
use crate::plan::Plan;
use crate::random::Random;
use crate::scheduler::{Group, Scheduler};
use transaction::SimTransaction;

/// How old a read version may be that is not asked to be new.
const STALE: Duration = Duration::from_secs(2);
/// Most read versions that are kept for such transactions.
const MOST_SPARES: usize = 8;

/// A simulated engine. Clones share their content.
#[derive(Clone)]
pub(crate) struct SimEngine {
    shared: Arc<Shared>,
}

struct Shared {
    scheduler: Scheduler,
    plan: Plan,
    switch: Arc<Switch>,
    durable: MemoryEngine,
    /// The tasks of the engine itself.
    group: Group,
    state: Mutex<State>,
    /// Why it has stopped for good, if it has.
    stopped: watch::Sender<Option<KvError>>,
}

struct State {
    random: Random,
    /// Commits that wait for an fsync, in the order in which they came.
    queue: VecDeque<Waiting>,
    /// A task is busy with them.
    writes: bool,
    /// Transactions that have their read versions and nothing else, and since when.
    spares: Vec<(Duration, ReadVersion, Box<dyn Transaction>)>,
    full: bool,
    /// With a planted bug: what is really durable of what is visible.
    synced: ReadVersion,
    crashes: u64,
    lost: u64,
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
        plan: &Plan,
        switch: &Arc<Switch>,
        random: Random,
    ) -> Self {
        let durable = MemoryEngine::with_options(MemoryOptions {
            limits: plan.limits(),
            clock: Arc::new(SimClock(scheduler.clone())),
            ..MemoryOptions::default()
        });
        Self {
            shared: Arc::new(Shared {
                scheduler: scheduler.clone(),
                plan: plan.clone(),
                switch: Arc::clone(switch),
                durable,
                group,
                state: Mutex::new(State {
                    random,
                    queue: VecDeque::new(),
                    writes: false,
                    spares: Vec::new(),
                    full: false,
                    synced: ReadVersion(0),
                    crashes: 0,
                    lost: 0,
                }),
                stopped: watch::Sender::new(None),
            }),
        }
    }

    /// What the end of its process does to an embedded engine: any prefix of what was not synced is
    /// kept, the rest is lost, and versions begin higher up.
    pub(crate) fn crash(&self) {
        let shared = &self.shared;
        shared.scheduler.end_group(shared.group);
        let (kept, lost) = {
            let state = &mut *shared.lock();
            state.writes = false;
            state.spares.clear();
            state.crashes += 1;
            let kept = state.random.below(state.queue.len() as u64 + 1);
            let lost = state.queue.split_off(usize::try_from(kept).unwrap_or(0));
            state.lost += lost.len() as u64;
            (std::mem::take(&mut state.queue), lost)
        };
        let (keeps, loses) = (kept.len(), lost.len());
        shared.scheduler.note(format_args!(
            "engine: crash, {keeps} commits kept, {loses} lost"
        ));
        drop(lost);
        for commit in kept {
            // The memory engine answers at once.
            let _ = commit.transaction.commit().now_or_never();
        }
        match publishes_early() {
            true => shared.durable.restart_at(shared.lock().synced),
            false => shared.durable.restart(),
        }
        shared.stopped.send_replace(None);
    }

    /// Fills the disk, or makes room.
    pub(crate) fn set_full(&self, full: bool) {
        self.shared.lock().full = full;
    }

    /// How often it crashed, and how many commits that were not synced were lost.
    pub(crate) fn crashes(&self) -> (u64, u64) {
        let state = self.shared.lock();
        (state.crashes, state.lost)
    }
}

/// With these bugs commits are applied before they are synced.
fn publishes_early() -> bool {
    active(Bug::AcknowledgeEarly) || active(Bug::PublishEarly)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self, time: &Range<Duration>) {
        let slow = self.strikes(self.plan.faults.engine.slow);
        let time = match slow {
            true => Duration::from_millis(100)..Duration::from_secs(7),
            false => time.clone(),
        };
        let time = self.lock().random.duration(time);
        self.scheduler.sleep(time).await;
    }

    /// Whether something of this probability happens now.
    fn strikes(&self, probability: f64) -> bool {
        self.switch.is_on() && self.lock().random.chance(probability)
    }

    fn expect_running(&self) -> Result<(), KvError> {
        self.stopped.borrow().clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Engine for SimEngine {
    fn begin(&self, freshness: Freshness) -> Box<dyn Transaction> {
        Box::new(SimTransaction::new(&self.shared, freshness))
    }

    fn limits(&self) -> Limits {
        self.shared.durable.limits()
    }

    fn describe(&self) -> String {
        "simulated".to_owned()
    }

    async fn check(&self) -> Result<(), KvError> {
        self.shared.expect_running()
    }

    async fn stopped(&self) -> KvError {
        let mut stopped = self.shared.stopped.subscribe();
        let reason = match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        };
        match reason {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    fn physical_bytes(&self) -> Option<u64> {
        None
    }

    fn time(&self, read_version: ReadVersion) -> EngineTime {
        self.shared.durable.time(read_version)
    }
}
