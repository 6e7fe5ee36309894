//! Registering the VFS with the program's SQLite.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::Arc;

use mvsqlite_client::{Config, ConfigError, Environment};
use mvsqlite_vfs::{Api, MissingFunction, RegisterError, Vfs};

use crate::linked;

/// Why the VFS could not be registered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or an environment variable is missing or malformed.
    #[error("mvSQLite is misconfigured: {0}")]
    Config(#[from] ConfigError),
    /// A setting has a name that no environment variable of mvSQLite's can have.
    #[error("'{0}' is no setting of mvSQLite: their names begin with MVSQLITE_")]
    UnknownSetting(String),
    /// It is registered already, with settings that stay in force.
    #[error("mvSQLite is registered already; its settings cannot be changed any more")]
    AlreadyRegistered,
    /// The linked SQLite is not fit for it.
    #[error("{0}")]
    Missing(#[from] MissingFunction),
    /// SQLite refused.
    #[error("cannot register mvSQLite with SQLite: {0}")]
    Refused(#[from] RegisterError),
}

/// Registers the VFS `mvsqlite` and its page-size variants with the SQLite of this program, as the
/// environment variables say. Connections opened from then on have the SQL functions.
///
/// The default VFS stays what it is. May be called any number of times, by any thread.
///
/// # Errors
/// If a variable is malformed or `MVSQLITE_DATA_PLANE` is missing, or if SQLite refuses.
pub fn register() -> Result<(), Error> {
    Registration::new().register()
}

/// Registers a VFS of this name, with an environment of the caller's own, with the SQLite of this
/// program. Its databases are as those of another process. For simulations.
///
/// # Errors
/// If SQLite refuses.
pub fn register_as(
    name: &'static CStr,
    environment: Arc<Environment>,
) -> Result<&'static Vfs, Error> {
    Ok(Vfs::register_as(linked::api()?, name, environment)?)
}

/// A registration that is not what [`register`] does: settings of the program's own, or the VFS as
/// the default.
///
/// ```no_run
/// mvsqlite::Registration::new()
///     .set("MVSQLITE_DATA_PLANE", "http://localhost:7000")
///     .set("MVSQLITE_DB_NAME_MAP", "/data/app.db=orders")
///     .set("MVSQLITE_ONLY_MAPPED", "1")
///     .as_default()
///     .register()?;
/// # Ok::<(), mvsqlite::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "nothing happens before register() is called"]
pub struct Registration {
    settings: BTreeMap<String, String>,
    as_default: bool,
}

impl Registration {
    /// As the environment variables say, and not as the default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses this value instead of that of the environment variable `name`.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// Makes the VFS the default: `Connection::open("orders")` is a namespace then, unless
    /// `MVSQLITE_ONLY_MAPPED` says otherwise.
    pub fn as_default(mut self) -> Self {
        self.as_default = true;
        self
    }

    /// Registers the VFS.
    ///
    /// # Errors
    /// As [`register`]; and with settings [`Error::AlreadyRegistered`] from the second time on.
    pub fn register(self) -> Result<(), Error> {
        let unknown = self.settings.keys().find(|name| !is_ours(name));
        if let Some(unknown) = unknown {
            return Err(Error::UnknownSetting(unknown.clone()));
        }
        let mut is_new = false;
        let vfs = Vfs::register_once(linked::api()?, |api| {
            is_new = true;
            self.register_with(api)
        })?;
        if !is_new && !self.settings.is_empty() {
            return Err(Error::AlreadyRegistered);
        }
        if self.as_default {
            vfs.make_default()?;
        }
        Ok(())
    }

    fn register_with(&self, api: Api) -> Result<&'static Vfs, Error> {
        let config = Config::from_variables(|variable| match self.settings.get(variable) {
            Some(value) => Some(value.clone()),
            None => std::env::var(variable).ok(),
        })?;
        let environment = Environment::new(config);
        Ok(Vfs::register(api, Ok(environment), false)?)
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with("MVSQLITE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_another_name_is_refused() {
        let refused = Registration::new().set("PATH", "/bin").register();
        assert!(matches!(refused, Err(Error::UnknownSetting(name)) if name == "PATH"));
    }

    #[test]
    fn a_malformed_setting_is_refused_with_its_name() {
        let refused = Registration::new()
            .set("MVSQLITE_DATA_PLANE", "localhost:7000")
            .register();
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("MVSQLITE_DATA_PLANE"), "{error}");
    }
}
