//! A FoundationDB cluster of one process, for as long as a test takes.

use std::env;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Where a package or an unpacked archive has its programs.
const DIRECTORIES: [&str; 4] = ["", "bin", "sbin", "usr/sbin"];

pub(crate) struct RealCluster {
    server: Child,
    pub(crate) file: PathBuf,
    _directory: TempDir,
}

impl RealCluster {
    /// Starts `fdbserver` and makes an empty database; `None` if FoundationDB is not installed.
    pub(crate) fn start() -> io::Result<Option<Self>> {
        let (Some(fdbserver), Some(fdbcli)) = (program("fdbserver"), program("fdbcli")) else {
            return Ok(None);
        };
        let directory = tempfile::tempdir()?;
        // Free now; somebody else could take it before the server does, which would then exit.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let file = directory.path().join("fdb.cluster");
        fs::write(&file, format!("test:test@{address}"))?;
        let server = Command::new(fdbserver)
            .args(["--public-address", &address.to_string()])
            .args(["--listen-address", "public"])
            .arg("--cluster-file")
            .arg(&file)
            .arg("--datadir")
            .arg(directory.path().join("data"))
            .arg("--logdir")
            .arg(directory.path().join("log"))
            .stdout(Stdio::null())
            .spawn()?;
        let cluster = Self {
            server,
            file,
            _directory: directory,
        };
        let configured = Command::new(fdbcli)
            .arg("-C")
            .arg(&cluster.file)
            .args(["--timeout", "30", "--exec", "configure new single memory"])
            .output()?;
        if !configured.status.success() {
            let said = String::from_utf8_lossy(&configured.stdout).into_owned();
            return Err(io::Error::other(said));
        }
        Ok(Some(cluster))
    }
}

impl Drop for RealCluster {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed otherwise.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Looks for a program in `FDB_HOME`, then in `PATH` and where FoundationDB's packages put it.
fn program(name: &str) -> Option<PathBuf> {
    let home = env::var_os("FDB_HOME").map(PathBuf::from);
    let of_home = home
        .into_iter()
        .flat_map(|home| DIRECTORIES.map(|directory| home.join(directory)));
    let path = env::var_os("PATH").unwrap_or_default();
    of_home
        .chain(env::split_paths(&path))
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}
