//! What the databases of one process share: configuration, transport, page cache.
//!
//! Lock order: none of the locks here is ever taken while another is held, and none is held during
//! I/O. After `fork` the child has fresh ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mvsqlite_protocol::DatabaseName;
use mvsqlite_protocol::name::NameError;

use crate::client::{DataPlane, HttpTransport, Transport};
use crate::config::{Config, ConfigError};
use crate::database::{Connections, Fetcher, FileId, PageCache};
use crate::keeper::Keeper;
use crate::per_process::PerProcess;
use crate::system::{Os, System};
use crate::workers::Workers;

/// What the databases of one process share. Made once, on first use; survives `fork`.
pub struct Environment {
    config: Config,
    plane: DataPlane,
    system: Arc<dyn System>,
    shared: PerProcess<Shared>,
    next_file: AtomicU64,
}

/// What belongs to one process and not to its children.
pub(crate) struct Shared {
    pub(crate) cache: Mutex<PageCache>,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) workers: Workers,
    pub(crate) keeper: Keeper,
    connections: Mutex<Connections>,
}

impl Shared {
    pub(crate) fn lock_connections(&self) -> MutexGuard<'_, Connections> {
        // A panic under this lock leaves a map that is still a map.
        let connections = self.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Environment {
    /// As the environment variables say. Does no I/O and starts no thread.
    ///
    /// # Errors
    /// If a variable is malformed or `MVSQLITE_DATA_PLANE` is missing.
    pub fn from_env() -> Result<Arc<Self>, ConfigError> {
        Ok(Self::new(Config::from_env()?))
    }

    /// As configured, over HTTP. Does no I/O and starts no thread.
    pub fn new(config: Config) -> Arc<Self> {
        let system: Arc<dyn System> = Arc::new(Os::new());
        let transport = HttpTransport::new(&config.servers, Arc::clone(&system));
        Self::with_transport(config, Arc::new(transport), system)
    }

    /// With a transport and a system of the caller's: tests and simulation.
    pub fn with_transport(
        config: Config,
        transport: Arc<dyn Transport>,
        system: Arc<dyn System>,
    ) -> Arc<Self> {
        let cache_bytes = config.cache_bytes;
        let threads = Arc::clone(&system);
        let make = move || Shared {
            workers: Workers::new(Arc::clone(&threads)),
            cache: Mutex::new(PageCache::new(cache_bytes)),
            fetcher: Arc::default(),
            keeper: Keeper::default(),
            connections: Mutex::default(),
        };
        Arc::new(Self {
            plane: DataPlane::new(transport, Arc::clone(&system), config.timeout),
            shared: PerProcess::new(system.process_id(), make),
            system,
            config,
            next_file: AtomicU64::new(1),
        })
    }

    /// What this process was configured to do.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which database a program means by a file name: [`Config::target`].
    pub fn target(&self, name: &str) -> Option<Result<DatabaseName, NameError>> {
        self.config.target(name)
    }

    pub(crate) fn plane(&self) -> &DataPlane {
        &self.plane
    }

    pub(crate) fn system(&self) -> &dyn System {
        &*self.system
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.system.process_id()
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.get(self.system.process_id())
    }

    pub(crate) fn next_file_id(&self) -> FileId {
        FileId(self.next_file.fetch_add(1, Ordering::Relaxed))
    }
}
