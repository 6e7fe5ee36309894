//! The embedded engine under power loss and failing disks.
//!
//! The storage library has no seam to put a disk under it, so the disk is a file system of our own
//! (`lossy/`), mounted by FUSE, that knows what was fsynced. A child process works on it; when the
//! power is cut, the child is killed, what a power loss leaves is made from the seed, and the next
//! child must find every acknowledged commit, no commit by halves, and go on above all versions.
//!
//! A seed that fails is printed; `KV_CRASH_SEED=n cargo test --test kv_crash power` runs it alone.
//! `KV_CRASH_SEEDS=n` runs more than the default. `KV_CRASH_STRICT_NAMES=1` takes away what file
//! systems promise beyond POSIX (`docs/decisions/` says what the library makes of that). Threads
//! make the runs differ in what happens between two operations, so a seed that failed may need a
//! few tries.

#![allow(clippy::unwrap_used, reason = "a panic is the report of a test")]

#[path = "lossy/disk.rs"]
mod disk;
#[path = "crash/ledger.rs"]
mod ledger;
#[path = "lossy/mount.rs"]
mod mount;
#[path = "crash/workload.rs"]
mod workload;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use disk::{Cut, Disk, Draws, Failure, Names, Op, Trouble};
use ledger::Known;
use mount::{Mount, SharedDisk, lock};
use mvsqlite_protocol::Version;
use mvstore::kv::embedded::{EmbeddedEngine, EmbeddedOptions};
use mvstore::kv::{Engine, Freshness, Isolation, KvError};
use workload::Load;

/// The largest pages that loads write; the last makes a journal go through its 64 MiB.
const PAGE_BYTES: [u64; 2] = [9_000, 900_000];

const SMALL: Load = Load {
    commits: 60,
    page_bytes: PAGE_BYTES[0],
    memtable_bytes: 64 << 10,
};

/// Enough for the journal to be rotated and removed.
const LARGE: Load = Load {
    commits: 60,
    page_bytes: PAGE_BYTES[1],
    memtable_bytes: 4 << 20,
};

/// Crashes in a row on one disk, recovery included, before the run that must go well.
const CRASHES: u64 = 3;

/// A child is given so long, many times what it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lossy disk, mounted, and the ledger beside it.
struct Bench {
    disk: SharedDisk,
    home: tempfile::TempDir,
    /// Dropped, and so unmounted, before the directory is removed.
    mount: Option<Mount>,
}

impl Bench {
    /// `None`, said in one line, where there is no FUSE.
    fn new(names: Names, seed: u64) -> Option<Self> {
        let disk = Arc::new(Mutex::new(Disk::new(names, seed)));
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("disk")).unwrap();
        match Mount::new(disk.clone(), &home.path().join("disk")) {
            Ok(mount) => Some(Self {
                disk,
                home,
                mount: Some(mount),
            }),
            Err(error) => {
                eprintln!("skipped: no file system can be mounted by FUSE here: {error}");
                None
            }
        }
    }

    fn store(&self) -> std::path::PathBuf {
        self.home.path().join("disk/store")
    }

    fn known(&self) -> Known {
        Known::read(&self.home.path().join("ledger"))
    }

    /// Runs a child in this trouble until it ends or the power fails. `Ok` if it ended well.
    fn run(&self, trouble: Trouble, load: Load) -> Result<(), String> {
        lock(&self.disk).restart(trouble);
        let mut child = self.spawn(load);
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if lock(&self.disk).is_cut() {
                kill(&mut child);
                return Ok(());
            }
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                kill(&mut child);
                return Err("the child hangs".to_owned());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        // It may have ended by the very errors of the cut.
        if status.success() || lock(&self.disk).is_cut() {
            Ok(())
        } else {
            let log = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            Err(format!("the child failed:\n{log}"))
        }
    }

    fn spawn(&self, load: Load) -> Child {
        let log = std::fs::File::create(self.home.path().join("log")).unwrap();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env("KV_CRASH_CHILD", self.store())
            .env("KV_CRASH_LEDGER", self.home.path().join("ledger"))
            .env(
                "KV_CRASH_LOAD",
                format!(
                    "{} {} {}",
                    load.commits, load.page_bytes, load.memtable_bytes
                ),
            )
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.mount.take();
    }
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Not a test of its own: what a child process runs.
#[test]
fn child() {
    let Ok(store) = std::env::var("KV_CRASH_CHILD") else {
        return;
    };
    let ledger = std::env::var("KV_CRASH_LEDGER").unwrap();
    let load = std::env::var("KV_CRASH_LOAD").unwrap();
    let numbers: Vec<u64> = load
        .split(' ')
        .map(|number| number.parse().unwrap())
        .collect();
    let load = Load {
        commits: numbers[0],
        page_bytes: numbers[1],
        memtable_bytes: numbers[2],
    };
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
        .block_on(workload::run(Path::new(&store), Path::new(&ledger), load));
    assert_eq!(outcome, Ok(()));
}

