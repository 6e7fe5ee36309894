//! The memory engine: the embedded engine's conflict rules over an ordered multi-version map.
//!
//! For tests and simulation. It is deterministic: versions count up by one, nothing happens in the
//! background, and time comes from the clock it is given. Nothing survives the process;
//! [`MemoryEngine::restart`] shows the store what a restart of an engine looks like.
//!
//! Invariants, under its one lock:
//! - `visible` is the version of the newest commit; every commit is durable and visible at once.
//! - Each key's chain ascends in version. What is superseded at or below the conflict window's
//!   floor is gone, because no transaction may read there any more.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mvsqlite_protocol::{ReadVersion, Version};

use super::clock::{Clock, EngineTime, MonotonicClock, micros};
use super::conflict::{ConflictWindow, WindowLimits};
use super::request::{Change, CommitRequest, Draft, apply_atomic, check_key, check_range};
use super::{
    Engine, Freshness, Isolation, KeyRange, KvError, Limits, Pair, RangeOptions, Transaction,
};

/// How many versions a restart skips: the versions another process may have reserved.
const RESTART_GAP: u64 = 1_000_000;

/// What a memory engine is made with.
#[derive(Debug, Clone)]
pub struct MemoryOptions {
    /// What a transaction may hold. [`Limits::FOUNDATIONDB`] makes the store's tests as strict as
    /// production is.
    pub limits: Limits,
    /// Decides when a transaction is too old.
    pub clock: Arc<dyn Clock>,
    /// Most bytes of keys in the conflict window.
    pub window_bytes: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            limits: Limits::EMBEDDED,
            clock: Arc::new(MonotonicClock::default()),
            window_bytes: 64 << 20,
        }
    }
}

/// An engine that keeps everything in memory. Clones share their content.
#[derive(Debug, Clone)]
pub struct MemoryEngine {
    shared: Arc<Shared>,
}

struct Shared {
    options: MemoryOptions,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    visible: u64,
    run: Run,
    window: ConflictWindow,
    values: BTreeMap<Vec<u8>, Vec<Stored>>,
    /// Keys with something to forget once the floor reaches the version.
    superseded: VecDeque<(u64, Vec<u8>)>,
}

/// A run of the engine's clock, from one restart to the next.
#[derive(Debug, Clone, Copy)]
struct Run {
    number: u64,
    since: Duration,
}

