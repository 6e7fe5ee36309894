//! A store of the benchmark's own: the real binary on the embedded engine.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A running mvstore; killed when dropped.
pub struct Store {
    process: Child,
    data_plane: String,
    admin_api: String,
    agent: ureq::Agent,
    start_up: Duration,
}

impl Store {
    /// Starts it in a directory below `scratch` and waits until it is ready, at most 20 s.
    pub fn start(binary: &Path, scratch: &Path) -> Result<Self> {
        let (data_plane, admin_api) = (free_address()?, free_address()?);
        let log = std::fs::File::create(scratch.join("mvstore.log"))?;
        let started = Instant::now();
        let process = Command::new(binary)
            .args(["--data-plane", &data_plane, "--admin-api", &admin_api])
            .arg("--data-dir")
            .arg(scratch.join("store"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}; build it first", binary.display()))?;
        let mut store = Self {
            process,
            data_plane,
            admin_api,
            agent: ureq::agent(),
            start_up: Duration::ZERO,
        };
        let deadline = started + Duration::from_secs(20);
        while ureq::get(format!("http://{}/readyz", store.admin_api))
            .call()
            .is_err()
        {
            if Instant::now() > deadline {
                bail!("the store did not get ready within 20 s");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        store.start_up = started.elapsed();
        Ok(store)
    }

    /// How long it took from its start until it was ready.
    pub fn start_up(&self) -> Duration {
        self.start_up
    }

    /// What clients set `MVSQLITE_DATA_PLANE` to.
    pub fn data_plane(&self) -> String {
        format!("http://{}", self.data_plane)
    }

    /// Makes a namespace.
    pub fn create_namespace(&self, key: &str) -> Result<()> {
        self.admin("create_namespace", key).map(drop)
    }

    /// The newest version of a namespace.
    pub fn version(&self, key: &str) -> Result<String> {
        Ok(self.stat(key)?.1)
    }

    /// Makes a namespace that is another one as it is now.
    pub fn fork(&self, base: &str, key: &str) -> Result<()> {
        let (id, version) = self.stat(base)?;
        let base = serde_json::json!({ "ns_id": id, "snapshot_version": version });
        let body = serde_json::json!({ "key": key, "overlay_base": base });
        let url = format!("http://{}/api/create_namespace", self.admin_api);
        self.agent.post(url).send(body.to_string())?;
        Ok(())
    }

    /// Takes a namespace back to a version, as the original's clients do: by a lock.
    pub fn roll_back(&self, key: &str, version: &str) -> Result<()> {
        let call = |path: &str, body: serde_json::Value| {
            let url = format!("http://{}/nslock/{path}", self.data_plane);
            let request = self.agent.post(url).header("x-namespace-key", key);
            request.send(body.to_string()).map(drop)
        };
        call(
            "acquire",
            serde_json::json!({ "owner": "bench", "version": version }),
        )?;
        call(
            "release",
            serde_json::json!({ "owner": "bench", "mode": "rollback" }),
        )?;
        Ok(())
    }

    /// Id and newest version of a namespace.
    fn stat(&self, key: &str) -> Result<(String, String)> {
        let stat: serde_json::Value = serde_json::from_str(&self.admin("stat_namespace", key)?)?;
        let field = |name: &str| {
            let field = stat[name].as_str();
            field.map(str::to_owned).context("an incomplete answer")
        };
        Ok((field("nsid")?, field("version")?))
    }

    /// How many namespaces the store lists.
    pub fn count_namespaces(&self) -> Result<u64> {
        let url = format!("http://{}/api/list_namespace", self.admin_api);
        let mut body = self.agent.get(url).call()?.into_body();
        Ok(BufReader::new(body.as_reader()).lines().count() as u64)
    }

    /// A call of the admin API about one namespace; its answer.
    fn admin(&self, call: &str, key: &str) -> Result<String> {
        let body = serde_json::json!({ "key": key }).to_string();
        let url = format!("http://{}/api/{call}", self.admin_api);
        let answer = self.agent.post(url).send(body);
        let mut answer = answer.with_context(|| format!("{call} of {key}"))?;
        Ok(answer.body_mut().read_to_string()?)
    }

    /// Resident memory of the store's process, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kilobytes.context("no VmRSS")?.parse::<u64>()? * 1024)
    }

    /// Stops it in order.
    pub fn stop(mut self) -> Result<()> {
        let kill = Command::new("kill")
            .arg(self.process.id().to_string())
            .status()?;
        ensure!(kill.success(), "could not signal the store");
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Already gone after `stop`; otherwise the benchmark failed and its store must not stay.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A loopback address that was free a moment ago.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
