//! What must hold after a run, when nothing goes wrong any more.

mod copy;
mod fsck;
mod intervals;
mod replay;

use mvsqlite_checker::Model;

use crate::history::History;
use crate::process::Process;
use crate::sqlite::Sqlite;
use crate::workload::Mixture;
use crate::workload::mixture::{final_look, past_look};

/// Most versions that are read again at the end of a run.
const VERSIONS: usize = 40;

/// Checks everything that can be checked of a mixture.
///
/// # Errors
/// The first thing that does not hold.
pub(crate) fn verify(
    mixture: &Mixture,
    process: &Process,
    history: &History,
) -> Result<(), String> {
    first_violation(mixture)?;
    let sqlite = Sqlite::new(process.environment());
    let last = final_look(mixture, &sqlite)
        .map_err(|fault| format!("the last state cannot be read: {fault:?}"))?;
    for database in mixture.databases() {
        copy::check(process, database, "", mixture.swarm())?;
    }
    fsck::check(process)?;
    reread_versions(mixture, process, &sqlite)?;
    let known = mixture.ledger().known().clone();
    replay::check(&known)?;
    if known.restored.is_empty() {
        let mut history = history.clone();
        history.final_lists = last.lists;
        let model = match mixture.swarm().is_stale {
            true => Model::Serializable,
            false => Model::StrictSerializable,
        };
        let judged = mvsqlite_checker::check(&history, model);
        judged
            .map(drop)
            .map_err(|violation| violation.to_string())?;
    }
    Ok(())
}

fn first_violation(mixture: &Mixture) -> Result<(), String> {
    match mixture.ledger().known().violations.first() {
        Some(violation) => Err(violation.clone()),
        None => Ok(()),
    }
}

/// Versions that nobody had forgotten must be there, and what they were.
fn reread_versions(mixture: &Mixture, process: &Process, sqlite: &Sqlite) -> Result<(), String> {
    let versions: Vec<_> = {
        let known = mixture.ledger().known();
        let kept = |version: &&(_, String)| {
            let databases = mixture.databases();
            databases
                .iter()
                .all(|database| known.keeps(*database, &version.1))
        };
        known.versions.iter().filter(kept).cloned().collect()
    };
    let step = versions.len().div_ceil(VERSIONS).max(1);
    for (number, (database, version)) in versions.iter().step_by(step).enumerate() {
        past_look(mixture, sqlite, version)
            .map_err(|fault| format!("'{database}' at {version} cannot be read: {fault:?}"))?;
        // A few whole copies besides: what SQLite itself thinks of them.
        if number % 10 == 3 {
            intervals::check(process, *database, version)?;
            copy::check(process, *database, &format!("@{version}"), mixture.swarm())?;
        }
    }
    Ok(())
}
