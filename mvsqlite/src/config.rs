//! What the environment variables say.
//!
//! Names and meanings are those of the original's client where it has them.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod location;
mod token;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use mvsqlite_protocol::DatabaseName;
use mvsqlite_protocol::name::NameError;
use mvsqlite_protocol::page::{MAX_PAGE_SIZE, MIN_PAGE_SIZE};

pub use location::LocateError;
pub(crate) use location::Location;
pub use token::{Secret, Token};

use location::split_url;
use token::token;

/// A day, in milliseconds.
pub(crate) const MOST_STALENESS: u64 = 86_400_000;
/// No limit: more than SQLite can address.
const MOST_TRANSACTION_BYTES: u64 = 1 << 50;

/// Where a server of the data plane listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Server {
    /// `http://host:port`
    Tcp {
        /// Host name or address; an IPv6 address in brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `unix:/path`
    Unix(PathBuf),
}

/// How this process uses mvSQLite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `MVSQLITE_DATA_PLANE`: `http://host:port` or `unix:/path`, several separated by commas.
    pub servers: Vec<Server>,
    /// `MVSQLITE_DB_NAME_MAP`: `/data/app.db=orders,b=c`: what a program opens, and what is opened
    /// instead.
    pub name_map: BTreeMap<String, String>,
    /// `MVSQLITE_ONLY_MAPPED`: names that are not in the map are ordinary files.
    pub only_mapped: bool,
    /// `MVSQLITE_HTTP_TIMEOUT_SECS`: the longest that one attempt may take. A request with its
    /// repetitions takes at most twice as long, a commit whose outcome has to be settled at most
    /// four times.
    pub timeout: Duration,
    /// `MVSQLITE_SECTOR_SIZE`: the page size of new databases, in bytes.
    pub page_size: u32,
    /// The budget of the page cache that the databases of this process share, in bytes:
    /// `MVSQLITE_PAGE_CACHE_SIZE` pages of [`Config::page_size`].
    pub cache_bytes: u64,
    /// `MVSQLITE_PREFETCH_DEPTH`: most pages that are fetched on one guess at what is read next; 0
    /// is none, and `None` (unset) is as many as pay.
    pub prefetch_depth: Option<u32>,
    /// `MVSQLITE_DISK_CACHE`: the directory where pages are kept over restarts, if any.
    pub disk_cache: Option<PathBuf>,
    /// `MVSQLITE_DISK_CACHE_BYTES`: most bytes in that directory.
    pub disk_cache_bytes: u64,
    /// `MVSQLITE_TRANSACTION_BYTES`: the most page content that one transaction may write.
    pub transaction_bytes: u64,
    /// `MVSQLITE_UPLOAD_BYTES`: the most page content that one transaction keeps in memory. Well
    /// before that the pages that have not been written for the longest time are uploaded.
    pub upload_bytes: u64,
    /// `MVSQLITE_JOURNAL_BYTES`: how much of a transaction's rollback journal is kept in memory; the
    /// rest goes to a temporary file.
    pub journal_bytes: u64,
    /// `MVSQLITE_CONCURRENCY=exclusive`: writers take the write lease on every namespace, not only on
    /// those in exclusive mode.
    pub exclusive: bool,
    /// `MVSQLITE_READ_STALENESS_MS`: a transaction may begin at a snapshot that this process took at
    /// most so long ago; zero for always the newest.
    pub read_staleness: Duration,
    /// `MVSQLITE_TOKEN` or `MVSQLITE_TOKEN_FILE`: what servers are shown with every request.
    pub token: Option<Token>,
    /// `MVSQLITE_LOCK_OWNER`: in whose name databases are opened that the lock functions have locked.
    pub lock_owner: Option<String>,
}

/// An environment variable that says nothing sensible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    /// Which variable.
    pub variable: &'static str,
    /// What is wrong, and what is expected.
    pub problem: String,
}

