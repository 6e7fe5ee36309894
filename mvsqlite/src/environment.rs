//! What the databases of one process share: configuration, transport, page cache.

use std::sync::Arc;

use mvsqlite_protocol::DatabaseName;
use mvsqlite_protocol::name::NameError;

use crate::client::Transport;
use crate::config::{Config, ConfigError};
use crate::system::{Os, System};

/// What the databases of one process share. Made once, on first use; survives `fork`.
pub struct Environment {
    config: Config,
    #[expect(dead_code, reason = "used by the operations that follow")]
    transport: Arc<dyn Transport>,
    #[expect(dead_code, reason = "used by the operations that follow")]
    system: Arc<dyn System>,
}

impl Environment {
    /// As the environment variables say. Does no I/O and starts no thread.
    ///
    /// # Errors
    /// If a variable is malformed or `MVSQLITE_DATA_PLANE` is missing.
    pub fn from_env() -> Result<Arc<Self>, ConfigError> {
        let config = Config::from_env()?;
        let _ = (config, Os::new());
        Err(ConfigError {
            variable: "MVSQLITE_DATA_PLANE",
            problem: "no transport yet".to_owned(),
        })
    }

    /// With a transport and a system of the caller's: tests and simulation.
    pub fn with_transport(
        config: Config,
        transport: Arc<dyn Transport>,
        system: Arc<dyn System>,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            transport,
            system,
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
}
