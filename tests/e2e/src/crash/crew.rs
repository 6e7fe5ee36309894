//! The client processes of a round.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt;

use super::Figures;
use super::life::Life;
use super::load::{LOADS, writes};
use super::schedule::chance;
use crate::{Client, Job, Worker, until};

/// How long a client may take to commit something once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(60);
/// After this a client ends by itself: if its driver is gone, nobody else ends it.
const LASTING: Duration = Duration::from_secs(150);

/// A process of a load, alive or not.
pub(super) struct Member {
    /// The load: a place in [`LOADS`].
    pub(super) load: usize,
    /// Its script.
    pub(super) script: &'static str,
    /// The round it belongs to.
    pub(super) round: u32,
    /// The process and its journal.
    pub(super) worker: Worker,
}

/// All processes of a life, those of the round under way at the end.
pub(super) struct Crew {
    seed: u64,
    /// The number of the next process: unique in a run.
    next: u32,
    round: u32,
    /// Those that have ended too: their journals are judged again and again.
    pub(super) members: Vec<Member>,
}

impl Crew {
    /// Nobody yet; the first process gets this number.
    pub(super) fn new(seed: u64, next: u32) -> Self {
        Self {
            seed,
            next,
            round: 0,
            members: Vec::new(),
        }
    }

    /// The number of the next process.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Starts the processes of a round.
    pub(super) fn start(&mut self, life: &Life, loads: &[usize], round: u32) {
        self.round = round;
        for &load in loads {
            for script in LOADS[load].processes {
                self.start_one(life, load, script);
            }
        }
    }

    fn start_one(&mut self, life: &Life, load: usize, script: &'static str) {
        let number = self.next;
        self.next += 1;
        let databases: Vec<&str> = LOADS[load]
            .databases
            .iter()
            .map(|database| database.name)
            .collect();
        let job = Job {
            script,
            databases: &databases,
            lasting: LASTING,
            keep: chance(self.seed, "keep", number.into()).random(),
        };
        let client = self.client(life, script, number);
        self.members.push(Member {
            load,
            script,
            round: self.round,
            worker: Worker::start(&client, job, number, &life.directory),
        });
    }

    /// Which SQLite a process has, how patient it is, what it keeps where.
    fn client(&self, life: &Life, script: &str, number: u32) -> Client {
        let mut chance = chance(self.seed, "client", number.into());
        let mut client = Client::at(&life.proxy.url())
            .deadline(LASTING + Duration::from_secs(60))
            .env("MVSQLITE_LOG", "stderr")
            .env(
                "MVSQLITE_E2E_STOP",
                &stop_file(life, self.round).display().to_string(),
            )
            .env("MVSQLITE_E2E_ADMIN", &life.store.admin_address())
            .env("MVSQLITE_E2E_ROUND", &self.round.to_string());
        if life.has_small_disk() {
            client = client.env("MVSQLITE_E2E_MAY_BE_FULL", "1");
        }
        // The shell wants the very SQLite that it was built with.
        if chance.random_bool(0.5) && script != "shell_worker.py" {
            client = client.with_newest_sqlite();
        }
        let mut sometimes = |share: f64, name: &str, value: &str| {
            if chance.random_bool(share) {
                client = client.clone().env(name, value);
            }
        };
        // Impatient ones are left with unknown outcomes.
        sometimes(0.7, "MVSQLITE_HTTP_TIMEOUT_SECS", "1");
        sometimes(0.5, "MVSQLITE_UPLOAD_BYTES", "65536");
        sometimes(0.3, "MVSQLITE_JOURNAL_BYTES", "65536");
        sometimes(0.3, "MVSQLITE_PAGE_CACHE_SIZE", "50");
        // Shared by all that have it, also those that are killed while they write there.
        let kept = life.directory.join("disk-cache");
        sometimes(0.3, "MVSQLITE_DISK_CACHE", &kept.display().to_string());
        client
    }

    fn living(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members
            .iter_mut()
            .filter(|member| member.worker.running.is_some())
    }

