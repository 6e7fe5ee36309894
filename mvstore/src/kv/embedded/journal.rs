//! Mends the storage library's journal after a power loss, before the library opens it.
//!
//! A power loss may leave the batch that was being written with any of its blocks on disk and any
//! missing. The library's own recovery takes such a batch for damage and refuses to open (or, if a
//! marker happens to be missing, silently drops all that follows). Only the last batch of the
//! newest journal can be torn, because each batch is fsynced before the next one is written; and it
//! was never acknowledged. So: the journal is cut behind its last whole batch. If a whole batch is
//! found *behind* a broken one, this is no torn tail but damage to acknowledged commits, and it is
//! reported instead of cut.
//!
//! The journal as this reads it (library version 3, integers little-endian):
//!
//! | entry | bytes |
//! |---|---|
//! | start | `01`, count of entries u32, sequence number u64 |
//! | item | `02`, kind u8, compression u8 (0), keyspace u64, key length u16, value length u32, the same on disk u32, key, value |
//! | end | `03`, xxh3-64 of all item and clear entries, `FJL\x03` |
//! | clear | `04`, keyspace u64 |
//!
//! A new journal is 64 MiB of zeros, written from the beginning.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::directory::OpenError;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";

/// How far the sequence number of a batch can be from that of its neighbours. Each batch takes one;
/// the margin is for the library's own uses. Bounds what a page that looks like a journal could
/// make us believe.
const NEAR: u64 = 1 << 16;

/// Cuts a torn batch off the newest journal in the library's directory. Returns how many bytes of
/// it there were.
pub(super) fn mend(database: &Path) -> Result<u64, OpenError> {
    let Some(path) = newest(database)? else {
        return Ok(0);
    };
    let bytes = fs::read(&path).map_err(OpenError::io("reading", &path))?;
    let sound = match examine(&bytes) {
        Ok(sound) => sound,
        Err(damaged) => {
            return Err(OpenError::corrupt(
                &path,
                format!("the batch at byte {damaged} is broken, and whole ones follow it"),
            ));
        }
    };
    let written = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let torn = written.saturating_sub(sound);
    if torn > 0 {
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| {
                file.set_len(sound as u64)?;
                file.sync_all()
            })
            .map_err(OpenError::io("mending", &path))?;
    }
    Ok(torn as u64)
}

/// The journal with the highest number.
fn newest(database: &Path) -> Result<Option<PathBuf>, OpenError> {
    let failed = || OpenError::io("reading the directory", database);
    let mut newest = None;
    for entry in fs::read_dir(database).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        newest = newest.max(number.map(|number| (number, path)));
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the whole batches end; or where the broken one begins that others follow.
fn examine(bytes: &[u8]) -> Result<usize, usize> {
    let mut end = 0;
    let mut last = 0;
    while let Some(batch) = Batch::parse(&bytes[end..]) {
        end += batch.bytes;
        last = batch.sequence;
    }
    let successor = last..=last.saturating_add(NEAR);
    let follows = (end + 1..bytes.len())
        .filter(|at| bytes[*at] == START)
        .filter_map(|at| Batch::parse(&bytes[at..]))
        .any(|batch| end == 0 || successor.contains(&batch.sequence));
    if follows { Err(end) } else { Ok(end) }
}

/// A whole batch.
struct Batch {
    sequence: u64,
    bytes: usize,
}

impl Batch {
    /// The batch at the beginning of the bytes, if it is whole.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = Cursor { bytes, at: 0 };
        if rest.byte()? != START {
            return None;
        }
        let count = rest.u32()?;
        let sequence = rest.u64()?;
        let begin = rest.at;
        for _ in 0..count {
            match rest.byte()? {
                ITEM => {
                    rest.take(2 + 8)?;
                    let key = rest.u16()?;
                    rest.u32()?;
                    let value = rest.u32()?;
                    rest.take(usize::from(key))?;
                    rest.take(usize::try_from(value).ok()?)?;
                }
                CLEAR => drop(rest.take(8)?),
                _ => return None,
            }
        }
        let entries = &bytes[begin..rest.at];
        if rest.byte()? != END {
            return None;
        }
        let checksum = rest.u64()?;
        let whole = rest.take(TRAILER.len())? == TRAILER && checksum_of(entries) == checksum;
        whole.then_some(Self {
            sequence,
            bytes: rest.at,
        })
    }
}

fn checksum_of(entries: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(entries);
    hasher.digest()
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}
