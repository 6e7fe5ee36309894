//! What a process of a mixture does all along.

use std::ops::ControlFlow;
use std::time::Duration;

use mvsqlite_protocol::{NamespaceKey, Version};
use mvstore::error::StoreError;
use rusqlite::Connection;

use super::contents::Database;
use super::fault::Fault;
use super::ledger::{Observation, Restored};
use super::session::{self, Session, Single};
use super::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Transactions and single statements.
    Writer,
    /// Whole snapshots, checked.
    Reader,
    /// A statement that stays open while others, and its own process, commit.
    OpenReader,
    /// Single statements while another of the same connection is open.
    Beside,
    /// Versions of the past.
    Traveller,
    /// Truncation, folding, expiry, records of time.
    Housekeeper,
    /// VACUUM.
    Vacuumer,
    /// Forks, written and deleted.
    Forker,
    /// Restores a database to one of its versions.
    Restorer,
}

impl Role {
    /// Does it, to its end or that of the process.
    pub(crate) fn play(self, session: &mut Session<'_>) {
        for round in 0..session.swarm().transactions {
            if !session.goes_on() {
                return;
            }
            match self {
                Self::Writer => session.write(),
                Self::Reader => session.read_all(),
                Self::OpenReader => session.read_open(),
                Self::Beside => session.write_beside(),
                Self::Traveller => session.travel(),
                Self::Housekeeper => session.keep_house(),
                Self::Vacuumer => session.vacuum(),
                Self::Forker => session.fork(round),
                Self::Restorer => session.restore(round),
            }
            if self != Self::Writer {
                let millis = session.random.between(1..60);
                session.process.sleep(Duration::from_millis(millis));
            }
        }
    }
}

