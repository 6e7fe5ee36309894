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

#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod search;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use self::search::Search;
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
    let written = written(&bytes);
    let sound = examine(written).map_err(|damaged| {
        OpenError::corrupt(
            &path,
            format!("the batch at byte {damaged} is broken, and whole ones follow it"),
        )
    })?;
    let torn = written.len() - sound;
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

/// The bytes before the zeros at the end.
fn written(bytes: &[u8]) -> &[u8] {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while end >= ZEROS.len() && bytes[end - ZEROS.len()..end] == ZEROS {
        end -= ZEROS.len();
    }
    while end > 0 && bytes[end - 1] == 0 {
        end -= 1;
    }
    &bytes[..end]
}

/// The journal with the highest number.
pub(super) fn newest(database: &Path) -> Result<Option<PathBuf>, OpenError> {
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
///
/// Of a broken batch whose headers and end are in place only some content is missing. Others can
/// follow behind its end only: what looks like one within it is content, which anybody may write.
fn examine(bytes: &[u8]) -> Result<usize, usize> {
    let mut end = 0;
    let mut last = 0;
    while let Some(batch) = Batch::parse(&bytes[end..]) {
        end += batch.bytes;
        last = batch.sequence;
    }
    let successor = last..=last.saturating_add(NEAR);
    let broken = Batch::framed(&bytes[end..]).map_or(1, |batch| batch.bytes);
    let can_be = |sequence| end == 0 || successor.contains(&sequence);
    match Search::new(bytes).finds(end + broken, can_be) {
        true => Err(end),
        false => Ok(end),
    }
}

/// What a batch begins with.
struct Head {
    count: u32,
    sequence: u64,
}

impl Head {
    /// `START`, count, sequence number.
    const BYTES: usize = 1 + 4 + 8;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = Cursor::new(bytes, 0);
        if rest.byte()? != START {
            return None;
        }
        Some(Self {
            count: rest.u32()?,
            sequence: rest.u64()?,
        })
    }
}

/// A batch whose headers and end are in place.
struct Batch {
    sequence: u64,
    bytes: usize,
    /// Whether its content is what was written.
    is_whole: bool,
}

impl Batch {
    /// The batch at the beginning of the bytes, if it is whole.
    fn parse(bytes: &[u8]) -> Option<Self> {
        Self::framed(bytes).filter(|batch| batch.is_whole)
    }

    /// The batch at the beginning of the bytes, with whatever content.
    fn framed(bytes: &[u8]) -> Option<Self> {
        let head = Head::parse(bytes)?;
        let mut rest = Cursor::new(bytes, Head::BYTES);
        for _ in 0..head.count {
            rest.entry()?;
        }
        let entries = &bytes[Head::BYTES..rest.at];
        let checksum = Self::checksum_at(&bytes[rest.at..])?;
        Some(Self {
            sequence: head.sequence,
            bytes: rest.at + Self::END_BYTES,
            is_whole: checksum_of(entries) == checksum,
        })
    }

    /// `END`, checksum, trailer.
    const END_BYTES: usize = 1 + 8 + TRAILER.len();
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
    fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Goes behind the entry that begins here.
    fn entry(&mut self) -> Option<()> {
        match self.byte()? {
            ITEM => {
                self.take(2 + 8)?;
                let key = self.u16()?;
                self.u32()?;
                let value = self.u32()?;
                self.take(usize::from(key))?;
                self.take(usize::try_from(value).ok()?)?;
            }
            CLEAR => drop(self.take(8)?),
            _ => return None,
        }
        Some(())
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::embedded::EmbeddedOptions;
    use crate::kv::embedded::library::{Contents, Library};
    use bytes::Bytes;

    /// A database whose journal holds these batches, as a crash leaves it: not closed in order.
    fn journal_of(batches: &[Contents]) -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions::default();
        let library = Library::open(&home.path().join("live"), &options).unwrap();
        for batch in batches {
            library.write(batch.clone(), Some(7)).unwrap();
        }
        let image = home.path().join("image");
        copy_tree(&home.path().join("live"), &image);
        let journal = newest(&image).unwrap().unwrap();
        (home, journal)
    }

