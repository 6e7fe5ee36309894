//! One store, from an empty directory to its end, with its disk, its proxy and its clients' files.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rand::RngExt;

use super::Figures;
use super::load::{Database, LOADS};
use super::schedule::chance;
use crate::{Client, Proxy, SmallDisk, Store, StoreOptions, until};

/// A small disk: room for what some rounds write, beside the reserve that a store never touches.
const DISK: u64 = 2 << 30;
/// How long a store may take to become ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a store may use between rounds. Generous: a leak adds up over a life.
const MOST_MEMORY: u64 = 1_500_000_000;
const MOST_FILES: usize = 600;
/// SIGABRT, by which a store ends at a named point.
const ABORT: i32 = 6;
/// With less room than this a store stops by itself, with exit code 1.
const LEAST: u64 = 90 << 20;
/// The name of what takes a disk's room.
const BALLAST: &str = "taken";

/// A store and what is around it.
pub(super) struct Life {
    /// The server.
    pub(super) store: Store,
    /// What clients connect to.
    pub(super) proxy: Proxy,
    /// Log, journals, histories.
    pub(super) directory: PathBuf,
    disk: Option<SmallDisk>,
    full: bool,
    /// It was so full that the store may stop and say so, and has not been started since.
    starved: bool,
    paused: bool,
    /// The trap of the running store.
    trap: Option<String>,
    /// Since when it is not ready yet.
    starting: Option<Instant>,
}

impl Life {
    /// Begins life number `number` of a run, in a directory of its own below `home`.
    pub(super) fn begin(seed: u64, number: u32, home: &Path) -> Self {
        let directory = home.join(format!("life-{number}"));
        fs::create_dir_all(&directory).unwrap();
        let mut chance = chance(seed, "life", number.into());
        let mut arguments = ["--lease-ttl", "1", "--shutdown-timeout", "5"]
            .map(str::to_owned)
            .to_vec();
        let mut knob = |name: &str, values: &[&str]| {
            let value = values[chance.random_range(0..values.len())];
            if !value.is_empty() {
                arguments.extend([name.to_owned(), value.to_owned()]);
            }
        };
        // Some 200 bytes a page: layers of large transactions, of some pages, of many.
        knob("--knob-layer-bytes", &["20000", "5000", "2000", ""]);
        knob("--knob-fold-pages", &["16", ""]);
        knob("--page-cache-bytes", &["0", "", ""]);
        // In memory a sync is quick, on a disk it is not: both change what a kill meets.
        let disk = (number % 3 != 2).then(|| SmallDisk::mount(DISK)).flatten();
        let data_dir = disk.as_ref().map(|disk| disk.path().join("data"));
        let mut store = Store::start_with(StoreOptions {
            data_dir: Some(data_dir.unwrap_or_else(|| directory.join("data"))),
            scratch: Some(directory.clone()),
            arguments,
            ..StoreOptions::default()
        });
        store.expect_log("ended on purpose");
        store.expect_log("writing is refused: the disk is full");
        store.expect_log("the store's disk is full");
        // One that was killed counts as running for a while.
        store.expect_log("another truncation of the namespace");
        LOADS
            .iter()
            .flat_map(|load| load.databases)
            .for_each(|database| fill(&store, database));
        Self {
            proxy: Proxy::before(&store),
            store,
            directory,
            disk,
            full: false,
            starved: false,
            paused: false,
            trap: None,
            starting: None,
        }
    }

    /// Whether its disk can be filled.
    pub(super) fn has_small_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Whether it has used so much of its disk that another one should begin.
    pub(super) fn is_old(&self) -> bool {
        self.disk
            .as_ref()
            .is_some_and(|disk| disk.free() < DISK / 2)
    }

    /// Looks after a store that is starting, and after one that ended at its trap.
    ///
    /// # Panics
    /// If it ended otherwise, or does not become ready.
    pub(super) fn tick(&mut self, figures: &mut Figures) {
        if let Some(status) = self.store.ended() {
            self.ended(status, figures);
        }
        let Some(since) = self.starting.filter(|_| !self.paused) else {
            return;
        };
        if self.store.is_ready() {
            figures.started(since.elapsed());
            self.starting = None;
        }
        assert!(
            since.elapsed() < PATIENCE,
            "the store is not ready after {PATIENCE:?}"
        );
    }

