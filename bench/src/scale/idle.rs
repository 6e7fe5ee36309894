//! A store that has nothing to do: how soon it is ready, and what it holds in memory.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::Amounts;
use crate::stats::Measured;
use crate::store::Store;

pub(super) fn run(amounts: Amounts, mvstore: &Path, scratch: &Path) -> Result<()> {
    println!("\nA store with nothing to do:\n");
    println!("| | until ready, ms (slowest) | resident, MB |");
    println!("|---|---|---|");
    let fresh = |start: u32| scratch.join(format!("fresh-{start}"));
    let directories = (0..amounts.starts).map(fresh);
    print("new directory", mvstore, directories.collect())?;
    let again = vec![fresh(0); amounts.starts as usize];
    print("the same directory again", mvstore, again)?;
    println!();
    Ok(())
}

fn print(title: &str, mvstore: &Path, directories: Vec<std::path::PathBuf>) -> Result<()> {
    let mut starts: Vec<Duration> = Vec::new();
    let mut resident = 0;
    for directory in directories {
        std::fs::create_dir_all(&directory)?;
        let store = Store::start(mvstore, &directory)?;
        starts.push(store.start_up());
        resident = resident.max(store.resident_bytes()?);
        store.stop()?;
    }
    let measured = Measured::from_samples(starts);
    println!(
        "| {title} | {:.0} ({:.0}) | {} |",
        measured.typical_us / 1e3,
        measured.p99_us / 1e3,
        resident / 1_000_000
    );
    Ok(())
}
