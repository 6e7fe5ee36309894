//! A disk that is small enough to fill up: a tmpfs of a test's own, which takes root to mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; unmounted when dropped.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one of so many bytes; `None` where that is not possible.
    ///
    /// # Panics
    /// If there is no directory to mount it on.
    pub fn mount(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "mvsqlite-e2e"]);
        let mounted = mount.arg(directory.path()).output().ok()?;
        mounted.status.success().then(|| Self(directory))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes so many bytes of it; [`SmallDisk::give_room`] with the same name gives them back.
    /// Whether there were as many; else all there are may be taken.
    ///
    /// # Panics
    /// If there is no `fallocate`.
    pub fn take_room(&self, name: &str, bytes: u64) -> bool {
        let written = Command::new("fallocate")
            .args(["-l", &bytes.to_string()])
            .arg(self.ballast(name))
            .output();
        written.unwrap().status.success()
    }

    /// Gives back what was taken under this name.
    pub fn give_room(&self, name: &str) {
        fs::remove_file(self.ballast(name)).ok();
    }

    /// Bytes that are free.
    ///
    /// # Panics
    /// If `df` does not say.
    pub fn free(&self) -> u64 {
        let mut df = Command::new("df");
        let answer = df.args(["-B1", "--output=avail"]).arg(self.path()).output();
        let text = String::from_utf8(answer.unwrap().stdout).unwrap();
        text.lines().last().unwrap().trim().parse().unwrap()
    }

    fn ballast(&self, name: &str) -> PathBuf {
        self.path().join(format!("ballast-{name}"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a store that is still being killed may have files open.
        Command::new("umount")
            .arg("-l")
            .arg(self.path())
            .status()
            .ok();
    }
}
