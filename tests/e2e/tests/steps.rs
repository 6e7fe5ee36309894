//! The steps of the README, which are those of the original, as they are written there.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::process::Command;
use std::time::Duration;

use mvsqlite_e2e::{Finished, Running, free_port, is_free, mvstore, preload_library, until};

/// A directory to be in, and the ports: 7000 and 7001 as written, unless somebody has them.
struct Setting {
    directory: tempfile::TempDir,
    ports: (u16, u16),
}

impl Setting {
    fn new() -> Self {
        let as_written = is_free(7000) && is_free(7001);
        Self {
            directory: tempfile::tempdir().unwrap(),
            ports: match as_written {
                true => (7000, 7001),
                false => (free_port(), free_port()),
            },
        }
    }

    /// Starts a line of the README in a shell.
    fn start(&self, line: &str, input: &str) -> Running {
        let binaries = mvstore().parent().unwrap().to_owned();
        let line = line
            .replace("7000", &self.ports.0.to_string())
            .replace("7001", &self.ports.1.to_string())
            .replace(
                ".../libmvsqlite_preload.so",
                preload_library().to_str().unwrap(),
            );
        println!("$ {line}");
        let mut bash = Command::new("bash");
        bash.args(["-c", &line])
            .current_dir(self.directory.path())
            .env(
                "PATH",
                format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap()),
            );
        Running::start(&line, bash, input, Duration::from_secs(120))
    }

    fn run(&self, line: &str, input: &str) -> Finished {
        let finished = self.start(line, input).finish();
        println!("{}", finished.said());
        finished
    }
}

#[test]
fn the_originals_own_steps_work_word_for_word() {
    let setting = Setting::new();
    let store = setting.start(
        "exec mvstore --data-plane 127.0.0.1:7000 --admin-api 127.0.0.1:7001 --metadata-prefix mvstore-test --raw-data-prefix m",
        "",
    );
    until("mvstore to be ready", Duration::from_secs(30), || {
        let ready = setting
            .start("curl -s http://localhost:7001/readyz", "")
            .finish();
        ready.stdout.starts_with("ready").then_some(())
    });

    let created = setting.run(
        r#"curl http://localhost:7001/api/create_namespace -i -d '{"key":"test","metadata":""}'"#,
        "",
    );
    created.says(&["HTTP/1.1 201 Created", "created\n"]);

    let shell = "MVSQLITE_DATA_PLANE=http://localhost:7000 LD_PRELOAD=.../libmvsqlite_preload.so sqlite3 test";
    let first = setting.run(
        shell,
        "CREATE TABLE t (x); INSERT INTO t VALUES ('then');
        SELECT mv_last_known_version('main');",
    );
    let version = first.ok().to_owned();
    assert_eq!(version.len(), 20, "a version: {version}");
    assert!(
        version.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{version}"
    );

    let second = setting.run(
        shell,
        "UPDATE t SET x = 'now'; SELECT x FROM t; PRAGMA integrity_check;",
    );
    assert_eq!(second.ok(), "now\nok");

    let past = setting.run(&format!("{shell}@{version}"), "SELECT x FROM t;");
    assert_eq!(past.ok(), "then");
    let opened = setting.run(shell, &format!(".open test@{version}\nSELECT x FROM t;"));
    assert_eq!(opened.ok(), "then");

    let data = setting.directory.path().join("mvstore-data");
    assert!(data.is_dir(), "the data is where the README says");
    let said = store.kill().said();
    let first_line = said.lines().next().unwrap_or_default();
    assert!(
        first_line.contains("mvstore-data"),
        "the first log line says where: {first_line}"
    );
}