impl Session<'_> {
    fn write(&mut self) {
        match self.random.chance(0.2) {
            true => self.autocommit(),
            false => self.transaction(),
        }
    }

    fn read_all(&mut self) {
        if let Err(fault) = self.look("reading all") {
            self.judge("reading all", fault);
        }
    }

    /// A snapshot must not change while it is open, whatever is committed meanwhile.
    fn read_open(&mut self) {
        if let Err(fault) = self.try_read_open() {
            self.judge("reading with a statement open", fault);
        }
        self.leave();
    }

    fn try_read_open(&mut self) -> Result<(), Fault> {
        self.connection.execute_batch("BEGIN")?;
        let before = session::look(&self.connection, self.swarm())?;
        let mut statement = self
            .connection
            .prepare("SELECT k, v FROM lists ORDER BY k")?;
        let mut rows = statement.query([])?;
        let first: Option<String> = match rows.next()? {
            Some(row) => row.get(1)?,
            None => None,
        };
        let mixture = self.mixture;
        if let Some(mut other) = Session::open(mixture, self.process, self.recorder, self.sqlite) {
            other.transaction();
        }
        let pause = self
            .random
            .duration(Duration::ZERO..Duration::from_millis(100));
        self.process.sleep(pause);
        while rows.next()?.is_some() {}
        drop(rows);
        drop(statement);
        let after = session::look(&self.connection, self.swarm())?;
        if before != after || first.is_none() {
            return Err(Fault::Violation(format!(
                "a snapshot changed while it was open: {before:?}, then {after:?}"
            )));
        }
        if let Some(version) = &after.1
            && self.process.alive()
        {
            let by = format!("process {} with a statement open", self.process.id());
            session::remember(mixture, &by, &after.0, version);
        }
        Ok(())
    }

    /// The open statement keeps the connection at SHARED from COMMIT to COMMIT, and SQLite its cache.
    fn write_beside(&mut self) {
        let mut singles = Vec::new();
        for _ in 0..self.random.between(2..6) {
            let most = Duration::from_millis(*self.random.pick(&[1, 30]));
            singles.push((self.single(), self.random.duration(Duration::ZERO..most)));
        }
        if let Err(fault) = self.try_write_beside(&singles) {
            self.judge("opening a statement to write beside", fault);
        }
    }

    fn try_write_beside(&self, singles: &[(Single, Duration)]) -> Result<(), Fault> {
        let mut statement = self.connection.prepare("SELECT k FROM lists ORDER BY k")?;
        let mut rows = statement.query([])?;
        rows.next()?;
        for (single, pause) in singles {
            self.append_alone(*single);
            self.process.sleep(*pause);
        }
        Ok(())
    }

    /// Some version that was made and should be there.
    fn some_version(&mut self) -> Option<(Database, String)> {
        let versions: Vec<_> = {
            let known = self.ledger().known();
            let versions = known.versions.iter();
            let kept = versions.filter(|(database, version)| known.keeps(*database, version));
            kept.cloned().collect()
        };
        match versions.len() {
            0 => None,
            length => Some(versions[self.random.index(length)].clone()),
        }
    }

    fn travel(&mut self) {
        let Some((_, version)) = self.some_version() else {
            return;
        };
        let read = (|| {
            let moment = format!("@{version}");
            let connection = session::open(self.sqlite, self.swarm(), &moment)?;
            connection.execute_batch("BEGIN")?;
            Snapshot::read(&connection, &self.swarm().databases(), self.swarm())
        })();
        match read {
            Ok(snapshot) if self.process.alive() => {
                let by = format!("process {} in the past", self.process.id());
                session::remember(self.mixture, &by, &snapshot, &version);
            }
            Ok(_) => {}
            Err(fault) => self.judge("reading the past", fault),
        }
    }

    fn vacuum(&mut self) {
        let databases = self.swarm().databases();
        let database = *self.random.pick(&databases);
        let sql = format!("VACUUM {}", database.schema());
        if let Err(error) = self.connection.execute_batch(&sql) {
            self.judge("VACUUM", error.into());
        }
        self.leave();
    }

    fn keep_house(&mut self) {
        let process = self.process;
        let done = match self.random.below(5) {
            0 if self.swarm().truncates => return self.truncate(),
            0 | 1 => process.administer("fold", |store| async move {
                store.fold_layers().await.map(drop)
            }),
            2 => process.administer("collect", |store| async move {
                store.collect_expired().await.map(drop)
            }),
            _ => process.administer(
                "record time",
                |store| async move { store.record_time().await },
            ),
        };
        self.judge_store("keeping house", done);
    }

    fn truncate(&mut self) {
        let Some((database, version)) = self.some_version() else {
            return;
        };
        {
            let forgotten = &mut self.ledger().known().forgotten;
            let newest = forgotten.entry(database).or_default();
            *newest = version.clone().max(std::mem::take(newest));
        }
        let (key, before) = (key(database.key()), parsed(&version));
        let done = self
            .process
            .administer("truncate", move |store| async move {
                let go_on = |_| ControlFlow::Continue(());
                let done = store.truncate_namespace(&key, before, true, go_on).await;
                done.map(drop)
            });
        self.judge_store("truncating", done);
    }

    fn restore(&mut self, round: u64) {
        // Seldom, so that there is something to undo.
        if !round.is_multiple_of(4) {
            return;
        }
        let Some((database, to)) = self.some_version() else {
            return;
        };
        let (name, at) = (key(database.key()), parsed(&to));
        let done = self.process.administer("restore", move |store| async move {
            store.restore_namespace(&name, at).await
        });
        let version = match &done {
            Some(Ok(version)) => Some(version.to_string()),
            // It may have been done.
            None => None,
            Some(Err(_)) => return self.judge_store("restoring", done.map(|done| done.map(drop))),
        };
        if let Some(version) = &version {
            self.ledger().made(database, version);
        }
        // What it is already is left as it is.
        if version.as_deref() == Some(to.as_str()) {
            return;
        }
        self.process
            .note(format_args!("restored to {to} at {version:?}"));
        self.ledger().known().restored.push(Restored {
            database,
            version,
            to,
        });
    }

    /// A fork begins as its base was, goes its own way, and changes nothing there.
    fn fork(&mut self, round: u64) {
        let Some((database, version)) = self.some_version() else {
            return;
        };
        let name = format!("fork-{}-{round}", self.process.id());
        let (new, base, at) = (key(&name), key(database.key()), parsed(&version));
        let made = self.process.administer("fork", move |store| async move {
            let base = store.stat_namespace(&base).await?.nsid;
            store.fork_namespace(&new, base, at).await.map(drop)
        });
        let is_made = matches!(made, Some(Ok(())));
        self.judge_store("forking", made);
        if !is_made {
            return;
        }
        if let Err(fault) = self.use_fork(&name, database, &version) {
            self.judge("using a fork", fault);
        }
        if self.random.chance(0.7) {
            let name = key(&name);
            let deleted = self.process.administer("delete", move |store| async move {
                store.delete_namespace(&name).await
            });
            self.judge_store("deleting a fork", deleted);
        }
    }

    fn use_fork(&mut self, name: &str, database: Database, version: &str) -> Result<(), Fault> {
        let connection = self.sqlite.open(name, self.swarm().busy_timeout)?;
        let swarm = self.swarm();
        let read = |connection: &Connection| -> Result<Snapshot, Fault> {
            connection.execute_batch("BEGIN")?;
            // The first database is `main` of every connection.
            let snapshot = Snapshot::read(connection, &[Database(0)], swarm);
            if !connection.is_autocommit() {
                connection.execute_batch("COMMIT")?;
            }
            snapshot
        };
        if database != Database(0) {
            return Ok(());
        }
        let before = read(&connection)?;
        self.ledger().observed(Observation {
            by: format!("process {} in a fork", self.process.id()),
            database,
            version: version.to_owned(),
            lists: before.lists.clone(),
        });
        let mut expected = before;
        for _ in 0..4 {
            let list = database.list(self.random.below(self.swarm().lists));
            let element = self.ledger().element();
            let sql = "UPDATE lists SET v = v || ?2 || ',' WHERE k = ?1";
            connection.execute(sql, [list, element])?;
            if let Some(list) = expected.lists.get_mut(&list) {
                list.push(element);
            }
        }
        let after = read(&connection)?;
        match after == expected {
            true => Ok(()),
            false => Err(Fault::Violation(format!(
                "a fork holds {after:?}, not {expected:?}"
            ))),
        }
    }

    /// What a store answered to something that is no transaction.
    fn judge_store(&self, what: &str, done: Option<Result<(), StoreError>>) {
        match done {
            Some(Err(
                error @ (StoreError::Corrupt { .. }
                | StoreError::Internal { .. }
                | StoreError::VersionUnknown { .. }
                | StoreError::BadPages { .. }),
            )) => self.judge(what, Fault::Violation(error.to_string())),
            Some(Err(error)) => self.judge(what, Fault::Failed(error.to_string())),
            None => self.judge(what, Fault::Unknown),
            Some(Ok(())) => {}
        }
    }
}

fn key(name: &str) -> NamespaceKey {
    name.parse().expect("the names here are keys")
}

fn parsed(version: &str) -> Version {
    version.parse().expect("a version that a store gave out")
}
