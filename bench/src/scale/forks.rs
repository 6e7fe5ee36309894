//! Forks and rollbacks: whether they take longer for a large database.

use anyhow::Result;

use super::Amounts;
use super::probe::Probe;
use crate::side::{Side, probe};
use crate::stats::{Measured, time_each};
use crate::store::Store;

/// Forks and rollbacks of each database.
const SAMPLES: u64 = 20;
const SMALL_MEGABYTES: u64 = 10;

pub(super) fn run(amounts: Amounts, store: &Store) -> Result<()> {
    println!("\nForks and rollbacks, medians in ms (slowest):\n");
    println!("| database | fork | open the fork and read one row | roll back |");
    println!("|---|---|---|---|");
    for megabytes in [SMALL_MEGABYTES, amounts.large_megabytes] {
        row(store, megabytes)?;
    }
    println!();
    Ok(())
}

fn row(store: &Store, megabytes: u64) -> Result<()> {
    let base = format!("{megabytes}-megabytes");
    let run =
        |which, database: &str, count| probe(which, Side::Mvsqlite, database, count, 1, store);
    store.create_namespace(&base)?;
    run(Probe::Create, &base, 1)?;
    run(Probe::Fill, &base, megabytes)?;
    let fork = time_each(SAMPLES, |i| store.fork(&base, &format!("{base}-{i}")))?;
    let read = run(Probe::OpenAndRead, &format!("{base}-0"), SAMPLES)?;
    // The fork's own history: a base holds what its forks rely on, and so does a rollback.
    let target = format!("{base}-1");
    let before = store.version(&target)?;
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        run(Probe::UpdateOne, &target, 1)?;
        let start = std::time::Instant::now();
        store.roll_back(&target, &before)?;
        samples.push(start.elapsed());
    }
    println!(
        "| {megabytes} MB | {} | {} | {} |",
        cell(&fork),
        cell(&read),
        cell(&Measured::from_samples(samples))
    );
    Ok(())
}

fn cell(measured: &Measured) -> String {
    format!(
        "{:.2} ({:.2})",
        measured.typical_us / 1e3,
        measured.p99_us / 1e3
    )
}
