//! A world: scheduler, engine, stores and network, all of one seed.

mod network;

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mvstore::error::StoreError;
use mvstore::failpoint;
use mvstore::kv::Engine;
use mvstore::store::Store;
use tokio::sync::oneshot;

use crate::engine::SimEngine;
use crate::faults::Switch;
use crate::outcome::Statistics;
use crate::plan::{EngineKind, Plan};
use crate::random::Random;
use crate::scheduler::{Group, Killed, Scheduler};
use crate::store_node::StoreNode;
use crate::trace::Trace;

/// The tasks that belong to no store.
const NETWORK: Group = Group(0);
/// Those of the engine.
const ENGINE: Group = Group(2);

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) plan: Plan,
    pub(crate) seed: u64,
    pub(crate) switch: Arc<Switch>,
    pub(crate) engine: SimEngine,
    pub(crate) nodes: Vec<Arc<StoreNode>>,
    network: Mutex<Network>,
    statistics: Mutex<Statistics>,
    /// Messages on their way and requests being worked at.
    in_flight: Arc<AtomicU64>,
}

struct Network {
    random: Random,
    /// Clients and stores that cannot reach each other, and until when.
    cut: BTreeMap<(u32, usize), Duration>,
}

impl World {
    pub(crate) fn new(seed: u64, plan: &Plan) -> Arc<Self> {
        let random = |purpose| Random::for_purpose(seed, purpose);
        let scheduler = Scheduler::new(random("scheduler"), Trace::new(plan.prints));
        let switch = Arc::new(Switch::default());
        let engine = SimEngine::new(&scheduler, ENGINE, plan, &switch, random("engine"));
        let mut entropy = random("stores");
        let nodes = (0..plan.stores as usize).map(|number| {
            let engine: Arc<dyn Engine> = Arc::new(engine.clone());
            Arc::new(StoreNode::new(
                number,
                &scheduler,
                engine,
                plan,
                entropy.fork(),
            ))
        });
        Arc::new(Self {
            nodes: nodes.collect(),
            plan: plan.clone(),
            seed,
            switch,
            engine,
            network: Mutex::new(Network {
                random: random("network"),
                cut: BTreeMap::new(),
            }),
            statistics: Mutex::default(),
            in_flight: Arc::default(),
            scheduler,
        })
    }

    pub(crate) fn statistics(&self) -> MutexGuard<'_, Statistics> {
        self.statistics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has stores that pass a named point end there, at times. For the calling thread, which is that
    /// of the scheduler, until [`World::end`].
    pub(crate) fn watch_points(self: &Arc<Self>) {
        let world = Arc::downgrade(self);
        let random = Mutex::new(Random::for_purpose(self.seed, "points"));
        failpoint::hook(Some(Rc::new(move |point| {
            let Some(world) = world.upgrade() else { return };
            let probability = world.plan.faults.killed_at_point;
            let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
            if world.switch.is_on() && random.chance(probability) {
                drop(random);
                world
                    .scheduler
                    .note(format_args!("a store ends at {point}"));
                *world
                    .statistics()
                    .points
                    .entry(point.to_owned())
                    .or_default() += 1;
                drop(world);
                resume_unwind(Box::new(Killed));
            }
        })));
    }

    /// Buries the stores that have ended by themselves since the last call.
    pub(crate) fn bury(self: &Arc<Self>) {
        for group in self.scheduler.take_killed() {
            let mut nodes = self.nodes.iter();
            if let Some(node) = nodes.find(|node| node.group() == Some(group)) {
                self.kill(node, "ended");
            }
        }
    }

    /// Ends a store where it stands. It starts again after a while.
    pub(crate) fn kill(self: &Arc<Self>, node: &Arc<StoreNode>, how: &str) {
        if !node.end() {
            return;
        }
        self.scheduler
            .note(format_args!("store {}: {how}", node.number));
        self.statistics().kills += 1;
        if self.plan.engine == EngineKind::Embedded {
            self.engine.crash();
        }
        let pause = Duration::from_millis(1)..Duration::from_millis(800);
        let pause = self.network().random.duration(pause);
        let (world, node) = (Arc::clone(self), Arc::clone(node));
        let name = format!("store {}: down", node.number);
        self.scheduler.spawn(NETWORK, name, async move {
            world.scheduler.sleep(pause).await;
            node.start();
        });
    }

    /// Ends everything: what is left of it would keep the world alive.
    pub(crate) fn end(&self) {
        failpoint::hook(None);
        for node in &self.nodes {
            node.end();
        }
        self.scheduler.end_group(NETWORK);
        self.scheduler.end_group(ENGINE);
        let (crashes, lost) = self.engine.crashes();
        let mut statistics = self.statistics();
        statistics.crashes = crashes;
        statistics.commits_lost_unsynced = lost;
    }

    /// Has a store that serves do something, from within a fiber. `None`: it was killed on the way.
    pub(crate) fn administer<T, F>(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce(Arc<Store>) -> F,
    ) -> Option<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let running = loop {
            let serving = self.nodes.iter().filter_map(|node| node.running());
            let mut serving: Vec<_> = serving.collect();
            if !serving.is_empty() {
                let index = self.network().random.index(serving.len());
                break serving.swap_remove(index);
            }
            let pause = Duration::from_millis(10);
            self.scheduler.block_on(self.scheduler.sleep(pause));
        };
        let (done, answer) = oneshot::channel();
        let work = self.counted(work(running.store));
        let name = format_args!("admin: {name}");
        self.scheduler.spawn(running.group, name, async move {
            let _ = done.send(work.await);
        });
        self.scheduler.block_on(answer).ok()
    }
}