/// What a commit left under a key; `None` if it removed it.
#[derive(Debug)]
struct Stored {
    version: u64,
    value: Option<Bytes>,
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryEngine {
    /// An empty engine with the embedded engine's limits.
    pub fn new() -> Self {
        Self::with_options(MemoryOptions::default())
    }

    /// An empty engine.
    pub fn with_options(options: MemoryOptions) -> Self {
        let window = WindowLimits {
            age: options.limits.transaction_age,
            bytes: options.window_bytes,
        };
        let run = Run {
            number: 0,
            since: options.clock.now(),
        };
        Self {
            shared: Arc::new(Shared {
                options,
                state: Mutex::new(State {
                    visible: 0,
                    run,
                    window: ConflictWindow::new(ReadVersion(0), window),
                    values: BTreeMap::new(),
                    superseded: VecDeque::new(),
                }),
            }),
        }
    }

    /// What a restart does: everything committed stays, versions go on higher up, and transactions
    /// begun before are too old.
    pub fn restart(&self) {
        self.restart_at(ReadVersion(u64::MAX));
    }

    /// What a power loss does to an engine that had not made everything durable: commits above this
    /// version are gone, which must be one that can still be read. Else as [`Self::restart`].
    pub fn restart_at(&self, durable: ReadVersion) {
        let mut state = self.shared.lock();
        state.lose_above(durable.0);
        state.visible += RESTART_GAP;
        state.run = Run {
            number: state.visible,
            since: self.shared.options.clock.now(),
        };
        let floor = ReadVersion(state.visible);
        state.window = ConflictWindow::new(floor, self.shared.window_limits());
        state.forget();
    }
}

impl Shared {
    /// A panic elsewhere cannot leave the state half changed: commits are checked before they are
    /// applied, and applying them does not fail.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn window_limits(&self) -> WindowLimits {
        WindowLimits {
            age: self.options.limits.transaction_age,
            bytes: self.options.window_bytes,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl State {
    fn get(&self, key: &[u8], at: u64) -> Option<&Bytes> {
        visible_value(self.values.get(key)?, at)
    }

    fn get_range(&self, range: &KeyRange, options: RangeOptions, at: u64) -> Vec<Pair> {
        let live = |(key, chain): (&Vec<u8>, &Vec<Stored>)| {
            let value = visible_value(chain, at)?;
            Some((Bytes::copy_from_slice(key), value.clone()))
        };
        let keys = self.values.range::<[u8], _>(range.bounds());
        if options.reverse {
            keys.rev().filter_map(live).take(options.limit).collect()
        } else {
            keys.filter_map(live).take(options.limit).collect()
        }
    }

    fn commit(&mut self, mut request: CommitRequest, now: Duration) -> Version {
        let version = Version::new(self.visible + 1, 0);
        let writes = request.take_write_conflicts(version);
        for change in request.into_changes(version) {
            self.apply(change, version.commit());
        }
        self.visible = version.commit();
        self.window.record(self.visible, now, writes);
        self.forget();
        version
    }

    fn apply(&mut self, change: Change, version: u64) {
        match change {
            Change::Set { key, value } => self.put(key, Some(value), version),
            Change::Clear { key } => self.put(key, None, version),
            Change::ClearRange { range } => {
                let doomed: Vec<_> = self
                    .values
                    .range::<[u8], _>(range.bounds())
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in doomed {
                    self.put(key, None, version);
                }
            }
            Change::Atomic { op, key, operand } => {
                let stored = self.get(&key, version).cloned();
                let value = apply_atomic(op, stored.as_deref(), &operand);
                self.put(key, Some(value), version);
            }
        }
    }

    fn put(&mut self, key: Vec<u8>, value: Option<Bytes>, version: u64) {
        let chain = self.values.entry(key.clone()).or_default();
        match chain.last_mut() {
            Some(last) if last.version == version => last.value = value,
            _ => {
                chain.push(Stored { version, value });
                self.superseded.push_back((version, key));
            }
        }
    }

    fn lose_above(&mut self, version: u64) {
        self.values.retain(|_, chain| {
            chain.retain(|stored| stored.version <= version);
            !chain.is_empty()
        });
        self.superseded.retain(|(at, _)| *at <= version);
    }

    /// Lets go of what nobody may read any more.
    fn forget(&mut self) {
        let floor = self.window.floor().0;
        while let Some((version, _)) = self.superseded.front() {
            if *version > floor {
                break;
            }
            let Some((_, key)) = self.superseded.pop_front() else {
                break;
            };
            let Some(chain) = self.values.get_mut(&key) else {
                continue;
            };
            let newest_at_floor = chain.partition_point(|stored| stored.version <= floor);
            chain.drain(..newest_at_floor.saturating_sub(1));
            if chain.len() == 1 && chain[0].version <= floor && chain[0].value.is_none() {
                self.values.remove(&key);
            }
        }
    }
}

/// The value a reader at a version sees.
fn visible_value(chain: &[Stored], at: u64) -> Option<&Bytes> {
    let seen = chain.partition_point(|stored| stored.version <= at);
    chain[..seen].last()?.value.as_ref()
}

#[async_trait]
impl Engine for MemoryEngine {
    fn begin(&self, _freshness: Freshness) -> Box<dyn Transaction> {
        // The newest is at hand, whatever would do.
        Box::new(MemoryTransaction {
            draft: Draft::new(self.limits()),
            started: OnceLock::new(),
            shared: self.shared.clone(),
        })
    }

    fn limits(&self) -> Limits {
        self.shared.options.limits
    }

    fn describe(&self) -> String {
        "memory (nothing is kept)".to_owned()
    }

    async fn check(&self) -> Result<(), KvError> {
        Ok(())
    }

    fn physical_bytes(&self) -> Option<u64> {
        None
    }

    fn time(&self, _read_version: ReadVersion) -> EngineTime {
        let run = self.shared.lock().run;
        let since = self.shared.options.clock.now().saturating_sub(run.since);
        EngineTime {
            run: run.number,
            micros: micros(since),
        }
    }
}

struct MemoryTransaction {
    shared: Arc<Shared>,
    started: OnceLock<Started>,
    draft: Draft,
}

/// Where and when a transaction began to read.
#[derive(Debug, Clone, Copy)]
struct Started {
    read_version: ReadVersion,
    at: Duration,
}

impl MemoryTransaction {
    /// The read version, chosen now if it was not before, and the state to read it in.
    fn start(&self) -> Result<(Started, MutexGuard<'_, State>), KvError> {
        let state = self.shared.lock();
        let now = self.shared.options.clock.now();
        let started = *self.started.get_or_init(|| Started {
            read_version: ReadVersion(state.visible),
            at: now,
        });
        let age = now.saturating_sub(started.at);
        let outlived = age > self.shared.options.limits.transaction_age;
        if outlived || started.read_version < state.window.floor() {
            return Err(KvError::TooOld);
        }
        Ok((started, state))
    }
}

#[async_trait]
impl Transaction for MemoryTransaction {
    async fn read_version(&self) -> Result<ReadVersion, KvError> {
        self.start().map(|(started, _)| started.read_version)
    }

    async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, KvError> {
        check_key(key, &self.shared.options.limits)?;
        let (started, state) = self.start()?;
        let value = state.get(key, started.read_version.0).cloned();
        self.draft.note_get(key, isolation);
        Ok(value)
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<Vec<Pair>, KvError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        check_range(range, &self.shared.options.limits)?;
        let (started, state) = self.start()?;
        let pairs = state.get_range(range, options, started.read_version.0);
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
        let shared = self.shared.clone();
        if self.draft.is_read_only() {
            let read_version = self.started.get().map(|started| started.read_version);
            return Ok(Version::new(read_version.unwrap_or_default().0, 0));
        }
        let started = self.start()?.0;
        let request = self.draft.finish()?;
        let mut state = shared.lock();
        state.window.check(started.read_version, &request.reads)?;
        Ok(state.commit(request, shared.options.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn set(engine: &MemoryEngine, key: &[u8], value: &[u8]) -> Version {
        let mut txn = engine.begin(Freshness::Strict);
        txn.set(key, value);
        txn.commit().await.unwrap()
    }

    async fn get(engine: &MemoryEngine, key: &[u8]) -> Option<Bytes> {
        let txn = engine.begin(Freshness::Strict);
        txn.get(key, Isolation::Snapshot).await.unwrap()
    }

    #[tokio::test]
    async fn a_power_loss_takes_back_what_was_not_durable_and_versions_still_go_up() {
        let engine = MemoryEngine::new();
        let durable = set(&engine, b"a", b"1").await;
        set(&engine, b"a", b"2").await;
        let lost = set(&engine, b"b", b"3").await;
        engine.restart_at(ReadVersion(durable.commit()));
        assert_eq!(get(&engine, b"a").await.as_deref(), Some(&b"1"[..]));
        assert_eq!(get(&engine, b"b").await, None);
        assert!(set(&engine, b"b", b"4").await > lost);
        assert_eq!(get(&engine, b"b").await.as_deref(), Some(&b"4"[..]));
    }
}
