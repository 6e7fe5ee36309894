//! The FoundationDB engine against the key-value contract on a cluster of its own, where
//! FoundationDB is installed (`fdbserver` and `fdbcli` in `PATH` or `FDB_HOME`, `libfdb_c.so`).
//! One test, because a process loads one client library.

#[path = "conformance/suite.rs"]
mod conformance;
#[path = "foundationdb/real_cluster.rs"]
mod real_cluster;

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use mvstore::kv::Engine;
use mvstore::kv::foundationdb::{OpenError, open};
use mvstore_fdb_client::StartError;
use real_cluster::RealCluster;

#[test]
fn the_foundationdb_engine_keeps_the_contract_on_a_real_cluster() {
    let Some(cluster) = RealCluster::start().expect("an installed FoundationDB starts") else {
        skipped("fdbserver and fdbcli are neither in PATH nor in FDB_HOME");
        return;
    };
    let engine = match open(&cluster.file) {
        Err(OpenError::Client(StartError::NotFound { .. })) => {
            skipped("fdbserver is there, but libfdb_c.so is not");
            return;
        }
        opened => opened.expect("the installed client library serves"),
    };
    wait_until_it_commits(engine.as_ref());
    conformance::check_engine(&engine, 50);
    conformance::check_too_old(&engine, || thread::sleep(Duration::from_secs(6)));
    conformance::check_reopened(
        |_| open(&cluster.file).expect("a second engine opens"),
        engine,
    );
}

/// Past the test harness, which shows what passing tests print to nobody.
fn skipped(why: &str) {
    let _ = writeln!(io::stderr(), "skipped the real FoundationDB cluster: {why}");
}

fn wait_until_it_commits(engine: &dyn Engine) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = conformance::block_on(engine.check()) {
        assert!(Instant::now() < deadline, "{error}");
    }
}
