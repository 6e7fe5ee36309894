//! What a crashing child tells the test, in a file outside the lossy disk: a line per event, which
//! counts only if it ends in a newline.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

/// How many writers a child runs at once.
pub(crate) const WRITERS: usize = 4;

/// The child's end.
pub(crate) struct Ledger {
    file: Mutex<File>,
}

/// What the lines say so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The last commit of each writer that must be there: acknowledged, or read after a crash.
    pub(crate) certain: [u64; WRITERS],
    /// The last one each writer tried.
    pub(crate) tried: [u64; WRITERS],
    /// The highest commit version seen.
    pub(crate) version: u64,
    /// What a child found wrong.
    pub(crate) violation: Option<String>,
    /// How many commits were acknowledged.
    pub(crate) acknowledged: u64,
    /// Refusals after which a writer gave up, by the first word of their names.
    pub(crate) refusals: Vec<String>,
}

impl Ledger {
    pub(crate) fn append_to(path: &Path) -> Self {
        let file = File::options().append(true).create(true).open(path);
        Self {
            file: Mutex::new(file.expect("the ledger can be opened")),
        }
    }

    pub(crate) fn tries(&self, writer: usize, commit: u64) {
        self.line(&format!("try {writer} {commit}"));
    }

    pub(crate) fn acknowledged(&self, writer: usize, commit: u64, version: u64) {
        self.line(&format!("ack {writer} {commit} {version}"));
    }

    pub(crate) fn found(&self, writer: usize, commit: u64, version: u64) {
        self.line(&format!("found {writer} {commit} {version}"));
    }

    pub(crate) fn refused(&self, name: &str) {
        self.line(&format!("refused {name}"));
    }

    pub(crate) fn violation(&self, what: &str) {
        self.line(&format!("violation {}", what.replace('\n', " ")));
    }

    fn line(&self, line: &str) {
        let mut file = self.file.lock().expect("no writer of lines panics");
        file.write_all(format!("{line}\n").as_bytes())
            .expect("the ledger takes a line");
    }
}

impl Known {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut known = Self::default();
        for line in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            known.learn(line.trim_end());
        }
        known
    }

    fn learn(&mut self, line: &str) {
        let (event, rest) = line.split_once(' ').expect("an event and its details");
        let numbers = || -> Vec<u64> {
            rest.split(' ')
                .map(|number| number.parse().expect("a number"))
                .collect()
        };
        match event {
            "try" => {
                let [writer, commit] = numbers()[..] else {
                    panic!("{line}");
                };
                self.tried[writer as usize] = commit;
            }
            "ack" | "found" => {
                let [writer, commit, version] = numbers()[..] else {
                    panic!("{line}");
                };
                self.certain[writer as usize] = commit;
                self.version = self.version.max(version);
                self.acknowledged += u64::from(event == "ack");
            }
            "refused" => self.refusals.push(rest.to_owned()),
            "violation" => self.violation = Some(rest.to_owned()),
            other => panic!("an unknown event {other:?}"),
        }
    }
}
