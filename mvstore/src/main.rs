//! `mvstore`: reads its command line, runs the daemon, tells by its exit code how that went.
//!
//! Exit codes: 0 after a shutdown by signal; 1 if the store cannot be served, or no longer, with one
//! line on stderr that says why; 2 for a command line that is not one.

use std::process::ExitCode;

use mvstore::config::{Config, UsageError};
use mvstore::daemon;

fn main() -> ExitCode {
    let config = match Config::read(std::env::args_os()) {
        Ok(config) => config,
        Err(UsageError::Asked(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(UsageError::Wrong(line)) => {
            eprintln!("mvstore: {line}");
            return ExitCode::from(2);
        }
    };
    match daemon::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mvstore: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
