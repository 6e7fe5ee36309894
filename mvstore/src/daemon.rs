//! The process: log, engine, store, listeners, periodic tasks, and shutdown in the reverse order.
//!
//! SIGTERM or SIGINT begins the shutdown: listeners close, `/readyz` fails, requests in work end
//! within the shutdown timeout, periodic tasks stop, the engine closes. A second signal ends the
//! process at once, which loses nothing that was acknowledged. An engine that has stopped for good
//! (the embedded one does after a failed write) ends the process too, with exit code 1.

mod engine;
mod log;
mod periodic;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mvsqlite_protocol::Problem;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

pub use engine::EngineError;

use crate::config::Config;
use crate::error::StoreError;
use crate::http::{BindError, Listener, Server};
use crate::store::Store;
use engine::Opened;
use periodic::Periodic;

/// How long threads of the runtime may take to end.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the daemon does not serve. One line: what, where, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The log filter is not one.
    #[error(
        "--log '{filter}' is not a log filter: {reason}; try 'info' or 'info,mvstore::http=debug'"
    )]
    LogFilter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system gives no threads or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The engine cannot be opened.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It served, until the engine stopped for good.
    #[error("stopped serving: {reason}")]
    Stopped {
        /// What happened, and what to do.
        reason: String,
    },
    /// The store cannot be opened on it.
    #[error("cannot open the store on {engine}: {reason}")]
    Store {
        /// The engine.
        engine: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl DaemonError {
    /// The process's exit code: 2 for what is wrong with the command line, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::LogFilter { .. } => 2,
            _ => 1,
        }
    }

    fn store(engine: String, error: StoreError) -> Self {
        let problem = Problem::from(error);
        let reason = match problem.hint {
            Some(hint) => format!("{}; {hint}", problem.detail),
            None => problem.detail,
        };
        Self::Store { engine, reason }
    }
}

/// Serves until a signal ends it.
///
/// # Errors
/// If it cannot begin to serve, or the engine stops for good.
pub fn run(config: &Config) -> Result<(), DaemonError> {
    log::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("mvstore")
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        // A start that waits for a cluster can be interrupted too.
        let running = tokio::select! {
            running = Running::start(config) => running?,
            name = signals.next() => {
                info!(signal = name, "ended before the start was done");
                return Ok(());
            }
        };
        // A process that can do nothing any more makes way for one that recovers: whoever
        // supervises it starts it anew.
        let ended = tokio::select! {
            name = signals.next() => {
                info!(signal = name, "shutting down");
                Ok(())
            }
            reason = running.stopped() => Err(DaemonError::Stopped { reason }),
        };
        tokio::select! {
            () = running.stop() => info!("shut down"),
            name = signals.next() => warn!(signal = name, "ended at once"),
        }
        ended
    });
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    served
}

/// A daemon that serves.
struct Running {
    server: Server,
    periodic: Periodic,
    engine: Opened,
}

impl Running {
    async fn start(config: &Config) -> Result<Self, DaemonError> {
        // Before the engine, so that a start that fails here leaves no directory behind.
        let mut data_plane = vec![Listener::tcp(config.data_plane, "--data-plane").await?];
        let admin_api = Listener::tcp(config.admin_api, "--admin-api").await?;
        if let Some(path) = &config.unix_socket {
            data_plane.push(Listener::unix(path, "--unix-socket").await?);
        }
        let opened = Opened::open(&config.storage).await?;
        let engine = opened.engine();
        let described = engine.describe();
        info!(engine = described, "storage engine: {described}");
        let store = Store::open(engine, config.store_options())
            .await
            .map_err(|error| DaemonError::store(described, error))?;
        let store = Arc::new(store);
        if config.is_open() {
            warn!(
                "open access: whoever reaches the listeners may read, write and delete everything"
            );
        }
        let places: Vec<String> = data_plane.iter().map(Listener::place).collect();
        info!(
            data_plane = places.join(" "),
            admin_api = admin_api.place(),
            "serving"
        );
        Ok(Self {
            server: Server::start(
                Arc::clone(&store),
                config.limits.clone(),
                config.original.clone(),
                data_plane,
                vec![admin_api],
            ),
            periodic: Periodic::start(&store, config.original.read_only),
            engine: opened,
        })
    }

    /// Waits until the engine has stopped for good; why.
    async fn stopped(&self) -> String {
        self.engine.engine().stopped().await.to_string()
    }

    async fn stop(self) {
        if !self.server.shutdown().await {
            warn!("requests that did not end within the shutdown timeout were dropped");
        }
        self.periodic.stop().await;
        self.engine.close().await;
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal's name. Cancel safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
