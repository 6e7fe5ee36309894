//! Many namespaces: whether making, listing and opening one slows down with their number.

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};

use super::Amounts;
use super::probe::Probe;
use crate::side::{Side, probe};
use crate::stats::{Measured, time_each};
use crate::store::Store;

/// Namespaces made one after the other, timed.
const TIMED: u64 = 500;
/// Openings that a figure is the median of.
const OPENINGS: u64 = 500;
/// Clients that make the others at once.
const MAKERS: u64 = 16;

pub(super) fn run(amounts: Amounts, store: &Store) -> Result<()> {
    println!("\nMany namespaces, medians in us (p99):\n");
    println!(
        "| namespaces | make one | open and read one row | list all, per namespace | store, MB |"
    );
    println!("|---|---|---|---|---|");
    for database in ["first", "last"] {
        store.create_namespace(database)?;
        probe(Probe::Create, Side::Mvsqlite, database, 1, 1, store)?;
    }
    let made = time_timed(store, "few")?;
    print(store, &made, 2 + TIMED, "first")?;
    make_many(store, amounts.namespaces)?;
    let made = time_timed(store, "many")?;
    print(store, &made, 2 + 2 * TIMED + amounts.namespaces, "last")?;
    println!();
    Ok(())
}

fn time_timed(store: &Store, prefix: &str) -> Result<Measured> {
    time_each(TIMED, |i| store.create_namespace(&format!("{prefix}/{i}")))
}

fn make_many(store: &Store, count: u64) -> Result<()> {
    std::thread::scope(|scope| {
        let maker = |maker: u64| {
            scope.spawn(move || {
                let mut numbers = (maker..count).step_by(MAKERS as usize);
                numbers.try_for_each(|i| store.create_namespace(&format!("tenant/{i}")))
            })
        };
        let makers: Vec<_> = (0..MAKERS).map(maker).collect();
        makers.into_iter().try_for_each(|maker| {
            let made = maker.join();
            made.map_err(|_| anyhow!("a maker of namespaces panicked"))?
        })
    })
}

fn print(store: &Store, made: &Measured, namespaces: u64, database: &str) -> Result<()> {
    let start = Instant::now();
    let listed = store.count_namespaces()?;
    let list = Measured::from_total(start.elapsed(), listed);
    ensure!(
        listed == namespaces,
        "{listed} namespaces listed, {namespaces} made"
    );
    let open = probe(
        Probe::OpenAndRead,
        Side::Mvsqlite,
        database,
        OPENINGS,
        1,
        store,
    )?;
    println!(
        "| {namespaces} | {:.0} ({:.0}) | {:.0} ({:.0}) | {:.1} | {} |",
        made.typical_us,
        made.p99_us,
        open.typical_us,
        open.p99_us,
        list.typical_us,
        store.resident_bytes()? / 1_000_000
    );
    Ok(())
}
