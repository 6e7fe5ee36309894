//! What fibers of a process wait for, beside time and messages.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use mvsqlite::system::{Epoch, Event};
use tokio::select;

use super::Scheduler;

/// An event among fibers of one scheduler.
pub(crate) struct SimEvent {
    scheduler: Scheduler,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    count: u64,
    /// Those that wait, in the order in which they came.
    waiting: Vec<Waker>,
}

impl SimEvent {
    pub(crate) fn new(scheduler: &Scheduler) -> Self {
        Self {
            scheduler: scheduler.clone(),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Event for SimEvent {
    fn epoch(&self) -> Epoch {
        Epoch(self.lock().count)
    }

    fn wait(&self, epoch: Epoch, timeout: Duration) -> bool {
        let happened = poll_fn(|cx| {
            let mut state = self.lock();
            if Epoch(state.count) != epoch {
                return Poll::Ready(());
            }
            state.waiting.retain(|waker| !waker.will_wake(cx.waker()));
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        });
        self.scheduler.block_on(async {
            select! {
                biased;
                () = happened => true,
                () = self.scheduler.sleep(timeout) => false,
            }
        })
    }

    fn happen_for_one(&self) {
        // One that has given up waiting may stand before one that has not.
        self.happen();
    }

    fn happen(&self) {
        let woken = {
            let mut state = self.lock();
            state.count += 1;
            std::mem::take(&mut state.waiting)
        };
        // Some of them may have gone: waking those does no harm.
        woken.into_iter().for_each(Waker::wake);
    }
}
