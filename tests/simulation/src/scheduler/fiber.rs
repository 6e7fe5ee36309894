//! Threads that run only while they hold the baton.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll};

use super::{Runnable, Scheduler};

/// Stack of a fiber, in bytes: SQLite runs on it.
const STACK_BYTES: usize = 4 << 20;

/// The right to run, as one thread gets it.
#[derive(Debug, Default)]
pub(super) struct Baton {
    here: Mutex<bool>,
    arrived: Condvar,
}

impl Baton {
    fn give(&self) {
        *self.here.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.arrived.notify_one();
    }

    fn take(&self) {
        let here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.arrived.wait_while(here, |here| !*here);
        *taken.unwrap_or_else(PoisonError::into_inner) = false;
    }
}

pub(super) struct Fiber {
    name: String,
    baton: Baton,
}

impl Scheduler {
    /// Starts a thread that does this work.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub(crate) fn spawn_fiber(
        &self,
        name: impl fmt::Display,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let fiber = Arc::new(Fiber {
            name: name.to_string(),
            baton: Baton::default(),
        });
        let id = self.lock().number();
        let (scheduler, own) = (self.clone(), Arc::clone(&fiber));
        let life = move || {
            own.baton.take();
            if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
                scheduler.panicked(&own.name, &*payload);
            }
            scheduler.lock().fibers.remove(&id);
            scheduler.shared.own.give();
        };
        std::thread::Builder::new()
            .name(fiber.name.clone())
            .stack_size(STACK_BYTES)
            .spawn(life)?;
        let mut state = self.lock();
        state.fibers.insert(id, fiber);
        state.make_ready(Runnable::Fiber(id));
        Ok(())
    }

    /// Waits, in a fiber, for a future. Others run meanwhile.
    ///
    /// # Panics
    /// If the caller is no fiber of this scheduler.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let current = self.lock().current;
        let Some(Runnable::Fiber(id)) = current else {
            panic!("only a fiber can wait, not {current:?}");
        };
        let waker = self.waker(Runnable::Fiber(id));
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(value) => return value,
                Poll::Pending => self.hand_back(id),
            }
        }
    }

    fn hand_back(&self, id: u64) {
        let fiber = self.lock().fibers.get(&id).cloned();
        let fiber = fiber.expect("a fiber that runs has not ended");
        self.shared.own.give();
        fiber.baton.take();
    }

    pub(super) fn resume(&self, id: u64) {
        let fiber = {
            let state = &mut *self.lock();
            let Some(fiber) = state.fibers.get(&id).cloned() else {
                return;
            };
            state.trace.step(state.now, state.steps, &fiber.name);
            state.current = Some(Runnable::Fiber(id));
            fiber
        };
        fiber.baton.give();
        self.shared.own.take();
        self.lock().current = None;
    }
}
