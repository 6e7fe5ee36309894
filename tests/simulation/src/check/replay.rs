//! Every state that was read, against the state that the commits up to its version produced.
//!
//! Commits with a known version are put in the order of their versions and replayed, restores among
//! them. Elements of transactions of unknown outcome may be there or not; but all of a transaction's
//! or none, in every version from some moment on.

use std::collections::{BTreeMap, HashMap};

use crate::workload::ledger::{Fate, Known, Restored};
use crate::workload::{Database, Observation};

type Lists = BTreeMap<u64, Vec<u64>>;

/// What a version did to a database.
enum Event<'a> {
    Appended(&'a [(u64, u64)]),
    Restored(&'a Restored),
}

/// Replays and compares.
pub(crate) fn check(known: &Known) -> Result<(), String> {
    let databases: std::collections::BTreeSet<Database> =
        known.observations.iter().map(|o| o.database).collect();
    for database in databases {
        if known
            .restored
            .iter()
            .any(|r| r.database == database && r.version.is_none())
        {
            continue;
        }
        let states = states(known, database);
        let fates = fates(known);
        let mut unknown: HashMap<usize, Vec<(&str, bool)>> = HashMap::new();
        for observation in known.observations.iter().filter(|o| o.database == database) {
            compare(observation, &states, &fates)?;
            note_unknown(known, observation, &mut unknown)?;
        }
        if known.restored.is_empty() {
            unknown.into_iter().try_for_each(|(index, seen)| {
                appears_once(&seen).map_err(|text| {
                    format!(
                        "transaction {:?} of unknown outcome {text}",
                        known.transactions[index]
                    )
                })
            })?;
        }
    }
    Ok(())
}

/// The state after each version, by version.
fn states(known: &Known, database: Database) -> BTreeMap<String, Lists> {
    let mut events: BTreeMap<&str, Event<'_>> = BTreeMap::new();
    for transaction in &known.transactions {
        if let Fate::Committed(version) = &transaction.fate {
            events.insert(version, Event::Appended(&transaction.elements));
        }
    }
    for restored in known.restored.iter().filter(|r| r.database == database) {
        if let Some(version) = &restored.version {
            events.insert(version, Event::Restored(restored));
        }
    }
    let mut states = BTreeMap::from([(String::new(), Lists::new())]);
    let mut lists = Lists::new();
    for (version, event) in events {
        match event {
            Event::Appended(elements) => {
                let own = elements.iter();
                for (key, element) in own.filter(|(key, _)| Database::of_list(*key) == database) {
                    lists.entry(*key).or_default().push(*element);
                }
            }
            Event::Restored(restored) => lists = at(&states, &restored.to).clone(),
        }
        states.insert(version.to_owned(), lists.clone());
    }
    states
}

fn at<'a>(states: &'a BTreeMap<String, Lists>, version: &str) -> &'a Lists {
    let below = states.range(..=version.to_owned()).next_back();
    below
        .map(|(_, lists)| lists)
        .expect("there is a state before all versions")
}

fn fates(known: &Known) -> HashMap<u64, &Fate> {
    let all = known.transactions.iter();
    all.flat_map(|t| t.elements.iter().map(|(_, element)| (*element, &t.fate)))
        .collect()
}

fn compare(
    observation: &Observation,
    states: &BTreeMap<String, Lists>,
    fates: &HashMap<u64, &Fate>,
) -> Result<(), String> {
    let expected = at(states, &observation.version);
    for (key, found) in &observation.lists {
        let mut certain = Vec::new();
        for element in found {
            match fates.get(element) {
                Some(Fate::Committed(_)) => certain.push(*element),
                Some(Fate::Unknown) => {}
                Some(Fate::Aborted) => {
                    return Err(told(
                        observation,
                        *key,
                        format_args!(
                            "element {element} of a transaction that was not committed is there: {found:?}"
                        ),
                    ));
                }
                None => {
                    return Err(told(
                        observation,
                        *key,
                        format_args!("element {element} was never committed there: {found:?}"),
                    ));
                }
            }
        }
        let empty = Vec::new();
        let expected = expected.get(key).unwrap_or(&empty);
        if certain != *expected {
            return Err(told(
                observation,
                *key,
                format_args!("{found:?} was read, where the commits up to it made {expected:?}"),
            ));
        }
    }
    Ok(())
}

fn told(observation: &Observation, key: u64, what: std::fmt::Arguments<'_>) -> String {
    format!(
        "{} at version {} of '{}', list {key}: {what}",
        observation.by, observation.version, observation.database
    )
}

