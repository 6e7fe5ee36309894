//! A process with a connection to all databases of a mixture, and the transactions it runs.

use std::time::Duration;

use mvsqlite_checker::Outcome;
use rusqlite::Connection;

use super::contents::Database;
use super::fault::Fault;
use super::ledger::{Fate, Ledger, Observation};
use super::mixture::Mixture;
use super::operation::{Attempt, Kind};
use super::snapshot::Snapshot;
use super::swarm::Swarm;
use crate::history::Recorder;
use crate::process::Process;
use crate::random::Random;
use crate::sqlite::Sqlite;

/// See the module.
pub(crate) struct Session<'a> {
    pub(crate) mixture: &'a Mixture,
    pub(crate) process: &'a Process,
    pub(crate) recorder: &'a Recorder,
    pub(crate) connection: Connection,
    pub(crate) sqlite: &'a Sqlite,
    pub(crate) random: Random,
}

/// A statement that appends an element.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Single {
    database: Database,
    kind: Kind,
    number: u64,
}

impl<'a> Session<'a> {
    /// Opens the databases, as often as it takes; `None` if the process was killed meanwhile.
    pub(crate) fn open(
        mixture: &'a Mixture,
        process: &'a Process,
        recorder: &'a Recorder,
        sqlite: &'a Sqlite,
    ) -> Option<Self> {
        let swarm = mixture.swarm();
        loop {
            match open(sqlite, swarm, "") {
                Ok(connection) => {
                    return Some(Self {
                        mixture,
                        process,
                        recorder,
                        connection,
                        sqlite,
                        random: process.random(),
                    });
                }
                Err(_) if !process.alive() => return None,
                Err(Fault::Violation(text)) => {
                    mixture.ledger().violated(format!("opening: {text}"));
                    return None;
                }
                Err(_) => process.sleep(Duration::from_millis(50)),
            }
        }
    }

