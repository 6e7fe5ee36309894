//! Workers that keep a ledger of what they were told, and the judgement of a copy by it.
//!
//! Each worker (`python/crash_worker.py`) commits numbered transactions while something terrible
//! happens to the store or the network, and writes into a journal of its own which were
//! acknowledged and of which it never learned the outcome.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::{Client, Copied, Running, Store, copy_out};

const SCHEMA: &str = "
    CREATE TABLE left (worker, number, body, PRIMARY KEY (worker, number));
    CREATE TABLE right (worker, number, body, PRIMARY KEY (worker, number)) WITHOUT ROWID;
    CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 31)
    INSERT INTO account SELECT i, 1000 FROM n;";

/// The namespace that the workers write to.
pub const LEDGER: &str = "ledger";

/// Workers under way.
pub struct Ledger {
    workers: Vec<Worker>,
}

struct Worker {
    number: usize,
    journal: PathBuf,
    running: Option<Running>,
}

impl Ledger {
    /// Makes the namespace [`LEDGER`] and starts workers on it, for so many seconds. Every other
    /// one keeps its connection over failures; the rest open a new one.
    pub fn start(store: &Store, client: &Client, workers: usize, seconds: u64) -> Self {
        store.create_namespace(LEDGER);
        Client::of(store).query(LEDGER, SCHEMA);
        let start = |number: usize| {
            let journal = store.scratch().join(format!("worker-{number}"));
            let (name, seconds, keep) = (
                number.to_string(),
                seconds.to_string(),
                (number % 2).to_string(),
            );
            let path = journal.to_str().unwrap();
            let arguments = [LEDGER, &name, &seconds, path, &keep];
            let running = client.start_python("crash_worker.py", &arguments);
            Worker {
                number,
                journal,
                running: Some(running),
            }
        };
        Self {
            workers: (0..workers).map(start).collect(),
        }
    }

    /// How many transactions were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        let journals = self.workers.iter().map(Worker::read);
        journals.map(|(acknowledged, _)| acknowledged.len()).sum()
    }

    /// How many transactions so far failed for another reason than a conflict.
    pub fn failed(&self) -> usize {
        let journals = self.workers.iter().map(Worker::text);
        let failed = |line: &str| line.starts_with(['U', 'F']);
        journals
            .map(|text| text.lines().filter(|line| failed(line)).count())
            .sum()
    }

    /// Ends one worker as `kill -9` does.
    ///
    /// # Panics
    /// If it is gone already.
    pub fn kill(&mut self, worker: usize) {
        drop(self.workers[worker].running.take().unwrap().kill());
    }

    /// Waits for the workers and judges a copy: everything acknowledged is there, nothing else but
    /// what may be, no transaction by half, no money made or lost.
    ///
    /// # Panics
    /// If it is otherwise.
    pub fn settle(mut self, store: &Store) {
        for worker in &mut self.workers {
            match worker.running.take() {
                Some(running) => println!("worker {}: {}", worker.number, running.finish().ok()),
                None => worker.was_killed(),
            }
        }
        let copy = copy_out(store, LEDGER);
        for worker in &self.workers {
            worker.judge(&copy);
        }
        let money: i64 = copy.value("SELECT sum(amount) FROM account");
        assert_eq!(money, 32 * 1000, "transfers make and lose no money");
        println!("{} acknowledged, all there", self.acknowledged());
    }
}

impl Worker {
    /// Numbers acknowledged, and numbers whose outcome it was not told.
    fn read(&self) -> (BTreeSet<i64>, BTreeSet<i64>) {
        let text = self.text();
        let numbers = |kind: &str| {
            let of_kind = text.lines().filter_map(|line| line.strip_prefix(kind));
            of_kind
                .map(|number| number.trim().parse().unwrap())
                .collect()
        };
        (numbers("A"), numbers("U"))
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.journal).unwrap_or_default()
    }

    /// It did not live to write down what it did last.
    fn was_killed(&self) {
        let (acknowledged, unknown) = self.read();
        let next = acknowledged
            .union(&unknown)
            .last()
            .map_or(0, |last| last + 1);
        fs::write(&self.journal, format!("{}U {next}\n", self.text())).unwrap();
        println!(
            "worker {}: killed after {}",
            self.number,
            acknowledged.len()
        );
    }

    fn judge(&self, copy: &Copied) {
        let worker = self.number;
        let (acknowledged, unknown) = self.read();
        let numbers = |table: &str| -> BTreeSet<i64> {
            let sql = format!("SELECT number FROM \"{table}\" WHERE worker = {worker}");
            copy.column(&sql).into_iter().collect()
        };
        let (left, right) = (numbers("left"), numbers("right"));
        assert_eq!(left, right, "worker {worker}: half a transaction");
        let lost: Vec<_> = acknowledged.difference(&left).collect();
        assert!(
            lost.is_empty(),
            "worker {worker}: acknowledged and lost: {lost:?}"
        );
        let known: BTreeSet<_> = acknowledged.union(&unknown).copied().collect();
        let invented: Vec<_> = left.difference(&known).collect();
        assert!(
            invented.is_empty(),
            "worker {worker}: never reported: {invented:?}"
        );
    }
}
