//! What a client keeps until it commits. Everything that a real client would ask the cluster for
//! happens on the network thread, in the order in which it was asked for.
//!
//! Only transactions with read-your-writes disabled can read: nothing else is implemented.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cluster::{self, AtomicOp, Cluster, CommitRequest, Mutation, Range, State};
use crate::code;
use crate::control::{self, Fate};
use crate::future::{Future, Outcome, Pairs, Value};
use crate::network;

const KEY_LIMIT: usize = 10_000;
const VALUE_LIMIT: usize = 100_000;
const TRANSACTION_LIMIT: usize = 10_000_000;
/// What FoundationDB counts for a mutation and for a conflict range besides their keys and values.
const MUTATION_RECORD: usize = 40;
const RANGE_RECORD: usize = 24;
/// How often a question is put again to a cluster that is away.
const RETRY: Duration = Duration::from_millis(2);

/// An `FDBTransaction`.
pub(crate) struct Transaction {
    cluster: Arc<Cluster>,
    inner: Mutex<Inner>,
}

struct Inner {
    has_timeout: bool,
    cancelled: bool,
    reads_own_writes: bool,
    next_write_without_conflict: bool,
    /// The first illegal call; reported by whatever is asked next.
    deferred: Option<i32>,
    read_version: Option<i64>,
    mutations: Vec<Mutation>,
    reads: Vec<Range>,
    writes: Vec<Range>,
    commands: Vec<(Vec<u8>, Vec<u8>)>,
    committed: Option<i64>,
    stamps: Vec<Arc<Future>>,
}

/// Something to be answered on the network thread.
type Question = Box<dyn Fn(&mut State, &mut Inner) -> Outcome + Send>;

impl Inner {
    fn new(has_timeout: bool) -> Self {
        Self {
            has_timeout,
            cancelled: false,
            reads_own_writes: true,
            next_write_without_conflict: false,
            deferred: None,
            read_version: None,
            mutations: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            commands: Vec::new(),
            committed: None,
            stamps: Vec::new(),
        }
    }

    fn read_version(&mut self, state: &mut State) -> i64 {
        *self
            .read_version
            .get_or_insert_with(|| state.read_version())
    }

    fn refuse(&mut self, code: i32) {
        self.deferred.get_or_insert(code);
    }

    fn check_key(&mut self, key: &[u8]) -> bool {
        if key.len() > KEY_LIMIT {
            self.refuse(code::KEY_TOO_LARGE);
        } else if key.first() == Some(&0xff) {
            self.refuse(code::KEY_OUTSIDE_LEGAL_RANGE);
        }
        self.deferred.is_none()
    }

    fn write(&mut self, conflict: Range, mutation: Mutation) {
        if !std::mem::take(&mut self.next_write_without_conflict) {
            self.writes.push(conflict);
        }
        self.mutations.push(mutation);
    }

    fn answer_read(&mut self, state: &mut State) -> Result<i64, i32> {
        if self.reads_own_writes {
            return Err(code::UNSUPPORTED_OPERATION);
        }
        state.faults.reads.pop_front().map_or(Ok(()), Err)?;
        Ok(self.read_version(state))
    }

    fn bytes(&self) -> usize {
        let ranges = self.reads.iter().chain(&self.writes);
        let conflicts: usize = ranges
            .map(|(begin, end)| RANGE_RECORD + begin.len() + end.len())
            .sum();
        let mutations = self.mutations.iter().map(|mutation| match mutation {
            Mutation::Set(one, other)
            | Mutation::ClearRange((one, other))
            | Mutation::Atomic(_, one, other)
            | Mutation::VersionstampedKey(one, other)
            | Mutation::VersionstampedValue(one, other) => {
                MUTATION_RECORD + one.len() + other.len()
            }
        });
        conflicts + mutations.sum::<usize>()
    }
}

impl Transaction {
    pub(crate) fn new(cluster: Arc<Cluster>, has_timeout: bool) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            inner: Mutex::new(Inner::new(has_timeout)),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reset(&self) {
        let mut inner = self.inner();
        *inner = Inner::new(inner.has_timeout);
    }

    pub(crate) fn cancel(&self) {
        self.inner().cancelled = true;
    }

    pub(crate) fn disable_read_your_writes(&self) {
        self.inner().reads_own_writes = false;
    }

    pub(crate) fn next_write_without_conflict(&self) {
        self.inner().next_write_without_conflict = true;
    }

    pub(crate) fn set_timeout(&self) {
        self.inner().has_timeout = true;
    }

    pub(crate) fn set_read_version(&self, version: i64) {
        self.inner().read_version = Some(version);
    }