    pub(crate) fn swarm(&self) -> &'a Swarm {
        self.mixture.swarm()
    }

    pub(crate) fn ledger(&self) -> &'a Ledger {
        self.mixture.ledger()
    }

    /// In whose name it owns blobs.
    pub(crate) fn owner(&self) -> u32 {
        self.process.id().saturating_sub(1)
    }

    /// Whether there is any use in going on.
    pub(crate) fn goes_on(&self) -> bool {
        self.process.alive() && self.ledger().known().violations.is_empty()
    }

    /// A fault where none may be is remembered; any other is a matter of course.
    pub(crate) fn judge(&self, what: &str, fault: Fault) {
        if !self.process.alive() {
            return;
        }
        let id = self.process.id();
        match fault {
            Fault::Violation(text) => self
                .ledger()
                .violated(format!("process {id}, {what}: {text}")),
            other => self.process.note(format_args!("{what}: {other:?}")),
        }
    }

    /// The version that the open transaction reads, over the databases it has touched: as sortable
    /// text. All show one moment, whose last commit anywhere is the newest of theirs.
    pub(crate) fn version(&self, touched: &[Database]) -> Result<Option<String>, Fault> {
        let mut newest = None;
        for database in touched {
            let sql = format!("PRAGMA {}.mvsqlite_version", database.schema());
            let version: Option<String> = self.connection.query_row(&sql, [], |row| row.get(0))?;
            newest = newest.max(version);
        }
        Ok(newest)
    }

    /// The version that the last commit of a database made.
    fn committed_version(&self, database: Database) -> Option<String> {
        let sql = format!("SELECT mv_last_known_version('{}')", database.schema());
        let version = self.connection.query_row(&sql, [], |row| row.get(0));
        version.unwrap_or_default()
    }

    fn kind(&mut self) -> Kind {
        let weights = &self.swarm().weights;
        let all: u64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.below(all);
        for (kind, weight) in weights {
            match drawn.checked_sub(*weight) {
                Some(left) => drawn = left,
                None => return *kind,
            }
        }
        Kind::Append
    }

    fn pause(&mut self) {
        if !self.swarm().pause.is_zero() && self.random.chance(0.3) {
            let most = self.swarm().pause;
            self.process
                .sleep(self.random.duration(Duration::ZERO..most));
        }
    }

    /// One transaction of any kind.
    pub(crate) fn transaction(&mut self) {
        let mut recording = self.recorder.begin();
        let mut attempt = Attempt::default();
        let worked = self.work(&mut attempt);
        let read_at = match &worked {
            Ok(()) if !self.connection.is_autocommit() => self.version(&attempt.touched),
            _ => Ok(None),
        };
        let rolls_back = self.random.chance(0.05);
        if let Ok(version) = &read_at
            && let Some(version) = version
        {
            self.observe_reads(&attempt, version);
            // The newest version of some of the databases is not that of the moment they show.
            if self.swarm().databases().len() == 1 {
                recording.read_at(version);
            }
        }
        for operation in std::mem::take(&mut attempt.operations) {
            recording.observe(operation);
        }
        let ready = worked.and(read_at).map(|_| ());
        let entry = self.ledger().sends(attempt.appended.clone());
        let committed = ready.and_then(|()| match rolls_back {
            true => Err(Fault::Conflict),
            false => Ok(self.connection.execute_batch("COMMIT")?),
        });
        self.leave();
        let Err(fault) = committed else {
            let version = self.made(&attempt);
            if self.process.alive() {
                let fate = version.clone().map_or(Fate::Unknown, Fate::Committed);
                self.ledger().ended(entry, fate);
            }
            recording.end(Outcome::Committed, version);
            return;
        };
        if !self.process.alive() {
            return;
        }
        let outcome = match fault {
            Fault::Unknown => Outcome::Unknown,
            _ => {
                self.ledger().ended(entry, Fate::Aborted);
                Outcome::Aborted
            }
        };
        self.judge("a transaction", fault);
        recording.end(outcome, None);
    }

    /// Everything up to COMMIT.
    fn work(&mut self, attempt: &mut Attempt) -> Result<(), Fault> {
        let begin = *self.random.pick(&["BEGIN", "BEGIN", "BEGIN IMMEDIATE"]);
        self.connection.execute_batch(begin)?;
        for _ in 0..=self.random.below(self.swarm().operations) {
            let kind = self.kind();
            self.operate(kind, attempt)?;
            self.pause();
        }
        Ok(())
    }

    /// One statement without BEGIN and COMMIT.
    pub(crate) fn autocommit(&mut self) {
        let single = self.single();
        self.append_alone(single);
    }

    /// Draws a statement.
    pub(crate) fn single(&mut self) -> Single {
        Single {
            database: *self.random.pick(&self.swarm().databases()),
            kind: *self.random.pick(&[Kind::Append, Kind::AppendRow]),
            number: self.random.below(self.swarm().lists),
        }
    }

    /// Appends an element by a statement of its own.
    pub(crate) fn append_alone(&self, single: Single) {
        let mut recording = self.recorder.begin();
        let mut attempt = Attempt::default();
        let Single {
            database,
            kind,
            number,
        } = single;
        // What it appends is known to the ledger before it is sent, so that nothing is missed.
        let element = self.ledger().element();
        let key = match kind {
            Kind::Append => database.list(number),
            _ => database.list(super::contents::IN_ROWS + number),
        };
        let entry = self.ledger().sends(vec![(key, element)]);
        attempt.appended.push((key, element));
        recording.observe(mvsqlite_checker::Operation::Append { key, element });
        let done = self.append_element(kind, database, key, element);
        match done {
            Ok(()) => {
                let version = self.made(&attempt);
                if self.process.alive() {
                    let fate = version.clone().map_or(Fate::Unknown, Fate::Committed);
                    self.ledger().ended(entry, fate);
                }
                recording.end(Outcome::Committed, version);
            }
            Err(_) if !self.process.alive() => {}
            Err(Fault::Unknown) => recording.end(Outcome::Unknown, None),
            Err(fault) => {
                self.ledger().ended(entry, Fate::Aborted);
                self.judge("a statement", fault);
                recording.end(Outcome::Aborted, None);
            }
        }
    }

    /// After a commit: its version, if it appended anything.
    fn made(&self, attempt: &Attempt) -> Option<String> {
        let (key, _) = attempt.appended.first()?;
        let version = self.committed_version(Database::of_list(*key))?;
        if self.process.alive() {
            for (key, _) in &attempt.appended {
                self.ledger().made(Database::of_list(*key), &version);
            }
        }
        Some(version)
    }

    /// What a transaction has read is to be compared with the state at its version.
    fn observe_reads(&self, attempt: &Attempt, version: &str) {
        let mut own: Vec<(u64, u64)> = Vec::new();
        for operation in &attempt.operations {
            match operation {
                mvsqlite_checker::Operation::Append { key, element } => own.push((*key, *element)),
                mvsqlite_checker::Operation::ReadList { key, elements } => {
                    let foreign = elements.iter().filter(|e| !own.contains(&(*key, **e)));
                    self.ledger().observed(Observation {
                        by: format!("process {} in a transaction", self.process.id()),
                        database: Database::of_list(*key),
                        version: version.to_owned(),
                        lists: [(*key, foreign.copied().collect())].into(),
                    });
                }
                _ => {}
            }
        }
    }

    /// Ends the transaction, whatever is left of it.
    pub(crate) fn leave(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            self.judge("ROLLBACK", Fault::from(error));
        }
    }

    /// Reads everything of all databases in one transaction, and remembers it.
    pub(crate) fn look(&self, by: &str) -> Result<(Snapshot, Option<String>), Fault> {
        self.connection.execute_batch("BEGIN")?;
        let looked = look(&self.connection, self.swarm());
        self.leave();
        let (snapshot, version) = looked?;
        if let Some(version) = &version
            && self.process.alive()
        {
            let by = format!("process {} {by}", self.process.id());
            remember(self.mixture, &by, &snapshot, version);
        }
        Ok((snapshot, version))
    }
}

