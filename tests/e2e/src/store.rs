//! An `mvstore` process of a test's own.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::ports::free_port;
use crate::{mvstore, until};

/// How long a store may take to become ready or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// The variable that ends a store at a named point.
const CRASH_AT: &str = "MVSTORE_CRASH_AT";

/// How to start a store, where it differs from the default.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Its data directory; a temporary one of its own if `None`.
    pub data_dir: Option<PathBuf>,
    /// Port of the data plane.
    pub data_plane: u16,
    /// Port of the admin API.
    pub admin_api: u16,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// The directory for its log and the test's files; a temporary one of its own if `None`.
    pub scratch: Option<PathBuf>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            data_dir: None,
            data_plane: free_port(),
            admin_api: free_port(),
            arguments: Vec::new(),
            scratch: None,
        }
    }
}

/// A running store. Killed when dropped; [`Store::finish`] ends it properly and judges its log.
pub struct Store {
    options: StoreOptions,
    data_dir: PathBuf,
    scratch: PathBuf,
    /// Removed when this is dropped.
    _temporary: Option<tempfile::TempDir>,
    child: Option<Child>,
    expected_log: Vec<String>,
}

impl Store {
    /// Starts a store with nothing in it and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start() -> Self {
        Self::start_with(StoreOptions::default())
    }

    /// Starts a store and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start_with(options: StoreOptions) -> Self {
        let mut store = Self::prepared(options);
        store.restart();
        store
    }

    /// Starts a store that is expected to give up at once, and returns how it ended and what it
    /// said.
    ///
    /// # Panics
    /// If it becomes ready, or does neither.
    pub fn start_refused(options: StoreOptions) -> (ExitStatus, String) {
        let mut store = Self::prepared(options);
        store.launch(None);
        let status = until("mvstore to refuse to start", PATIENCE, || {
            assert!(!store.is_ready(), "mvstore serves\n{}", store.log());
            store.child.as_mut().unwrap().try_wait().unwrap()
        });
        store.child = None;
        (status, store.log())
    }

    fn prepared(options: StoreOptions) -> Self {
        let temporary = options.scratch.is_none().then(|| {
            let prefix = tempfile::Builder::new().prefix("mvsqlite-e2e-").tempdir();
            prefix.unwrap()
        });
        let scratch = match &temporary {
            Some(directory) => directory.path().to_owned(),
            None => options.scratch.clone().unwrap(),
        };
        let own = scratch.join("data");
        Self {
            data_dir: options.data_dir.clone().unwrap_or(own),
            options,
            scratch,
            _temporary: temporary,
            child: None,
            expected_log: Vec::new(),
        }
    }

    /// Starts it again, on the same directory and ports, after [`Store::kill`] or [`Store::stop`].
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn restart(&mut self) {
        self.launch(None);
        until("mvstore to be ready", PATIENCE, || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!(
                    "mvstore ended ({status}) instead of serving\n{}",
                    self.log()
                );
            }
            self.is_ready().then_some(())
        });
    }

    /// Starts it and does not wait. With `trap` it ends by itself at a named point, as
    /// `MVSTORE_CRASH_AT` says.
    ///
    /// # Panics
    /// If it is running.
    pub fn launch(&mut self, trap: Option<&str>) {
        assert!(self.child.is_none(), "the store is still running");
        let log = self.log_file();
        let mut command = Command::new(mvstore());
        command
            .args(["--data-plane", &self.data_plane_address()])
            .args(["--admin-api", &self.admin_address()])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(&self.options.arguments)
            .current_dir(&self.scratch)
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command.env_remove(CRASH_AT);
        command.envs(trap.map(|point| (CRASH_AT, point)));
        self.child = Some(command.spawn().expect("mvstore starts"));
    }

    fn log_file(&self) -> File {
        let path = self.scratch.join("store.log");
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.unwrap()
    }

    /// Whether it answers that it is ready to serve.
    pub fn is_ready(&self) -> bool {
        let url = format!("http://{}/readyz", self.admin_address());
        let patience = Some(Duration::from_secs(1));
        let request = ureq::get(&url).config().timeout_global(patience).build();
        matches!(request.call(), Ok(answer) if answer.status() == 200)
    }

    /// What it answers to that: status and text.
    ///
    /// # Panics
    /// If it does not answer with success.
    pub fn readiness(&self) -> (u16, String) {
        let url = format!("http://{}/readyz", self.admin_address());
        let mut answer = ureq::get(&url).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), text)
    }

    /// Whether it has been started, and not been seen to end since.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// How it ended, if it did so by itself; it can be started again then.
    ///
    /// # Panics
    /// Never.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status)
    }

    /// Sends it a signal such as `-STOP`.
    ///
    /// # Panics
    /// If it is not running.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        Command::new("kill").args([signal, &pid]).status().unwrap();
    }

    /// Ends it as `kill -9` does, at whatever it is doing.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the store is running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to stop (SIGTERM) and waits.
    ///
    /// # Panics
    /// If it does not end by itself with exit status 0.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("the store is running");
        let pid = child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        let status = until("mvstore to stop", PATIENCE, || child.try_wait().unwrap());
        assert!(
            status.success() && status.signal().is_none(),
            "mvstore stopped with {status}\n{}",
            self.log()
        );
    }

    /// Stops it and judges its log, and what it leaves in its directory.
    ///
    /// # Panics
    /// If it does not stop, if its log has a line of WARN, ERROR or a panic that was not announced,
    /// or if `mvstore fsck` finds something wrong.
    pub fn finish(mut self) {
        if self.child.is_some() {
            self.stop();
        }
        self.judge_log();
        self.judge_data();
    }

    /// Judges its data directory, which must not be in use.
    ///
    /// # Panics
    /// If `mvstore fsck` finds something wrong with it.
    pub fn judge_data(&self) {
        // A store in memory or on a cluster has none.
        if !self.data_dir.exists() {
            return;
        }
        let mut command = Command::new(mvstore());
        command.arg("fsck").arg("--data-dir").arg(&self.data_dir);
        let checked = command.env_remove("FDB_CLUSTER_FILE").output();
        let checked = checked.expect("mvstore starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            checked.status.success(),
            "mvstore fsck: {}\n{}{}",
            checked.status,
            text(&checked.stdout),
            text(&checked.stderr)
        );
    }

    /// Judges its log so far.
    ///
    /// # Panics
    /// If it has a line of WARN, ERROR or a panic that was not announced.
    pub fn judge_log(&self) {
        let log = self.log();
        let unexpected: Vec<&str> = log
            .lines()
            .filter(|line| self.is_unexpected(line))
            .collect();
        assert!(
            unexpected.is_empty(),
            "unexpected lines in the store's log:\n{}",
            unexpected.join("\n")
        );
    }

    /// Announces a line of WARN or ERROR: lines that contain `text` are no failure.
    pub fn expect_log(&mut self, text: &str) {
        self.expected_log.push(text.to_owned());
    }

    fn is_unexpected(&self, line: &str) -> bool {
        let bad = [" WARN ", " ERROR ", "panicked at"];
        bad.iter().any(|mark| line.contains(mark))
            && !self.expected_log.iter().any(|text| line.contains(text))
    }

    /// Everything it logged so far, over all restarts.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.scratch.join("store.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Makes a namespace.
    ///
    /// # Panics
    /// If that fails.
    pub fn create_namespace(&self, key: &str) {
        let answer = self.admin("create_namespace", &format!(r#"{{"key":"{key}"}}"#));
        assert_eq!(answer, (201, "created\n".to_owned()), "creating '{key}'");
    }

    /// Calls the admin API: status and body.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn admin(&self, call: &str, body: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let url = format!("http://{}/api/{call}", self.admin_address());
        let mut answer = agent.post(&url).send(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), text)
    }

    /// The data plane's `host:port`.
    pub fn data_plane_address(&self) -> String {
        format!("127.0.0.1:{}", self.options.data_plane)
    }

    /// The admin API's `host:port`.
    pub fn admin_address(&self) -> String {
        format!("127.0.0.1:{}", self.options.admin_api)
    }

    /// The URL that clients take as MVSQLITE_DATA_PLANE.
    pub fn url(&self) -> String {
        format!("http://{}", self.data_plane_address())
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A directory that lives as long as this.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it is not running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the store is running").id()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        // Where it is kept, it need not be shown.
        if std::thread::panicking() && self._temporary.is_some() {
            let log = self.log();
            let skipped = log.lines().count().saturating_sub(60);
            println!("--- the end of the store's log");
            log.lines()
                .skip(skipped)
                .for_each(|line| println!("{line}"));
        }
    }
}
