//! What grows: clients, history, namespaces. Slower than the table and printed apart from it.
//!
//! Everything that is timed runs in a process of its own (`mvsqlite-bench probe …`), as in the
//! table, so that nothing is warm that a stranger's program would find cold.

mod clients;
mod forks;
mod history;
mod idle;
mod namespaces;
mod probe;

use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;

pub use probe::Probe;

use crate::store::Store;

/// What grows.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scale {
    /// Commits per second, from 1 to 64 clients.
    Clients,
    /// A page with 100,000 versions, a database with 1,000,000 commits.
    History,
    /// 100,000 namespaces.
    Namespaces,
    /// Forks and rollbacks of a small and of a large database.
    Forks,
    /// Start-up time and memory of a store that has nothing to do.
    Idle,
}

/// How much of each: the figures the README states are those of [`Amounts::FULL`].
#[derive(Clone, Copy)]
pub struct Amounts {
    /// Versions of the one page.
    pub page_versions: u64,
    /// Commits of the one database.
    pub commits: u64,
    /// Namespaces.
    pub namespaces: u64,
    /// Commits in each step of the scale of clients.
    pub commits_a_step: u64,
    /// Starts of the store.
    pub starts: u32,
    /// Megabytes of the large database that is forked.
    pub large_megabytes: u64,
}

impl Amounts {
    /// What the README states.
    const FULL: Self = Self {
        page_versions: 100_000,
        commits: 1_000_000,
        namespaces: 100_000,
        commits_a_step: 4_000,
        starts: 5,
        large_megabytes: 1_000,
    };

    /// A part of it: one in `divisor`, to see that everything works.
    ///
    /// # Errors
    /// If nothing would be left of it.
    pub fn one_in(divisor: u64) -> Result<Self> {
        if !(1..=Self::FULL.commits_a_step / 64).contains(&divisor) {
            bail!(
                "--one-in must be from 1 to {}",
                Self::FULL.commits_a_step / 64
            );
        }
        Ok(Self {
            page_versions: Self::FULL.page_versions / divisor,
            commits: Self::FULL.commits / divisor,
            namespaces: Self::FULL.namespaces / divisor,
            commits_a_step: Self::FULL.commits_a_step / divisor,
            starts: Self::FULL.starts,
            large_megabytes: (Self::FULL.large_megabytes / divisor).max(20),
        })
    }
}

/// Measures one and prints what it found.
pub fn run(scale: Scale, amounts: Amounts, mvstore: &Path, scratch: &Path) -> Result<()> {
    match scale {
        Scale::Idle => idle::run(amounts, mvstore, scratch),
        Scale::Clients => with_store(mvstore, scratch, |store| {
            clients::run(amounts, scratch, store)
        }),
        Scale::Forks => with_store(mvstore, scratch, |store| forks::run(amounts, store)),
        Scale::History => with_store(mvstore, scratch, |store| history::run(amounts, store)),
        Scale::Namespaces => with_store(mvstore, scratch, |store| namespaces::run(amounts, store)),
    }
}

fn with_store(
    mvstore: &Path,
    scratch: &Path,
    measure: impl FnOnce(&Store) -> Result<()>,
) -> Result<()> {
    let store = Store::start(mvstore, scratch)?;
    measure(&store)?;
    println!(
        "store at the end: {} MB resident",
        store.resident_bytes()? / 1_000_000
    );
    store.stop()
}
