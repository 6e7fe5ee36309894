//! Crash loops: stores and clients are killed, paused and cut off at random under mixed load, and
//! after each round everything that was promised is checked.
//!
//! A run is made of *rounds*: some seconds of load and faults, then calm, in which every client must
//! get on again, then checks. Some rounds share a store, a *life*; the next life begins with an empty
//! one and other settings. What goes wrong when follows from the seed (`schedule`); how the
//! processes interleave does not. So a seed that found something makes it likely, not certain, to
//! find it again: what is kept of a failed run is the evidence.
//!
//! After a round (`checks`), over all rounds of the life:
//!
//! - what was acknowledged is there; what was refused is not; the rest is there as a whole or not;
//! - money moved between accounts, and between databases, is all there;
//! - lists that were appended to and read make a strictly serializable history;
//! - past versions look the way readers saw them;
//! - an ordinary SQLite finds copies whole, and `mvstore fsck` the store's directory;
//! - no client ended by a signal or by an error that is not among those its reference names;
//! - the store's log has no WARN or ERROR that is not expected, it was ready again soon after each
//!   start, and its memory and open files are bounded.
//!
//! Power loss is not among the faults: what the kernel has taken, a killed process does not lose.
//! `mvstore/tests` and the simulation have disks for that.

mod checks;
mod crew;
mod figures;
mod life;
mod load;
mod schedule;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use figures::Figures;

use crew::Crew;
use life::Life;
use schedule::{Action, Schedule};

/// Rounds of a life, at most.
const ROUNDS: u32 = 5;

/// How long a run is and where it is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Draws the faults.
    pub seed: u64,
    /// No round begins after this time.
    pub lasting: Duration,
    /// For how long there are faults in a round.
    pub round: Duration,
    /// Where stores, journals and logs are.
    pub home: PathBuf,
}

/// Runs rounds until the time is over.
///
/// # Panics
/// If anything does not hold. The processes are gone then, and `home` has all their files.
pub fn run(options: &Options) -> Figures {
    let begun = Instant::now();
    let mut figures = Figures::default();
    let mut clients = 0;
    while begun.elapsed() < options.lasting || figures.rounds == 0 {
        let life = Life::begin(options.seed, figures.lives, &options.home);
        figures.lives += 1;
        let crew = Crew::new(options.seed, clients);
        clients = live(life, crew, options, begun, &mut figures);
    }
    figures
}

/// Rounds of one life; the number of the next client.
fn live(
    mut life: Life,
    mut crew: Crew,
    options: &Options,
    begun: Instant,
    figures: &mut Figures,
) -> u32 {
    for _ in 0..ROUNDS {
        let number = figures.rounds;
        figures.rounds += 1;
        let schedule = Schedule::draw(options.seed, number, options.round);
        round(&mut life, &mut crew, &schedule, number, figures);
        if life.is_old() || begun.elapsed() >= options.lasting {
            break;
        }
    }
    life.store.judge_log();
    crew.next()
}

fn round(
    life: &mut Life,
    crew: &mut Crew,
    schedule: &Schedule,
    number: u32,
    figures: &mut Figures,
) {
    println!("round {number}: {}", schedule.describe());
    crew.start(life, &schedule.loads, number);
    storm(life, crew, schedule, figures);
    life.calm(figures);
    crew.resume();
    crew.go_on(life, figures);
    crew.stop(life, figures);
    for &load in &schedule.loads {
        checks::judge(life, crew, load, figures);
    }
    life.measure(figures);
    if checks::has_fsck() {
        life.stop();
        checks::fsck(life);
        figures.fscks += 1;
        life.calm(figures);
    }
    life.store.judge_log();
}

/// Does what the schedule says when it says so.
fn storm(life: &mut Life, crew: &mut Crew, schedule: &Schedule, figures: &mut Figures) {
    let begun = Instant::now();
    let mut planned = schedule.planned.iter().peekable();
    while begun.elapsed() < schedule.length {
        life.tick(figures);
        crew.tick();
        while let Some(next) = planned.next_if(|next| next.at <= begun.elapsed()) {
            act(life, crew, &next.action, figures);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn act(life: &mut Life, crew: &mut Crew, action: &Action, figures: &mut Figures) {
    let struck = match action {
        Action::KillStore => life.kill().then_some("kills of the store"),
        Action::StopStore => life.stop().then_some("stops of the store"),
        Action::PauseStore => life.pause().then_some("pauses of the store"),
        Action::KillClient(number) => crew.kill(life, *number).then_some("kills of clients"),
        Action::PauseClient(number) => crew.pause(*number).then_some("pauses of clients"),
        Action::FillDisk(left) => life.fill_disk(*left).then_some("full disks"),
        Action::Network(fault) => {
            life.proxy.set(fault.clone());
            Some(fault.describe())
        }
        Action::StartStore(trap) => {
            life.start(trap.clone());
            None
        }
        Action::ResumeStore => {
            life.resume();
            None
        }
        Action::ResumeClients => {
            crew.resume();
            None
        }
        Action::HealNetwork => {
            life.proxy.set(crate::Fault::None);
            None
        }
        Action::EmptyDisk => {
            life.empty_disk();
            None
        }
    };
    if let Some(kind) = struck {
        figures.fault(kind);
    }
}
