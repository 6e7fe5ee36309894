//! File descriptors that are held for long, in a process that may close them behind our back.
//!
//! Programs that start others, or daemons, close every descriptor they do not know. The number then
//! belongs to whatever is opened next, and a request meant for our socket would be written into a
//! file of the host's. So what a descriptor was when we got it is remembered, and compared before
//! each use: if it is something else by now, it is never touched again, and not closed either.
//!
//! What this does not do: a host that closes and opens in another thread, between the comparison
//! and the use, is not noticed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::fstat;

/// The last of the three standard streams.
const STANDARD_ERROR: i32 = 2;

/// A socket or file of ours, as long as its descriptor still is that.
#[derive(Debug)]
pub struct Held<T: AsFd> {
    /// `None` only while it is dropped.
    file: Option<T>,
    identity: Identity,
}

/// Device and inode: differ between any two open files and sockets of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(file: &impl AsFd) -> io::Result<Self> {
        let stat = fstat(file)?;
        Ok(Self(stat.st_dev, stat.st_ino))
    }
}

impl<T: AsFd + From<OwnedFd> + Into<OwnedFd>> Held<T> {
    /// Takes what was just opened. It gets a number above those of the standard streams: a host that
    /// closed them leaves the numbers to whoever comes next, and what it prints would go there.
    ///
    /// # Errors
    /// If the system has no number left, or cannot say what the descriptor is.
    pub fn new(file: T) -> io::Result<Self> {
        let file = match file.as_fd().as_raw_fd() {
            // The standard library's duplicates keep clear of the first three numbers.
            ..=STANDARD_ERROR => T::from(file.into().try_clone()?),
            _ => file,
        };
        Ok(Self {
            identity: Identity::of(&file)?,
            file: Some(file),
        })
    }
}

impl<T: AsFd> Held<T> {
    /// What is held, for one use.
    ///
    /// # Errors
    /// If the descriptor was closed by somebody else.
    pub fn get(&self) -> io::Result<&T> {
        match &self.file {
            Some(file) if Identity::of(file).is_ok_and(|now| now == self.identity) => Ok(file),
            _ => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the program closed a file descriptor of this library",
            )),
        }
    }
}

impl<T: AsFd> Drop for Held<T> {
    fn drop(&mut self) {
        let ours = self.get().is_ok();
        if let Some(file) = self.file.take().filter(|_| !ours) {
            // Closing it would close a file of somebody else's.
            std::mem::forget(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::path::PathBuf;

    fn number_of(held: &Held<File>) -> PathBuf {
        let number = held.file.as_ref().unwrap().as_raw_fd();
        PathBuf::from(format!("/proc/self/fd/{number}"))
    }

    #[test]
    fn what_is_ours_is_used_and_closed() {
        let held = Held::new(tempfile::tempfile().unwrap()).unwrap();
        assert_eq!(held.get().unwrap().metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_number_that_became_another_file_is_neither_used_nor_closed() {
        let mut held = Held::new(tempfile::tempfile().unwrap()).unwrap();
        let number = number_of(&held);
        // As if the descriptor had been of something else.
        held.identity.1 ^= 1;
        assert!(held.get().is_err());
        drop(held);
        assert!(number.exists());
    }
}
