//! A child process with a deadline, and what became of it.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A child in a process group of its own; the whole group is killed when this is dropped.
pub struct Running {
    name: String,
    child: Child,
    started: Instant,
    deadline: Duration,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// How a child ended and what it said.
#[derive(Debug)]
pub struct Finished {
    /// What was run, for messages.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to standard output.
    pub stdout: String,
    /// All it wrote to standard error.
    pub stderr: String,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Running {
    /// Starts the command with `input` as its standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(name: &str, mut command: Command, input: &str, deadline: Duration) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: cannot start {command:?}: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        // A child that does not read all of its input is no error of this thread.
        std::thread::spawn(move || stdin.write_all(input.as_bytes()).ok());
        Self {
            name: name.to_owned(),
            stdout: Some(collect(child.stdout.take().unwrap())),
            stderr: Some(collect(child.stderr.take().unwrap())),
            child,
            started: Instant::now(),
            deadline,
        }
    }

    /// Its process id, which is also the number of its group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended already.
    pub fn is_finished(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it outlives its deadline (it is killed then), or if a signal ended it: nothing that is
    /// tested here may make a host process abort.
    pub fn finish(mut self) -> Finished {
        let status = self.wait();
        let finished = self.collected(status);
        assert_eq!(
            finished.status.signal(),
            None,
            "{} was ended by a signal\n{finished}",
            finished.name
        );
        finished
    }

    /// Ends it, the whole group, as `kill -9` does, and returns what it said until then.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn kill(mut self) -> Finished {
        self.kill_group();
        let status = self.child.wait().unwrap();
        self.collected(status)
    }

    /// Sends it, and it alone, a signal such as `-TERM`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args([signal, &pid]).output();
        drop(kill);
    }

    /// Sends it and all that it started a signal such as `-STOP`.
    pub fn signal_group(&self, signal: &str) {
        let group = format!("-{}", self.child.id());
        let kill = Command::new("kill").args([signal, "--", &group]).output();
        drop(kill);
    }

    fn wait(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if self.started.elapsed() > self.deadline {
                self.kill_group();
                let status = self.child.wait().unwrap();
                let finished = self.collected(status);
                panic!(
                    "{} hung: still running after {:?}\n{finished}",
                    finished.name, self.deadline
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn collected(&mut self, status: ExitStatus) -> Finished {
        Finished {
            name: self.name.clone(),
            status,
            stdout: self.stdout.take().unwrap().join().unwrap(),
            stderr: self.stderr.take().unwrap().join().unwrap(),
            elapsed: self.started.elapsed(),
        }
    }

    fn kill_group(&self) {
        self.signal_group("-KILL");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `finish` the group's number may belong to somebody else.
        if let Ok(None) = self.child.try_wait() {
            self.kill_group();
            self.child.wait().ok();
        }
    }
}

impl Finished {
    /// What it printed, without surrounding white space.
    ///
    /// # Panics
    /// If it failed.
    pub fn ok(&self) -> &str {
        assert!(self.status.success(), "{} failed\n{self}", self.name);
        self.stdout.trim()
    }

    /// Everything it printed.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Checks that it printed each of these somewhere.
    ///
    /// # Panics
    /// If one is missing.
    pub fn says(&self, expected: &[&str]) -> &Self {
        let said = self.said();
        for text in expected {
            assert!(said.contains(text), "expected '{text}' from\n{self}");
        }
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "--- {} ({}, {:?})", self.name, self.status, self.elapsed)?;
        writeln!(f, "--- stdout\n{}", self.stdout)?;
        writeln!(f, "--- stderr\n{}", self.stderr)
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