    /// The place of the living process of this number, modulo how many there are.
    fn pick(&self, number: usize) -> Option<usize> {
        let living = self.members.iter().enumerate();
        let living: Vec<usize> = living
            .filter(|(_, member)| member.worker.running.is_some())
            .map(|(place, _)| place)
            .collect();
        (!living.is_empty()).then(|| living[number % living.len()])
    }

    /// `kill -9` of one; another one takes its place.
    pub(super) fn kill(&mut self, life: &Life, number: usize) -> bool {
        let Some(place) = self.pick(number) else {
            return false;
        };
        let member = &mut self.members[place];
        member.worker.kill();
        let (load, script) = (member.load, member.script);
        self.start_one(life, load, script);
        true
    }

    /// SIGSTOP for one.
    pub(super) fn pause(&mut self, number: usize) -> bool {
        let place = self.pick(number);
        if let Some(place) = place {
            self.signal(place, "-STOP");
        }
        place.is_some()
    }

    /// SIGCONT for all.
    pub(super) fn resume(&mut self) {
        for place in 0..self.members.len() {
            self.signal(place, "-CONT");
        }
    }

    fn signal(&self, place: usize, signal: &str) {
        if let Some(running) = &self.members[place].worker.running {
            running.signal_group(signal);
        }
    }

    /// Looks after the processes.
    ///
    /// # Panics
    /// If one ended: none of them has a reason to.
    pub(super) fn tick(&mut self) {
        for member in self.living() {
            let running = member.worker.running.as_mut().expect("it is living");
            if running.is_finished() {
                let finished = member
                    .worker
                    .running
                    .take()
                    .expect("it was living")
                    .finish();
                panic!("a client gave up\n{finished}");
            }
        }
    }

    /// Waits until each process has committed something more.
    ///
    /// # Panics
    /// If one does not.
    pub(super) fn go_on(&mut self, life: &mut Life, figures: &mut Figures) {
        let acknowledged = |member: &Member| member.worker.journal.told().acknowledged.len();
        let before: Vec<usize> = self.members.iter().map(acknowledged).collect();
        for (place, before) in before.into_iter().enumerate() {
            if self.members[place].worker.running.is_none() {
                continue;
            }
            let name = self.members[place]
                .worker
                .journal
                .path()
                .display()
                .to_string();
            until(&format!("{name} to go on"), PATIENCE, || {
                life.tick(figures);
                self.tick();
                (acknowledged(&self.members[place]) > before).then_some(())
            });
        }
    }

    /// Ends the processes and writes down what they said.
    ///
    /// # Panics
    /// If one failed or was ended by a signal.
    pub(super) fn stop(&mut self, life: &Life, figures: &mut Figures) {
        fs::write(stop_file(life, self.round), "").unwrap();
        let round = self.round;
        for member in self
            .members
            .iter_mut()
            .filter(|member| member.round == round)
        {
            let told = member.worker.journal.told();
            let Some(running) = member.worker.running.take() else {
                figures.told(&told, true);
                continue;
            };
            let finished = running.finish();
            let said = member.worker.journal.path().with_extension("said");
            fs::write(said, finished.to_string()).unwrap();
            finished.ok();
            figures.told(&member.worker.journal.told(), false);
        }
    }

    /// The journals of those that wrote for a load.
    pub(super) fn writers(&self, load: usize) -> impl Iterator<Item = &Member> {
        let members = self.members.iter();
        members.filter(move |member| member.load == load && writes(member.script))
    }

    /// The files that processes of a load keep beside their journals under this extension.
    pub(super) fn beside(&self, load: usize, extension: &str) -> Vec<String> {
        let members = self.members.iter().filter(|member| member.load == load);
        let paths =
            members.map(|member| format!("{}.{extension}", member.worker.journal.path().display()));
        paths.filter(|path| Path::new(path).exists()).collect()
    }
}

fn stop_file(life: &Life, round: u32) -> PathBuf {
    life.directory.join(format!("stop-{round}"))
}
