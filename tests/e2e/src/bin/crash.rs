//! `make crash MINUTES=n SEED=s`: kills stores and clients at random and checks what must hold.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use mvsqlite_e2e::crash::{Options, run};

/// Kills stores and clients at random under mixed load, and checks what must hold.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long; the round under way is ended
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Draws the faults; by default another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds of faults in a round
    #[arg(long, default_value_t = 11.0)]
    round: f64,
    /// Where stores, journals and logs are; removed unless something does not hold
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Leaves them there in any case
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(any_seed);
    let home = arguments.directory.unwrap_or_else(|| {
        let name = format!("mvsqlite-crash-{seed}-{}", std::process::id());
        std::env::temp_dir().join(name)
    });
    let options = Options {
        seed,
        lasting: Duration::from_secs_f64(arguments.minutes * 60.0),
        round: Duration::from_secs_f64(arguments.round),
        home: home.clone(),
    };
    println!("crash: {} minutes, seed {seed}", arguments.minutes);
    match catch_unwind(AssertUnwindSafe(|| run(&options))) {
        Ok(figures) => {
            match arguments.keep {
                true => println!("kept: {}", home.display()),
                false => drop(std::fs::remove_dir_all(&home)),
            }
            println!("crash: seed {seed}: everything holds\n{figures}");
            ExitCode::SUCCESS
        }
        Err(_) => {
            println!("crash: seed {seed}: SOMETHING DOES NOT HOLD, see above");
            println!("  kept: {}", home.display());
            println!(
                "  again: make crash MINUTES={} SEED={seed}",
                arguments.minutes
            );
            println!("  (the same faults at the same times; processes interleave as they will)");
            ExitCode::FAILURE
        }
    }
}

fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::from(now.subsec_nanos()))
}
