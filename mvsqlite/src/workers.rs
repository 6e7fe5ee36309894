//! A few threads of the process for requests that the host's threads need not wait for.
//!
//! They are made when there is work, and end when there has been none for a while. Nothing waits
//! for them at the end of the process: what they do is of no use then. A forked child has none and
//! makes its own, since this belongs to what a process does not inherit.
//!
//! Where no thread can be had, the work is done at once by whoever asks for it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::system::{Event, System};

/// Most threads of a process.
const MOST_THREADS: usize = 6;
/// How long a thread waits for more work.
const IDLE: Duration = Duration::from_secs(10);

/// Work for a thread. It must not panic; if it does, the panic ends with it.
pub(crate) type Task = Box<dyn FnOnce() + Send>;

/// See the module.
pub(crate) struct Workers {
    system: Arc<dyn System>,
    queue: Arc<Queue>,
}

struct Queue {
    state: Mutex<State>,
    /// There is work.
    wake: Arc<dyn Event>,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    threads: usize,
    /// Threads that wait, or were woken and have not looked yet.
    idle: usize,
}

impl Queue {
    /// Nothing that can panic runs under this lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                // A panic is a bug of ours; the other tasks are not to suffer from it.
                let _ = catch_unwind(AssertUnwindSafe(task));
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let epoch = self.wake.epoch();
            drop(state);
            let woken = self.wake.wait(epoch, IDLE);
            state = self.lock();
            state.idle -= 1;
            if !woken && state.tasks.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

impl Workers {
    /// No thread yet.
    pub(crate) fn new(system: Arc<dyn System>) -> Self {
        let queue = Queue {
            state: Mutex::default(),
            wake: system.event(),
        };
        Self {
            system,
            queue: Arc::new(queue),
        }
    }

    /// Has a task done as soon as a thread is free, the oldest first.
    pub(crate) fn run(&self, task: Task) {
        {
            let mut state = self.queue.lock();
            state.tasks.push_back(task);
            if state.idle >= state.tasks.len() {
                drop(state);
                self.queue.wake.happen_for_one();
                return;
            }
            if state.threads == MOST_THREADS {
                return;
            }
            state.threads += 1;
        }
        let queue = Arc::clone(&self.queue);
        let serve = Box::new(move || queue.serve());
        if self.system.spawn("mvsqlite-upload", serve).is_err() {
            self.do_without();
        }
    }

    /// There is no further thread: with others the task waits for one of them.
    fn do_without(&self) {
        self.queue.lock().threads -= 1;
        loop {
            let task = {
                let mut state = self.queue.lock();
                match state.threads {
                    0 => state.tasks.pop_front(),
                    _ => None,
                }
            };
            match task {
                Some(task) => task(),
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{Os, RandomError};
    use std::sync::mpsc;

    struct NoThreads;

    impl System for NoThreads {
        fn now(&self) -> Duration {
            Duration::ZERO
        }

        fn sleep(&self, _duration: Duration) {}

        fn fill_random(&self, _buffer: &mut [u8]) -> Result<(), RandomError> {
            Ok(())
        }

        fn process_id(&self) -> u32 {
            1
        }
    }

    #[test]
    fn without_threads_the_work_is_done_at_once() {
        let workers = Workers::new(Arc::new(NoThreads));
        let (send, receive) = mpsc::channel();
        for number in 0..3 {
            let send = send.clone();
            workers.run(Box::new(move || send.send(number).unwrap()));
            assert_eq!(receive.try_recv(), Ok(number));
        }
    }

    #[test]
    fn tasks_run_side_by_side_and_one_that_panics_takes_none_along() {
        let workers = Workers::new(Arc::new(Os::new()));
        // The first can only end when the third has begun.
        let (third_began, wait_for_third) = mpsc::channel();
        let (send, receive) = mpsc::channel();
        let done = send.clone();
        workers.run(Box::new(move || {
            wait_for_third.recv().unwrap();
            done.send(1).unwrap();
        }));
        workers.run(Box::new(|| std::panic::resume_unwind(Box::new("a bug"))));
        workers.run(Box::new(move || {
            third_began.send(()).unwrap();
            send.send(3).unwrap();
        }));
        let mut ended: Vec<i32> = receive.iter().collect();
        ended.sort_unstable();
        assert_eq!(ended, [1, 3]);
        assert!(workers.queue.lock().threads <= 3);
    }
}
