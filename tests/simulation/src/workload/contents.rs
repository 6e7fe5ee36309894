//! What a database of a mixture holds: tables of several shapes, each with a rule that every snapshot
//! of it must keep.
//!
//! | table | rule |
//! |---|---|
//! | `lists` | each row is a list that only grows at its end |
//! | `elements` | the same, one row and two index entries for each element, numbered from 1 |
//! | `accounts` | the balances of all databases add up to what they were at the start |
//! | `blobs`, `totals` | number and bytes by owner are those in `totals`; contents follow from their salt |
//! | `extra_N` | comes and goes with the schema |

use std::fmt;

use rusqlite::{Connection, params};

use super::fault::Fault;
use super::swarm::Swarm;

/// One of the databases of a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Database(pub u32);

impl Database {
    /// The key of its namespace.
    pub fn key(self) -> &'static str {
        ["first", "second"][self.0 as usize]
    }

    /// Its schema name on every connection.
    pub(crate) fn schema(self) -> &'static str {
        ["main", "second"][self.0 as usize]
    }

    /// A list of its own among those of all databases.
    pub(crate) fn list(self, number: u64) -> u64 {
        u64::from(self.0) * LISTS_EACH + number
    }

    /// Which database a list belongs to.
    pub(crate) fn of_list(key: u64) -> Self {
        Self(u32::try_from(key / LISTS_EACH).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// More lists than a database has.
const LISTS_EACH: u64 = 1000;
/// Lists from here on are kept in `elements`.
pub(crate) const IN_ROWS: u64 = 500;
/// What an account holds at the start.
pub(crate) const BALANCE: i64 = 100;

/// The content of a blob.
pub(crate) fn content(salt: i64, size: usize) -> Vec<u8> {
    // A linear congruential generator with Knuth's constants.
    let mut state = salt.unsigned_abs();
    let next = |state: &mut u64| {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 56) as u8
    };
    (0..size).map(|_| next(&mut state)).collect()
}

/// Makes the tables of a database, which is `main` of the connection.
pub(crate) fn create(
    connection: &Connection,
    database: Database,
    swarm: &Swarm,
) -> Result<(), Fault> {
    connection.execute_batch(&format!(
        "PRAGMA page_size = {};
         PRAGMA auto_vacuum = {};
         BEGIN;
         CREATE TABLE lists(k INTEGER PRIMARY KEY, v TEXT NOT NULL, pad BLOB);
         CREATE TABLE elements(id INTEGER PRIMARY KEY, k INTEGER NOT NULL, seq INTEGER NOT NULL,
                               element INTEGER NOT NULL, pad BLOB, UNIQUE(k, seq));
         CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, pad BLOB);
         CREATE TABLE blobs(id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, salt INTEGER NOT NULL,
                            size INTEGER NOT NULL, content BLOB NOT NULL);
         CREATE TABLE totals(owner INTEGER PRIMARY KEY, n INTEGER NOT NULL, bytes INTEGER NOT NULL,
                             pad BLOB);",
        swarm.page_size, swarm.auto_vacuum
    ))?;
    let pad = vec![0xa5_u8; swarm.pad];
    for number in 0..swarm.lists {
        connection.execute(
            "INSERT INTO lists VALUES (?1, '', ?2)",
            params![database.list(number), pad],
        )?;
    }
    for account in 0..swarm.accounts {
        connection.execute(
            "INSERT INTO accounts VALUES (?1, ?2, ?3)",
            params![account, BALANCE, pad],
        )?;
    }
    for owner in 0..swarm.processes() {
        connection.execute(
            "INSERT INTO totals VALUES (?1, 0, 0, ?2)",
            params![owner, pad],
        )?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(())
}
