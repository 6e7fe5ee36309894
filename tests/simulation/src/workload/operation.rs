//! The operations of a transaction: one or a few SQL statements each.

use mvsqlite_checker::Operation;
use rusqlite::params;

use super::contents::{Database, IN_ROWS, content};
use super::fault::Fault;
use super::session::Session;
use super::snapshot::parse;

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Appends to a list in one row.
    Append,
    /// Appends to a list of rows.
    AppendRow,
    /// Reads a list in one row.
    ReadList,
    /// Reads a list of rows.
    ReadRows,
    /// Moves money.
    Transfer,
    /// Adds blobs.
    Insert,
    /// Removes blobs.
    Delete,
    /// Gives blobs another content and size.
    Rewrite,
    /// Appends inside a savepoint that is rolled back.
    UndoneSavepoint,
    /// Appends inside a savepoint that is released.
    Savepoint,
    /// Makes or drops an index or a table.
    Schema,
    /// Gives pages of the freelist back.
    IncrementalVacuum,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::Append,
        Self::AppendRow,
        Self::ReadList,
        Self::ReadRows,
        Self::Transfer,
        Self::Insert,
        Self::Delete,
        Self::Rewrite,
        Self::UndoneSavepoint,
        Self::Savepoint,
        Self::Schema,
        Self::IncrementalVacuum,
    ];
}

/// What a transaction did so far.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) operations: Vec<Operation>,
    /// Lists and elements.
    pub(crate) appended: Vec<(u64, u64)>,
    /// Databases that something was done to.
    pub(crate) touched: Vec<Database>,
}

impl Attempt {
    fn touch(&mut self, database: Database) {
        if !self.touched.contains(&database) {
            self.touched.push(database);
        }
    }

    fn append(&mut self, key: u64, element: u64) {
        self.operations.push(Operation::Append { key, element });
        self.appended.push((key, element));
    }

    fn read(&mut self, key: u64, elements: Vec<u64>) {
        self.operations.push(Operation::ReadList { key, elements });
    }
}

