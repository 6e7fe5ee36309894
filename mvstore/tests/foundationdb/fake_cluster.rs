//! A cluster of the stand-in (`mvstore/fdb-client/fake`), and the commands that make it misbehave.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use mvstore::kv::Engine;
use mvstore::kv::clock::ManualClock;
use mvstore::kv::foundationdb::{FoundationDbOptions, open_with};
use mvstore_fdb_client::foundationdb::Database;
use mvstore_fdb_client::{Client, LibrarySearch};
use tempfile::TempDir;

/// What becomes of a commit whose reply is an error.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// It never happens.
    Lost,
    /// It has happened.
    Applied,
    /// It happens right after another transaction has committed.
    InFlight,
}

pub(crate) struct FakeCluster {
    library: LibrarySearch,
    control: Database,
    file: PathBuf,
    pub(crate) clock: Arc<ManualClock>,
    /// Kept until the cluster is dropped.
    _directories: [TempDir; 2],
}

impl FakeCluster {
    pub(crate) fn new() -> Self {
        let home = crate::fake_home::fake_home();
        let library = LibrarySearch::only_in(home.path());
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let file = directory.path().join("fdb.cluster");
        fs::write(&file, "fake:fake@127.0.0.1:4500").expect("a file can be written there");
        let control = Client::start(&library)
            .and_then(|client| client.connect(&file))
            .expect("the stand-in starts");
        Self {
            library,
            control,
            file,
            clock: Arc::default(),
            _directories: [home, directory],
        }
    }

    /// An engine on this cluster whose clock stands still.
    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        let options = FoundationDbOptions {
            library: self.library.clone(),
            clock: self.clock.clone(),
            ..FoundationDbOptions::default()
        };
        open_with(&self.file, options).expect("the stand-in can be opened")
    }

    /// The reply to the next commit is this error.
    pub(crate) async fn fail_commit(&self, code: i32, fate: Fate) {
        let fate = match fate {
            Fate::Lost => "lost",
            Fate::Applied => "applied",
            Fate::InFlight => "in-flight",
        };
        self.command("commit", &format!("{code} {fate}")).await;
    }

    /// The reply to the next read or question for a read version is this error.
    pub(crate) async fn fail_read(&self, code: i32) {
        self.command("read", &code.to_string()).await;
    }

    /// Nothing is answered until the cluster is back; timeouts are over at once.
    pub(crate) async fn set_away(&self, away: bool) {
        self.command("away", if away { "1" } else { "0" }).await;
    }

    /// Lets so many of the cluster's versions pass, a million of which make a second.
    pub(crate) async fn skip_versions(&self, versions: u64) {
        self.command("skip", &versions.to_string()).await;
    }

    async fn command(&self, name: &str, value: &str) {
        let transaction = self.control.create_trx().expect("the stand-in runs");
        let key = [b"\xff\xff/fake/", name.as_bytes()].concat();
        transaction.set(&key, value.as_bytes());
        transaction.commit().await.expect("commands always succeed");
    }
}
