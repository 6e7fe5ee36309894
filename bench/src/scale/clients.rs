//! Commits per second, from 1 to 64 clients, in one database and in a database each.

use std::path::Path;

use anyhow::Result;

use super::Amounts;
use super::probe::{Probe, apart};
use crate::side::{Side, probe};
use crate::store::Store;

const CLIENTS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

pub(super) fn run(amounts: Amounts, scratch: &Path, store: &Store) -> Result<()> {
    println!("\nCommits per second, each updating one row on a page of its own:\n");
    println!("| clients | local file | one database | a database each |");
    println!("|---|---|---|---|");
    for clients in CLIENTS {
        let rate = |which: Probe, side: Side, database: &str| -> Result<f64> {
            let count = amounts.commits_a_step;
            let measured = probe(which, side, database, count, clients, store)?;
            Ok(1e6 / measured.typical_us)
        };
        let file = scratch.join(format!("clients-{clients}.db"));
        let file = file.display().to_string();
        let one = format!("clients-{clients}");
        let many = format!("apart-{clients}");
        probe(Probe::Create, Side::Local, &file, 1, 1, store)?;
        let databases = (0..clients).map(|client| apart(&many, client));
        for database in databases.chain([one.clone()]) {
            store.create_namespace(&database)?;
            probe(Probe::Create, Side::Mvsqlite, &database, 1, 1, store)?;
        }
        println!(
            "| {clients} | {:.0} | {:.0} | {:.0} |",
            rate(Probe::UpdateOwn, Side::Local, &file)?,
            rate(Probe::UpdateOwn, Side::Mvsqlite, &one)?,
            rate(Probe::UpdateApart, Side::Mvsqlite, &many)?,
        );
    }
    Ok(())
}
