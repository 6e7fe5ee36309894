//! Futures on the scheduler's thread.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::{Group, Killed, Runnable, Scheduler};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) struct Task {
    name: String,
    group: Group,
    waker: Waker,
    /// Elsewhere while it is polled.
    work: Option<Work>,
}

impl Scheduler {
    /// Starts a task. It runs at some time from now on.
    pub(crate) fn spawn(
        &self,
        group: Group,
        name: impl fmt::Display,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let work: Work = Box::pin(work);
        let name = name.to_string();
        let id = self.lock().number();
        let task = Task {
            name,
            group,
            waker: self.waker(Runnable::Task(id)),
            work: Some(work),
        };
        let mut state = self.lock();
        state.tasks.insert(id, task);
        state.make_ready(Runnable::Task(id));
    }

    /// Ends all tasks of a group where they stand. Not to be called by one of them.
    pub(crate) fn end_group(&self, group: Group) {
        let ended: Vec<Task> = {
            let mut state = self.lock();
            let ids: Vec<u64> = (state.tasks.iter())
                .filter(|(_, task)| task.group == group)
                .map(|(id, _)| *id)
                .collect();
            state.ready.retain(|ready| !is_one_of(&ids, *ready));
            ids.iter().filter_map(|id| state.tasks.remove(id)).collect()
        };
        drop(ended);
    }

    /// The groups in which a task has unwound with [`Killed`] since the last call. They have ended.
    pub(crate) fn take_killed(&self) -> Vec<Group> {
        std::mem::take(&mut self.lock().killed)
            .into_iter()
            .collect()
    }

    pub(super) fn poll(&self, id: u64) {
        let (mut work, waker) = {
            let state = &mut *self.lock();
            let Some(task) = state.tasks.get_mut(&id) else {
                return;
            };
            let Some(work) = task.work.take() else {
                return;
            };
            state.trace.step(state.now, state.steps, &task.name);
            state.current = Some(Runnable::Task(id));
            (work, task.waker.clone())
        };
        let mut cx = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut cx)));
        self.lock().current = None;
        match polled {
            Ok(Poll::Pending) => {
                let mut state = self.lock();
                if let Some(task) = state.tasks.get_mut(&id) {
                    task.work = Some(work);
                    return;
                }
            }
            Ok(Poll::Ready(())) => {
                self.lock().tasks.remove(&id);
            }
            Err(payload) => {
                let task = self.lock().tasks.remove(&id);
                let Some(task) = task else { return };
                if payload.is::<Killed>() {
                    self.lock().killed.insert(task.group);
                    drop(work);
                    self.end_group(task.group);
                    return;
                }
                self.panicked(&task.name, &*payload);
            }
        }
        drop(work);
    }
}

fn is_one_of(ids: &[u64], ready: Runnable) -> bool {
    match ready {
        Runnable::Task(id) => ids.contains(&id),
        Runnable::Fiber(_) => false,
    }
}
