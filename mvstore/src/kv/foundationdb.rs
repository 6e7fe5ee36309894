//! The FoundationDB engine: the contract over a FoundationDB cluster, for any number of servers.
//!
//! | module | what |
//! |---|---|
//! | `transaction` | reads, writes and commits |
//! | `read_version` | the read version that transactions share |
//! | `settle` | finding out that a commit whose outcome is lost does not happen any more |
//! | `error` | FoundationDB's error codes, as the contract's errors |
//!
//! Invariants:
//! - What a transaction writes, and which ranges it conflicts over, is gathered and checked against
//!   the limits on this side ([`Draft`]) and handed to FoundationDB as a whole at commit. FoundationDB
//!   itself is only asked for snapshot reads, with read-your-writes disabled. So a transaction that
//!   breaks a rule is refused with the contract's words before anything is sent.
//! - Every question to the cluster ends within [`FoundationDbOptions::timeout`].
//! - A read version is only ever one that the cluster gave, or the version of a commit it made.
//!
//! Locks: one, around the shared read version, never held across an await.
//!
//! What it deliberately does not do: retry. Only the store knows what may be done again.

mod error;
mod read_version;
mod settle;
mod transaction;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mvstore_fdb_client::foundationdb::options::{DatabaseOption, TransactionOption};
use mvstore_fdb_client::foundationdb::{self as fdb, Database, FdbError};
use mvstore_fdb_client::{Client, LibrarySearch, StartError};

use mvsqlite_protocol::ReadVersion;

use super::clock::{Clock, EngineTime, MonotonicClock};
use super::request::Draft;
use super::{Engine, Freshness, KvError, Limits};
use error::Cluster;
use read_version::SharedReadVersion;
use transaction::FoundationDbTransaction;

/// How the engine runs.
#[derive(Debug, Clone)]
pub struct FoundationDbOptions {
    /// Where the client library is looked for.
    pub library: LibrarySearch,
    /// The longest time that a transaction's questions to the cluster, its commit among them, may
    /// take together. Longer than [`Limits::transaction_age`], or commits are cut off that the
    /// cluster would have taken.
    pub timeout: Duration,
    /// How long to try to make sure that a commit whose outcome is lost does not happen any more.
    pub settle_timeout: Duration,
    /// Measures the age of transactions and of the shared read version.
    pub clock: Arc<dyn Clock>,
}

impl Default for FoundationDbOptions {
    fn default() -> Self {
        Self {
            library: LibrarySearch::from_env(),
            timeout: Duration::from_secs(10),
            settle_timeout: Duration::from_secs(5),
            clock: Arc::new(MonotonicClock::default()),
        }
    }
}

/// Why the engine cannot be opened. Says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The client library or the cluster file cannot be used.
    #[error(transparent)]
    Client(#[from] StartError),
    /// The client library refused a setting.
    #[error("FoundationDB's client library refused its timeout: {reason}")]
    Setting {
        /// What it said.
        reason: String,
    },
}

/// Opens the engine on the cluster that a cluster file names, with the client library that
/// [`LibrarySearch::from_env`] finds.
///
/// The cluster is not asked for anything: whether it can be reached is what [`Engine::check`] says.
/// The first call of the process starts FoundationDB's network thread, which ends when the process
/// exits.
///
/// # Errors
///
/// No usable client library or cluster file.
pub fn open(cluster_file: &Path) -> Result<Arc<dyn Engine>, OpenError> {
    open_with(cluster_file, FoundationDbOptions::default())
}

/// As [`open`], with options.
///
/// # Errors
///
/// As [`open`].
pub fn open_with(
    cluster_file: &Path,
    options: FoundationDbOptions,
) -> Result<Arc<dyn Engine>, OpenError> {
    let client = Client::start(&options.library)?;
    let database = client.connect(cluster_file)?;
    database
        .set_option(DatabaseOption::TransactionTimeout(milliseconds(
            options.timeout,
        )))
        .map_err(|error| OpenError::Setting {
            reason: error.message().to_owned(),
        })?;
    let description = format!(
        "FoundationDB, cluster file {}, client library {}",
        cluster_file.display(),
        client.library().display()
    );
    Ok(Arc::new(FoundationDb(Arc::new(Shared {
        database,
        cluster: Cluster::new(cluster_file),
        read_version: SharedReadVersion::default(),
        options,
        description,
    }))))
}

struct FoundationDb(Arc<Shared>);

/// What the engine's transactions share.
struct Shared {
    database: Database,
    cluster: Cluster,
    read_version: SharedReadVersion,
    options: FoundationDbOptions,
    description: String,
}

impl Shared {
    /// A transaction of FoundationDB's, as this engine uses them.
    fn client_transaction(&self) -> Result<fdb::Transaction, FdbError> {
        let transaction = self.database.create_trx()?;
        transaction.set_option(TransactionOption::ReadYourWritesDisable)?;
        Ok(transaction)
    }

    fn now(&self) -> Duration {
        self.options.clock.now()
    }
}

#[async_trait]
impl Engine for FoundationDb {
    fn begin(&self, freshness: Freshness) -> Box<dyn super::Transaction> {
        let draft = Draft::new(self.limits());
        Box::new(FoundationDbTransaction::new(
            self.0.clone(),
            freshness,
            draft,
        ))
    }

    fn limits(&self) -> Limits {
        Limits::FOUNDATIONDB
    }

    fn describe(&self) -> String {
        self.0.description.clone()
    }

    async fn check(&self) -> Result<(), KvError> {
        settle::commit_nothing(&self.0, &settle::token()?).await
    }

    /// The cluster estimates sizes of key ranges, but the engine does not know which are the
    /// store's, and others may use the cluster.
    fn physical_bytes(&self) -> Option<u64> {
        None
    }

    /// A cluster gives out about a million versions a second, whatever happens in it.
    fn time(&self, read_version: ReadVersion) -> EngineTime {
        EngineTime {
            run: 0,
            micros: read_version.0,
        }
    }
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
