//! A store as a simulated process: it runs, is killed where it stands, and starts again.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mvstore::environment::{Clock, Entropy};
use mvstore::error::StoreError;
use mvstore::kv::Engine;
use mvstore::store::{Store, StoreOptions};

use crate::plan::Plan;
use crate::random::Random;
use crate::scheduler::{Group, Killed, Scheduler};

/// The time of day when a world begins: 2026-01-01.
const EPOCH_MILLIS: u64 = 1_767_225_600_000;

/// The groups below are the world's own.
const FIRST_GROUP: u64 = 16;

/// The keys of all simulated stores begin with these.
const METADATA_PREFIX: &str = "mvstore";
const DATA_PREFIX: &str = "m";

/// One of the stores of a world.
pub(crate) struct StoreNode {
    pub(crate) number: usize,
    scheduler: Scheduler,
    engine: Arc<dyn Engine>,
    wall: Arc<Wall>,
    plan: Plan,
    random: Mutex<Random>,
    state: Mutex<State>,
}

enum State {
    Down,
    Starting(Group),
    Running(Running),
}

/// A store from one start to its end.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) store: Arc<Store>,
    /// All that it does is in this group, and ends with it.
    pub(crate) group: Group,
}

/// A store's clock on the wall.
struct Wall {
    scheduler: Scheduler,
    /// How far it is off, in milliseconds.
    offset: Mutex<i64>,
}

impl Wall {
    fn lock(&self) -> MutexGuard<'_, i64> {
        self.offset.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for Wall {
    fn unix_millis(&self) -> u64 {
        let offset = *self.lock();
        let since = u64::try_from(self.scheduler.now().as_millis()).unwrap_or(u64::MAX);
        (EPOCH_MILLIS + since).saturating_add_signed(offset)
    }
}

/// A store's randomness.
struct Seeded(Mutex<Random>);

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> std::io::Result<()> {
        let mut random = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        random.fill(buffer);
        Ok(())
    }
}

impl StoreNode {
    pub(crate) fn new(
        number: usize,
        scheduler: &Scheduler,
        engine: Arc<dyn Engine>,
        plan: &Plan,
        random: Random,
    ) -> Self {
        Self {
            number,
            scheduler: scheduler.clone(),
            engine,
            wall: Arc::new(Wall {
                scheduler: scheduler.clone(),
                offset: Mutex::new(0),
            }),
            plan: plan.clone(),
            random: Mutex::new(random),
            state: Mutex::new(State::Down),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store, if it serves.
    pub(crate) fn running(&self) -> Option<Running> {
        match &*self.lock() {
            State::Running(running) => Some(running.clone()),
            State::Down | State::Starting(_) => None,
        }
    }

    /// The group of its tasks, if it is not down.
    pub(crate) fn group(&self) -> Option<Group> {
        match &*self.lock() {
            State::Down => None,
            State::Starting(group) => Some(*group),
            State::Running(running) => Some(running.group),
        }
    }

    /// Ends it where it stands. False: it was down.
    pub(crate) fn end(&self) -> bool {
        let Some(group) = self.group() else {
            return false;
        };
        self.scheduler.end_group(group);
        let ended = std::mem::replace(&mut *self.lock(), State::Down);
        drop(ended);
        true
    }

    /// Steps its clock on the wall.
    pub(crate) fn step_clock(&self, millis: i64) {
        *self.wall.lock() += millis;
    }

    /// Starts the store. It serves from some time on.
    pub(crate) fn start(self: &Arc<Self>) {
        let group = Group(self.scheduler.tick() + FIRST_GROUP);
        *self.lock() = State::Starting(group);
        let node = Arc::clone(self);
        let name = format!("store {}: start", self.number);
        self.scheduler.spawn(group, name, async move {
            let pause = Duration::from_millis(50);
            let store = loop {
                match node.open().await {
                    Ok(store) => break Arc::new(store),
                    Err(error) => {
                        let number = node.number;
                        node.scheduler.note(format_args!("store {number}: {error}"));
                        node.scheduler.sleep(pause).await;
                    }
                }
            };
            *node.lock() = State::Running(Running {
                store: Arc::clone(&store),
                group,
            });
            node.keep_house(&store, group);
            node.engine.stopped().await;
            // As the daemon does: only opening the engine anew can help.
            resume_unwind(Box::new(Killed));
        });
    }

    async fn open(&self) -> Result<Store, StoreError> {
        let entropy = {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            random.fork()
        };
        let mut options = StoreOptions::new(METADATA_PREFIX, DATA_PREFIX);
        options.clock = Arc::clone(&self.wall) as Arc<dyn Clock>;
        options.page_cache_bytes = self.plan.store_cache_bytes;
        options.lease_ttl = self.plan.lease_ttl;
        options.knobs = self.plan.knobs;
        options.entropy = Arc::new(Seeded(Mutex::new(entropy)));
        Store::open(Arc::clone(&self.engine), options).await
    }

    /// What a store does again and again, as its daemon has it done.
    fn keep_house(&self, store: &Arc<Store>, group: Group) {
        let tasks = [
            ("fold", Duration::from_secs(1)),
            ("note the time", Duration::from_secs(5)),
            ("collect", Duration::from_secs(60)),
        ];
        for (task, every) in tasks {
            let (store, scheduler) = (Arc::clone(store), self.scheduler.clone());
            let name = format!("store {}: {task}", self.number);
            self.scheduler.spawn(group, name, async move {
                loop {
                    let pause = scheduler.draw(|random| random.duration(every / 4..every));
                    scheduler.sleep(pause).await;
                    // A failure is made good by the next pass.
                    let _ = match task {
                        "fold" => store.fold_layers().await.map(drop),
                        "collect" => store.collect_expired().await.map(drop),
                        _ => store.record_time().await,
                    };
                }
            });
        }
    }
}