/// Cuts the power a few times at operations drawn from the seed, then lets a child go through.
/// `None` where there is no FUSE.
fn survive(seed: u64, names: Names) -> Option<Result<Known, String>> {
    let bench = Bench::new(names, seed)?;
    let mut draws = Draws(seed ^ 0x5eed);
    let load = if seed % 8 == 7 { LARGE } else { SMALL };
    for _ in 0..CRASHES {
        let cut = match draws.below(6) {
            // Early: in creation or recovery.
            0 => Cut::At(1 + draws.below(120)),
            1 => Cut::At(1 + draws.below(1_200)),
            2 => Cut::InSync(1 + draws.below(40)),
            3 => Cut::InSync(1 + draws.below(200)),
            // With a commit on its way to the journal.
            _ => Cut::InSyncOf(".jnl", 3 + draws.below(80)),
        };
        let trouble = Trouble {
            cut: Some(cut),
            tear: draws.below(5) > 0,
            fail: None,
        };
        if let Err(failure) = bench.run(trouble.clone(), load) {
            return Some(Err(format!("in {trouble:?}: {failure}")));
        }
        if let Some(violation) = bench.known().violation {
            return Some(Err(format!("before {trouble:?}: {violation}")));
        }
    }
    let last = bench.run(Trouble::default(), load);
    let known = bench.known();
    Some(match (last, known.violation.clone()) {
        (_, Some(violation)) => Err(violation),
        (Err(failure), None) => Err(failure),
        (Ok(()), None) => Ok(known),
    })
}

#[test]
fn power_losses_lose_nothing_acknowledged_and_leave_nothing_by_halves() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let seeds = match (number("KV_CRASH_SEED"), number("KV_CRASH_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(40),
    };
    let names = match std::env::var("KV_CRASH_STRICT_NAMES") {
        Ok(_) => Names::ByDirectory,
        Err(_) => Names::WithFile,
    };
    let mut acknowledged = 0;
    let mut failures = Vec::new();
    for seed in seeds {
        match survive(seed, names) {
            None => return,
            Some(Ok(known)) => acknowledged += known.acknowledged,
            Some(Err(failure)) => {
                eprintln!("seed {seed}: {failure}");
                failures.push(seed);
            }
        }
    }
    println!("{acknowledged} commits were acknowledged");
    assert_eq!(failures, [0u64; 0], "seeds that failed, as said above");
    assert!(acknowledged > 0);
}

#[test]
fn a_failing_disk_stops_the_engine_and_a_restart_finds_all_that_was_acknowledged() {
    for (op, from, failure) in [
        (Op::Sync, 100, Failure::Io),
        (Op::Sync, 117, Failure::NoSpace),
        (Op::Write, 250, Failure::Io),
        (Op::Write, 270, Failure::NoSpace),
        // No new file: the journal goes on, the tables do not.
        (Op::Metadata, 75, Failure::Io),
        (Op::Metadata, 90, Failure::NoSpace),
    ] {
        let Some(bench) = Bench::new(Names::WithFile, from) else {
            return;
        };
        let trouble = Trouble {
            fail: Some((op, from, failure)),
            tear: true,
            ..Trouble::default()
        };
        let endless = Load {
            commits: 100_000,
            ..SMALL
        };
        bench.run(trouble.clone(), endless).unwrap();
        let failed = bench.known();
        assert!(failed.acknowledged > 0, "{trouble:?} came too early");
        assert_eq!(failed.refusals.len(), ledger::WRITERS, "{trouble:?}");
        for refusal in &failed.refusals {
            assert!(
                ["MaybeCommitted", "Unavailable"].contains(&refusal.as_str()),
                "{trouble:?}: {refusal}"
            );
        }
        // Then the power fails as well, with all that the failed writes left undecided.
        lock(&bench.disk).cut();
        bench.run(Trouble::default(), SMALL).unwrap();
        assert_eq!(bench.known().violation, None, "after {trouble:?}");
        assert!(bench.known().acknowledged > failed.acknowledged);
    }
}

#[test]
fn a_full_disk_refuses_what_grows_serves_reads_and_goes_on_when_there_is_room() {
    let Some(bench) = Bench::new(Names::WithFile, 0) else {
        return;
    };
    let options = EmbeddedOptions::default();
    let reserve = options.reserve_bytes;
    let engine = EmbeddedEngine::open(bench.store(), options).unwrap();
    let commit = |grows: bool| {
        let mut transaction = engine.begin(Freshness::Strict);
        transaction.clear(b"gone");
        if grows {
            transaction.set(b"key", &[7; 1024]);
        }
        block_on(transaction.commit())
    };
    let read = || {
        let transaction = engine.begin(Freshness::Strict);
        block_on(transaction.get(b"key", Isolation::Snapshot)).unwrap()
    };
    let full = |outcome| matches!(outcome, Err(KvError::StorageFull { .. }));
    let free = |bytes| lock(&bench.disk).free_bytes = bytes;

    commit(true).unwrap();
    free(reserve - 4096);
    assert!(full(commit(true)));
    assert!(full(block_on(engine.check()).map(|()| Version::ZERO)));
    commit(false).expect("what only removes goes on");
    assert_eq!(read().as_deref(), Some([7; 1024].as_slice()));
    free(reserve / 2 - 4096);
    assert!(full(commit(false)));
    assert_eq!(read().as_deref(), Some([7; 1024].as_slice()));
    free(2 * reserve);
    commit(true).unwrap();
    engine.close();
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}