impl Default for Config {
    /// No server; everything else as if no variable were set.
    fn default() -> Self {
        let page_size = 8192;
        Self {
            servers: Vec::new(),
            name_map: BTreeMap::new(),
            only_mapped: false,
            timeout: Duration::from_secs(10),
            page_size,
            cache_bytes: 5000 * u64::from(page_size),
            prefetch_depth: None,
            disk_cache: None,
            disk_cache_bytes: 1 << 30,
            transaction_bytes: MOST_TRANSACTION_BYTES,
            upload_bytes: 32 << 20,
            journal_bytes: 4 << 20,
            exclusive: false,
            read_staleness: Duration::ZERO,
            token: None,
            lock_owner: None,
        }
    }
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// If a variable is malformed or `MVSQLITE_DATA_PLANE` is missing.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|variable| std::env::var(variable).ok())
    }

    /// As [`Config::from_env`], with the variables from elsewhere.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn from_variables(
        get: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let get = |variable| get(variable).filter(|value| !value.trim().is_empty());
        let mut config = Self {
            servers: servers(get("MVSQLITE_DATA_PLANE"))?,
            only_mapped: flag("MVSQLITE_ONLY_MAPPED", get("MVSQLITE_ONLY_MAPPED"))?,
            ..Self::default()
        };
        if let Some(map) = get("MVSQLITE_DB_NAME_MAP") {
            config.name_map = name_map(&map)?;
        }
        if let Some(seconds) = number("MVSQLITE_HTTP_TIMEOUT_SECS", get, 1, 86_400)? {
            config.timeout = Duration::from_secs(seconds);
        }
        config.page_size = page_size(get("MVSQLITE_SECTOR_SIZE"))?.unwrap_or(config.page_size);
        let pages = number("MVSQLITE_PAGE_CACHE_SIZE", get, 0, 1 << 32)?.unwrap_or(5000);
        config.cache_bytes = pages * u64::from(config.page_size);
        config.disk_cache = disk_cache(get("MVSQLITE_DISK_CACHE"))?;
        if let Some(bytes) = number("MVSQLITE_DISK_CACHE_BYTES", get, 1 << 16, 1 << 50)? {
            config.disk_cache_bytes = bytes;
        }
        let depth = number("MVSQLITE_PREFETCH_DEPTH", get, 0, u64::from(u32::MAX))?;
        config.prefetch_depth = depth.and_then(|depth| u32::try_from(depth).ok());
        if let Some(bytes) = number(
            "MVSQLITE_TRANSACTION_BYTES",
            get,
            1 << 16,
            MOST_TRANSACTION_BYTES,
        )? {
            config.transaction_bytes = bytes;
        }
        if let Some(bytes) = number("MVSQLITE_UPLOAD_BYTES", get, 1 << 16, 1 << 40)? {
            config.upload_bytes = bytes;
        }
        if let Some(bytes) = number("MVSQLITE_JOURNAL_BYTES", get, 1 << 16, 1 << 40)? {
            config.journal_bytes = bytes;
        }
        config.exclusive = exclusive(get("MVSQLITE_CONCURRENCY"))?;
        if let Some(millis) = number("MVSQLITE_READ_STALENESS_MS", get, 0, MOST_STALENESS)? {
            config.read_staleness = Duration::from_millis(millis);
        }
        config.token = token(get("MVSQLITE_TOKEN"), get("MVSQLITE_TOKEN_FILE"))?;
        config.lock_owner = lock_owner(get("MVSQLITE_LOCK_OWNER"))?;
        Ok(config)
    }

    /// Which database a program means by a file name.
    ///
    /// `None`: none of ours but an ordinary file, a temporary or an in-memory database. A name in
    /// the map stands for what it is mapped to, whether given as it is there or as another
    /// spelling of the same absolute path. With [`Config::only_mapped`] nothing else is ours,
    /// without it everything is.
    pub fn target(&self, name: &str) -> Option<Result<DatabaseName, NameError>> {
        let target = self.meant(name)?;
        Some(split_url(target).1.parse())
    }

    /// Whether a program means a database of ours by a file name.
    pub fn takes(&self, name: &str) -> bool {
        self.meant(name).is_some()
    }

    /// What the map makes of a name; `None` if it is none of ours.
    fn meant<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if name.is_empty() || name == ":memory:" {
            return None;
        }
        match self.mapped(name) {
            Some(target) => Some(target),
            None if self.only_mapped => None,
            None => Some(name),
        }
    }

    /// As [`Config::target`], with the server whose URL the name begins with.
    pub(crate) fn locate(&self, name: &str) -> Option<Result<Location, LocateError>> {
        let (url, name) = split_url(self.meant(name)?);
        Some(match (url.map(server).transpose(), name.parse()) {
            (Err(error), _) => Err(LocateError::Server(error.problem)),
            (_, Err(error)) => Err(LocateError::Name(error)),
            (Ok(server), Ok(name)) => Ok(Location { server, name }),
        })
    }

    fn mapped(&self, name: &str) -> Option<&str> {
        let map = &self.name_map;
        if let Some(target) = map.get(name) {
            return Some(target);
        }
        if map.is_empty() {
            return None;
        }
        let path = absolute(name)?;
        let same = |(from, _): &(&String, &String)| Path::new(from) == path;
        map.iter().find(same).map(|(_, target)| target.as_str())
    }
}

/// The absolute path of a name by its text alone: links are not followed.
fn absolute(name: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in std::path::absolute(name).ok()?.components() {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            component => path.push(component),
        }
    }
    Some(path)
}

fn bad<T>(variable: &'static str, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError {
        variable,
        problem: problem.into(),
    })
}

