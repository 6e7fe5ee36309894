//! `make demo`, less the building: the tour without a terminal, a shell with one, and nothing left
//! behind however it ends.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use mvsqlite_e2e::{Finished, Running, mvstore, preload_library, repository, until};

/// A directory that the demo takes for /tmp.
struct Setting(tempfile::TempDir);

impl Setting {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn start(&self, program: &str, arguments: &[&str], input: &str) -> Running {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(repository())
            .env("MVSTORE", mvstore())
            .env("MVSQLITE_PRELOAD", preload_library())
            .env("TMPDIR", self.0.path());
        Running::start("the demo", command, input, Duration::from_secs(120))
    }

    /// Checks that no file and no server is left.
    fn is_clean(&self, finished: &Finished) {
        let left: Vec<_> = fs::read_dir(self.0.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let said = finished.said();
        let from = said.find("127.0.0.1:").expect("the demo names its store");
        let address: String = said[from..]
            .chars()
            .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':'))
            .collect();
        assert!(
            TcpStream::connect(&address).is_err(),
            "{address} still serves"
        );
    }
}

#[test]
fn without_a_terminal_the_demo_is_a_tour() {
    let setting = Setting::new();
    let tour = setting.start("scripts/demo.sh", &[], "").finish();
    println!("{}", tour.ok());
    tour.says(&[
        "1. A database",
        "2. Two writers",
        "3. A conflict",
        "4. An earlier version",
    ]);
    assert_eq!(tour.stderr, "");
    setting.is_clean(&tour);
}

#[test]
fn on_a_terminal_the_demo_is_a_shell() {
    let setting = Setting::new();
    let input = "CREATE TABLE t (x);\nINSERT INTO t VALUES (6 * 7);\nSELECT x FROM t;\n.quit\n";
    let script = ["-qec", "scripts/demo.sh", "/dev/null"];
    let shell = setting.start("script", &script, input).finish();
    shell.says(&["mv_last_known_version", "demo@<version>", "42"]);
    assert!(shell.status.success(), "{shell}");
    setting.is_clean(&shell);
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let setting = Setting::new();
        let demo = setting.start("scripts/demo.sh", &[], "");
        // It has got as far as making its directory, and is starting its store.
        until("the demo to begin", Duration::from_secs(10), || {
            fs::read_dir(setting.0.path()).unwrap().next().map(|_| ())
        });
        demo.signal(signal);
        let ended = demo.finish();
        println!("{signal}: {}", ended.status);
        until("everything to be gone", Duration::from_secs(10), || {
            fs::read_dir(setting.0.path())
                .unwrap()
                .next()
                .is_none()
                .then_some(())
        });
    }
}
