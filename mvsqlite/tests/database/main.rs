//! One database file as SQLite's pager uses it, over a data plane in memory.

#![allow(clippy::unwrap_used, reason = "a panic is the report of a test")]

// The name by which the rest of the workspace knows the crate.
extern crate mvsqlite_client as mvsqlite;

mod disk;
mod exclusive;
mod failures;
mod file;
mod http;
mod leases;
mod model;
mod pager;
mod rules;
mod serializable;
mod servers;
mod staleness;
mod system;
mod upload;

use std::sync::Arc;

use mvsqlite::{Config, DatabaseFile, Environment, Error, OpenOptions};

use model::Model;
use pager::Pager;
use system::SimSystem;

/// A store and processes that use it.
struct World {
    model: Arc<Model>,
    system: Arc<SimSystem>,
}

impl World {
    fn new() -> Self {
        let system = Arc::new(SimSystem::new(1));
        Self {
            model: Arc::new(Model::new(Arc::clone(&system))),
            system,
        }
    }

    /// A process with a cache of its own.
    fn process(&self) -> Arc<Environment> {
        self.process_with(|_| {})
    }

    fn process_with(&self, adjust: impl FnOnce(&mut Config)) -> Arc<Environment> {
        let mut config = Config {
            page_size: 512,
            cache_bytes: 1 << 20,
            ..Config::default()
        };
        adjust(&mut config);
        let (model, system) = (Arc::clone(&self.model), Arc::clone(&self.system));
        Environment::with_transport(config, model, system)
    }
}

fn try_open(env: &Arc<Environment>, name: &str) -> Result<DatabaseFile, Error> {
    let name = name.parse().unwrap();
    DatabaseFile::open(Arc::clone(env), name, OpenOptions::default())
}

fn open(env: &Arc<Environment>) -> Pager {
    Pager::new(try_open(env, model::KEY).unwrap())
}

/// Makes a database of this many pages, page n holding mark n.
fn create(pager: &mut Pager, count: u32) {
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(0, pager::new_page1(count, 0)).unwrap();
    for index in 1..count {
        let page = pager::page_with(u64::from(index));
        pager.change(index, page).unwrap();
    }
    assert_eq!(pager.commit(false), pager::Ended::Committed);
}
