//! What the operator of `mvstore` says on its command line or in its environment.
//!
//! Every flag has a default with which plain `mvstore` runs: the embedded engine in
//! `./mvstore-data`, both listeners on loopback. A flag wins over its environment variable; an
//! environment variable that is set but empty counts as not set, as deployment templates leave
//! them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::store::{self, StoreOptions};

/// The page of the original's content cache, in bytes.
const ORIGINAL_PAGE_BYTES: u64 = 8192;

/// The mvSQLite server: versioned SQLite databases over HTTP.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "mvstore",
    version,
    max_term_width = 100,
    after_help = "'mvstore fsck' checks a store: see 'mvstore fsck --help'."
)]
pub struct Config {
    /// Where clients of databases are served
    #[arg(long, env = "MVSTORE_DATA_PLANE", value_name = "IP:PORT", default_value = "127.0.0.1:7000", value_parser = address)]
    pub data_plane: SocketAddr,

    /// Where the admin API is served
    #[arg(long, env = "MVSTORE_ADMIN_API", value_name = "IP:PORT", default_value = "127.0.0.1:7001", value_parser = address)]
    pub admin_api: SocketAddr,

    /// Serves the data plane on this Unix socket too
    #[arg(long, env = "MVSTORE_UNIX_SOCKET", value_name = "PATH")]
    pub unix_socket: Option<PathBuf>,

    /// Allows listeners that other machines can reach. There are no tokens yet: whoever reaches
    /// them may read, write and delete everything
    #[arg(long, env = "MVSTORE_ALLOW_OPEN_ACCESS", value_parser = BoolishValueParser::new())]
    pub allow_open_access: bool,

    /// Where and how the store keeps its data.
    #[command(flatten)]
    pub storage: Storage,

    /// What is said, and how.
    #[command(flatten)]
    pub log: Log,

    /// Limits on what clients may take.
    #[command(flatten)]
    pub limits: Limits,

    /// What the original's server is told, by the names it knows.
    #[command(flatten)]
    pub original: Original,

    /// Thresholds for tests and measurements.
    #[command(flatten)]
    pub knobs: Knobs,
}

/// Thresholds for tests and measurements. What is not given follows from the engine's limits.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Knobs for tests and measurements")]
pub struct Knobs {
    /// Commits whose staged pages would cost more bytes of a transaction (some 200 a page) are made
    /// by one record, and worked off in the background
    #[arg(long, env = "MVSTORE_KNOB_LAYER_BYTES", value_name = "BYTES")]
    pub knob_layer_bytes: Option<u64>,

    /// Pages that one transaction of that background work takes on
    #[arg(long, env = "MVSTORE_KNOB_FOLD_PAGES", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub knob_fold_pages: Option<u32>,
}

impl Knobs {
    /// As the store takes them.
    pub fn thresholds(&self) -> store::Knobs {
        store::Knobs {
            layer_bytes: self.knob_layer_bytes,
            fold_pages: self.knob_fold_pages.and_then(|pages| pages.try_into().ok()),
        }
    }
}

/// Where and how the store keeps its data.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Storage")]
pub struct Storage {
    /// The directory of the embedded engine, made if it is not there
    #[arg(
        long,
        env = "MVSTORE_DATA_DIR",
        value_name = "PATH",
        default_value = "./mvstore-data"
    )]
    pub data_dir: PathBuf,

    /// Runs on FoundationDB instead, by this cluster file
    #[arg(long, env = "FDB_CLUSTER_FILE", value_name = "PATH")]
    pub cluster: Option<PathBuf>,

    /// Keeps everything in memory and loses it at the end: for tests
    #[arg(long, conflicts_with_all = ["data_dir", "cluster"])]
    pub in_memory: bool,

    /// Most memory for pages that were read lately, in bytes; 0 keeps none
    #[arg(
        long,
        env = "MVSTORE_PAGE_CACHE_BYTES",
        value_name = "BYTES",
        default_value_t = StoreOptions::DEFAULT_PAGE_CACHE_BYTES
    )]
    pub page_cache_bytes: u64,

    /// Begins every key of the store's metadata. Stores that share an engine differ in both prefixes
    #[arg(
        long,
        env = "MVSTORE_METADATA_PREFIX",
        value_name = "TEXT",
        default_value = "mvstore"
    )]
    pub metadata_prefix: String,

    /// Begins every key of the databases' content
    #[arg(
        long,
        env = "MVSTORE_RAW_DATA_PREFIX",
        value_name = "TEXT",
        default_value = "m"
    )]
    pub raw_data_prefix: String,
}

/// What is said, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Log")]
pub struct Log {
    /// Logs JSON lines instead of text
    #[arg(long, env = "MVSTORE_JSON", value_parser = BoolishValueParser::new())]
    pub json: bool,

