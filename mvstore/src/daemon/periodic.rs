//! What the store wants done again and again: noting the time, forgetting what has expired, folding
//! layers.
//!
//! Each pass is bounded by a timeout. A failure is told once, at warn, and its end too: a store
//! that is out of reach for an hour does not fill the log.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::error::StoreError;
use crate::store::Store;

/// How often the time is noted: the resolution of "which version was it at this time".
const RECORD_TIME_EVERY: Duration = Duration::from_secs(5);
/// How often expired things are looked for, and how many passes are made at once while there is
/// more.
const COLLECT_EVERY: Duration = Duration::from_secs(60);
const COLLECT_PASSES: usize = 100;
/// How often layers to fold are looked for, and for how long they are folded at once while there are
/// more.
const FOLD_EVERY: Duration = Duration::from_secs(1);
const FOLD_FOR: Duration = Duration::from_secs(10);
/// How long one pass may take.
const PASS_TIMEOUT: Duration = Duration::from_secs(30);

/// The tasks, running.
pub(super) struct Periodic {
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Periodic {
    /// A server that only reads has nothing to do again and again.
    pub(super) fn start(store: &Arc<Store>, read_only: bool) -> Self {
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        if read_only {
            tasks.close();
            return Self { stopping, tasks };
        }
        let record = {
            let store = Arc::clone(store);
            move || record_time(Arc::clone(&store))
        };
        let collect = {
            let store = Arc::clone(store);
            move || collect_expired(Arc::clone(&store))
        };
        let fold = {
            let store = Arc::clone(store);
            move || fold_layers(Arc::clone(&store))
        };
        let stop = || stopping.clone();
        tasks.spawn(repeat("record_time", RECORD_TIME_EVERY, stop(), record));
        tasks.spawn(repeat("collect_expired", COLLECT_EVERY, stop(), collect));
        tasks.spawn(repeat("fold_layers", FOLD_EVERY, stop(), fold));
        tasks.close();
        Self { stopping, tasks }
    }

    /// Ends the tasks between or within passes; a pass cut short is made again some other time.
    pub(super) async fn stop(self) {
        self.stopping.cancel();
        self.tasks.wait().await;
    }
}

async fn record_time(store: Arc<Store>) -> Result<(), StoreError> {
    store.record_time().await
}

async fn collect_expired(store: Arc<Store>) -> Result<(), StoreError> {
    for _ in 0..COLLECT_PASSES {
        let collected = store.collect_expired().await?;
        debug!(?collected, "expired things were collected");
        if !collected.more {
            break;
        }
    }
    Ok(())
}

async fn fold_layers(store: Arc<Store>) -> Result<(), StoreError> {
    let begun = Instant::now();
    while begun.elapsed() < FOLD_FOR {
        let folded = store.fold_layers().await?;
        if folded.layers > 0 {
            debug!(?folded, "large commits were worked off");
        }
        if !folded.more {
            break;
        }
    }
    Ok(())
}

async fn repeat<F>(
    name: &'static str,
    every: Duration,
    stopping: CancellationToken,
    pass: impl Fn() -> F,
) where
    F: Future<Output = Result<(), StoreError>>,
{
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    let forever = async {
        loop {
            ticks.tick().await;
            let failure = match timeout(PASS_TIMEOUT, pass()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("it took longer than {PASS_TIMEOUT:?}")),
            };
            match (&failure, failing) {
                (None, true) => info!(task = name, "a periodic task works again"),
                (Some(reason), false) => {
                    warn!(
                        task = name,
                        reason, "a periodic task fails; it is tried again"
                    );
                }
                (Some(reason), true) => debug!(task = name, reason, "it still fails"),
                (None, false) => {}
            }
            failing = failure.is_some();
        }
    };
    tokio::select! {
        () = forever => {}
        () = stopping.cancelled() => {}
    }
}