    pub(crate) fn set(&self, key: &[u8], value: &[u8]) {
        let mut inner = self.inner();
        if let Some(name) = key.strip_prefix(control::PREFIX) {
            inner.commands.push((name.to_vec(), value.to_vec()));
            return;
        }
        if value.len() > VALUE_LIMIT {
            inner.refuse(code::VALUE_TOO_LARGE);
        }
        if inner.check_key(key) {
            let mutation = Mutation::Set(key.to_vec(), value.to_vec());
            inner.write(cluster::single(key), mutation);
        }
    }

    pub(crate) fn clear_range(&self, begin: &[u8], end: &[u8]) {
        let mut inner = self.inner();
        if begin > end {
            inner.refuse(code::INVERTED_RANGE);
        }
        if end > b"\xff".as_slice() {
            inner.refuse(code::KEY_OUTSIDE_LEGAL_RANGE);
        }
        if inner.deferred.is_none() {
            let range = (begin.to_vec(), end.to_vec());
            inner.write(range.clone(), Mutation::ClearRange(range));
        }
    }

    pub(crate) fn atomic(&self, op: AtomicOp, key: &[u8], operand: &[u8]) {
        let mut inner = self.inner();
        if operand.len() > VALUE_LIMIT {
            inner.refuse(code::VALUE_TOO_LARGE);
        }
        if inner.check_key(key) {
            let mutation = Mutation::Atomic(op, key.to_vec(), operand.to_vec());
            inner.write(cluster::single(key), mutation);
        }
    }

    pub(crate) fn set_versionstamped_key(&self, key: &[u8], value: &[u8]) {
        let mut inner = self.inner();
        if !holds_stamp(key) {
            inner.refuse(code::CLIENT_INVALID_OPERATION);
        } else if value.len() > VALUE_LIMIT {
            inner.refuse(code::VALUE_TOO_LARGE);
        }
        if inner.check_key(key) {
            // Its conflict is the final key, which the commit will know.
            inner.next_write_without_conflict = false;
            let mutation = Mutation::VersionstampedKey(key.to_vec(), value.to_vec());
            inner.mutations.push(mutation);
        }
    }

    pub(crate) fn set_versionstamped_value(&self, key: &[u8], value: &[u8]) {
        let mut inner = self.inner();
        if !holds_stamp(value) {
            inner.refuse(code::CLIENT_INVALID_OPERATION);
        } else if value.len() > VALUE_LIMIT {
            inner.refuse(code::VALUE_TOO_LARGE);
        }
        if inner.check_key(key) {
            let mutation = Mutation::VersionstampedValue(key.to_vec(), value.to_vec());
            inner.write(cluster::single(key), mutation);
        }
    }

    pub(crate) fn add_conflict(&self, begin: &[u8], end: &[u8], write: bool) -> i32 {
        if begin > end {
            return code::INVERTED_RANGE;
        }
        if end > b"\xff".as_slice() {
            return code::KEY_OUTSIDE_LEGAL_RANGE;
        }
        let mut inner = self.inner();
        let range = (begin.to_vec(), end.to_vec());
        if write {
            inner.writes.push(range);
        } else {
            inner.reads.push(range);
        }
        0
    }

    /// Makes whatever is asked next fail.
    pub(crate) fn refuse(&self, code: i32) {
        self.inner().refuse(code);
    }

    /// -1 if nothing was committed.
    pub(crate) fn committed_version(&self) -> i64 {
        self.inner().committed.unwrap_or(-1)
    }

    pub(crate) fn get_read_version(self: &Arc<Self>) -> Arc<Future> {
        self.ask(Box::new(|state, inner| {
            state.faults.reads.pop_front().map_or(Ok(()), Err)?;
            Ok(Value::Version(inner.read_version(state)))
        }))
    }

    pub(crate) fn get(self: &Arc<Self>, key: &[u8], snapshot: bool) -> Arc<Future> {
        let key = key.to_vec();
        self.ask(Box::new(move |state, inner| {
            let version = inner.answer_read(state)?;
            let value = state.get(&key, version)?;
            if !snapshot {
                inner.reads.push(cluster::single(&key));
            }
            Ok(Value::Found(value))
        }))
    }

    pub(crate) fn get_range(
        self: &Arc<Self>,
        range: Range,
        limit: Option<usize>,
        reverse: bool,
        snapshot: bool,
    ) -> Arc<Future> {
        self.ask(Box::new(move |state, inner| {
            let version = inner.answer_read(state)?;
            let page = state.faults.page;
            let limit = limit.map_or(page, |limit| limit.min(page));
            let pairs = state.get_range(&range, version, limit, reverse)?;
            // FoundationDB says that there may be more whenever a limit was reached.
            let more = pairs.len() == limit;
            if !snapshot {
                let last = pairs.last().filter(|_| more).map(|(key, _)| key.clone());
                inner.reads.push(match (last, reverse) {
                    (None, _) => range.clone(),
                    (Some(last), true) => (last, range.1.clone()),
                    (Some(last), false) => (range.0.clone(), cluster::single(&last).1),
                });
            }
            Ok(Value::Pairs(Pairs::new(pairs, more)))
        }))
    }

