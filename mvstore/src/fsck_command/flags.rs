//! The flags of `mvstore fsck`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::config::{UsageError, usage, without_empty_variables};

/// Checks a store: every key of it, by the rules of its format. Changes nothing that is stored; opening
/// a data directory recovers it, though, as the start of a server does.
///
/// Without --url it opens the data directory itself, which no server may have then; or the cluster, whose
/// servers may go on. With --url a running server checks its own store.
///
/// Prints a line for each finding and a summary. Exit codes: 0 nothing is wrong (leftovers, which only
/// waste space, do not count unless --strict); 1 something is; 2 the command line is wrong; 3 the store
/// could not be checked.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "mvstore fsck", version, max_term_width = 100)]
pub struct FsckCommand {
    /// The data directory of the embedded engine
    #[arg(
        long,
        env = "MVSTORE_DATA_DIR",
        value_name = "PATH",
        default_value = "./mvstore-data"
    )]
    pub data_dir: PathBuf,

    /// Checks the store on a FoundationDB cluster instead, by its cluster file
    #[arg(long, env = "FDB_CLUSTER_FILE", value_name = "PATH")]
    pub cluster: Option<PathBuf>,

    /// Lets a running server check its store instead: the address of its admin API
    #[arg(long, value_name = "http://HOST:PORT")]
    pub url: Option<String>,

    /// Begins every key of the store's metadata; a running server knows its own
    #[arg(
        long,
        env = "MVSTORE_METADATA_PREFIX",
        value_name = "TEXT",
        default_value = "mvstore"
    )]
    pub metadata_prefix: String,

    /// Begins every key of the databases' content; a running server knows its own
    #[arg(
        long,
        env = "MVSTORE_RAW_DATA_PREFIX",
        value_name = "TEXT",
        default_value = "m"
    )]
    pub raw_data_prefix: String,

    /// Looks also whether page 1 and the schema of each database's newest version are what SQLite would
    /// take. For more, run SQLite's 'PRAGMA integrity_check'
    #[arg(long)]
    pub sqlite: bool,

    /// Counts leftovers too: exit code 1 if there are any
    #[arg(long)]
    pub strict: bool,

    /// Prints JSON lines: finding, progress, done
    #[arg(long)]
    pub json: bool,

    /// Most bytes read a second, on average [default: as fast as it goes; with --url 67108864]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub bytes_per_second: Option<u64>,
}

impl FsckCommand {
    /// Reads a command line, its first word being the program's name, if it is one of this command.
    ///
    /// # Errors
    /// If the flags are wrong, or help was asked for.
    pub fn read<I, T>(words: I) -> Option<Result<Self, UsageError>>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString>,
    {
        let mut words = words.into_iter().map(Into::into);
        let program: OsString = words.next()?;
        if words.next()? != "fsck" {
            return None;
        }
        let words = std::iter::once(program).chain(words);
        let command = without_empty_variables(Self::command());
        let read = command.try_get_matches_from(words);
        let read = read.and_then(|matches| Self::from_arg_matches(&matches));
        Some(read.map_err(|error| usage(error, "mvstore fsck --help")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Option<Result<FsckCommand, UsageError>> {
        FsckCommand::read(std::iter::once(&"mvstore").chain(words))
    }

    #[test]
    fn the_flags_are_well_formed() {
        FsckCommand::command().debug_assert();
    }

    #[test]
    fn only_the_first_word_makes_it_this_command() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["--data-dir", "fsck"]), None);
        let command = read(&["fsck", "--data-dir", "d", "--json"])
            .unwrap()
            .unwrap();
        assert!(command.json && !command.strict);
        assert_eq!(command.data_dir, PathBuf::from("d"));
    }

    #[test]
    fn a_wrong_flag_is_told_in_a_line_and_help_is_none() {
        let Some(Err(UsageError::Wrong(line))) = read(&["fsck", "--jason"]) else {
            panic!("taken");
        };
        assert!(line.ends_with("(see 'mvstore fsck --help')"), "{line}");
        let Some(Err(UsageError::Asked(help))) = read(&["fsck", "--help"]) else {
            panic!("no help");
        };
        assert!(help.contains("--strict") && help.contains("Exit codes"));
    }
}
