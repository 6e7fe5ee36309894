//! Running a program that loads the extension by itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::server::server;

/// The library under test.
///
/// Cargo builds a `cdylib` for nobody but those who ask for it, not even for its own tests.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME")]);
        build.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
        profile.join("libmvsqlite_extension.so")
    })
}

/// How a program ended.
#[derive(Debug)]
pub struct Ran {
    pub success: bool,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// What it printed; it must have succeeded and printed no error.
    #[track_caller]
    pub fn printed(&self) -> &str {
        assert!(self.success && self.err.is_empty(), "{self:?}");
        &self.out
    }
}

/// A program in an empty directory.
pub struct Program {
    command: Command,
    pub directory: tempfile::TempDir,
}

impl Program {
    /// With the store's URL as the only variable of ours.
    pub fn new(program: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MVSQLITE_") {
                command.env_remove(name);
            }
        }
        command.env("MVSQLITE_DATA_PLANE", &server().url);
        Self { command, directory }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end, whatever that is.
    pub fn run(&mut self) -> Ran {
        let output = self.command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Ran {
            success: output.status.success(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Names of the files that it left in its directory.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}