    fn copy_tree(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy_tree(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }

    fn page(key: &str, fill: u8) -> Contents {
        let value = Bytes::from(vec![fill; 10_000]);
        Contents::from([(key.as_bytes().to_vec(), Some(value))])
    }

    fn keys(database: &Path) -> Vec<String> {
        let library = Library::open(database, &EmbeddedOptions::default()).unwrap();
        let all = crate::kv::KeyRange::new("", "z");
        library
            .view()
            .keys(&all)
            .map(|key| String::from_utf8(key.unwrap()).unwrap())
            .collect()
    }

    fn content(journal: &Path) -> Vec<u8> {
        written(&fs::read(journal).unwrap()).to_vec()
    }

    fn zero(journal: &Path, range: std::ops::Range<usize>) {
        let mut bytes = fs::read(journal).unwrap();
        bytes[range].fill(0);
        fs::write(journal, bytes).unwrap();
    }

    #[test]
    fn a_whole_journal_is_left_alone() {
        let (_home, journal) = journal_of(&[page("a", 1), page("b", 2)]);
        let before = fs::read(&journal).unwrap();
        assert_eq!(examine(written(&before)), Ok(content(&journal).len()));
        assert_eq!(mend(journal.parent().unwrap()).unwrap(), 0);
        assert!(fs::read(&journal).unwrap() == before);
        assert_eq!(keys(journal.parent().unwrap()), ["a", "b"]);
    }

    /// Symptom: after a power loss the library refused to open ("ChecksumMismatch"), and all that
    /// had ever been committed was out of reach. Cause: the blocks of a batch reach the disk in
    /// any order, so its end can be there without its middle, and the library's recovery takes
    /// that for damage. Fix: the batch, which was never acknowledged, is cut off beforehand.
    #[test]
    fn a_last_batch_without_its_middle_is_cut_off() {
        let (_home, journal) = journal_of(&[page("a", 1), page("b", 2)]);
        let end = content(&journal).len();
        zero(&journal, end - 9_000..end - 5_000);
        let torn = mend(journal.parent().unwrap()).unwrap();
        assert!(torn > 10_000);
        assert_eq!(keys(journal.parent().unwrap()), ["a"]);
    }

    #[test]
    fn the_library_alone_does_not_open_a_torn_journal() {
        let (_home, journal) = journal_of(&[page("a", 1), page("b", 2)]);
        let end = content(&journal).len();
        zero(&journal, end - 9_000..end - 5_000);
        let opened = Library::open(journal.parent().unwrap(), &EmbeddedOptions::default());
        assert!(
            opened.is_err(),
            "the library copes by itself now: mending can go"
        );
    }

    #[test]
    fn any_part_of_the_last_batch_may_be_missing() {
        let (_home, journal) = journal_of(&[page("a", 1), page("b", 2)]);
        let whole = content(&journal);
        let mut ends = vec![0];
        while let Some(batch) = Batch::parse(&whole[ends[ends.len() - 1]..]) {
            ends.push(ends[ends.len() - 1] + batch.bytes);
        }
        let [.., begin, end] = ends[..] else {
            panic!("two batches were written");
        };
        assert_eq!(end, whole.len());
        for block in (begin / 512..end / 512).map(|block| block * 512) {
            let mut bytes = whole.clone();
            bytes[block.max(begin)..block + 512].fill(0);
            assert_eq!(
                examine(written(&bytes)),
                Ok(begin),
                "without the sector at {block}"
            );
        }
    }

    /// Symptom: after a power loss the store refused to open, for damage that was not there. Cause:
    /// a page of the torn batch held the bytes of a journal batch (a program may store what it
    /// likes), which was taken for an acknowledged commit behind it.
    #[test]
    fn a_page_that_looks_like_a_batch_is_content() {
        let (_home, model) = journal_of(&[page("a", 1)]);
        let model = content(&model);
        let lookalike = {
            let mut begin = 0;
            let mut last = 0..0;
            while let Some(batch) = Batch::parse(&model[begin..]) {
                last = begin..begin + batch.bytes;
                begin = last.end;
            }
            model[last].to_vec()
        };
        let mut disguised = vec![1; 9_000];
        disguised.extend(lookalike);
        let disguised = Contents::from([(b"b".to_vec(), Some(Bytes::from(disguised)))]);
        let (_home, journal) = journal_of(&[page("a", 1), disguised]);
        let end = content(&journal).len();
        // Some of the content before it is missing; the headers are there.
        zero(&journal, end - 18_000..end - 15_000);
        assert!(mend(journal.parent().unwrap()).unwrap() > 10_000);
        assert_eq!(keys(journal.parent().unwrap()), ["a"]);
    }

    /// Symptom: after a power loss the store did not come up for hours. Cause: where the beginning of
    /// the torn batch was missing, a batch was looked for at every byte of its content, and each of
    /// the beginnings that a program had written there was followed through all entries behind it.
    /// Fix: no entry is looked at twice.
    #[test]
    fn content_full_of_beginnings_is_searched_in_one_pass() {
        // An entry of 53 bytes, whose value is the beginning of a batch of so many entries.
        let item = |number: u32| {
            let mut item = vec![ITEM, 0, 0];
            item.extend(7u64.to_le_bytes());
            item.extend(0u16.to_le_bytes());
            item.extend([32u32.to_le_bytes(), 32u32.to_le_bytes()].concat());
            item.extend([0; 32 - Head::BYTES]);
            item.push(START);
            item.extend(number.to_le_bytes());
            item.extend(0u64.to_le_bytes());
            item
        };
        const ITEMS: u32 = 100_000;
        for end in [&[][..], b"\x03checksumFJL"] {
            let mut bytes = vec![0xff; 100];
            (0..ITEMS).for_each(|number| bytes.extend(item(ITEMS - number)));
            bytes.extend(end);
            assert_eq!(examine(&bytes), Ok(0));
        }
    }

    #[test]
    fn a_broken_batch_with_whole_ones_behind_it_is_damage_and_nothing_is_cut() {
        let (_home, journal) = journal_of(&[page("a", 1), page("b", 2), page("c", 3)]);
        let end = content(&journal).len();
        zero(&journal, end - 19_000..end - 15_000);
        let before = fs::read(&journal).unwrap();
        let error = mend(journal.parent().unwrap()).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert!(fs::read(&journal).unwrap() == before);
    }
}