impl Session<'_> {
    /// Does one operation of a kind, on some database.
    pub(crate) fn operate(&mut self, kind: Kind, attempt: &mut Attempt) -> Result<(), Fault> {
        let databases = self.swarm().databases();
        let database = *self.random.pick(&databases);
        attempt.touch(database);
        match kind {
            Kind::Append | Kind::AppendRow => self.append(kind, database, attempt),
            Kind::ReadList | Kind::ReadRows => self.read_list(kind, database, attempt),
            Kind::Transfer => self.transfer(database, attempt),
            Kind::Insert => self.insert(database),
            Kind::Delete => self.delete(database),
            Kind::Rewrite => self.rewrite(database),
            Kind::UndoneSavepoint | Kind::Savepoint => self.savepoint(kind, database, attempt),
            Kind::Schema => self.change_schema(database),
            Kind::IncrementalVacuum => {
                let pages = self.random.below(5);
                let schema = database.schema();
                let sql = format!("PRAGMA {schema}.incremental_vacuum({pages})");
                Ok(self.connection.execute_batch(&sql)?)
            }
        }
    }

    pub(crate) fn append(
        &mut self,
        kind: Kind,
        database: Database,
        attempt: &mut Attempt,
    ) -> Result<(), Fault> {
        let number = self.random.below(self.swarm().lists);
        let element = self.ledger().element();
        let key = match kind {
            Kind::AppendRow => database.list(IN_ROWS + number),
            _ => database.list(number),
        };
        self.append_element(kind, database, key, element)?;
        attempt.append(key, element);
        Ok(())
    }

    pub(crate) fn append_element(
        &self,
        kind: Kind,
        database: Database,
        key: u64,
        element: u64,
    ) -> Result<(), Fault> {
        let schema = database.schema();
        let changed = if kind == Kind::AppendRow {
            let sql = format!(
                "INSERT INTO {schema}.elements(k, seq, element, pad)
                 SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3
                 FROM {schema}.elements WHERE k = ?1"
            );
            let pad = vec![0x5a_u8; self.swarm().pad];
            let mut statement = self.connection.prepare_cached(&sql)?;
            statement.execute(params![key, element, pad])?
        } else {
            let sql = format!("UPDATE {schema}.lists SET v = v || ?2 || ',' WHERE k = ?1");
            let mut statement = self.connection.prepare_cached(&sql)?;
            statement.execute(params![key, element])?
        };
        match changed {
            1 => Ok(()),
            _ => Err(Fault::Violation(format!("list {key} is gone"))),
        }
    }

    fn read_list(
        &mut self,
        kind: Kind,
        database: Database,
        attempt: &mut Attempt,
    ) -> Result<(), Fault> {
        let number = self.random.below(self.swarm().lists);
        let schema = database.schema();
        if kind == Kind::ReadList {
            let key = database.list(number);
            let sql = format!("SELECT v FROM {schema}.lists WHERE k = ?1");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let text: String = statement.query_row([key], |row| row.get(0))?;
            attempt.read(key, parse(&text)?);
            return Ok(());
        }
        let key = database.list(IN_ROWS + number);
        let sql = format!("SELECT element FROM {schema}.elements WHERE k = ?1 ORDER BY seq");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map([key], |row| row.get(0))?;
        let elements: Result<Vec<u64>, _> = rows.collect();
        attempt.read(key, elements?);
        Ok(())
    }

    fn transfer(&mut self, from: Database, attempt: &mut Attempt) -> Result<(), Fault> {
        let databases = self.swarm().databases();
        let to = *self.random.pick(&databases);
        attempt.touch(to);
        let accounts = self.swarm().accounts;
        let (payer, payee) = (self.random.below(accounts), self.random.below(accounts));
        let amount = i64::try_from(self.random.below(20)).unwrap_or(1);
        for (database, account, amount) in [(from, payer, -amount), (to, payee, amount)] {
            let schema = database.schema();
            let sql = format!("UPDATE {schema}.accounts SET balance = balance + ?2 WHERE id = ?1");
            let mut statement = self.connection.prepare_cached(&sql)?;
            statement.execute(params![account, amount])?;
        }
        Ok(())
    }

    fn insert(&mut self, database: Database) -> Result<(), Fault> {
        let schema = database.schema();
        let owner = self.owner();
        let own_ids = self.random.chance(0.5);
        for _ in 0..=self.random.below(6) {
            let salt = i64::try_from(self.ledger().element()).unwrap_or(0);
            let size = self.random.below(self.swarm().blob_bytes);
            // Downwards, where the ids that SQLite gives, the largest plus one, never come.
            let id = own_ids.then(|| i64::from(owner + 1) * 1_000_000 - salt);
            let sql = format!("INSERT INTO {schema}.blobs VALUES (?1, ?2, ?3, ?4, ?5)");
            let bytes = content(salt, usize::try_from(size).unwrap_or(0));
            let mut statement = self.connection.prepare_cached(&sql)?;
            statement.execute(params![id, owner, salt, size, bytes])?;
            drop(statement);
            self.count(database, 1, i64::try_from(size).unwrap_or(0))?;
        }
        Ok(())
    }

    /// Some blobs of this process's: id and size.
    fn victims(&mut self, database: Database) -> Result<Vec<(i64, i64)>, Fault> {
        let most = 1 + self.random.below(20);
        let order = *self.random.pick(&["id", "id DESC", "size"]);
        let sql = format!(
            "SELECT id, size FROM {}.blobs WHERE owner = ?1 ORDER BY {order} LIMIT ?2",
            database.schema()
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![self.owner(), most], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        let victims: Result<_, _> = rows.collect();
        Ok(victims?)
    }

    fn delete(&mut self, database: Database) -> Result<(), Fault> {
        let sql = format!("DELETE FROM {}.blobs WHERE id = ?1", database.schema());
        for (id, size) in self.victims(database)? {
            let deleted = self.connection.prepare_cached(&sql)?.execute([id])?;
            if deleted != 1 {
                return Err(Fault::Violation(format!("blob {id} vanished")));
            }
            self.count(database, -1, -size)?;
        }
        Ok(())
    }

    fn rewrite(&mut self, database: Database) -> Result<(), Fault> {
        let sql = format!(
            "UPDATE {}.blobs SET salt = ?2, size = ?3, content = ?4 WHERE id = ?1",
            database.schema()
        );
        for (id, before) in self.victims(database)? {
            let salt = i64::try_from(self.ledger().element()).unwrap_or(0);
            let size = match self.random.chance(0.5) {
                true => before,
                false => i64::try_from(self.random.below(self.swarm().blob_bytes)).unwrap_or(0),
            };
            let bytes = content(salt, usize::try_from(size).unwrap_or(0));
            let mut statement = self.connection.prepare_cached(&sql)?;
            statement.execute(params![id, salt, size, bytes])?;
            drop(statement);
            self.count(database, 0, size - before)?;
        }
        Ok(())
    }

    /// Keeps the totals.
    fn count(&self, database: Database, blobs: i64, bytes: i64) -> Result<(), Fault> {
        let sql = format!(
            "UPDATE {}.totals SET n = n + ?2, bytes = bytes + ?3 WHERE owner = ?1",
            database.schema()
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        statement.execute(params![self.owner(), blobs, bytes])?;
        Ok(())
    }

    fn savepoint(
        &mut self,
        kind: Kind,
        database: Database,
        attempt: &mut Attempt,
    ) -> Result<(), Fault> {
        self.connection.execute_batch("SAVEPOINT inner")?;
        let inside = match self.random.chance(0.5) {
            true => Kind::Append,
            false => Kind::AppendRow,
        };
        if kind == Kind::Savepoint {
            self.append(inside, database, attempt)?;
        } else {
            self.append(inside, database, &mut Attempt::default())?;
            self.insert(database)?;
            self.connection.execute_batch("ROLLBACK TO inner")?;
        }
        Ok(self.connection.execute_batch("RELEASE inner")?)
    }

    fn change_schema(&mut self, database: Database) -> Result<(), Fault> {
        let schema = database.schema();
        let number = self.random.below(3);
        let sql = match self.random.below(6) {
            0 => format!("CREATE INDEX IF NOT EXISTS {schema}.by_size ON blobs(size, owner)"),
            1 => format!("DROP INDEX IF EXISTS {schema}.by_size"),
            2 => format!("CREATE INDEX IF NOT EXISTS {schema}.by_element ON elements(element)"),
            3 => format!("DROP INDEX IF EXISTS {schema}.by_element"),
            4 => format!(
                "CREATE TABLE IF NOT EXISTS {schema}.extra_{number}(a INTEGER PRIMARY KEY, b);
                 INSERT INTO {schema}.extra_{number}(b) SELECT pad FROM {schema}.accounts"
            ),
            _ => format!("DROP TABLE IF EXISTS {schema}.extra_{number}"),
        };
        Ok(self.connection.execute_batch(&sql)?)
    }
}
