//! Workers that keep a ledger (`python/ledger_worker.py`), and the judgement of a copy by their
//! journals.

use std::time::Duration;

use crate::journal::judge_all;
use crate::worker::{Job, Worker};
use crate::{Client, Store, copy_out};

const SCHEMA: &str = "
    CREATE TABLE left (worker, number, body, PRIMARY KEY (worker, number));
    CREATE TABLE right (worker, number, body, PRIMARY KEY (worker, number)) WITHOUT ROWID;
    CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 31)
    INSERT INTO account SELECT i, 1000 FROM n;";
/// What all accounts hold together.
const MONEY: i64 = 32 * 1000;

/// The namespace that the workers write to.
pub const LEDGER: &str = "ledger";

/// Workers under way.
pub struct Ledger {
    workers: Vec<Worker>,
}

impl Ledger {
    /// Makes the namespace [`LEDGER`] and starts workers on it, for so many seconds. Every other
    /// one keeps its connection over failures; the rest open a new one.
    pub fn start(store: &Store, client: &Client, workers: u32, seconds: u64) -> Self {
        store.create_namespace(LEDGER);
        Client::of(store).query(LEDGER, SCHEMA);
        let start = |number: u32| {
            let job = Job {
                script: "ledger_worker.py",
                databases: &[LEDGER],
                lasting: Duration::from_secs(seconds),
                keep: number % 2 == 1,
            };
            Worker::start(client, job, number, store.scratch())
        };
        Self {
            workers: (0..workers).map(start).collect(),
        }
    }

    /// How many transactions were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        let told = self.workers.iter().map(|worker| worker.journal.told());
        told.map(|told| told.acknowledged.len()).sum()
    }

    /// How many transactions so far failed for another reason than a conflict.
    pub fn failed(&self) -> usize {
        let told = self.workers.iter().map(|worker| worker.journal.told());
        // The one that each worker is at counts as unknown.
        told.map(|told| told.refused.len() + told.unknown.len() - 1)
            .sum()
    }

    /// Ends one worker as `kill -9` does.
    ///
    /// # Panics
    /// If it is gone already.
    pub fn kill(&mut self, worker: usize) {
        self.workers[worker].kill();
    }

    /// Waits for the workers and judges a copy: everything acknowledged is there, nothing else but
    /// what may be, no transaction by half, no money made or lost.
    ///
    /// # Panics
    /// If it is otherwise.
    pub fn settle(mut self, store: &Store) {
        self.workers.iter_mut().for_each(Worker::finish);
        let copy = copy_out(store, LEDGER);
        let journals = self.workers.iter().map(|worker| &worker.journal);
        judge_all(journals, &[(&copy, "left"), (&copy, "right")]);
        let money: i64 = copy.value("SELECT sum(amount) FROM account");
        assert_eq!(money, MONEY, "transfers make and lose no money");
        println!("{} acknowledged, all there", self.acknowledged());
    }
}
