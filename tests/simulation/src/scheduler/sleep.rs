//! Waiting for a time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Scheduler;

/// Ready when the time has come. Dropping it takes the timer away.
pub(super) struct Sleep {
    scheduler: Scheduler,
    at: Duration,
    timer: Option<(Duration, u64)>,
}

impl Scheduler {
    /// Waits for a duration; with zero, until everybody who is ready has had a chance.
    pub(crate) fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + use<> {
        Sleep {
            scheduler: self.clone(),
            at: self.now() + duration,
            timer: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let scheduler = self.scheduler.clone();
        let mut state = scheduler.lock();
        if let Some(timer) = self.timer.take() {
            let was_set = state.timers.remove(&timer).is_some();
            if !was_set || state.now >= self.at {
                return Poll::Ready(());
            }
        }
        let timer = (self.at, state.number());
        state.timers.insert(timer, cx.waker().clone());
        self.timer = Some(timer);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.scheduler.lock().timers.remove(&timer);
        }
    }
}
