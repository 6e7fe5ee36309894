//! What a mixture is made of: drawn from the seed, so that each run leaves most things out and does
//! the others often ("swarm testing", Groce et al., ISSTA 2012).

use std::time::Duration;

use mvsqlite::Config;
use mvsqlite_protocol::v2::Concurrency;

use super::contents::Database;
use super::operation::Kind;
use super::role::Role;
use crate::random::Random;

/// What a mixture is about. Every one has something of everything; this says what it always has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Lists in one database.
    Lists,
    /// Transfers over two attached databases.
    Bank,
    /// Large inserts and deletes that make the file grow and its freelist turn over.
    Churn,
    /// Transactions that are staged and become layers.
    Large,
    /// Schema changes and VACUUM against writers.
    Schema,
    /// Exclusive mode.
    Exclusive,
    /// Readers of the past while history is truncated, forked and restored.
    History,
}

impl Family {
    /// On a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lists => "lists",
            Self::Bank => "bank",
            Self::Churn => "churn",
            Self::Large => "large",
            Self::Schema => "schema",
            Self::Exclusive => "exclusive",
            Self::History => "history",
        }
    }
}

/// One draw.
#[derive(Debug, Clone)]
pub struct Swarm {
    /// What it is about.
    pub family: Family,
    databases: u32,
    /// How writers keep out of each other's way.
    pub(crate) mode: Concurrency,
    /// Bytes of a page.
    pub(crate) page_size: u32,
    /// SQLite's `auto_vacuum`.
    pub(crate) auto_vacuum: u32,
    /// Lists in rows and lists in `elements`, of each database.
    pub(crate) lists: u64,
    pub(crate) accounts: u64,
    /// Bytes that keep rows on pages of their own.
    pub(crate) pad: usize,
    /// Bytes of the largest blob.
    pub(crate) blob_bytes: u64,
    /// Most operations of a transaction.
    pub(crate) operations: u64,
    /// Transactions of each process.
    pub(crate) transactions: u64,
    /// How often each kind of operation is done.
    pub(crate) weights: Vec<(Kind, u64)>,
    /// What each process does.
    pub(crate) roles: Vec<Role>,
    /// Whether history may be truncated.
    pub(crate) truncates: bool,
    /// Whether some processes may begin at snapshots that are not the newest.
    pub(crate) is_stale: bool,
    /// Whether some processes keep pages on a disk they share.
    pub(crate) caches_on_disk: bool,
    /// How long writers think between operations.
    pub(crate) pause: Duration,
    pub(crate) busy_timeout: Duration,
    /// Pages in SQLite's own cache; few make it spill.
    pub(crate) sqlite_cache: Option<u64>,
}

impl Swarm {
    /// The draw of a seed.
    pub fn new(family: Family, seed: u64) -> Self {
        let mut random = Random::for_purpose(seed, "swarm");
        let r = &mut random;
        let two = family == Family::Bank || (family != Family::History && r.chance(0.3));
        let page_size = *r.pick(&[512, 1024, 4096]);
        let weights = weights(family, r);
        let restores = family == Family::History && r.chance(0.5);
        let pads = [0, 100, page_size as usize * 2 / 3];
        Self {
            family,
            databases: if two { 2 } else { 1 },
            mode: match family == Family::Exclusive && r.chance(0.7) {
                true => Concurrency::Exclusive,
                false => Concurrency::Optimistic,
            },
            page_size,
            auto_vacuum: *r.pick(&[0, 0, 1, 2]),
            lists: r.between(2..8),
            accounts: r.between(2..10),
            pad: *r.pick(&pads),
            blob_bytes: match family {
                Family::Large => r.between(2_000..30_000),
                _ => r.between(100..5_000),
            },
            operations: r.between(1..8),
            transactions: r.between(6..25),
            weights,
            roles: roles(family, restores, r),
            truncates: family == Family::History || r.chance(0.2),
            is_stale: r.chance(0.2),
            caches_on_disk: Random::for_purpose(seed, "disk cache").chance(0.2),
            pause: Duration::from_micros(*r.pick(&[0, 0, 500, 20_000])),
            busy_timeout: Duration::from_millis(*r.pick(&[0, 50, 5_000])),
            sqlite_cache: r.chance(0.4).then(|| r.between(5..30)),
        }
    }

    /// Its databases.
    pub fn databases(&self) -> Vec<Database> {
        (0..self.databases).map(Database).collect()
    }

    /// How many processes there are.
    pub fn processes(&self) -> u32 {
        u32::try_from(self.roles.len()).unwrap_or(u32::MAX)
    }

    /// Sets what a process is configured with.
    pub(crate) fn configure(&self, config: &mut Config, random: &mut Random) {
        let page = u64::from(self.page_size);
        config.page_size = self.page_size;
        config.cache_bytes = page * random.pick(&[0, 8, 40, 2_000]);
        config.prefetch_depth = *random.pick(&[None, Some(0), Some(3)]);
        config.upload_bytes = match self.family == Family::Large || random.chance(0.3) {
            true => page * random.between(4..40),
            false => config.upload_bytes,
        };
        config.journal_bytes = *random.pick(&[0, 4_096, 4 << 20]);
        if self.is_stale && random.chance(0.5) {
            config.read_staleness = Duration::from_millis(random.between(1..200));
        }
        config.exclusive = self.family == Family::Exclusive && random.chance(0.5);
    }
}

fn weights(family: Family, random: &mut Random) -> Vec<(Kind, u64)> {
    let always: &[Kind] = match family {
        Family::Lists | Family::History => &[Kind::Append, Kind::AppendRow, Kind::ReadList],
        Family::Bank => &[Kind::Transfer, Kind::Append],
        Family::Churn => &[Kind::Insert, Kind::Delete, Kind::AppendRow],
        Family::Large => &[Kind::Insert, Kind::Rewrite, Kind::Append],
        Family::Schema => &[Kind::Schema, Kind::Append, Kind::Insert],
        Family::Exclusive => &[Kind::Append, Kind::Transfer],
    };
    let mut weights = vec![(Kind::Append, 1)];
    for kind in Kind::ALL {
        if always.contains(&kind) {
            weights.push((kind, random.between(4..12)));
        } else if random.chance(0.4) {
            weights.push((kind, random.between(1..4)));
        }
    }
    weights
}

fn roles(family: Family, restores: bool, random: &mut Random) -> Vec<Role> {
    let mut roles = vec![Role::Writer; 2 + random.index(3)];
    match family {
        Family::History => roles.extend([Role::Traveller, Role::Housekeeper, Role::Forker]),
        Family::Schema => roles.push(Role::Vacuumer),
        Family::Large => roles.push(Role::Housekeeper),
        _ => {}
    }
    if restores {
        roles.push(Role::Restorer);
    }
    for role in [
        Role::OpenReader,
        Role::Beside,
        Role::Reader,
        Role::Traveller,
        Role::Housekeeper,
        Role::Vacuumer,
    ] {
        if random.chance(0.35) {
            roles.push(role);
        }
    }
    roles
}
