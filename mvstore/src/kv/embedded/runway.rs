//! Zeros ahead of the journal's end, so that an fsync finds the blocks already there.
//!
//! The library makes a journal as 64 MiB of hole. A commit that writes into a hole makes the file
//! system give it blocks, and its fdatasync has to wait for the file system's own journal as well:
//! about twice the time of one that writes over blocks which are there. So a stretch of the hole
//! is overwritten with zeros ahead of time.
//!
//! Why this cannot harm: zeros are written only where [`SeekFrom::Hole`] tells of a hole, which
//! reads as zeros already, so no byte of the file changes; and only by the thread that writes the
//! journal, between its writes, so that the hole is still one. Whatever fails is left as it is.
//!
//! The library goes on with a journal that it finds at its start by appending to it: that one has no
//! hole. From the next one on (after 64 MiB) there is a runway. (Giving it a new journal at once, when
//! the tables hold all of the old one, was tried: without a journal it does not see what is in its
//! tables.)
//!
//! Only where overwriting happens in place (ext4, XFS); on others it would be work for nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

use super::journal;

/// How far ahead: small, since the next fsync writes the zeros too.
const STRETCH: u64 = 512 << 10;
/// What is left of it when the next one is laid out.
const RESERVE: u64 = 64 << 10;
/// After a batch larger than this, none: a bulk load would write everything twice.
const LARGE: u64 = 64 << 10;

/// From `linux/magic.h`.
const IN_PLACE: [u64; 2] = [0xef53, 0x5846_5342];

fn is_in_place(path: &Path) -> bool {
    let kind = rustix::fs::statfs(path).ok();
    let kind = kind.and_then(|status| u64::try_from(status.f_type).ok());
    kind.is_some_and(|kind| IN_PLACE.contains(&kind))
}

/// The zeros ahead of one database's journal.
#[derive(Debug)]
pub(super) struct Runway {
    database: PathBuf,
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Journal {
    file: File,
    /// What the library will call the next one.
    next: PathBuf,
    /// Bytes of zeros ahead, as far as is known: others write as well, if little.
    left: u64,
    /// There is no hole any more, as in a journal that was there when the database was opened; or
    /// nothing can be written.
    is_over: bool,
}

impl Runway {
    /// Over the newest journal in the library's directory; does nothing where it would not help.
    pub(super) fn new(database: PathBuf) -> Self {
        Self {
            journal: Journal::newest(&database),
            database,
        }
    }

    /// To be called after a batch of about so many bytes, by the thread that wrote it.
    pub(super) fn lay_out(&mut self, batch_bytes: u64) {
        let rotated = |journal: &Journal| journal.next.exists();
        if self.journal.as_ref().is_some_and(rotated) {
            self.journal = Journal::newest(&self.database);
        }
        let Some(journal) = &mut self.journal else {
            return;
        };
        journal.left = journal.left.saturating_sub(batch_bytes);
        if batch_bytes <= LARGE && journal.left < RESERVE && !journal.is_over {
            journal.is_over = journal.extend().is_none();
        }
    }
}

impl Journal {
    fn newest(database: &Path) -> Option<Self> {
        let path = journal::newest(database).ok()??;
        let number: u64 = path.file_stem()?.to_str()?.parse().ok()?;
        let file = File::options().read(true).write(true).open(&path).ok()?;
        is_in_place(&path).then_some(Self {
            file,
            next: path.with_file_name(format!("{}.jnl", number + 1)),
            left: 0,
            is_over: false,
        })
    }

    /// Fills the beginning of the hole. `None` if there is none any more, or it cannot be done.
    fn extend(&mut self) -> Option<()> {
        let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(0)).ok()?;
        let end = self.file.metadata().ok()?.len();
        let length = STRETCH.min(end.saturating_sub(hole));
        if length == 0 {
            return None;
        }
        let zeros = vec![0; usize::try_from(length).ok()?];
        self.file.write_all_at(&zeros, hole).ok()?;
        self.left = length;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// A journal as the library makes it, with something written at its beginning.
    fn journal(directory: &Path, number: u64) -> PathBuf {
        let path = directory.join(format!("{number}.jnl"));
        let file = File::create_new(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        file.sync_all().unwrap();
        path
    }

    fn blocks(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().blocks()
    }

    /// A directory where blocks are overwritten in place, if the tests have one.
    fn in_place() -> Option<tempfile::TempDir> {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let known = is_in_place(directory.path());
        if !known {
            println!("skipped: the sources lie on a file system that this is not made for");
        }
        known.then_some(directory)
    }

    #[test]
    fn the_blocks_are_there_before_they_are_needed_and_no_byte_changes() {
        let Some(directory) = in_place() else { return };
        let path = journal(directory.path(), 5);
        let (before, few) = (std::fs::read(&path).unwrap(), blocks(&path));
        let mut runway = Runway::new(directory.path().to_owned());
        runway.lay_out(8_500);
        assert!(blocks(&path) >= few + STRETCH / 512);
        assert!(std::fs::read(&path).unwrap() == before);
        // Enough of it is left for some more batches.
        let laid_out = blocks(&path);
        runway.lay_out(8_500);
        assert_eq!(blocks(&path), laid_out);
        // Then the rest of the file, and no further.
        for _ in 0..200 {
            runway.lay_out(8_500);
        }
        assert!(std::fs::read(&path).unwrap() == before);
        assert!(blocks(&path) >= (1 << 20) / 512);
    }

    #[test]
    fn the_next_journal_is_noticed() {
        let Some(directory) = in_place() else { return };
        journal(directory.path(), 5);
        let mut runway = Runway::new(directory.path().to_owned());
        runway.lay_out(100);
        for _ in 0..2 {
            runway.lay_out(STRETCH);
            runway.lay_out(100);
        }
        let next = journal(directory.path(), 6);
        let few = blocks(&next);
        runway.lay_out(100);
        assert!(blocks(&next) > few);
    }

    #[test]
    fn a_bulk_load_is_not_written_twice() {
        let Some(directory) = in_place() else { return };
        let path = journal(directory.path(), 5);
        let few = blocks(&path);
        Runway::new(directory.path().to_owned()).lay_out(LARGE + 1);
        assert_eq!(blocks(&path), few);
    }
}
