//! Programs that use SQLite, started under the preload library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Finished, Running};
use crate::{Store, newest_sqlite, preload_library};

/// How a program is started: its environment and its deadline.
#[derive(Debug, Clone)]
pub struct Client {
    environment: Vec<(String, String)>,
    deadline: Duration,
}

impl Client {
    /// Programs without the preload library: ordinary SQLite on ordinary files.
    pub fn local() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
        let client = Self {
            environment: Vec::new(),
            deadline: Duration::from_secs(120),
        };
        client
            .env("PYTHONPATH", here.to_str().unwrap())
            .env("PYTHONDONTWRITEBYTECODE", "1")
    }

    /// Programs whose databases are this store's namespaces.
    pub fn of(store: &Store) -> Self {
        Self::at(&store.url())
    }

    /// Programs whose databases are the namespaces of the store at `url`.
    pub fn at(url: &str) -> Self {
        Self::local()
            .env("LD_PRELOAD", preload_library().to_str().unwrap())
            .env("MVSQLITE_DATA_PLANE", url)
    }

    /// Sets an environment variable of the programs.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(key, _)| key != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Programs get the newest SQLite instead of Debian's.
    #[must_use]
    pub fn with_newest_sqlite(self) -> Self {
        let directory = newest_sqlite();
        self.env("LD_LIBRARY_PATH", directory.to_str().unwrap())
    }

    /// How long a program may run; the default is two minutes.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Only the file `path` is `namespace`; all other names are ordinary files.
    #[must_use]
    pub fn mapped(self, path: &Path, namespace: &str) -> Self {
        let map = format!("{}={namespace}", path.display());
        self.env("MVSQLITE_DB_NAME_MAP", &map)
            .env("MVSQLITE_ONLY_MAPPED", "1")
    }

    /// Feeds SQL to the sqlite3 shell.
    pub fn sqlite3(&self, database: &str, sql: &str) -> Finished {
        let mut command = self.command("sqlite3");
        command.args(["-batch", "-init", "/dev/null", database]);
        Running::start(&format!("sqlite3 {database}"), command, sql, self.deadline).finish()
    }

    /// What the sqlite3 shell prints.
    ///
    /// # Panics
    /// If it fails.
    pub fn query(&self, database: &str, sql: &str) -> String {
        let finished = self.sqlite3(database, sql);
        assert!(finished.stderr.is_empty(), "unexpected\n{finished}");
        finished.ok().to_owned()
    }

    /// Runs a script of `python/` to its end.
    pub fn python(&self, script: &str, arguments: &[&str]) -> Finished {
        self.start_python(script, arguments).finish()
    }

    /// Starts a script of `python/`.
    pub fn start_python(&self, script: &str, arguments: &[&str]) -> Running {
        let mut command = self.python_command(script);
        command.args(arguments);
        let name = format!("python3 {script} {}", arguments.join(" "));
        Running::start(&name, command, "", self.deadline)
    }

    /// How a script of `python/` is started.
    pub fn python_command(&self, script: &str) -> Command {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("python")
            .join(script);
        let mut command = self.command(python().to_str().unwrap());
        command.arg("-u").arg(path);
        command
    }

    /// Runs a program to its end.
    pub fn run(&self, program: &Path, arguments: &[&str]) -> Finished {
        let mut command = self.command(program.to_str().unwrap());
        command.args(arguments);
        let name = format!("{} {}", program.display(), arguments.join(" "));
        Running::start(&name, command, "", self.deadline).finish()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let inherited = std::env::vars().map(|(name, _)| name);
        for name in inherited.filter(|name| name.starts_with("MVSQLITE_")) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned());
        command
    }
}

/// The interpreter itself: `python3` may be a wrapper that starts slowly.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let ask = ["-c", "import sys, sqlite3; print(sys.executable)"];
        let answer = Command::new("python3").args(ask).output();
        let answer = answer.expect("python3 is installed");
        PathBuf::from(String::from_utf8(answer.stdout).unwrap().trim())
    })
}