    pub(crate) fn get_versionstamp(self: &Arc<Self>) -> Arc<Future> {
        let future = Future::new();
        self.inner().stamps.push(future.clone());
        future
    }

    pub(crate) fn on_error(self: &Arc<Self>, code: i32) -> Arc<Future> {
        let transaction = self.clone();
        let future = Future::new();
        let reply = future.clone();
        network::soon(move || {
            let retryable = code::is_retryable(code);
            if retryable {
                transaction.reset();
            }
            reply.complete(if retryable {
                Ok(Value::Nothing)
            } else {
                Err(code)
            });
        });
        future
    }

    pub(crate) fn commit(self: &Arc<Self>) -> Arc<Future> {
        self.ask(Box::new(|state, inner| {
            let stamp = commit(state, inner);
            inner.committed = stamp.as_ref().ok().copied().flatten();
            for waiting in inner.stamps.drain(..) {
                waiting.complete(match stamp {
                    Ok(Some(version)) => Ok(Value::Key(cluster::stamp(version).to_vec())),
                    Ok(None) => Err(code::NO_COMMIT_VERSION),
                    Err(code) => Err(code),
                });
            }
            stamp.map(|_| Value::Nothing)
        }))
    }

    fn ask(self: &Arc<Self>, question: Question) -> Arc<Future> {
        let future = Future::new();
        let (transaction, reply) = (self.clone(), future.clone());
        network::soon(move || transaction.answer(reply, question));
        future
    }

    /// Answers. While the cluster is away, a transaction that has a timeout finds it over at once,
    /// so that no test depends on how fast the machine is; one that has none waits for ever.
    fn answer(self: Arc<Self>, reply: Arc<Future>, question: Question) {
        let outcome = {
            let mut state = self.cluster.state();
            let mut inner = self.inner();
            let away = state.faults.away && inner.commands.is_empty();
            if inner.cancelled {
                Some(Err(code::TRANSACTION_CANCELLED))
            } else if let Some(code) = inner.deferred {
                Some(Err(code))
            } else if away {
                inner
                    .has_timeout
                    .then_some(Err(code::TRANSACTION_TIMED_OUT))
            } else {
                Some(question(&mut state, &mut inner))
            }
        };
        match outcome {
            Some(outcome) => reply.complete(outcome),
            None => network::after(RETRY, move || self.answer(reply, question)),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for waiting in self.stamps.drain(..) {
            waiting.complete(Err(code::TRANSACTION_CANCELLED));
        }
    }
}

/// Commits; `None` for a transaction that has nothing to commit.
fn commit(state: &mut State, inner: &mut Inner) -> Result<Option<i64>, i32> {
    for (name, value) in inner.commands.drain(..) {
        control::command(state, &name, &value)?;
    }
    if inner.mutations.is_empty() && inner.writes.is_empty() {
        return Ok(None);
    }
    if inner.bytes() > TRANSACTION_LIMIT {
        return Err(code::TRANSACTION_TOO_LARGE);
    }
    let mut request = CommitRequest {
        read_version: inner.read_version(state),
        mutations: std::mem::take(&mut inner.mutations),
        reads: std::mem::take(&mut inner.reads),
        writes: std::mem::take(&mut inner.writes),
    };
    if request.reads.is_empty() {
        // As FoundationDB's client: so that each commit can become too old.
        request.reads.push(cluster::single(b"\xff/SC/"));
    }
    let Some((code, fate)) = state.faults.commits.pop_front() else {
        let version = state.commit(&request)?;
        for late in std::mem::take(&mut state.faults.in_flight) {
            // Nobody waits for the outcome of these any more.
            let _ = state.commit(&late);
        }
        return Ok(Some(version));
    };
    match fate {
        Fate::Lost => {}
        Fate::Applied => {
            state.commit(&request)?;
        }
        Fate::InFlight => state.faults.in_flight.push(request),
    }
    Err(code)
}

/// Whether the offset in the last four bytes leaves room for ten.
fn holds_stamp(bytes: &[u8]) -> bool {
    let Some((body, suffix)) = bytes.split_last_chunk::<4>() else {
        return false;
    };
    let offset = u32::from_le_bytes(*suffix) as usize;
    offset + 10 <= body.len()
}