/// Notes which transactions of unknown outcome a reader saw, and refuses halves of them.
fn note_unknown<'a>(
    known: &'a Known,
    observation: &'a Observation,
    unknown: &mut HashMap<usize, Vec<(&'a str, bool)>>,
) -> Result<(), String> {
    for (index, transaction) in known.transactions.iter().enumerate() {
        if transaction.fate != Fate::Unknown {
            continue;
        }
        let mut seen = None;
        for (key, element) in &transaction.elements {
            let Some(list) = observation.lists.get(key) else {
                continue;
            };
            let is_there = list.contains(element);
            if seen.is_some_and(|seen| seen != is_there) {
                return Err(told(
                    observation,
                    *key,
                    format_args!("half of a transaction: {:?}", transaction.elements),
                ));
            }
            seen = Some(is_there);
        }
        if let Some(seen) = seen {
            let entry = unknown.entry(index).or_default();
            entry.push((&observation.version, seen));
        }
    }
    Ok(())
}

/// It is in every version from one on.
fn appears_once(seen: &[(&str, bool)]) -> Result<(), String> {
    let first = seen
        .iter()
        .filter(|(_, there)| *there)
        .map(|(v, _)| v)
        .min();
    let last_without = seen
        .iter()
        .filter(|(_, there)| !there)
        .map(|(v, _)| v)
        .max();
    match (first, last_without) {
        (Some(first), Some(without)) if without >= first => {
            Err(format!("is there at version {first} and not at {without}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::ledger::Appended;

    const DATABASE: Database = Database(0);

    fn appended(elements: &[(u64, u64)], fate: Fate) -> Appended {
        Appended {
            elements: elements.to_vec(),
            fate,
        }
    }

    fn committed(elements: &[(u64, u64)], version: &str) -> Appended {
        appended(elements, Fate::Committed(version.to_owned()))
    }

    fn read(version: &str, lists: &[(u64, &[u64])]) -> Observation {
        let lists = lists.iter().map(|(key, list)| (*key, list.to_vec()));
        Observation {
            by: "a test".to_owned(),
            database: DATABASE,
            version: version.to_owned(),
            lists: lists.collect(),
        }
    }

    /// What is said of these reads after commits at 2, 4 and 8, an abort, and an unknown outcome.
    fn judge(observations: &[Observation]) -> Result<(), String> {
        check(&Known {
            transactions: vec![
                committed(&[(1, 40), (2, 41)], "4"),
                committed(&[(1, 20)], "2"),
                committed(&[(1, 80)], "8"),
                appended(&[(1, 90)], Fate::Aborted),
                appended(&[(1, 50), (2, 51)], Fate::Unknown),
            ],
            observations: observations.to_vec(),
            ..Known::default()
        })
    }

    #[test]
    fn a_state_is_what_the_commits_up_to_its_version_made() {
        let seen = [
            read("1", &[(1, &[]), (2, &[])]),
            read("2", &[(1, &[20])]),
            read("5", &[(1, &[20, 40]), (2, &[41])]),
            read("7", &[(1, &[20, 40, 50]), (2, &[41, 51])]),
            read("9", &[(1, &[20, 40, 50, 80]), (2, &[41, 51])]),
        ];
        assert_eq!(judge(&seen), Ok(()));
    }

    #[test]
    fn what_is_lost_early_undone_halved_or_gone_again_is_told() {
        let wrong: [&[Observation]; 6] = [
            &[read("5", &[(1, &[20])])],
            &[read("3", &[(1, &[20, 40])])],
            &[read("5", &[(1, &[40, 20])])],
            &[read("9", &[(1, &[20, 40, 80, 90])])],
            &[read("7", &[(1, &[20, 40, 50]), (2, &[41])])],
            &[
                read("6", &[(1, &[20, 40, 50])]),
                read("7", &[(1, &[20, 40])]),
            ],
        ];
        for seen in wrong {
            assert!(judge(seen).is_err(), "{seen:?}");
        }
    }

    #[test]
    fn a_restored_state_is_that_of_the_version_it_was_restored_to() {
        let known = |list: &[u64]| Known {
            transactions: vec![committed(&[(1, 20)], "2"), committed(&[(1, 40)], "4")],
            restored: vec![Restored {
                database: DATABASE,
                version: Some("6".to_owned()),
                to: "3".to_owned(),
            }],
            observations: vec![read("7", &[(1, list)])],
            ..Known::default()
        };
        assert_eq!(check(&known(&[20])), Ok(()));
        assert!(check(&known(&[20, 40])).is_err());
    }
}