    /// What is logged: error, warn, info, debug, trace, or by module as in
    /// `info,mvstore::http=debug`
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// Limits on what clients may take. Durations are in seconds and may have a fraction.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits (durations in seconds)")]
pub struct Limits {
    /// Connections open at once, over all listeners; further ones get 503 and are closed
    #[arg(long, env = "MVSTORE_MAX_CONNECTIONS", value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Requests in work at once, over all listeners; further ones get 503 and may try again
    #[arg(long, env = "MVSTORE_MAX_REQUESTS", value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_requests: u32,

    /// Memory for request bodies that are being received, over all requests; further ones wait
    #[arg(long, env = "MVSTORE_MAX_BODY_MEMORY", value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_body_memory: u32,

    /// Until the first request's header is there
    #[arg(long, env = "MVSTORE_HEADER_TIMEOUT", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub header_timeout: Duration,

    /// How long a connection may do nothing, or stand still in the middle of a reply
    #[arg(long, env = "MVSTORE_IDLE_TIMEOUT", value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub idle_timeout: Duration,

    /// Until a request's body is there
    #[arg(long, env = "MVSTORE_BODY_TIMEOUT", value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub body_timeout: Duration,

    /// Until a request is answered, from its header on. A commit that takes longer goes on; its
    /// client is told that the outcome is not known
    #[arg(long, env = "MVSTORE_REQUEST_TIMEOUT", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub request_timeout: Duration,

    /// How long a write lease lives unless renewed: for so long a dead writer of an exclusive
    /// namespace keeps the others waiting. Same on all servers of a store
    #[arg(long, env = "MVSTORE_LEASE_TTL", value_name = "SECONDS", default_value = "5", value_parser = lease_ttl)]
    pub lease_ttl: Duration,

    /// How long requests in work may take to end after SIGTERM or SIGINT
    #[arg(long, env = "MVSTORE_SHUTDOWN_TIMEOUT", value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub shutdown_timeout: Duration,
}

/// What the original's server is told, by the names it knows.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "As in the original")]
pub struct Original {
    /// Makes a namespace when a client of protocol v1 asks for one that does not exist
    #[arg(long, env = "MVSTORE_AUTO_CREATE_NAMESPACE", value_parser = BoolishValueParser::new())]
    pub auto_create_namespace: bool,

    /// Compresses pages for clients of protocol v1 that take that
    #[arg(long, env = "MVSTORE_WIRE_ZSTD", value_parser = BoolishValueParser::new())]
    pub wire_zstd: bool,

    /// Serves reads only, and no admin API
    #[arg(long, env = "MVSTORE_READ_ONLY", value_parser = BoolishValueParser::new())]
    pub read_only: bool,

    /// The replica's name in FoundationDB's disaster recovery. Taken and not needed
    #[arg(long, env = "MVSTORE_DR_TAG", value_name = "TAG", hide = true)]
    pub dr_tag: Option<String>,

    /// The page cache in pages of 8 KiB
    #[arg(
        long,
        env = "MVSTORE_CONTENT_CACHE_SIZE",
        value_name = "PAGES",
        conflicts_with = "page_cache_bytes",
        hide = true
    )]
    pub content_cache_size: Option<u64>,

    /// Refuses to truncate history younger than this; 0 allows it
    #[arg(
        long,
        env = "MVSTORE_TRUNCATE_MIN_AGE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 0
    )]
    pub truncate_min_age_seconds: u64,

    /// How long a page that was uploaded by protocol v1 waits for its commit
    #[arg(
        long,
        env = "MVSTORE_KNOB_GC_FRESH_PAGE_TTL_SECS",
        value_name = "SECONDS",
        default_value_t = 3600
    )]
    pub knob_gc_fresh_page_ttl_secs: u64,

    /// Keys that truncation and rollback look at in one transaction
    #[arg(long, env = "MVSTORE_KNOB_GC_SCAN_BATCH_SIZE", value_name = "KEYS", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub knob_gc_scan_batch_size: u32,

    /// A commit of protocol v1 with as many pages conflicts with any other commit of the namespace
    #[arg(
        long,
        env = "MVSTORE_KNOB_COMMIT_MULTI_PHASE_THRESHOLD",
        value_name = "PAGES",
        default_value_t = 1000
    )]
    pub knob_commit_multi_phase_threshold: u32,

    /// So does one with a longer read set
    #[arg(
        long,
        env = "MVSTORE_KNOB_PLCC_READ_SET_SIZE_THRESHOLD",
        value_name = "PAGES",
        default_value_t = 2000
    )]
    pub knob_plcc_read_set_size_threshold: u32,

    /// Keys that the rollback of a namespace lock looks at in one transaction
    #[arg(long, env = "MVSTORE_KNOB_NSLOCK_ROLLBACK_SCAN_BATCH_SIZE", value_name = "KEYS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub knob_nslock_rollback_scan_batch_size: u32,
}