fn servers(value: Option<String>) -> Result<Vec<Server>, ConfigError> {
    const VARIABLE: &str = "MVSQLITE_DATA_PLANE";
    let Some(value) = value else {
        return bad(
            VARIABLE,
            "not set; set it to the data plane of mvstore, such as http://127.0.0.1:7000",
        );
    };
    let entries = value.split(',').map(str::trim).filter(|e| !e.is_empty());
    let servers: Vec<Server> = entries.map(server).collect::<Result<_, _>>()?;
    if servers.is_empty() {
        return bad(VARIABLE, format!("'{value}' names no server"));
    }
    Ok(servers)
}

fn server(entry: &str) -> Result<Server, ConfigError> {
    const VARIABLE: &str = "MVSQLITE_DATA_PLANE";
    if let Some(path) = entry.strip_prefix("unix:") {
        return match path.starts_with('/') {
            true => Ok(Server::Unix(path.into())),
            false => bad(VARIABLE, format!("'{entry}': the path must begin with '/'")),
        };
    }
    if entry.starts_with("https://") {
        let problem = "TLS is not supported yet; let a proxy beside the program do it, and name that as http:// or unix:/path";
        return bad(VARIABLE, format!("'{entry}': {problem}"));
    }
    let expected = "expected http://host:port or unix:/path";
    let Some(rest) = entry.strip_prefix("http://") else {
        return bad(VARIABLE, format!("'{entry}': {expected}"));
    };
    let authority = rest.trim_end_matches('/');
    // A colon inside the brackets of an IPv6 address is not that of a port.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (host, port),
            Err(_) => return bad(VARIABLE, format!("'{entry}': '{port}' is not a port")),
        },
        _ => (authority, 80),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._:[]%".contains(c);
    if host.is_empty() || !host.chars().all(legal) {
        return bad(VARIABLE, format!("'{entry}': {expected}"));
    }
    Ok(Server::Tcp {
        host: host.to_owned(),
        port,
    })
}

fn name_map(value: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    const VARIABLE: &str = "MVSQLITE_DB_NAME_MAP";
    let entries = value.split(',').map(str::trim).filter(|e| !e.is_empty());
    entries
        .map(|entry| match entry.split_once('=') {
            Some((from, to)) if !from.is_empty() && !to.is_empty() => {
                Ok((from.to_owned(), to.to_owned()))
            }
            _ => bad(VARIABLE, format!("'{entry}': expected file=namespace")),
        })
        .collect()
}

fn flag(variable: &'static str, value: Option<String>) -> Result<bool, ConfigError> {
    match value.as_deref().map(str::trim) {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(other) => bad(variable, format!("'{other}': expected 1 or 0")),
    }
}

/// The program may change its working directory at any time: only an absolute path stays the same.
fn disk_cache(value: Option<String>) -> Result<Option<PathBuf>, ConfigError> {
    match value.map(PathBuf::from) {
        Some(path) if !path.is_absolute() => bad(
            "MVSQLITE_DISK_CACHE",
            format!("'{}': expected an absolute path", path.display()),
        ),
        path => Ok(path),
    }
}

fn number(
    variable: &'static str,
    get: impl Fn(&'static str) -> Option<String>,
    min: u64,
    max: u64,
) -> Result<Option<u64>, ConfigError> {
    let Some(value) = get(variable) else {
        return Ok(None);
    };
    match value.trim().parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
        _ => bad(
            variable,
            format!("'{value}': expected a number from {min} to {max}"),
        ),
    }
}

fn page_size(value: Option<String>) -> Result<Option<u32>, ConfigError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let valid =
        |size: &u32| size.is_power_of_two() && (MIN_PAGE_SIZE..=MAX_PAGE_SIZE).contains(size);
    match value.trim().parse().ok().filter(valid) {
        Some(size) => Ok(Some(size)),
        None => bad(
            "MVSQLITE_SECTOR_SIZE",
            format!("'{value}': expected a power of two from {MIN_PAGE_SIZE} to {MAX_PAGE_SIZE}"),
        ),
    }
}

/// Owners travel in a header.
fn lock_owner(value: Option<String>) -> Result<Option<String>, ConfigError> {
    match value {
        Some(owner) if !is_lock_owner(&owner) => bad(
            "MVSQLITE_LOCK_OWNER",
            format!("'{owner}': expected 1 to 256 visible ASCII characters"),
        ),
        owner => Ok(owner),
    }
}

/// Whether a text can be the owner of a namespace's lock.
pub(crate) fn is_lock_owner(owner: &str) -> bool {
    let visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    (1..=256).contains(&owner.len()) && owner.bytes().all(visible)
}

