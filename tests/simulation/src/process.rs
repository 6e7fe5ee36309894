//! A simulated client process: the real client over simulated time, randomness and network.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mvsqlite::client::{Reply, Request, Transport, TransportError};
use mvsqlite::system::{Event, RandomError, System};
use mvsqlite::{Config, Environment};
use mvstore::error::StoreError;
use mvstore::store::Store;

use crate::dispatch::Message;
use crate::random::Random;
use crate::scheduler::SimEvent;
use crate::world::World;

/// A client process of the world. Clones are the same process.
#[derive(Clone)]
pub struct Process {
    seat: Arc<Seat>,
    environment: Arc<Environment>,
}

/// What the client's code sits on.
struct Seat {
    world: Arc<World>,
    id: u32,
    random: Mutex<Random>,
    alive: AtomicBool,
    /// It stands still until then.
    paused: Mutex<Duration>,
    threads: AtomicU32,
    servers: Vec<String>,
}

impl Process {
    pub(crate) fn new(
        world: &Arc<World>,
        id: u32,
        configure: impl FnOnce(&mut Config, &mut Random),
    ) -> Self {
        let mut random = Random::for_purpose(world.seed, &format!("process {id}"));
        let mut config = Config {
            page_size: 4096,
            timeout: world.plan.client_timeout,
            ..Config::default()
        };
        configure(&mut config, &mut random);
        let servers = (0..world.nodes.len()).map(|number| format!("store {number}"));
        let seat = Arc::new(Seat {
            world: Arc::clone(world),
            id,
            random: Mutex::new(random),
            alive: AtomicBool::new(true),
            paused: Mutex::default(),
            threads: AtomicU32::new(0),
            servers: servers.collect(),
        });
        let transport = Arc::new(Wire {
            seat: Arc::clone(&seat),
            lock_owner: None,
        });
        let system = Arc::clone(&seat) as Arc<dyn System>;
        Self {
            environment: Environment::with_transport(config, transport, system),
            seat,
        }
    }

    /// Which process this is.
    pub fn id(&self) -> u32 {
        self.seat.id
    }

    /// What its databases share.
    pub fn environment(&self) -> Arc<Environment> {
        Arc::clone(&self.environment)
    }

    /// A stream of random numbers of its own; another one with each call.
    pub fn random(&self) -> Random {
        self.seat.draw(Random::fork)
    }

    /// The simulated time since the world began.
    pub fn now(&self) -> Duration {
        self.seat.world.scheduler.now()
    }

    /// Waits; others run.
    pub fn sleep(&self, duration: Duration) {
        self.seat.sleep(duration);
    }

    /// False after it was killed. Every call of its transport fails from then on, and what it observes
    /// counts no more: its code should come to its end.
    pub fn alive(&self) -> bool {
        self.seat.alive.load(Ordering::Relaxed)
    }

    /// Puts a line into the trace.
    pub fn note(&self, text: impl fmt::Display) {
        let id = self.seat.id;
        self.seat
            .world
            .scheduler
            .note(format_args!("process {id}: {text}"));
    }

    /// Has some store that serves do something that is no call of the data plane, such as making a
    /// namespace. `None`: the store was killed on the way, and nobody knows what became of it.
    pub fn administer<T, F>(
        &self,
        name: &str,
        work: impl FnOnce(Arc<Store>) -> F,
    ) -> Option<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.seat.world.administer(name, work)
    }

    /// Kills it.
    pub(crate) fn kill(&self) {
        if self.seat.alive.swap(false, Ordering::Relaxed) {
            self.note("killed");
            self.seat.world.statistics().clients_killed += 1;
        }
    }

    /// Has it stand still for a while.
    pub(crate) fn pause(&self, time: Duration) {
        self.note(format_args!("stands still for {time:?}"));
        self.seat.world.statistics().clients_paused += 1;
        let until = self.now() + time;
        let mut paused = self
            .seat
            .paused
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *paused = until.max(*paused);
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.seat.world
    }
}

impl Seat {
    fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until it stands still no more.
    fn stand_still(&self) {
        let scheduler = &self.world.scheduler;
        loop {
            let until = *self.paused.lock().unwrap_or_else(PoisonError::into_inner);
            let left = until.saturating_sub(scheduler.now());
            if left.is_zero() || !self.world.switch.is_on() {
                return;
            }
            scheduler.block_on(scheduler.sleep(left));
        }
    }
}

impl System for Seat {
    fn now(&self) -> Duration {
        // Each look takes a microsecond: loops that wait for a time end.
        self.world.scheduler.advance(Duration::from_micros(1))
    }

    fn sleep(&self, duration: Duration) {
        let scheduler = &self.world.scheduler;
        scheduler.block_on(scheduler.sleep(duration));
        self.stand_still();
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        self.draw(|random| random.fill(buffer));
        Ok(())
    }

    fn process_id(&self) -> u32 {
        self.id
    }

    fn spawn(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let (id, number) = (self.id, self.threads.fetch_add(1, Ordering::Relaxed));
        let name = format!("process {id}: {name} {number}");
        self.world.scheduler.spawn_fiber(name, work)
    }

    fn event(&self) -> Arc<dyn Event> {
        Arc::new(SimEvent::new(&self.world.scheduler))
    }
}

/// A process's way to the stores.
struct Wire {
    seat: Arc<Seat>,
    lock_owner: Option<String>,
}

impl Transport for Wire {
    fn servers(&self) -> &[String] {
        &self.seat.servers
    }

    fn call(
        &self,
        server: usize,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<Reply, TransportError> {
        if !self.seat.alive.load(Ordering::Relaxed) {
            return Err(TransportError {
                maybe_sent: false,
                reason: "this process was killed".to_owned(),
            });
        }
        let message = Message {
            path: request.path.to_owned(),
            body: request.body.to_vec(),
            lock_owner: self.lock_owner.clone(),
        };
        let answer = self.seat.world.call(self.seat.id, server, message, timeout);
        self.seat.stand_still();
        answer
    }

    fn with_headers(&self, headers: &[(&'static str, String)]) -> Option<Arc<dyn Transport>> {
        let owner = headers.iter().find(|(name, _)| *name == "x-lock-owner");
        Some(Arc::new(Self {
            seat: Arc::clone(&self.seat),
            lock_owner: owner.map(|(_, owner)| owner.clone()),
        }))
    }
}