/// A command line that is not served.
#[derive(Debug, PartialEq, Eq)]
pub enum UsageError {
    /// Help or the version was asked for: text for stdout.
    Asked(String),
    /// Something is wrong with it: one line that says what, and what to do.
    Wrong(String),
}

impl Config {
    /// Reads a command line, its first word being the program's name, and the environment.
    ///
    /// # Errors
    /// If they are not what the flags take, or if help was asked for.
    pub fn read<I, T>(words: I) -> Result<Self, UsageError>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let usage = |error| usage(error, "mvstore --help");
        let command = without_empty_variables(Self::command());
        let matches = command.try_get_matches_from(words).map_err(usage)?;
        let config = Self::from_arg_matches(&matches).map_err(usage)?;
        config.check()?;
        Ok(config)
    }

    /// What the flags cannot check one by one.
    fn check(&self) -> Result<(), UsageError> {
        let wrong = |line: String| Err(UsageError::Wrong(line));
        let listeners = [
            ("--data-plane", self.data_plane),
            ("--admin-api", self.admin_api),
        ];
        for (flag, address) in listeners {
            if !address.ip().is_loopback() && !self.allow_open_access {
                return wrong(format!(
                    "{flag} {address} can be reached from other machines, and there are no tokens yet: \
                     give a loopback address such as 127.0.0.1:{port}, or --allow-open-access if everybody \
                     who reaches it may read, write and delete everything",
                    port = address.port(),
                ));
            }
        }
        Ok(())
    }

    /// Most memory for pages that were read lately, in bytes.
    fn page_cache_bytes(&self) -> u64 {
        let pages = self.original.content_cache_size;
        pages.map_or(self.storage.page_cache_bytes, |pages| {
            pages.saturating_mul(ORIGINAL_PAGE_BYTES)
        })
    }

    /// How the store is opened.
    pub fn store_options(&self) -> StoreOptions {
        let Storage {
            metadata_prefix,
            raw_data_prefix,
            ..
        } = &self.storage;
        StoreOptions {
            lease_ttl: self.limits.lease_ttl,
            page_cache_bytes: self.page_cache_bytes(),
            fresh_page_ttl: Duration::from_secs(self.original.knob_gc_fresh_page_ttl_secs),
            knobs: self.knobs.thresholds(),
            ..StoreOptions::new(metadata_prefix, raw_data_prefix)
        }
    }

    /// Whether a listener can be reached from other machines.
    pub fn is_open(&self) -> bool {
        !self.data_plane.ip().is_loopback() || !self.admin_api.ip().is_loopback()
    }
}

/// Flags without the environment variables that are set but empty.
pub(crate) fn without_empty_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let empty = arg
            .get_env()
            .and_then(std::env::var_os)
            .is_some_and(|value| value.is_empty());
        if empty { arg.env(None::<&str>) } else { arg }
    })
}

/// What is wrong with a command line, in a line that names the way to its help.
pub(crate) fn usage(error: clap::Error, help: &str) -> UsageError {
    let text = error.render().to_string();
    if !error.use_stderr() {
        return UsageError::Asked(text);
    }
    // The first paragraph is the error, the following ones are tips, then comes the usage, which
    // `--help` has.
    let line = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    UsageError::Wrong(format!("{line} (see '{help}')"))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:7000 or [::1]:7000".into()
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let duration = text.parse().ok().and_then(|seconds| {
        (seconds > 0.0 && seconds <= 86_400.0).then(|| Duration::from_secs_f64(seconds))
    });
    duration.ok_or_else(|| "expected seconds above 0 and up to 86400, such as 30 or 0.5".into())
}

