//! What goes wrong when in a round: a pure function of the seed and the round's number.
//!
//! A round draws which loads run, a part of all so that now one and now another has the machine
//! (swarm testing, Groce et al., 2012), and a few episodes of faults, which may overlap. An action
//! that does not apply when its time comes, such as killing a store that is down, is passed over.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::load::LOADS;
use crate::Fault;

/// A point that `MVSTORE_CRASH_AT` knows.
struct Point {
    name: &'static str,
    /// At most so many passes before the one that ends the store: some are passed all the time.
    passes: u32,
    /// Which load passes it, by its first database; empty: any.
    load: &'static str,
}

const fn point(name: &'static str, passes: u32, load: &'static str) -> Point {
    Point { name, passes, load }
}

/// All of them. One that no longer exists shows as never sprung.
const POINTS: [Point; 16] = [
    point("before-commit", 100, ""),
    point("committed", 100, ""),
    point("settled", 1, ""),
    point("staged", 6, "large"),
    point("layer-before-commit", 2, "large"),
    point("layer-committed", 2, "large"),
    point("fold-step", 5, "large"),
    point("fold-before-drop", 2, "large"),
    point("fold-dropped", 2, "large"),
    point("leased", 30, "exclusive"),
    point("restored", 1, "growth"),
    point("forked", 2, "growth"),
    point("lock-released", 1, "growth"),
    point("truncate-marked", 2, "growth"),
    point("truncate-step", 3, "growth"),
    point("collect-step", 2, "growth"),
];

/// Processes that run at a time, at least; the last load drawn may bring two more.
const PROCESSES: usize = 7;

/// Episodes of faults in a round.
const EPISODES: std::ops::RangeInclusive<u32> = 5..=11;

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// `kill -9`.
    KillStore,
    /// SIGTERM, and waiting for its end.
    StopStore,
    /// Starts it; with a trap, it ends by itself at that point.
    StartStore(Option<String>),
    /// SIGSTOP.
    PauseStore,
    /// SIGCONT.
    ResumeStore,
    /// `kill -9` of the client of this number, modulo how many there are. Another takes its place.
    KillClient(usize),
    /// SIGSTOP for that client.
    PauseClient(usize),
    /// SIGCONT for all of them.
    ResumeClients,
    /// The network fails like this from now on.
    Network(Fault),
    /// The network works again.
    HealNetwork,
    /// Leaves so many bytes of the disk.
    FillDisk(u64),
    /// Gives back what was taken of the disk.
    EmptyDisk,
}

/// An action and its time, counted from the beginning of the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    /// When.
    pub(super) at: Duration,
    /// What.
    pub(super) action: Action,
}

/// A round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    /// The loads that run: places in [`LOADS`].
    pub(super) loads: Vec<usize>,
    /// In the order of their times.
    pub(super) planned: Vec<Planned>,
    /// For how long there are faults.
    pub(super) length: Duration,
}

/// The random numbers of one purpose of a run.
pub(super) fn chance(seed: u64, purpose: &str, number: u64) -> StdRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    let name = purpose.as_bytes();
    bytes[16..16 + name.len()].copy_from_slice(name);
    StdRng::from_seed(bytes)
}

impl Schedule {
    /// The round of this number.
    pub(super) fn draw(seed: u64, round: u32, length: Duration) -> Self {
        let mut chance = chance(seed, "round", round.into());
        let mut loads: Vec<usize> = (0..LOADS.len()).collect();
        loads.shuffle(&mut chance);
        let mut processes = 0;
        loads.retain(|load| {
            let taken = processes < PROCESSES;
            processes += if taken {
                LOADS[*load].processes.len()
            } else {
                0
            };
            taken
        });
        let mut planned: Vec<Planned> = (0..chance.random_range(EPISODES))
            .flat_map(|_| episode(&mut chance, &loads, length))
            .collect();
        planned.sort_by_key(|planned| planned.at);
        Self {
            loads,
            planned,
            length,
        }
    }
}

impl Schedule {
    /// The loads and the faults, in a line.
    pub(super) fn describe(&self) -> String {
        let databases = self.loads.iter().map(|load| LOADS[*load].databases[0].name);
        let actions = self.planned.iter().map(|planned| {
            let seconds = planned.at.as_secs_f64();
            format!("{seconds:.1} {:?}", planned.action)
        });
        let (databases, actions): (Vec<_>, Vec<_>) = (databases.collect(), actions.collect());
        format!("{} | {}", databases.join(" "), actions.join(", "))
    }
}

