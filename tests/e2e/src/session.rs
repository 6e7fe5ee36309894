//! One connection in a Python process, driven statement by statement, so that a test can do
//! something to the store between two of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Client;

/// How a statement failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    /// SQLite's extended result code.
    pub code: i64,
    /// Its name.
    pub name: String,
    /// `sqlite3_errmsg`.
    pub message: String,
}

/// A connection; its process ends when it is dropped.
pub struct Session {
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
    /// An answer that was seen by [`Session::has_answered`] and not yet received.
    early: Option<String>,
    log: Arc<Mutex<String>>,
    deadline: Duration,
    /// How long the last statement took.
    pub elapsed: Duration,
}

impl Session {
    /// Opens a database.
    ///
    /// # Errors
    /// If SQLite cannot open it.
    ///
    /// # Panics
    /// If the process does not answer.
    pub fn open(client: &Client, database: &str) -> Result<Self, SqlError> {
        let mut session = Self::closed(client);
        session.run(database)?;
        Ok(session)
    }

    /// A session that has opened nothing yet: the first text given to [`Session::run`] names the
    /// database.
    ///
    /// # Panics
    /// If the process does not start.
    pub fn closed(client: &Client) -> Self {
        // What the library would write to SQLite's error log, which Python does not show.
        let client = client.clone().env("MVSQLITE_LOG", "stderr");
        let mut child = client
            .python_command("session.py")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, answers) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let log = Arc::new(Mutex::new(String::new()));
        follow(child.stderr.take().unwrap(), Arc::clone(&log));
        Self {
            stdin: child.stdin.take().unwrap(),
            child,
            answers,
            early: None,
            log,
            deadline: Duration::from_secs(60),
            elapsed: Duration::ZERO,
        }
    }

    /// Runs a statement: its rows, as text.
    ///
    /// # Errors
    /// If SQLite says so.
    ///
    /// # Panics
    /// If the process dies or does not answer within a minute.
    pub fn run(&mut self, sql: &str) -> Result<Vec<Vec<String>>, SqlError> {
        self.send(sql);
        self.receive(sql)
    }

    /// Runs a statement that must succeed.
    ///
    /// # Panics
    /// If it fails.
    pub fn ok(&mut self, sql: &str) -> Vec<Vec<String>> {
        let result = self.run(sql);
        result.unwrap_or_else(|error| panic!("{sql}: {error:?}\n{}", self.log()))
    }

    /// The one value of a query.
    ///
    /// # Panics
    /// If it fails or has no row.
    pub fn value(&mut self, sql: &str) -> String {
        self.ok(sql)[0][0].clone()
    }

    /// Runs a statement that must fail with this extended result code.
    ///
    /// # Panics
    /// If it succeeds or fails otherwise.
    pub fn fails(&mut self, sql: &str, code: i64) -> SqlError {
        match self.run(sql) {
            Err(error) if error.code == code => error,
            other => panic!("{sql}: expected code {code}, got {other:?}\n{}", self.log()),
        }
    }

    /// Starts a statement without waiting for its end; [`Session::receive`] does that.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn send(&mut self, sql: &str) {
        let line = Value::from(sql).to_string();
        writeln!(self.stdin, "{line}").unwrap_or_else(|error| self.died(sql, &error.to_string()));
    }

    /// Waits for the end of a statement that was sent.
    ///
    /// # Errors
    /// If SQLite says so.
    ///
    /// # Panics
    /// If the process dies or does not answer within a minute.
    pub fn receive(&mut self, sql: &str) -> Result<Vec<Vec<String>>, SqlError> {
        let begun = Instant::now();
        let line = match self.early.take() {
            Some(line) => Ok(line),
            None => self.answers.recv_timeout(self.deadline),
        };
        let line = line.unwrap_or_else(|error| self.died(sql, &error.to_string()));
        self.elapsed = begun.elapsed();
        let answer: Value = serde_json::from_str(&line).unwrap();
        if let Some(rows) = answer["rows"].as_array() {
            return Ok(rows.iter().map(row).collect());
        }
        Err(SqlError {
            code: answer["code"].as_i64().unwrap_or(-1),
            name: text(&answer["name"]),
            message: text(&answer["message"]),
        })
    }

    /// Whether the statement that was sent last has ended.
    pub fn has_answered(&mut self) -> bool {
        if self.early.is_none() {
            self.early = self.answers.try_recv().ok();
        }
        self.early.is_some()
    }

    /// Sends its process a signal such as `-STOP`.
    ///
    /// # Panics
    /// If there is no `kill`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the library reported so far.
    ///
    /// # Panics
    /// Never.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Checks that the library reported each of these.
    ///
    /// # Panics
    /// If one does not come.
    pub fn reported(&self, expected: &[&str]) {
        for text in expected {
            // The report comes by another pipe than the answer.
            let found = || self.log().contains(text).then_some(());
            let what = format!(
                "'{text}' in what the library reports, which is:\n{}",
                self.log()
            );
            crate::until(&what, Duration::from_secs(2), found);
        }
    }

    fn died(&mut self, sql: &str, error: &str) -> ! {
        self.child.kill().ok();
        let status = self.child.wait().unwrap();
        panic!(
            "no answer to {sql} within {:?}: {error}, {status}, signal {:?}\n{}",
            self.deadline,
            status.signal(),
            self.log()
        );
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn follow(mut stream: impl Read + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            log.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    });
}

fn row(row: &Value) -> Vec<String> {
    row.as_array().unwrap().iter().map(text).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
