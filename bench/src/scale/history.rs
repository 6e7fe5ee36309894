//! The cost of history: the same work on a database that was just made, on one whose page has many
//! versions, and on one with many commits.

use anyhow::Result;

use super::Amounts;
use super::probe::Probe;
use crate::side::{Side, probe};
use crate::stats::Measured;
use crate::store::Store;

/// Operations that a figure is the median of.
const SAMPLES: u64 = 1_000;
/// Clients that make the many commits.
const WRITERS: u64 = 16;

pub(super) fn run(amounts: Amounts, store: &Store) -> Result<()> {
    let run = |which, database: &str, count, clients| {
        probe(which, Side::Mvsqlite, database, count, clients, store)
    };
    let make = |database: &str| -> Result<Figures> {
        store.create_namespace(database)?;
        run(Probe::Create, database, 1, 1)?;
        figures(database, run)
    };
    println!("\nThe cost of history, medians in us (p99):\n");
    println!("| database | one-row update | open and read one row |");
    println!("|---|---|---|");
    make("page")?.print("just made");
    let oldest = store.version("page")?;
    run(Probe::UpdateOne, "page", amounts.page_versions, 1)?;
    let title = format!("a page with {} versions", amounts.page_versions);
    figures("page", run)?.print(&title);
    let read = run(Probe::OpenAndRead, &format!("page@{oldest}"), SAMPLES, 1)?;
    println!("| the same, near its beginning | - | {} |", cell(&read));

    make("commits")?.print("another, just made");
    run(Probe::UpdateOwn, "commits", amounts.commits, WRITERS)?;
    let title = format!("{} commits", amounts.commits);
    figures("commits", run)?.print(&title);
    println!();
    Ok(())
}

fn figures(
    database: &str,
    run: impl Fn(Probe, &str, u64, u64) -> Result<Measured>,
) -> Result<Figures> {
    Ok(Figures {
        update: run(Probe::UpdateOne, database, SAMPLES, 1)?,
        read: run(Probe::OpenAndRead, database, SAMPLES, 1)?,
    })
}

struct Figures {
    update: Measured,
    read: Measured,
}

impl Figures {
    fn print(&self, title: &str) {
        println!(
            "| {title} | {} | {} |",
            cell(&self.update),
            cell(&self.read)
        );
    }
}

fn cell(measured: &Measured) -> String {
    format!("{:.0} ({:.0})", measured.typical_us, measured.p99_us)
}