/// Above this a dead writer would keep the others waiting for longer than programs wait.
fn lease_ttl(text: &str) -> Result<Duration, String> {
    let duration = seconds(text).ok();
    let allowed = Duration::from_millis(50)..=Duration::from_secs(600);
    duration
        .filter(|duration| allowed.contains(duration))
        .ok_or_else(|| "expected seconds from 0.05 to 600, such as 5".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Config, UsageError> {
        Config::read(std::iter::once(&"mvstore").chain(words))
    }

    fn wrong(words: &[&str]) -> String {
        match read(words) {
            Err(UsageError::Wrong(line)) => line,
            other => panic!("{words:?} gave {other:?}"),
        }
    }

    #[test]
    fn the_flags_are_well_formed() {
        Config::command().debug_assert();
    }

    #[test]
    fn the_original_command_line_is_taken_word_for_word() {
        let config = read(&[
            "--data-plane",
            "127.0.0.1:7000",
            "--admin-api",
            "127.0.0.1:7001",
            "--metadata-prefix",
            "mvstore-test",
            "--raw-data-prefix",
            "m",
        ])
        .unwrap();
        assert_eq!(config.data_plane.to_string(), "127.0.0.1:7000");
        assert_eq!(config.admin_api.to_string(), "127.0.0.1:7001");
        assert_eq!(config.storage.metadata_prefix, "mvstore-test");
        assert_eq!(config.storage.raw_data_prefix, "m");
    }

    #[test]
    fn the_originals_options_keep_their_names_and_defaults() {
        let plain = read(&[]).unwrap().original;
        assert_eq!(plain.knob_gc_fresh_page_ttl_secs, 3600);
        assert_eq!(plain.knob_commit_multi_phase_threshold, 1000);
        assert_eq!(plain.knob_plcc_read_set_size_threshold, 2000);
        assert!(!plain.auto_create_namespace && !plain.wire_zstd && !plain.read_only);
        let words = "--auto-create-namespace --wire-zstd --read-only --dr-tag default \
            --content-cache-size 5000 --truncate-min-age-seconds 60 --json \
            --knob-gc-fresh-page-ttl-secs 0 --knob-gc-scan-batch-size 50 \
            --knob-commit-multi-phase-threshold 0 --knob-plcc-read-set-size-threshold 10 \
            --knob-nslock-rollback-scan-batch-size 10";
        let words: Vec<&str> = words.split_whitespace().collect();
        let told = read(&words).unwrap().original;
        assert!(told.auto_create_namespace && told.wire_zstd && told.read_only);
        assert_eq!(told.knob_gc_fresh_page_ttl_secs, 0);
        assert_eq!(told.knob_gc_scan_batch_size, 50);
        assert_eq!(told.truncate_min_age_seconds, 60);
    }

    #[test]
    fn the_page_cache_is_given_in_bytes_or_as_the_original_does_in_pages() {
        let bytes = |words: &[&str]| read(words).unwrap().page_cache_bytes();
        assert_eq!(bytes(&[]), 64 << 20);
        assert_eq!(bytes(&["--page-cache-bytes", "0"]), 0);
        assert_eq!(bytes(&["--content-cache-size", "100"]), 819_200);
        let both = ["--content-cache-size", "1", "--page-cache-bytes", "1"];
        assert!(wrong(&both).contains("--content-cache-size"));
    }

    #[test]
    fn an_address_that_others_reach_needs_the_flag_that_says_so() {
        let line = wrong(&["--data-plane", "0.0.0.0:7000"]);
        assert!(line.starts_with("--data-plane 0.0.0.0:7000 can be reached from other machines"));
        assert!(line.contains("--allow-open-access"), "{line}");
        wrong(&["--admin-api", "[::]:7001"]);
        wrong(&["--admin-api", "192.0.2.7:7001"]);
        let config = read(&["--data-plane", "0.0.0.0:7000", "--allow-open-access"]).unwrap();
        assert!(config.is_open());
        assert!(!read(&["--data-plane", "[::1]:7000"]).unwrap().is_open());
    }

    #[test]
    fn what_is_wrong_with_a_command_line_fits_on_one_line() {
        let cases: [(&[&str], &str); 4] = [
            (
                &["--data-plane", "nowhere"],
                "invalid value 'nowhere' for '--data-plane <IP:PORT>': expected an IP address and a port, such as 127.0.0.1:7000 or [::1]:7000 (see 'mvstore --help')",
            ),
            (
                &["--idle-timeout", "0"],
                "invalid value '0' for '--idle-timeout <SECONDS>': expected seconds above 0 and up to 86400, such as 30 or 0.5 (see 'mvstore --help')",
            ),
            (
                &["--jason"],
                "unexpected argument '--jason' found; tip: a similar argument exists: '--json' (see 'mvstore --help')",
            ),
            (
                &["--max-requests", "0"],
                "invalid value '0' for '--max-requests <N>': 0 is not in 1..=1000000 (see 'mvstore --help')",
            ),
        ];
        for (words, line) in cases {
            assert_eq!(wrong(words), line);
        }
    }

    #[test]
    fn help_is_asked_for_and_not_an_error() {
        let Err(UsageError::Asked(help)) = read(&["--help"]) else {
            panic!("--help is not served");
        };
        for word in ["--data-dir", "FDB_CLUSTER_FILE", "127.0.0.1:7001"] {
            assert!(help.contains(word), "{word} is not in\n{help}");
        }
    }
}
