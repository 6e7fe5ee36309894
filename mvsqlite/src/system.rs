//! What the operating system gives us: time, randomness, which process this is, threads and what they
//! wait for.
//!
//! A seam, so that a simulation can drive the real logic with its own clock and seed.

mod event;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use event::{Epoch, Event, OsEvent};

use nix::sys::signal::{SigSet, SigmaskHow};

/// Stack of a thread of ours, in bytes: what it calls is shallow.
const STACK_BYTES: usize = 512 << 10;

/// Clock, randomness, process id, threads and what they wait for.
pub trait System: Send + Sync {
    /// Monotonic time since some fixed moment.
    fn now(&self) -> Duration;

    /// Waits.
    fn sleep(&self, duration: Duration);

    /// Fills the buffer with unpredictable bytes, different ones in a forked child too.
    ///
    /// # Errors
    /// If the system has no randomness to give.
    fn fill_random(&self, buffer: &mut [u8]) -> Result<(), RandomError>;

    /// The id of the calling process: another one after `fork`.
    fn process_id(&self) -> u32;

    /// Starts a thread that does this work and ends. It gets no signal of the host's. Whoever
    /// asks for a thread must be able to do without.
    ///
    /// # Errors
    /// If there is no thread to be had.
    fn spawn(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let _ = (name, work);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Something that threads wait for.
    fn event(&self) -> Arc<dyn Event> {
        Arc::new(OsEvent::default())
    }
}

/// The system has no randomness to give.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no random bytes from the operating system: {0}")]
pub struct RandomError(pub String);

/// The real thing.
#[derive(Debug)]
pub struct Os {
    start: Instant,
}

impl Os {
    /// Starts the clock.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for Os {
    fn default() -> Self {
        Self::new()
    }
}

impl System for Os {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        // The system call itself, without a generator in this process: a forked child cannot draw
        // the same idempotency key as its parent.
        getrandom::fill(buffer).map_err(|error| RandomError(error.to_string()))
    }

    fn process_id(&self) -> u32 {
        std::process::id()
    }

    fn spawn(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        // The thread inherits this mask: the host's handlers run on the host's threads only.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work);
        before.thread_set_mask()?;
        thread.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_of_ours_blocks_every_signal_and_its_maker_none_more() {
        let before = SigSet::thread_get_mask().unwrap();
        let (send, receive) = mpsc::channel();
        let work = move || send.send(SigSet::thread_get_mask().unwrap()).unwrap();
        Os::new().spawn("mvsqlite-test", Box::new(work)).unwrap();
        let inside = receive.recv().unwrap();
        use nix::sys::signal::Signal;
        for signal in [
            Signal::SIGALRM,
            Signal::SIGCHLD,
            Signal::SIGINT,
            Signal::SIGPROF,
        ] {
            assert!(inside.contains(signal));
        }
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
