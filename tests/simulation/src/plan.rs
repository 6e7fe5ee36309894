//! What a run is made of: how many stores over which kind of engine, how slow everything is, and what
//! goes wrong how often.
//!
//! Each seed switches on some of the faults and draws how often they strike (swarm testing: Groce et
//! al., 2012): a run with all of them at once gets nowhere, and some bugs need one to be absent.

use std::ops::Range;
use std::time::Duration;

use mvstore::kv::Limits;
use mvstore::store::Knobs;

use crate::random::Random;

/// How a world is made. The same seed and plan give the same run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The engine.
    pub engine: EngineKind,
    /// How many stores serve it; one if it is [`EngineKind::Embedded`].
    pub stores: u32,
    /// How long a message is on its way.
    pub latency: Range<Duration>,
    /// How long a read of the engine takes.
    pub read: Range<Duration>,
    /// How long an fsync takes, and with it a commit.
    pub fsync: Range<Duration>,
    /// How long a store works at a request before it says that it takes too long.
    pub request_timeout: Duration,
    /// How long clients wait for one answer.
    pub client_timeout: Duration,
    /// How long a write lease lives.
    pub lease_ttl: Duration,
    /// Thresholds of the stores.
    pub knobs: Knobs,
    /// The cache of each store, in bytes.
    pub store_cache_bytes: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// The longest that a run may take, in simulated time.
    pub most_time: Duration,
    /// The most that may happen in it.
    pub most_steps: u64,
    /// Whether each step is printed.
    pub prints: bool,
}

/// Where the bytes live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// As FoundationDB: apart from the stores, and outliving them.
    Shared,
    /// As the embedded engine: within its one store, and ending with it.
    Embedded,
}

/// What goes wrong. Probabilities are for each occasion; durations are those that pass between two
/// strikes, on average, and `None` is never.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Messages.
    pub network: NetworkFaults,
    /// The engine's commits and reads.
    pub engine: EngineFaults,
    /// A store is killed.
    pub store_killed: Option<Duration>,
    /// A store is killed where it passes a named point of its code.
    pub killed_at_point: f64,
    /// A store's clock on the wall steps.
    pub clock_steps: Option<Duration>,
    /// A client process is killed.
    pub client_killed: Option<Duration>,
    /// A client process stands still for a while, at times for longer than its lease lives.
    pub client_paused: Option<Duration>,
    /// A client and a store cannot reach each other for a while.
    pub partitioned: Option<Duration>,
    /// The disk is full for a while.
    pub disk_full: Option<Duration>,
}

/// What goes wrong with messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct NetworkFaults {
    /// A request gets lost.
    pub request_lost: f64,
    /// The reply to a request that was done gets lost.
    pub reply_lost: f64,
    /// A request arrives twice, at different times; not the first sending of a commit.
    pub duplicated: f64,
    /// A request takes up to seconds, and others overtake it.
    pub delayed: f64,
    /// The connection breaks while the request is worked at.
    pub broken: f64,
}

/// What goes wrong with the engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineFaults {
    /// A commit conflicts with nothing.
    pub conflict: f64,
    /// Nobody knows what became of a commit, and it happened.
    pub unknown_committed: f64,
    /// Nobody knows what became of a commit, and it did not happen.
    pub unknown_lost: f64,
    /// A transaction is too old before its time.
    pub too_old: f64,
    /// An operation fails.
    pub unavailable: f64,
    /// An operation takes up to seconds.
    pub slow: f64,
    /// A read that may be a little old is a little old.
    pub stale: f64,
    /// An fsync fails, and the engine stops.
    pub fsync_fails: f64,
}

const fn micros(range: Range<u64>) -> Range<Duration> {
    Duration::from_micros(range.start)..Duration::from_micros(range.end)
}

impl Plan {
    /// Nothing goes wrong.
    pub fn calm() -> Self {
        Self {
            engine: EngineKind::Shared,
            stores: 2,
            latency: micros(50..1_500),
            read: micros(20..300),
            fsync: micros(200..3_000),
            request_timeout: Duration::from_secs(5),
            client_timeout: Duration::from_secs(2),
            lease_ttl: Duration::from_secs(1),
            knobs: Knobs::default(),
            store_cache_bytes: 1 << 20,
            faults: Faults::default(),
            most_time: Duration::from_secs(3600),
            most_steps: 3_000_000,
            prints: false,
        }
    }

    /// What a seed makes of it.
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::for_purpose(seed, "plan");
        let random = &mut random;
        let engine = match random.chance(0.6) {
            true => EngineKind::Shared,
            false => EngineKind::Embedded,
        };
        let stores = match engine {
            EngineKind::Shared => random.between(1..4) as u32,
            EngineKind::Embedded => 1,
        };
        let slowness = 1 << random.below(5);
        let knobs = Knobs {
            layer_bytes: random.chance(0.5).then(|| random.below(20_000)),
            fold_pages: random.chance(0.5).then(|| random.between(1..20) as usize),
        };
        Self {
            engine,
            stores,
            latency: micros(20..200 * slowness),
            read: micros(5..100 * slowness),
            fsync: micros(100..1_000 * slowness),
            client_timeout: Duration::from_millis(random.between(300..3_000)),
            request_timeout: Duration::from_millis(random.between(500..6_000)),
            lease_ttl: Duration::from_millis(random.between(100..2_000)),
            knobs,
            store_cache_bytes: *random.pick(&[0, 4 << 10, 1 << 20]),
            faults: Faults::drawn(random, engine),
            ..Self::calm()
        }
    }

    /// What the engine's transactions may hold.
    pub(crate) fn limits(&self) -> Limits {
        match self.engine {
            EngineKind::Shared => Limits::FOUNDATIONDB,
            EngineKind::Embedded => Limits::EMBEDDED,
        }
    }
}

impl Faults {
    fn drawn(random: &mut Random, engine: EngineKind) -> Self {
        let shared = engine == EngineKind::Shared;
        Self {
            network: NetworkFaults {
                request_lost: rate(random, 0.08),
                reply_lost: rate(random, 0.08),
                duplicated: rate(random, 0.2),
                delayed: rate(random, 0.1),
                broken: rate(random, 0.08),
            },
            engine: EngineFaults {
                conflict: rate(random, 0.1),
                unknown_committed: if shared { rate(random, 0.1) } else { 0.0 },
                unknown_lost: if shared { rate(random, 0.1) } else { 0.0 },
                too_old: rate(random, 0.02),
                unavailable: rate(random, 0.01),
                slow: rate(random, 0.005),
                stale: if shared { rate(random, 1.0) } else { 0.0 },
                fsync_fails: if shared { 0.0 } else { rate(random, 0.02) },
            },
            store_killed: interval(random, 50..2_000),
            killed_at_point: rate(random, 0.05),
            clock_steps: interval(random, 20..1_000),
            client_killed: interval(random, 300..5_000),
            client_paused: interval(random, 50..2_000),
            partitioned: interval(random, 50..2_000),
            disk_full: interval(random, 200..3_000),
        }
    }
}

/// Half the time none, else up to the most, small ones as often as large ones.
fn rate(random: &mut Random, most: f64) -> f64 {
    match random.chance(0.5) {
        true => most / f64::from(1u32 << random.below(6)),
        false => 0.0,
    }
}

fn interval(random: &mut Random, millis: Range<u64>) -> Option<Duration> {
    let millis = random.between(millis);
    random.chance(0.4).then(|| Duration::from_millis(millis))
}
