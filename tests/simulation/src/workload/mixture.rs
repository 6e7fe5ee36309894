//! A workload that mixes what users do, in one family or another, as the seed draws it.

use std::time::Duration;

use mvsqlite::Config;
use tempfile::TempDir;

use super::Workload;
use super::contents::{self, Database};
use super::ledger::Ledger;
use super::session::{self, Session};
use super::swarm::{Family, Swarm};
use crate::check;
use crate::history::{History, Recorder};
use crate::process::Process;
use crate::random::Random;
use crate::sqlite::Sqlite;

/// How long the first process would wait for others.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Mixture {
    swarm: Swarm,
    ledger: Ledger,
    /// A disk cache that all processes share, also one that comes after all the others.
    disk_cache: Option<TempDir>,
}

impl Mixture {
    /// That of a seed. Each run takes a new one: it knows what happened.
    pub fn new(family: Family, seed: u64) -> Self {
        let swarm = Swarm::new(family, seed);
        Self {
            disk_cache: swarm
                .caches_on_disk
                .then(|| tempfile::tempdir().expect("a place for temporary files")),
            swarm,
            ledger: Ledger::default(),
        }
    }

    /// What was drawn.
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// What happened.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The keys of its namespaces.
    pub(crate) fn databases(&self) -> Vec<Database> {
        self.swarm.databases()
    }
}

impl Workload for Mixture {
    fn name(&self) -> &'static str {
        self.swarm.family.name()
    }

    fn processes(&self) -> u32 {
        self.swarm.processes()
    }

    fn configure(&self, config: &mut Config, random: &mut Random) {
        self.swarm.configure(config, random);
        if let Some(directory) = &self.disk_cache
            && random.chance(0.7)
        {
            config.disk_cache = Some(directory.path().to_owned());
        }
    }

    fn setup(&self, process: &Process) {
        let sqlite = Sqlite::new(process.environment());
        for database in self.databases() {
            let key = database.key().parse().expect("a key");
            let mode = self.swarm.mode;
            let made = process.administer("create", move |store| async move {
                store.create_namespace_as(&key, mode).await
            });
            if !matches!(made, Some(Ok(_))) {
                self.ledger.violated(format!("no namespace: {made:?}"));
                return;
            }
            let connection = sqlite.open(database.key(), BUSY_TIMEOUT);
            let connection = connection.map_err(super::fault::Fault::from);
            let created = connection
                .and_then(|connection| contents::create(&connection, database, &self.swarm));
            if let Err(fault) = created {
                self.ledger.violated(format!("no tables: {fault:?}"));
            }
        }
    }

    fn run(&self, process: &Process, recorder: &Recorder) {
        let sqlite = Sqlite::new(process.environment());
        let index = process.id().saturating_sub(1) as usize;
        let Some(role) = self.swarm.roles.get(index) else {
            return;
        };
        if let Some(mut session) = Session::open(self, process, recorder, &sqlite) {
            role.play(&mut session);
        }
    }

    fn verify(&self, process: &Process, history: &History) -> Result<(), String> {
        check::verify(self, process, history)
    }
}

/// The state at the end of a run, through a process that has seen nothing of it.
pub(crate) fn final_look(
    mixture: &Mixture,
    sqlite: &Sqlite,
) -> Result<super::Snapshot, super::fault::Fault> {
    let connection = session::open(sqlite, mixture.swarm(), "")?;
    connection.execute_batch("BEGIN")?;
    let (snapshot, version) = session::look(&connection, mixture.swarm())?;
    let version = version.unwrap_or_default();
    session::remember(mixture, "the last reader", &snapshot, &version);
    Ok(snapshot)
}

/// The state at one version.
pub(crate) fn past_look(
    mixture: &Mixture,
    sqlite: &Sqlite,
    version: &str,
) -> Result<(), super::fault::Fault> {
    let connection = session::open(sqlite, mixture.swarm(), &format!("@{version}"))?;
    connection.execute_batch("BEGIN")?;
    let databases = mixture.databases();
    let snapshot = super::Snapshot::read(&connection, &databases, mixture.swarm())?;
    session::remember(mixture, "the last traveller", &snapshot, version);
    Ok(())
}
