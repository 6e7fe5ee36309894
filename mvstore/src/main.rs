//! `mvstore`: reads its command line, runs the daemon, tells by its exit code how that went.
//! `mvstore fsck` checks a store instead; [`fsck_command`] has its exit codes.
//!
//! Exit codes of the daemon: 0 after a shutdown by signal; 1 if the store cannot be served, or no longer, with one
//! line on stderr that says why; 2 for a command line that is not one.

use std::process::ExitCode;

use mvstore::config::{Config, UsageError};
use mvstore::daemon;
use mvstore::fsck_command::{self, FsckCommand};

fn main() -> ExitCode {
    match FsckCommand::read(std::env::args_os()) {
        Some(Ok(command)) => return fsck_command::run(&command),
        Some(Err(error)) => return refuse(error, "mvstore fsck"),
        None => (),
    }
    let config = match Config::read(std::env::args_os()) {
        Ok(config) => config,
        Err(error) => return refuse(error, "mvstore"),
    };
    match daemon::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mvstore: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn refuse(error: UsageError, program: &str) -> ExitCode {
    match error {
        UsageError::Asked(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        UsageError::Wrong(line) => {
            eprintln!("{program}: {line}");
            ExitCode::from(2)
        }
    }
}
