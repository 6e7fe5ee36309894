//! What must hold once it is quiet.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use mvsqlite_checker::{History, Model, TransactionRecord, check};

use super::Figures;
use super::crew::Crew;
use super::life::Life;
use super::load::{Further, LOADS, Load};
use crate::{Client, Copied, Finished, copy_out, judge_all, mvstore};

/// Past versions that are read again at a time.
const VERSIONS: &str = "60";

/// Judges the databases of a load, over all rounds of the life.
///
/// # Panics
/// If anything is not as it must be.
pub(super) fn judge(life: &Life, crew: &Crew, load: usize, figures: &mut Figures) {
    let Load {
        databases,
        tables,
        sums,
        further,
        ..
    } = &LOADS[load];
    let copies: Vec<Copied> = databases
        .iter()
        .map(|database| copy_out(&life.store, database.name))
        .collect();
    figures.copies += u32::try_from(copies.len()).unwrap();
    if !tables.is_empty() {
        let tables: Vec<_> = tables
            .iter()
            .map(|(place, table)| (&copies[*place], *table))
            .collect();
        judge_all(
            crew.writers(load).map(|member| &member.worker.journal),
            &tables,
        );
    }
    for (sql, expected) in *sums {
        let sum: i64 = copies.iter().map(|copy| copy.value::<i64>(sql)).sum();
        assert_eq!(sum, *expected, "{sql}");
    }
    match further {
        Further::Nothing => {}
        Further::Parts => script("large_check.py", &[&copies[0]], &[]),
        Further::ModelsAndSnapshots => {
            script(
                "growth_check.py",
                &[&copies[0]],
                &crew.beside(load, "model"),
            );
            past_versions(life, databases[0].name, &crew.beside(load, "snapshots"));
        }
        Further::Histories => histories(life, crew, load, &copies, figures),
    }
}

fn script(name: &str, copies: &[&Copied], files: &[String]) {
    let mut arguments: Vec<&str> = copies
        .iter()
        .map(|copy| copy.path().to_str().unwrap())
        .collect();
    arguments.extend(files.iter().map(String::as_str));
    Client::local().python(name, &arguments).ok();
}

/// What readers saw at a version is what is there at that version now.
fn past_versions(life: &Life, database: &str, files: &[String]) {
    let mut arguments = vec![database, VERSIONS];
    arguments.extend(files.iter().map(String::as_str));
    let admin = life.store.admin_address();
    let client = Client::of(&life.store).env("MVSQLITE_E2E_ADMIN", &admin);
    client.python("snapshot_check.py", &arguments).ok();
}

/// Judges what was done in all rounds as one history: later rounds did not touch earlier lists.
fn histories(life: &Life, crew: &Crew, load: usize, copies: &[Copied], figures: &mut Figures) {
    let history = History {
        transactions: transactions(crew, load),
        final_lists: lists(copies),
    };
    let report = check(&history, Model::StrictSerializable).unwrap_or_else(|violation| {
        let path = life.directory.join("history");
        let kept = fs::File::create(&path).and_then(|file| history.write_lines(file));
        panic!("{} ({kept:?}): {violation}", path.display())
    });
    figures.histories += 1;
    figures.judged += report.transactions;
}

/// What the processes wrote down. Of each transaction the last record counts: the one
/// before it was written when COMMIT was still to come.
fn transactions(crew: &Crew, load: usize) -> Vec<TransactionRecord> {
    let mut records = BTreeMap::new();
    for member in crew.writers(load) {
        let path = member.worker.journal.path().with_extension("history");
        let mut written = History::default();
        let text = fs::read_to_string(&path).unwrap_or_default();
        written
            .add_lines(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let of_member = written.transactions.into_iter();
        records.extend(of_member.map(|record| ((record.process, record.index), record)));
    }
    records.into_values().collect()
}

/// All lists, as they are in both forms.
fn lists(copies: &[Copied]) -> BTreeMap<u64, Vec<u64>> {
    let mut lists: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for copy in copies {
        for line in copy.column::<String>("SELECT key || ' ' || elements FROM text") {
            let mut numbers = line.split(' ').map(|number| number.parse().unwrap());
            let key = numbers.next().expect("the key is there");
            lists.insert(key, numbers.collect());
        }
        for line in
            copy.column::<String>("SELECT key || ' ' || element FROM element ORDER BY place")
        {
            let (key, element) = line.split_once(' ').expect("two numbers");
            let list = lists.entry(key.parse().unwrap()).or_default();
            list.push(element.parse().unwrap());
        }
    }
    lists
}

/// Whether this `mvstore` can check a directory.
pub(super) fn has_fsck() -> bool {
    let asked = Command::new(mvstore()).args(["fsck", "--help"]).output();
    asked.is_ok_and(|answer| answer.status.success())
}

/// Has the directory of a store that does not run checked.
///
/// # Panics
/// If there are findings.
pub(super) fn fsck(life: &Life) {
    let data_dir = life.store.data_dir().to_str().unwrap();
    let checked: Finished = Client::local().run(&mvstore(), &["fsck", "--data-dir", data_dir]);
    checked.ok();
}