/// A fault and its end.
fn episode(chance: &mut StdRng, loads: &[usize], length: Duration) -> Vec<Planned> {
    let begin = length.mul_f64(chance.random_range(0.05..0.85));
    let mut time = begin;
    let mut planned = Vec::new();
    let mut then = |after: Duration, action| {
        time = (time + after).min(length);
        planned.push(Planned { at: time, action });
    };
    let at_once = Duration::ZERO;
    match chance.random_range(0..22) {
        0..3 => {
            then(at_once, Action::KillStore);
            then(millis(chance, 0..1500), Action::StartStore(None));
        }
        3..5 => {
            // Also while it recovers from the one before.
            for _ in 0..chance.random_range(2..5) {
                then(millis(chance, 10..400), Action::KillStore);
                then(at_once, Action::StartStore(None));
            }
        }
        5..9 => {
            then(at_once, Action::KillStore);
            let trap = trap(chance, loads);
            then(millis(chance, 0..300), Action::StartStore(Some(trap)));
            // It may never pass there.
            then(Duration::from_secs(4), Action::KillStore);
            then(millis(chance, 0..500), Action::StartStore(None));
        }
        9..10 => {
            then(at_once, Action::StopStore);
            then(millis(chance, 0..500), Action::StartStore(None));
        }
        10..12 => {
            then(at_once, Action::PauseStore);
            then(millis(chance, 100..3000), Action::ResumeStore);
        }
        12..15 => {
            for _ in 0..chance.random_range(1..4) {
                then(
                    millis(chance, 0..300),
                    Action::KillClient(chance.random_range(0..100)),
                );
            }
        }
        15..17 => {
            then(at_once, Action::PauseClient(chance.random_range(0..100)));
            then(millis(chance, 200..4000), Action::ResumeClients);
        }
        17..20 => {
            then(at_once, Action::Network(network(chance)));
            then(millis(chance, 300..3000), Action::HealNetwork);
        }
        _ => {
            // Below what the store keeps in reserve; once in a while, almost nothing.
            let left = *pick(chance, &[200 << 20, 100 << 20, 4 << 20]);
            then(at_once, Action::FillDisk(left));
            then(millis(chance, 500..3000), Action::EmptyDisk);
        }
    }
    planned
}

/// A point that one of the loads passes.
fn trap(chance: &mut StdRng, loads: &[usize]) -> String {
    let runs = |name: &str| {
        let mut first = loads.iter().map(|load| LOADS[*load].databases[0].name);
        name.is_empty() || first.any(|running| running == name)
    };
    let passed = POINTS.iter().filter(|point| runs(point.load));
    let passed: Vec<&Point> = passed.collect();
    let point = pick(chance, &passed);
    format!("{}:{}", point.name, chance.random_range(1..=point.passes))
}

fn network(chance: &mut StdRng) -> Fault {
    const CALLS: [&[&str]; 6] = [
        &["commit"],
        &["commit", "settle"],
        &["begin", "read"],
        &["stage"],
        &["lease"],
        &["begin", "read", "stage", "commit", "settle", "lease"],
    ];
    let calls = pick(chance, &CALLS);
    match chance.random_range(0..7) {
        0 => Fault::Down,
        1 => Fault::Silence,
        2 => Fault::Delay(millis(chance, 5..150)),
        3 => Fault::Tear,
        4 => Fault::LoseRequest(calls),
        5 => Fault::LoseReply(calls),
        _ => Fault::Hold(calls),
    }
}

fn pick<'a, T>(chance: &mut StdRng, all: &'a [T]) -> &'a T {
    all.choose(chance).expect("there is something to pick from")
}

fn millis(chance: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(chance.random_range(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(12);

    #[test]
    fn the_same_seed_draws_the_same_rounds_and_another_one_others() {
        let draw = |seed| -> Vec<Schedule> {
            let rounds = 0..20;
            rounds
                .map(|round| Schedule::draw(seed, round, LENGTH))
                .collect()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn every_kind_of_fault_comes_and_none_outlasts_its_round() {
        let rounds = (0..200).map(|round| Schedule::draw(7, round, LENGTH));
        let mut kinds = std::collections::BTreeSet::new();
        for schedule in rounds {
            assert!(schedule.planned.is_sorted_by_key(|planned| planned.at));
            assert!(!schedule.loads.is_empty());
            for planned in schedule.planned {
                assert!(planned.at <= LENGTH);
                let text = format!("{:?}", planned.action);
                let kind = text.split(|c: char| c.is_numeric()).next().unwrap();
                kinds.insert(kind.to_owned());
            }
        }
        for kind in [
            "KillStore",
            "StopStore",
            "PauseStore",
            "FillDisk(",
            "KillClient(",
        ] {
            assert!(kinds.contains(kind), "{kind} of {kinds:?}");
        }
        for Point { name, .. } in POINTS {
            assert!(kinds.iter().any(|kind| kind.contains(name)), "{name}");
        }
    }
}
