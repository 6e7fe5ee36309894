//! The client over the stand-in: loader, jumps, network thread and futures.

#[path = "support/fake_home.rs"]
mod fake_home;

use std::fs;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use mvstore_fdb_client::{Client, LibrarySearch, StartError};
use tempfile::TempDir;

fn client() -> Client {
    let home = fake_home::fake_home();
    Client::start(&LibrarySearch::only_in(home.path())).expect("the stand-in starts")
}

fn cluster_file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("fdb.cluster");
    fs::write(&file, text).expect("a file can be written there");
    (directory, file)
}

/// Runs a future on this thread, which sleeps until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn what_one_transaction_commits_another_reads() {
    let (_directory, file) = cluster_file("test:test@127.0.0.1:4500");
    let database = client().connect(&file).unwrap();

    let writer = database.create_trx().unwrap();
    writer.set(b"key", b"value");
    let stamp = writer.get_versionstamp();
    block_on(writer.commit()).expect("nothing conflicts");
    let stamp = block_on(stamp).unwrap();
    assert_eq!(stamp.len(), 10);

    let reader = database.create_trx().unwrap();
    let version = block_on(reader.get_read_version()).unwrap();
    assert!(version.to_be_bytes().as_slice() >= &stamp[..8]);
}

#[test]
fn a_second_start_gives_the_client_that_runs_whichever_library_it_asks_for() {
    let running = client();
    let nowhere = tempfile::tempdir().unwrap();
    assert_eq!(
        Client::start(&LibrarySearch::only_in(nowhere.path())),
        Ok(running)
    );
}

#[test]
fn starts_at_the_same_time_start_one_network() {
    let clients = thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(clients.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(network_threads(), 1);
}

fn network_threads() -> usize {
    fs::read_dir("/proc/self/task")
        .expect("Linux lists a process's threads")
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim_end() == "fdb-network")
        .count()
}

#[test]
fn a_cluster_file_that_is_missing_or_empty_is_named() {
    let (directory, empty) = cluster_file(" \n");
    let missing = directory.path().join("missing");
    for file in [missing, empty] {
        let Err(StartError::ClusterFile { path, reason }) = client().connect(&file) else {
            panic!("{} was taken", file.display());
        };
        assert_eq!(path, file);
        assert!(!reason.is_empty());
    }
}
