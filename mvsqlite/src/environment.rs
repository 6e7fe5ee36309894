//! What the databases of one process share: configuration, transport, page cache.
//!
//! Lock order: none of the locks here is ever taken while another is held, and none is held during
//! I/O. After `fork` the child has fresh ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mvsqlite_protocol::DatabaseName;

use crate::client::{DataPlane, HttpTransport, Transport};
use crate::config::{Config, ConfigError, LocateError, Server};
use crate::database::{Connections, DiskCache, Fetcher, FileId, PageCache, RecentSnapshots};
use crate::keeper::Keeper;
use crate::per_process::PerProcess;
use crate::system::{Os, System};
use crate::workers::Workers;

/// What the databases of one process share. Made once, on first use; survives `fork`.
pub struct Environment {
    config: Arc<Config>,
    transport: Arc<dyn Transport>,
    plane: DataPlane,
    system: Arc<dyn System>,
    shared: Arc<PerProcess<Shared>>,
    next_file: Arc<AtomicU64>,
    /// The server that it goes to, if not to those of the configuration.
    server: Option<Server>,
    /// What its requests carry besides.
    headers: Vec<Header>,
}

/// A header of a request: its name and its value.
type Header = (&'static str, String);

/// What belongs to one process and not to its children.
pub(crate) struct Shared {
    pub(crate) cache: Mutex<PageCache>,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) disk: Option<DiskCache>,
    pub(crate) workers: Workers,
    pub(crate) keeper: Keeper,
    connections: Mutex<Connections>,
    recent: Mutex<RecentSnapshots>,
    /// What names are opened with that begin with the URL of another server.
    elsewhere: Mutex<HashMap<Server, Arc<Environment>>>,
}

impl Shared {
    pub(crate) fn lock_connections(&self) -> MutexGuard<'_, Connections> {
        // A panic under this lock leaves a map that is still a map.
        let connections = self.connections.lock();
        connections.unwrap_or_else(PoisonError::into_inner)
    }

    /// What the page cache holds, as JSON.
    pub(crate) fn cache_statistics(&self) -> String {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (pages, bytes, budget) = cache.fill();
        format!("{{\"pages\":{pages},\"bytes\":{bytes},\"budget_bytes\":{budget}}}")
    }

    fn lock_elsewhere(&self) -> MutexGuard<'_, HashMap<Server, Arc<Environment>>> {
        let elsewhere = self.elsewhere.lock();
        elsewhere.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_recent(&self) -> MutexGuard<'_, RecentSnapshots> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
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
        let transport = http_transport(&config, &config.servers, &system);
        Self::with_transport(config, transport, system)
    }

    /// With a transport and a system of the caller's: tests and simulation.
    pub fn with_transport(
        config: Config,
        transport: Arc<dyn Transport>,
        system: Arc<dyn System>,
    ) -> Arc<Self> {
        let cache_bytes = config.cache_bytes;
        let directory = config.disk_cache.clone();
        let disk = directory.map(|directory| (directory, config.disk_cache_bytes));
        let threads = Arc::clone(&system);
        let make = move || Shared {
            workers: Workers::new(Arc::clone(&threads)),
            cache: Mutex::new(PageCache::new(cache_bytes)),
            fetcher: Arc::new(Fetcher::new(Arc::clone(&threads))),
            disk: disk
                .clone()
                .map(|(directory, bytes)| DiskCache::new(directory, bytes)),
            keeper: Keeper::default(),
            connections: Mutex::default(),
            recent: Mutex::default(),
            elsewhere: Mutex::default(),
        };
        Arc::new(Self {
            plane: DataPlane::new(Arc::clone(&transport), Arc::clone(&system), config.timeout),
            transport,
            shared: Arc::new(PerProcess::new(system.process_id(), make)),
            system,
            config: Arc::new(config),
            next_file: Arc::new(AtomicU64::new(1)),
            server: None,
            headers: Vec::new(),
        })
    }

    /// The same process over another transport, which goes to this server with these headers.
    fn over(
        &self,
        transport: Arc<dyn Transport>,
        server: Option<Server>,
        headers: &[Header],
    ) -> Arc<Self> {
        let system = Arc::clone(&self.system);
        Arc::new(Self {
            plane: DataPlane::new(Arc::clone(&transport), system, self.config.timeout),
            transport,
            system: Arc::clone(&self.system),
            shared: Arc::clone(&self.shared),
            config: Arc::clone(&self.config),
            next_file: Arc::clone(&self.next_file),
            server,
            headers: headers.to_vec(),
        })
    }

    /// Whether a request of the one could be sent by the other: same process, server and headers.
    pub(crate) fn is_as_good_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
            && (&self.server, &self.headers) == (&other.server, &other.headers)
    }

    /// What a name that begins with a server's URL is opened with.
    fn at_server(&self, server: Server) -> Arc<Self> {
        let shared = self.shared();
        let mut elsewhere = shared.lock_elsewhere();
        let entry = elsewhere.entry(server.clone());
        let env = entry.or_insert_with(|| {
            let servers = std::slice::from_ref(&server);
            let transport = http_transport(&self.config, servers, &self.system);
            self.over(transport, Some(server), &[])
        });
        Arc::clone(env)
    }

    /// The same process with these headers on each of its requests; none with nothing to carry them.
    pub(crate) fn with_headers(self: &Arc<Self>, headers: &[Header]) -> Arc<Self> {
        match self.transport.with_headers(headers) {
            Some(transport) => self.over(transport, self.server.clone(), headers),
            None => Arc::clone(self),
        }
    }

    /// Which database a program means by a file name, as [`Config::target`], and what to open it
    /// with: a name may begin with the URL of its server.
    pub fn locate(
        self: &Arc<Self>,
        name: &str,
    ) -> Option<Result<(Arc<Self>, DatabaseName), LocateError>> {
        let location = match self.config.locate(name)? {
            Ok(location) => location,
            Err(error) => return Some(Err(error)),
        };
        let env = match location.server {
            Some(server) => self.at_server(server),
            None => Arc::clone(self),
        };
        Some(Ok((env, location.name)))
    }

    /// What this process was configured to do.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn plane(&self) -> &DataPlane {
        &self.plane
    }

    pub(crate) fn system(&self) -> &Arc<dyn System> {
        &self.system
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

fn http_transport(
    config: &Config,
    servers: &[Server],
    system: &Arc<dyn System>,
) -> Arc<dyn Transport> {
    let transport = HttpTransport::new(servers, Arc::clone(system));
    Arc::new(match &config.token {
        Some(token) => transport.with_token(token),
        None => transport,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a lock owner in the configuration each database has an environment of its own, and a
    /// COMMIT over two of them was refused as one over different stores.
    #[test]
    fn databases_opened_in_the_name_of_one_owner_can_commit_together() {
        let server = |port| Server::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        };
        let env = Environment::new(Config {
            servers: vec![server(1)],
            ..Config::default()
        });
        let owned_by = |owner: &str| env.with_headers(&[("x-lock-owner", owner.to_owned())]);
        assert!(owned_by("a").is_as_good_as(&owned_by("a")));
        assert!(env.with_headers(&[]).is_as_good_as(&env));
        assert!(!owned_by("a").is_as_good_as(&owned_by("b")));
        assert!(!owned_by("a").is_as_good_as(&env));
        assert!(!env.at_server(server(2)).is_as_good_as(&env));
    }
}
