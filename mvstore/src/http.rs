//! HTTP: the data plane, the admin API and health, on listeners of their own.
//!
//! Thin: each handler parses, makes one call to [`crate::store::Store`] and encodes its answer.
//!
//! | module | what |
//! |---|---|
//! | `listener` | where connections come from: TCP and Unix sockets |
//! | `connection` | one connection: HTTP/1.1 or h2c, idle and header timeouts, closing it properly |
//! | `exchange` | one request: id, limits, log |
//! | `body` | request bodies within their limits, and the memory they take together |
//! | `work` | calls under a deadline; writes that run to their end whatever the client does |
//! | `reply` | answers and refusals as HTTP |
//! | `data_plane`, `v1`, `admin`, `health` | the paths |
//!
//! Invariants:
//! - A write that has reached the store runs to its end, whether its client waits, has gone away
//!   or ran into the deadline. A commit past the deadline is answered "outcome unknown".
//! - Whatever a client may make the server hold is bounded: connections, requests in work, header
//!   bytes, body bytes of one request and of all together, and the time for each of them.
//! - A refusal does not reset the connection under a client that is still sending: the rest is
//!   read and thrown away for a moment.
//! - No lock is held across an await, and there is none beside those inside tokio's semaphores.
//!
//! What it does not do: TLS, tokens (both come later).

mod admin;
mod body;
mod connection;
mod data_plane;
mod exchange;
mod health;
mod listener;
mod reply;
mod v1;
mod work;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use listener::{BindError, Listener};

use crate::config::{Limits, Original};
use crate::store::Store;
use body::Budget;
use connection::Gate;
use exchange::Plane;

/// What every listener and request shares.
struct Shared {
    store: Arc<Store>,
    limits: Limits,
    original: Original,
    /// One permit for each request in work.
    requests: Arc<Semaphore>,
    /// Memory for bodies, over all requests.
    budget: Budget,
    request_ids: exchange::RequestIds,
    /// Whoever checks the store.
    fsck: Arc<Semaphore>,
    /// Connections, and writes that outlive theirs.
    tasks: TaskTracker,
    /// No new connections or requests; those in work go on.
    stopping: CancellationToken,
    /// Connections are dropped where they stand.
    aborting: CancellationToken,
}

/// The HTTP server, serving until it is shut down.
pub struct Server {
    shared: Arc<Shared>,
}

impl Server {
    /// Begins to serve the store: the data plane on some listeners, the admin API on others.
    ///
    /// Must be called inside a tokio runtime.
    pub fn start(
        store: Arc<Store>,
        limits: Limits,
        original: Original,
        data_plane: Vec<Listener>,
        admin_api: Vec<Listener>,
    ) -> Self {
        let connections = Arc::new(Semaphore::new(limits.max_connections as usize));
        let shared = Arc::new(Shared {
            requests: Arc::new(Semaphore::new(limits.max_requests as usize)),
            budget: Budget::new(limits.max_body_memory, &store.limits()),
            request_ids: exchange::RequestIds::new(),
            fsck: Arc::new(Semaphore::new(1)),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
            store,
            limits,
            original,
        });
        let data_router = data_plane::router(Arc::clone(&shared));
        let admin_router = match shared.original.read_only {
            true => health::routes().with_state(Arc::clone(&shared)),
            false => admin::router(Arc::clone(&shared)),
        };
        for (listeners, router) in [(data_plane, data_router), (admin_api, admin_router)] {
            for listener in listeners {
                let plane = Arc::new(Plane::new(Arc::clone(&shared), router.clone()));
                let gate = Gate::new(plane, Arc::clone(&connections));
                shared.tasks.spawn(gate.accept_from(listener));
            }
        }
        Self { shared }
    }

    /// Stops: no new connections, `/readyz` fails, requests in work end. After the shutdown
    /// timeout the rest is dropped. Returns whether everything ended by itself.
    pub async fn shutdown(self) -> bool {
        let Shared {
            tasks,
            stopping,
            aborting,
            limits,
            ..
        } = &*self.shared;
        stopping.cancel();
        tasks.close();
        let in_time = tokio::time::timeout(limits.shutdown_timeout, tasks.wait())
            .await
            .is_ok();
        aborting.cancel();
        in_time
    }
}