/// Reads everything inside the open transaction, with its version.
pub(crate) fn look(
    connection: &Connection,
    swarm: &Swarm,
) -> Result<(Snapshot, Option<String>), Fault> {
    let databases = swarm.databases();
    let snapshot = Snapshot::read(connection, &databases, swarm)?;
    let mut newest = None;
    for database in databases {
        let sql = format!("PRAGMA {}.mvsqlite_version", database.schema());
        newest = newest.max(connection.query_row(&sql, [], |row| row.get(0))?);
    }
    Ok((snapshot, newest))
}

/// Enters a whole snapshot into the ledger.
pub(crate) fn remember(mixture: &Mixture, by: &str, snapshot: &Snapshot, version: &str) {
    for database in mixture.swarm().databases() {
        let lists = snapshot.lists.iter();
        let own = lists.filter(|(key, _)| Database::of_list(**key) == database);
        mixture.ledger().observed(Observation {
            by: by.to_owned(),
            database,
            version: version.to_owned(),
            lists: own.map(|(key, list)| (*key, list.clone())).collect(),
        });
    }
}

/// Opens all databases on one connection, `moment` behind the name of each (`""`, or `@version`).
pub(crate) fn open(sqlite: &Sqlite, swarm: &Swarm, moment: &str) -> Result<Connection, Fault> {
    let databases = swarm.databases();
    let name = |database: Database| format!("{}{moment}", database.key());
    let connection = sqlite.open(&name(databases[0]), swarm.busy_timeout)?;
    for database in &databases[1..] {
        let sql = format!("ATTACH '{}' AS {}", name(*database), database.schema());
        connection.execute_batch(&sql)?;
    }
    if let Some(pages) = swarm.sqlite_cache {
        connection.execute_batch(&format!("PRAGMA cache_size = {pages}"))?;
    }
    Ok(connection)
}
