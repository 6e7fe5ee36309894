//! A file that has no name and goes away when it is closed, for what does not fit into memory.
//!
//! It lies where SQLite would put it: in the first directory of `SQLITE_TMPDIR`, `TMPDIR`,
//! `/var/tmp`, `/usr/tmp`, `/tmp` and the current one that takes it. (`sqlite3_temp_directory`, a
//! variable of SQLite's that its makers advise against, is not looked at.)
//!
//! A forked child has the same file open as its parent, and must not write into it.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use mvsqlite::descriptor::Held;

use crate::failure::Failure;
use crate::ffi::code;

/// See the module.
pub(crate) struct TemporaryFile {
    file: Held<File>,
    directory: PathBuf,
    /// The process that made it.
    process: u32,
}

/// The directories to try, in SQLite's order.
fn directories() -> impl Iterator<Item = PathBuf> {
    let chosen = ["SQLITE_TMPDIR", "TMPDIR"].into_iter();
    let chosen = chosen.filter_map(std::env::var_os).map(PathBuf::from);
    let usual = ["/var/tmp", "/usr/tmp", "/tmp", "."].map(PathBuf::from);
    chosen
        .filter(|path| !path.as_os_str().is_empty())
        .chain(usual)
}

impl TemporaryFile {
    /// Makes an empty one.
    pub(crate) fn create() -> Result<Self, Failure> {
        let mut refusals = Vec::new();
        for directory in directories() {
            match tempfile::tempfile_in(&directory).and_then(Held::new) {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        directory,
                        process: std::process::id(),
                    });
                }
                Err(error) => refusals.push(format!("{}: {error}", directory.display())),
            }
        }
        let refusals = refusals.join("; ");
        let message = format!(
            "no temporary file can be made for a rollback journal ({refusals}); set SQLITE_TMPDIR \
             to a directory that can be written"
        );
        Err(Failure::new(code::CANTOPEN, message))
    }

    /// Fills the buffer; all of it was written before.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), Failure> {
        // Bytes that were written and are gone must not look like the regular end of a journal, a
        // short read: SQLite would stop playing back half way and then store the half.
        let read = self.file.get();
        let read = read.and_then(|file| file.read_exact_at(buffer, offset));
        read.map_err(|error| self.failure("read", code::IOERR_READ, &error))
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Failure> {
        let written = self.for_writing();
        let written = written.and_then(|file| file.write_all_at(bytes, offset));
        written.map_err(|error| self.failure("write", code::IOERR_WRITE, &error))
    }

    pub(crate) fn truncate(&self, size: u64) -> Result<(), Failure> {
        let cut = self.for_writing().and_then(|file| file.set_len(size));
        cut.map_err(|error| self.failure("truncate", code::IOERR_TRUNCATE, &error))
    }

    fn for_writing(&self) -> io::Result<&File> {
        match self.process == std::process::id() {
            true => self.file.get(),
            false => Err(io::Error::other(
                "it belongs to the process that this one was forked from",
            )),
        }
    }

    fn failure(&self, what: &str, code: i32, error: &io::Error) -> Failure {
        let full = matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
        );
        let code = if full { code::FULL } else { code };
        let message = format!(
            "cannot {what} the temporary file of a rollback journal in {}: {error}; the \
             transaction is rolled back, and nothing that was committed is touched. SQLITE_TMPDIR \
             names another directory",
            self.directory.display()
        );
        Failure::new(code, message)
    }

    /// From here on the file is of no use.
    #[cfg(test)]
    pub(crate) fn lose(&mut self) {
        self.process = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_gone_is_an_error() {
        let file = TemporaryFile::create().unwrap();
        file.write(&[7; 100], 50).unwrap();
        let mut found = [0; 100];
        file.read(&mut found, 50).unwrap();
        assert_eq!(found, [7; 100]);
        file.truncate(120).unwrap();
        let failure = file.read(&mut found, 50).unwrap_err();
        assert_eq!(failure.code, code::IOERR_READ);
    }

    /// A child of `fork` that went on with its parent's transaction wrote into its parent's journal.
    #[test]
    fn another_process_does_not_write_into_it() {
        let mut file = TemporaryFile::create().unwrap();
        file.write(&[7; 10], 0).unwrap();
        file.process += 1;
        assert_eq!(file.write(&[8; 10], 0).unwrap_err().code, code::IOERR_WRITE);
        assert_eq!(file.truncate(0).unwrap_err().code, code::IOERR_TRUNCATE);
        let mut found = [0; 10];
        file.read(&mut found, 0).unwrap();
        assert_eq!(found, [7; 10]);
    }
}
