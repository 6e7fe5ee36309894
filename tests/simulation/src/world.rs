//! A world: scheduler, engine, stores and network, all of one seed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mvsqlite::client::{Reply, TransportError};
use mvstore::error::StoreError;
use mvstore::kv::Engine;
use mvstore::store::Store;
use tokio::sync::oneshot;

use crate::dispatch::{Message, serve};
use crate::engine::SimEngine;
use crate::outcome::Statistics;
use crate::plan::Plan;
use crate::random::Random;
use crate::scheduler::{Group, Scheduler};
use crate::store_node::StoreNode;
use crate::trace::Trace;

/// The tasks that belong to no store.
const NETWORK: Group = Group(0);

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) plan: Plan,
    pub(crate) seed: u64,
    pub(crate) nodes: Vec<Arc<StoreNode>>,
    network: Mutex<Random>,
    statistics: Mutex<Statistics>,
}

type Answer = Result<Reply, TransportError>;

impl World {
    pub(crate) fn new(seed: u64, plan: &Plan) -> Arc<Self> {
        let random = |purpose| Random::for_purpose(seed, purpose);
        let scheduler = Scheduler::new(random("scheduler"), Trace::new(plan.prints));
        let engine = SimEngine::new(&scheduler, NETWORK, plan.engine.clone(), random("engine"));
        let engine: Arc<dyn Engine> = Arc::new(engine);
        let mut entropy = random("stores");
        let nodes = (0..plan.stores as usize).map(|number| {
            let engine = Arc::clone(&engine);
            Arc::new(StoreNode::new(number, &scheduler, engine, entropy.fork()))
        });
        Arc::new(Self {
            nodes: nodes.collect(),
            plan: plan.clone(),
            seed,
            network: Mutex::new(random("network")),
            statistics: Mutex::default(),
            scheduler,
        })
    }

    pub(crate) fn statistics(&self) -> MutexGuard<'_, Statistics> {
        self.statistics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn network(&self) -> MutexGuard<'_, Random> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything: what is left of it would keep the world alive.
    pub(crate) fn end(&self) {
        for node in &self.nodes {
            if let Some(running) = node.running() {
                self.scheduler.end_group(running.group);
            }
            node.forget();
        }
        self.scheduler.end_group(NETWORK);
    }

    async fn travel(&self) {
        let time = self.network().duration(self.plan.latency.clone());
        self.scheduler.sleep(time).await;
    }

    /// Sends a request to a store and waits for the answer, from within a fiber.
    pub(crate) fn call(
        self: &Arc<Self>,
        server: usize,
        message: Message,
        timeout: Duration,
    ) -> Answer {
        self.statistics().requests += 1;
        let (reply, answer) = oneshot::channel();
        let name = format!("network: {} to store {server}", message.path);
        let delivery = Arc::clone(self).deliver(server, message, reply);
        self.scheduler.spawn(NETWORK, name, delivery);
        self.scheduler.block_on(async {
            tokio::select! {
                biased;
                answer = answer => answer.unwrap_or_else(|_| Err(lost("the connection broke"))),
                () = self.scheduler.sleep(timeout) => Err(lost("no answer in time")),
            }
        })
    }

    async fn deliver(
        self: Arc<Self>,
        server: usize,
        message: Message,
        reply: oneshot::Sender<Answer>,
    ) {
        self.travel().await;
        let running = self.nodes.get(server).and_then(|node| node.running());
        let answer = match running {
            None => Err(TransportError {
                maybe_sent: false,
                reason: "connection refused".to_owned(),
            }),
            Some(running) => {
                let (done, served) = oneshot::channel();
                let name = format!("store {server}: {}", message.path);
                self.scheduler.spawn(running.group, name, async move {
                    let reply = serve(&running.store, message).await;
                    // Whoever asked may have gone.
                    let _ = done.send(reply);
                });
                served.await.map_err(|_| lost("the connection was reset"))
            }
        };
        self.travel().await;
        let _ = reply.send(answer);
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
                let index = self.network().index(serving.len());
                break serving.swap_remove(index);
            }
            let pause = Duration::from_millis(10);
            self.scheduler.block_on(self.scheduler.sleep(pause));
        };
        let (done, answer) = oneshot::channel();
        let work = work(running.store);
        self.scheduler
            .spawn(running.group, format_args!("admin: {name}"), async move {
                let _ = done.send(work.await);
            });
        self.scheduler.block_on(answer).ok()
    }
}

fn lost(reason: &str) -> TransportError {
    TransportError {
        maybe_sent: true,
        reason: reason.to_owned(),
    }
}
