//! The one network thread: started once, stopped once, in this order and in no other.
//!
//! ```text
//! Idle -> Running -> Stopped
//!      -> Broken
//! ```
//!
//! Each step of FoundationDB's start (select the API version, set up the network, run it) may be
//! made once per process, and a stopped network stays stopped. The enum below makes every step in
//! exactly one transition, under one lock, which is never held while a transaction runs.
//!
//! The network has to be stopped before the process exits, because the library's destructors must
//! not run under its feet. It is done in a handler of `atexit`, registered after the library was
//! loaded: handlers run in reverse order, so this one runs before those destructors, whichever way
//! `main` is left. Transactions of threads that still run then never end; the process is gone before
//! anybody waits for them. A process that is killed or aborts needs none of this.

use std::panic;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use foundationdb::FdbError;
use foundationdb::api::{FdbApiBuilder, NetworkRunner, NetworkStop};

use crate::library::LibrarySearch;
use crate::{API_VERSION, StartError};

enum State {
    Idle,
    Running(Network),
    Stopped,
    /// The library is loaded and its API version perhaps selected: neither can be tried again.
    Broken(StartError),
}

struct Network {
    library: PathBuf,
    stop: NetworkStop,
    thread: JoinHandle<()>,
}

static STATE: Mutex<State> = Mutex::new(State::Idle);

/// The state is replaced as a whole, so a panic while the lock was held left it valid.
fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the network unless it runs; returns the library's file.
pub(crate) fn start(search: &LibrarySearch) -> Result<PathBuf, StartError> {
    let mut state = state();
    match &*state {
        State::Running(network) => return Ok(network.library.clone()),
        State::Stopped => return Err(StartError::Stopped),
        State::Broken(error) => return Err(error.clone()),
        State::Idle => {}
    }
    // Nothing was started if this fails: the state stays idle.
    let library = search.load()?;
    match run(library.clone()) {
        Ok(network) => {
            *state = State::Running(network);
            Ok(library)
        }
        Err(reason) => {
            let error = StartError::Network { reason };
            *state = State::Broken(error.clone());
            Err(error)
        }
    }
}

fn run(library: PathBuf) -> Result<Network, String> {
    let failed = |what: &'static str| {
        move |error: FdbError| format!("{what}: {} ({})", error.message(), error.code())
    };
    let network = FdbApiBuilder::default()
        .set_runtime_version(API_VERSION)
        .build()
        .map_err(failed("selecting the API version"))?;
    let (runner, running) = network.build().map_err(failed("setting up the network"))?;
    // SAFETY: the function has the signature that atexit asks for and does not unwind.
    if unsafe { libc::atexit(stop_at_exit) } != 0 {
        return Err("atexit has no room for the handler that stops it".to_owned());
    }
    let thread = thread::Builder::new()
        .name("fdb-network".to_owned())
        .spawn(move || run_until_stopped(runner))
        .map_err(|error| format!("starting its thread: {error}"))?;
    Ok(Network {
        library,
        stop: running.wait(),
        thread,
    })
}

fn run_until_stopped(runner: NetworkRunner) {
    // SAFETY: `stop_at_exit` is registered, and stops the network before the process exits.
    if let Err(error) = unsafe { runner.run() } {
        // There is nobody to hand it to: transactions will time out, and this says why.
        eprintln!(
            "mvstore: FoundationDB's network thread ended: {} ({})",
            error.message(),
            error.code()
        );
    }
}

extern "C" fn stop_at_exit() {
    // A panic must not unwind into the C library. There is nothing left to do about it either.
    let _ = panic::catch_unwind(stop);
}

fn stop() {
    let previous = std::mem::replace(&mut *state(), State::Stopped);
    let State::Running(network) = previous else {
        return;
    };
    let on_network_thread = thread::current().id() == network.thread.thread().id();
    if network.stop.stop().is_ok() && !on_network_thread {
        let _ = network.thread.join();
    }
}
