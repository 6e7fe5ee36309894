//! The store that the tests' databases lie in: an `mvstore` process of the run's own.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long the store may take until it serves.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running store over a data directory that goes with it.
pub struct Store {
    child: Child,
    data_plane: String,
    admin_port: u16,
    _directory: tempfile::TempDir,
}

impl Store {
    /// Starts `mvstore` with nothing in it, on free ports of the loopback, and waits until it serves.
    /// What it logs goes to a file.
    ///
    /// # Errors
    /// If it cannot be started or does not come to serve.
    pub fn start(mvstore: &Path, log: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("mvsqlite-suite-store-")
            .tempdir()?;
        let output = File::create(log)?;
        let mut child = Command::new(mvstore)
            .args(["--data-plane", "127.0.0.1:0", "--admin-api", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .current_dir(directory.path())
            .env_remove("RUST_LOG")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", mvstore.display()))?;
        match addresses(&mut child, log) {
            Ok((data_plane, admin_port)) => Ok(Self {
                child,
                data_plane: format!("http://{data_plane}"),
                admin_port,
                _directory: directory,
            }),
            Err(error) => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The URL of its data plane.
    pub fn data_plane(&self) -> &str {
        &self.data_plane
    }

    /// The port of its admin API.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // It may have ended by itself; nothing it holds is needed any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses of the data plane and the port of the admin API, from the log.
fn addresses(child: &mut Child, log: &Path) -> Result<(String, u16)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        if let (Some(data_plane), Some(admin)) =
            (quoted(&text, "data_plane="), quoted(&text, "admin_api="))
        {
            let port = admin.rsplit(':').next().and_then(|port| port.parse().ok());
            return Ok((
                data_plane.to_owned(),
                port.context("the store logged no port")?,
            ));
        }
        if child.try_wait()?.is_some() || Instant::now() > deadline {
            bail!("mvstore does not serve:\n{text}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The text in quotes after `name`.
fn quoted<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(name)?;
    rest.strip_prefix('"')?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_stand_in_the_line_that_says_serving() {
        let line =
            r#"INFO mvstore::daemon: serving data_plane="127.0.0.1:1" admin_api="127.0.0.1:2""#;
        assert_eq!(quoted(line, "data_plane="), Some("127.0.0.1:1"));
        assert_eq!(quoted(line, "admin_api="), Some("127.0.0.1:2"));
        assert_eq!(quoted(line, "unix_socket="), None);
    }
}