/// Which way of keeping writers apart is asked for.
fn exclusive(value: Option<String>) -> Result<bool, ConfigError> {
    const VARIABLE: &str = "MVSQLITE_CONCURRENCY";
    match value.as_deref().map(str::trim) {
        None | Some("optimistic") => Ok(false),
        Some("exclusive") => Ok(true),
        Some(other) => bad(
            VARIABLE,
            format!("'{other}': expected optimistic or exclusive"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
        let all: BTreeMap<_, _> = variables.iter().copied().collect();
        Config::from_variables(|variable| all.get(variable).map(|value| (*value).to_owned()))
    }

    #[test]
    fn the_data_plane_may_be_several_servers_of_either_kind() {
        let value = "http://localhost:7000/, unix:/run/mv.sock,http://[::1]:80,http://db";
        let config = parse(&[("MVSQLITE_DATA_PLANE", value)]).unwrap();
        let tcp = |host: &str, port| Server::Tcp {
            host: host.to_owned(),
            port,
        };
        let expected = [
            tcp("localhost", 7000),
            Server::Unix("/run/mv.sock".into()),
            tcp("[::1]", 80),
            tcp("db", 80),
        ];
        assert_eq!(config.servers, expected);
        assert_eq!(config.timeout, Duration::from_secs(10));
        assert_eq!(config.cache_bytes, 5000 * 8192);
    }

    #[test]
    fn a_map_and_its_flag_are_read() {
        let config = parse(&[
            ("MVSQLITE_DATA_PLANE", "http://x:1"),
            ("MVSQLITE_DB_NAME_MAP", " /data/app.db=orders , a=b@latest,"),
            ("MVSQLITE_ONLY_MAPPED", "1"),
            ("MVSQLITE_PAGE_CACHE_SIZE", "0"),
            ("MVSQLITE_SECTOR_SIZE", "4096"),
        ])
        .unwrap();
        assert_eq!(config.name_map["/data/app.db"], "orders");
        assert_eq!(config.name_map["a"], "b@latest");
        assert!(config.only_mapped);
        assert_eq!((config.cache_bytes, config.page_size), (0, 4096));
    }

    #[test]
    fn malformed_variables_are_refused_with_what_is_expected() {
        let cases = [
            ("MVSQLITE_DATA_PLANE", " ", "not set"),
            ("MVSQLITE_DATA_PLANE", "https://x", "TLS is not supported"),
            ("MVSQLITE_DATA_PLANE", "x:7000", "expected http://"),
            ("MVSQLITE_DATA_PLANE", "http://x:y", "'y' is not a port"),
            ("MVSQLITE_DATA_PLANE", "http://a b:1", "expected http://"),
            ("MVSQLITE_DATA_PLANE", "unix:sock", "must begin with '/'"),
            ("MVSQLITE_DB_NAME_MAP", "a", "expected file=namespace"),
            ("MVSQLITE_ONLY_MAPPED", "yes", "expected 1 or 0"),
            ("MVSQLITE_HTTP_TIMEOUT_SECS", "0", "from 1 to"),
            ("MVSQLITE_SECTOR_SIZE", "65536", "power of two"),
            ("MVSQLITE_SECTOR_SIZE", "5000", "power of two"),
            ("MVSQLITE_CONCURRENCY", "serial", "or exclusive"),
            ("MVSQLITE_READ_STALENESS_MS", "soon", "from 0 to"),
            ("MVSQLITE_TOKEN", "two words", "visible ASCII"),
            ("MVSQLITE_LOCK_OWNER", "caf\u{e9}", "visible ASCII"),
        ];
        for (variable, value, message) in cases {
            let variables = [("MVSQLITE_DATA_PLANE", "http://x:1"), (variable, value)];
            let error = parse(&variables).expect_err(value);
            assert_eq!(error.variable, variable);
            assert!(error.problem.contains(message), "{error}");
        }
    }

    #[test]
    fn a_mapped_path_is_found_by_any_spelling_and_the_rest_by_the_flag() {
        let mut config = parse(&[
            ("MVSQLITE_DATA_PLANE", "http://x:1"),
            ("MVSQLITE_DB_NAME_MAP", "/data/app.db=orders,plain=a@b"),
        ])
        .unwrap();
        let key = |config: &Config, name: &str| {
            let target = config.target(name)?;
            Some(target.unwrap().namespace.as_str().to_owned())
        };
        let orders = Some("orders".to_owned());
        for name in ["/data/app.db", "/data/./x/../app.db", "//data//app.db"] {
            assert_eq!(key(&config, name), orders, "{name}");
        }
        assert_eq!(key(&config, "other.db").as_deref(), Some("other.db"));
        assert!(config.target("plain").unwrap().is_err());
        assert_eq!(key(&config, ":memory:"), None);
        assert_eq!(key(&config, ""), None);
        config.only_mapped = true;
        assert_eq!(key(&config, "other.db"), None);
        assert_eq!(key(&config, "/data/app.db"), orders);
    }
}
