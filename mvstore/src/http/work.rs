//! Calls under a deadline, and writes that run to their end.
//!
//! A read is dropped when its deadline passes or its client goes away. A write is not: its future
//! goes on in a task of its own, counted by the server's shutdown. Until then it is polled in
//! place, so that the usual request costs no task and no switch.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use mvsqlite_protocol::Code;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::Shared;
use super::exchange::Permit;
use super::reply::Refusal;
use crate::error::StoreError;

impl Shared {
    /// When a request that begins now has to be answered.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.limits.request_timeout
    }

    fn timed_out(&self, call: &'static str) -> String {
        format!(
            "{call} was not done within {:?}",
            self.limits.request_timeout
        )
    }

    /// Waits for a read until the deadline, then gives it up.
    pub(super) async fn read<T>(
        &self,
        call: &'static str,
        deadline: Instant,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Refusal> {
        match tokio::time::timeout_at(deadline, work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Refusal::new(Code::Timeout, self.timed_out(call))),
        }
    }

    /// Waits for a write until the deadline, then lets it run on and answers `unknown`, which is
    /// [`Code::OutcomeUnknown`] where the client can settle it and [`Code::Timeout`] elsewhere.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        call: &'static str,
        deadline: Instant,
        permit: Option<Permit>,
        unknown: Code,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let work = ToTheEnd {
            call,
            tasks: &self.tasks,
            work: Some(Box::pin(async move {
                let done = work.await;
                // Until here: a write that its client has left still is a request in work.
                drop(permit);
                done
            })),
        };
        match tokio::time::timeout_at(deadline, work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Refusal::new(
                unknown,
                format!("{}; it goes on", self.timed_out(call)),
            )),
        }
    }
}

/// A future that goes on in a task when it is dropped before its end.
struct ToTheEnd<'a, F, T, E>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Display + Send + 'static,
{
    call: &'static str,
    tasks: &'a TaskTracker,
    /// Gone when it has ended.
    work: Option<Pin<Box<F>>>,
}

impl<F, T, E> Future for ToTheEnd<'_, F, T, E>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Display + Send + 'static,
{
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else {
            // Polled again after its end, which no caller does.
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<F, T, E> Drop for ToTheEnd<'_, F, T, E>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Display + Send + 'static,
{
    fn drop(&mut self) {
        let (Some(work), Ok(runtime)) = (self.work.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let call = self.call;
        let task = async move {
            match work.await {
                Ok(_) => debug!(call, "done after its client had gone or given up"),
                Err(error) => info!(call, %error, "failed after its client had gone or given up"),
            }
        };
        self.tasks.spawn_on(task, &runtime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_write_that_is_dropped_halfway_runs_to_its_end_and_is_waited_for() {
        let tasks = TaskTracker::new();
        let (go_on, gate) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let work = async move {
            gate.await.map_err(|error| error.to_string())?;
            tell.send("done").map_err(str::to_owned)
        };
        let mut write = Box::pin(ToTheEnd {
            call: "test",
            tasks: &tasks,
            work: Some(Box::pin(work)),
        });
        assert!(futures_util::poll!(&mut write).is_pending());
        assert!(tasks.is_empty(), "it is polled in place");
        drop(write);
        assert_eq!(tasks.len(), 1);
        go_on.send(()).unwrap();
        assert_eq!(told.await, Ok("done"));
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn a_write_that_has_ended_leaves_nothing_behind() {
        let tasks = TaskTracker::new();
        let write = ToTheEnd {
            call: "test",
            tasks: &tasks,
            work: Some(Box::pin(async { Ok::<_, String>(7) })),
        };
        assert_eq!(write.await, Ok(7));
        assert!(tasks.is_empty());
    }
}