    fn ended(&mut self, status: ExitStatus, figures: &mut Figures) {
        let trap = self.trap.take();
        self.starting = None;
        match trap.filter(|_| status.signal() == Some(ABORT)) {
            Some(point) => {
                let name = point.split(':').next().unwrap_or(&point);
                figures.fault(&format!("ends of the store at {name}"));
            }
            None => {
                let excused = self.starved && status.code() == Some(1);
                assert!(excused, "the store ended by itself: {status}");
                figures.fault("ends of the store for want of disk");
            }
        }
        // Who starts it again while there is no room meets the same.
        if !self.full {
            self.start(None);
        }
    }

    /// Starts the store, if it does not run.
    pub(super) fn start(&mut self, trap: Option<String>) {
        if !self.store.is_running() {
            self.store.launch(trap.as_deref());
            self.trap = trap;
            self.paused = false;
            self.starved = self.full && self.starved;
            self.starting = Some(Instant::now());
        }
    }

    /// `kill -9`, if it runs; whether it did.
    pub(super) fn kill(&mut self) -> bool {
        let runs = self.store.is_running();
        if runs {
            self.store.kill();
            self.trap = None;
            self.starting = None;
        }
        runs
    }

    /// SIGTERM, if it runs and is ready; whether it did.
    pub(super) fn stop(&mut self) -> bool {
        let runs = self.store.is_running() && self.starting.is_none() && self.trap.is_none();
        if runs {
            self.resume();
            self.store.stop();
        }
        runs
    }

    /// SIGSTOP, if it runs; whether it did.
    pub(super) fn pause(&mut self) -> bool {
        let runs = self.store.is_running() && !self.paused;
        if runs {
            self.store.signal("-STOP");
            self.paused = true;
        }
        runs
    }

    /// SIGCONT, if it stands still.
    pub(super) fn resume(&mut self) {
        if self.paused && self.store.is_running() {
            self.store.signal("-CONT");
            // It could not become ready meanwhile.
            self.starting = self.starting.map(|_| Instant::now());
        }
        self.paused = false;
    }

    /// Leaves `left` bytes of its disk, if it has one of its own; whether it has.
    pub(super) fn fill_disk(&mut self, left: u64) -> bool {
        let Some(disk) = self.disk.as_ref().filter(|_| !self.full) else {
            return false;
        };
        let room = disk.free().saturating_sub(left);
        if room > 0 {
            // It may be a little less by now; then it is all taken.
            disk.take_room(BALLAST, room);
            self.full = true;
            self.starved = left < LEAST;
        }
        if self.starved {
            self.store.expect_log("the embedded engine has stopped");
        }
        self.full
    }

    /// Gives the disk's room back.
    pub(super) fn empty_disk(&mut self) {
        if let Some(disk) = self.disk.as_ref().filter(|_| self.full) {
            disk.give_room(BALLAST);
            self.full = false;
            if self.starved {
                self.start(None);
            }
        }
    }

    /// Ends all that goes wrong and waits until the store is ready.
    pub(super) fn calm(&mut self, figures: &mut Figures) {
        self.proxy.set(crate::Fault::None);
        self.empty_disk();
        self.resume();
        if self.trap.is_some() {
            self.kill();
        }
        self.start(None);
        until("the store to be ready", PATIENCE, || {
            self.tick(figures);
            self.starting.is_none().then_some(())
        });
    }

    /// Measures the store.
    ///
    /// # Panics
    /// If it uses more than it may.
    pub(super) fn measure(&self, figures: &mut Figures) {
        let process = PathBuf::from(format!("/proc/{}", self.store.pid()));
        let status = fs::read_to_string(process.join("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 = resident
            .and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok())
            .expect("Linux tells it so");
        let files = fs::read_dir(process.join("fd")).unwrap().count();
        figures.most_memory = figures.most_memory.max(kilobytes * 1024);
        figures.most_files = figures.most_files.max(files);
        assert!(
            kilobytes * 1024 < MOST_MEMORY,
            "the store takes {kilobytes} kB"
        );
        assert!(files < MOST_FILES, "the store has {files} files open");
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.kill();
        if let Some(disk) = &self.disk {
            // What it mounted is gone in a moment.
            let kept = self.directory.join("data");
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(disk.path().join("data")).arg(kept);
            copy.status().ok();
        }
    }
}

fn fill(store: &Store, database: &Database) {
    let mode = if database.exclusive {
        "exclusive"
    } else {
        "optimistic"
    };
    let body = format!(r#"{{"key":"{}","concurrency":"{mode}"}}"#, database.name);
    let answer = store.admin("create_namespace", &body);
    assert_eq!(answer.0, 201, "{}: {}", database.name, answer.1);
    Client::of(store).query(database.name, database.schema);
}
