//! One state of the databases of a mixture, read whole, and the rules that every state keeps.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::contents::{BALANCE, Database, IN_ROWS, content};
use super::fault::Fault;
use super::swarm::Swarm;

/// The lists of one state; everything else was compared with its rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// By key, with those that are empty.
    pub lists: BTreeMap<u64, Vec<u64>>,
}

impl Snapshot {
    /// Reads everything of these databases, all attached to the connection, inside one transaction of
    /// the caller's.
    ///
    /// # Errors
    /// If it cannot be read, or a rule is broken.
    pub(crate) fn read(
        connection: &Connection,
        databases: &[Database],
        swarm: &Swarm,
    ) -> Result<Self, Fault> {
        let mut snapshot = Self::default();
        let mut balance = 0;
        for database in databases {
            snapshot.read_lists(connection, *database)?;
            snapshot.read_elements(connection, *database, swarm)?;
            check_blobs(connection, *database)?;
            let sum = format!("SELECT sum(balance) FROM {}.accounts", database.schema());
            balance += connection.query_row(&sum, [], |row| row.get::<_, i64>(0))?;
        }
        let everything = databases.len() == swarm.databases().len();
        let expected = BALANCE * swarm.accounts as i64 * databases.len() as i64;
        if everything && balance != expected {
            return Err(Fault::Violation(format!(
                "the balances add up to {balance}, not {expected}"
            )));
        }
        Ok(snapshot)
    }

    /// As [`Self::read`] of one database alone, whichever it is, that is `main` of the connection.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_copy(connection: &Connection, swarm: &Swarm) -> Result<Self, Fault> {
        let mut snapshot = Self::default();
        let main = Database(0);
        snapshot.read_lists(connection, main)?;
        snapshot.read_elements(connection, main, swarm)?;
        check_blobs(connection, main)?;
        Ok(snapshot)
    }

    fn read_lists(&mut self, connection: &Connection, database: Database) -> Result<(), Fault> {
        let sql = format!("SELECT k, v FROM {}.lists ORDER BY k", database.schema());
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text: String = row.get(1)?;
            self.lists.insert(row.get(0)?, parse(&text)?);
        }
        Ok(())
    }

    fn read_elements(
        &mut self,
        connection: &Connection,
        database: Database,
        swarm: &Swarm,
    ) -> Result<(), Fault> {
        for number in 0..swarm.lists {
            self.lists
                .insert(database.list(IN_ROWS + number), Vec::new());
        }
        let sql = format!(
            "SELECT k, seq, element FROM {}.elements ORDER BY k, seq",
            database.schema()
        );
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let key: u64 = row.get(0)?;
            let seq: u64 = row.get(1)?;
            let list = self.lists.entry(key).or_default();
            list.push(row.get(2)?);
            if list.len() as u64 != seq {
                return Err(Fault::Violation(format!(
                    "element {seq} of list {key} comes where {} is expected",
                    list.len()
                )));
            }
        }
        Ok(())
    }
}

/// A list as its text.
pub(crate) fn parse(text: &str) -> Result<Vec<u64>, Fault> {
    let elements = text.split_terminator(',').map(str::parse);
    let parsed: Result<_, _> = elements.collect();
    parsed.map_err(|_| Fault::Violation(format!("'{text}' is no list")))
}

fn check_blobs(connection: &Connection, database: Database) -> Result<(), Fault> {
    let schema = database.schema();
    let mut found: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    let sql = format!("SELECT id, owner, salt, size, content FROM {schema}.blobs");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (salt, size): (i64, i64) = (row.get(2)?, row.get(3)?);
        let bytes = row.get_ref(4)?.as_blob().unwrap_or_default();
        if bytes != content(salt, usize::try_from(size).unwrap_or(0)) {
            let id: i64 = row.get(0)?;
            return Err(Fault::Violation(format!(
                "blob {id} of '{database}' has other content than was written"
            )));
        }
        let of_owner = found.entry(row.get(1)?).or_default();
        *of_owner = (of_owner.0 + 1, of_owner.1 + size);
    }
    let sql = format!("SELECT owner, n, bytes FROM {schema}.totals");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let owner: i64 = row.get(0)?;
        let told: (i64, i64) = (row.get(1)?, row.get(2)?);
        let counted = found.remove(&owner).unwrap_or_default();
        if told != counted {
            return Err(Fault::Violation(format!(
                "owner {owner} of '{database}' has (blobs, bytes) {counted:?}, but totals say {told:?}"
            )));
        }
    }
    match found.is_empty() {
        true => Ok(()),
        false => Err(Fault::Violation(format!("blobs of nobody: {found:?}"))),
    }
}
