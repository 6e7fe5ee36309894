//! The scheduler: simulated time, and who runs next.
//!
//! Two kinds of things run. *Tasks* are futures: stores, the network, the engine, the faults. They are
//! polled on the scheduler's thread. *Fibers* are threads with blocking code: the client processes. A
//! fiber runs only while it holds the baton, and hands it back where it waits. So exactly one thread
//! of a world runs at any time, and all that decides who is next is drawn from the seed.
//!
//! Both wait for futures of this scheduler's time, such as [`Scheduler::sleep`]. When several are
//! ready the seed draws one; when none is, the clock moves on to the next timer. Computing takes no
//! time.
//!
//! Invariants:
//! - the state's lock is never held while a task is polled or dropped, or a fiber runs;
//! - what a dropped task held is dropped on the scheduler's thread, or on that of the fiber that
//!   killed it.

mod event;
mod fiber;
mod sleep;
mod task;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::random::Random;
use crate::trace::Trace;
pub(crate) use event::SimEvent;
use fiber::Fiber;
use task::Task;

/// Something that can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Runnable {
    Task(u64),
    Fiber(u64),
}

/// Tasks that end together: those of one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group(pub(crate) u64);

/// How a run of the scheduler ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// What was waited for has come.
    Done,
    /// It cannot come any more: nothing is ready and no timer set.
    Deadlock,
    /// It did not come within the limits.
    TooLong(&'static str),
    /// Something panicked.
    Panicked(String),
}

/// Ends the group whose task unwinds with it: a store that dies at a named point.
pub(crate) struct Killed;

/// A handle to the scheduler of a world.
#[derive(Clone)]
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Where the scheduler waits for the baton.
    own: fiber::Baton,
}

struct State {
    now: Duration,
    steps: u64,
    random: Random,
    trace: Trace,
    ready: Vec<Runnable>,
    timers: BTreeMap<(Duration, u64), Waker>,
    next: u64,
    tasks: BTreeMap<u64, Task>,
    fibers: BTreeMap<u64, Arc<Fiber>>,
    current: Option<Runnable>,
    /// Groups whose task unwound with [`Killed`].
    killed: BTreeSet<Group>,
    panicked: Option<String>,
}

struct Wakes {
    scheduler: Weak<Shared>,
    what: Runnable,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(shared) = self.scheduler.upgrade() {
            shared.lock().make_ready(self.what);
        }
    }
}

impl Shared {
    /// Nothing runs under this lock that could leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn make_ready(&mut self, what: Runnable) {
        let exists = match what {
            Runnable::Task(id) => self.tasks.contains_key(&id),
            Runnable::Fiber(id) => self.fibers.contains_key(&id),
        };
        if exists && !self.ready.contains(&what) {
            self.ready.push(what);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Draws who runs next, and moves the clock on if nobody is ready.
    fn draw(&mut self) -> Option<Runnable> {
        let index = self.random.index(self.ready.len());
        Some(self.ready.swap_remove(index))
    }

    /// The timers that are due. `None`: there is none at all.
    fn due(&mut self) -> Option<Vec<Waker>> {
        let ((first, _), _) = self.timers.first_key_value()?;
        if self.ready.is_empty() {
            self.now = self.now.max(*first);
        }
        let later = self
            .timers
            .split_off(&(self.now + Duration::from_nanos(1), 0));
        let due = std::mem::replace(&mut self.timers, later);
        Some(due.into_values().collect())
    }
}

impl Scheduler {
    pub(crate) fn new(random: Random, trace: Trace) -> Self {
        let state = State {
            now: Duration::ZERO,
            steps: 0,
            random,
            trace,
            ready: Vec::new(),
            timers: BTreeMap::new(),
            next: 0,
            tasks: BTreeMap::new(),
            fibers: BTreeMap::new(),
            current: None,
            killed: BTreeSet::new(),
            panicked: None,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                own: fiber::Baton::default(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    fn waker(&self, what: Runnable) -> Waker {
        Waker::from(Arc::new(Wakes {
            scheduler: Arc::downgrade(&self.shared),
            what,
        }))
    }

    /// The simulated time.
    pub(crate) fn now(&self) -> Duration {
        self.lock().now
    }

    /// Lets time pass without giving up the baton.
    pub(crate) fn advance(&self, by: Duration) -> Duration {
        let mut state = self.lock();
        state.now += by;
        state.now
    }

    /// A number that no call got before, ascending.
    pub(crate) fn tick(&self) -> u64 {
        self.lock().number()
    }

    /// Draws from the scheduler's own stream.
    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.lock().random)
    }

    /// Puts a line into the trace.
    pub(crate) fn note(&self, what: impl fmt::Display) {
        let state = &mut *self.lock();
        let (now, steps) = (state.now, state.steps);
        state.trace.line(now, steps, &what);
    }

    pub(crate) fn steps(&self) -> u64 {
        self.lock().steps
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.lock().trace.hash()
    }

    /// How many fibers have not ended.
    pub(crate) fn fibers(&self) -> usize {
        self.lock().fibers.len()
    }

    /// Runs until `done` says so. `most_steps` and `until` (of simulated time) bound it.
    pub(crate) fn run(
        &self,
        most_steps: u64,
        until: Duration,
        mut done: impl FnMut() -> bool,
    ) -> Ended {
        loop {
            if let Some(text) = self.lock().panicked.clone() {
                return Ended::Panicked(text);
            }
            if done() {
                return Ended::Done;
            }
            let due = self.lock().due();
            let nothing_more = due.is_none();
            due.into_iter().flatten().for_each(Waker::wake);
            let next = {
                let state = &mut *self.lock();
                if state.ready.is_empty() {
                    if nothing_more {
                        return Ended::Deadlock;
                    }
                    continue;
                }
                if state.steps >= most_steps {
                    return Ended::TooLong("steps");
                }
                if state.now >= until {
                    return Ended::TooLong("simulated time");
                }
                state.steps += 1;
                state.draw()
            };
            match next {
                Some(Runnable::Task(id)) => self.poll(id),
                Some(Runnable::Fiber(id)) => self.resume(id),
                None => {}
            }
        }
    }

    fn panicked(&self, who: &str, payload: &(dyn Any + Send)) {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("something that is no text");
        let text = format!("{who} panicked: {text}");
        self.note(&text);
        self.lock().panicked.get_or_insert(text);
    }
}
