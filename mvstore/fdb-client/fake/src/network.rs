//! The thread on which everything happens: jobs in the order in which they were given, each not
//! before its time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::code;

type Work = Box<dyn FnOnce() + Send>;

/// Work with its time. Ordered by time, then by when it was given.
struct Job {
    due: Instant,
    number: u64,
    work: Work,
}

impl Job {
    fn order(&self) -> (Instant, u64) {
        (self.due, self.number)
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Job {}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

struct Network {
    jobs: BinaryHeap<Reverse<Job>>,
    given: u64,
    set_up: bool,
    stopping: bool,
}

static NETWORK: Mutex<Network> = Mutex::new(Network {
    jobs: BinaryHeap::new(),
    given: 0,
    set_up: false,
    stopping: false,
});
static CHANGED: Condvar = Condvar::new();

fn network() -> MutexGuard<'static, Network> {
    NETWORK.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn set_up() -> i32 {
    if std::mem::replace(&mut network().set_up, true) {
        return code::NETWORK_ALREADY_SETUP;
    }
    0
}

/// Runs jobs until the network is stopped. What is left then is never done.
pub(crate) fn run() -> i32 {
    let mut network = network();
    if !network.set_up {
        return code::NETWORK_NOT_SETUP;
    }
    while !network.stopping {
        let now = Instant::now();
        let due = network.jobs.peek().map(|Reverse(job)| job.due);
        network = match due {
            Some(due) if due <= now => {
                let job = network.jobs.pop();
                drop(network);
                if let Some(Reverse(job)) = job {
                    (job.work)();
                }
                self::network()
            }
            Some(due) => {
                CHANGED
                    .wait_timeout(network, due - now)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => CHANGED
                .wait(network)
                .unwrap_or_else(PoisonError::into_inner),
        };
    }
    0
}

pub(crate) fn stop() -> i32 {
    network().stopping = true;
    CHANGED.notify_all();
    0
}

pub(crate) fn soon(work: impl FnOnce() + Send + 'static) {
    after(Duration::ZERO, work);
}

pub(crate) fn after(delay: Duration, work: impl FnOnce() + Send + 'static) {
    let mut network = network();
    network.given += 1;
    let job = Job {
        due: Instant::now() + delay,
        number: network.given,
        work: Box::new(work),
    };
    network.jobs.push(Reverse(job));
    drop(network);
    CHANGED.notify_all();
}
