//! The changelog `l`: what each commit changed.
//!
//! An entry is cut into chunks, because a value may not grow without bound. Chunk 0:
//!
//! ```text
//! 0   1   flags: 1 everything changed, 2 the sum is known
//! 1   1   what happened to page 1: 0 nothing, 1 allocation fields only, 2 more
//! 2   8   the committing server's clock, milliseconds since the Unix epoch
//! 10  8   xor of the content sums of what changed, old and new (zeros: not known)
//! 18  2   number of chunks, this one included
//! 20  -   page runs
//! ```
//!
//! Further chunks hold page runs only. A run is two LEB128 numbers: the pages between the end of
//! the run before it in the same chunk (or page 0) and its first page, and its length minus one.

use mvsqlite_protocol::{PageRun, PageSet, Version};

use super::{Fields, Malformed};

const EVERYTHING: u8 = 1;
const SUM_KNOWN: u8 = 2;
const HEADER_BYTES: usize = 20;
/// A run of two numbers below 2^32 needs at most five bytes for each.
const MAX_RUN_BYTES: usize = 10;

/// What a commit did to page 1, outside of what every commit does to it; from less to more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PageOneClass {
    /// Nothing.
    Untouched,
    /// It changed the page count or the freelist, and nothing else.
    Allocation,
    /// It changed something else: the schema, a pragma, or the b-tree on that page.
    Schema,
}

/// Which pages changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pages {
    /// These, page 1 among them unless it is untouched.
    Listed(PageSet),
    /// Any page may have changed.
    Everything,
}

/// What a commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangeEntry {
    /// Which pages.
    pub pages: Pages,
    /// What happened to page 1.
    pub page_one: PageOneClass,
    /// The committing server's clock, milliseconds since the Unix epoch.
    pub millis: u64,
    /// The xor of the content sums of what changed, if known.
    pub sum: Option<u64>,
}

impl ChangeEntry {
    /// Cuts the entry into chunks of at most `chunk_bytes`; if more than `max_chunks` were needed,
    /// the entry says "everything". `chunk_bytes` must leave room for the header and a run.
    pub(crate) fn encode(&self, chunk_bytes: usize, max_chunks: u16) -> Vec<Vec<u8>> {
        debug_assert!(chunk_bytes >= HEADER_BYTES + MAX_RUN_BYTES);
        if let Pages::Listed(pages) = &self.pages {
            let mut chunks = vec![self.header(0)];
            let mut end = 0;
            for run in pages.runs() {
                let mut last = chunks.len() - 1;
                if chunks[last].len() + MAX_RUN_BYTES > chunk_bytes {
                    chunks.push(Vec::new());
                    last += 1;
                    end = 0;
                }
                put_number(&mut chunks[last], run.first - end);
                put_number(&mut chunks[last], run.count - 1);
                // A page set never reaches the last index, so neither does a run's end.
                end = run.first + run.count;
            }
            if let Ok(count) = u16::try_from(chunks.len())
                && count <= max_chunks
            {
                chunks[0][18..20].copy_from_slice(&count.to_be_bytes());
                return chunks;
            }
        }
        let mut header = self.header(EVERYTHING);
        header[18..20].copy_from_slice(&1u16.to_be_bytes());
        vec![header]
    }

    fn header(&self, flags: u8) -> Vec<u8> {
        let known = if self.sum.is_some() { SUM_KNOWN } else { 0 };
        let class = match self.page_one {
            PageOneClass::Untouched => 0,
            PageOneClass::Allocation => 1,
            PageOneClass::Schema => 2,
        };
        let mut bytes = vec![flags | known, class];
        bytes.extend_from_slice(&self.millis.to_be_bytes());
        bytes.extend_from_slice(&self.sum.unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes
    }
}

/// Puts entries together from chunks in key order.
#[derive(Debug, Default)]
pub(crate) struct ChangeReader {
    open: Option<OpenEntry>,
}

#[derive(Debug)]
struct OpenEntry {
    version: Version,
    entry: ChangeEntry,
    runs: Vec<PageRun>,
    read: u16,
    chunks: u16,
}

impl ChangeReader {
    const WHAT: &str = "a changelog entry";

    /// Takes the next chunk; returns the entry that it completes.
    ///
    /// # Errors
    /// If a chunk is missing or does not decode.
    pub(crate) fn push(
        &mut self,
        version: Version,
        chunk: u16,
        bytes: &[u8],
    ) -> Result<Option<(Version, ChangeEntry)>, Malformed> {
        let missing = Malformed::Short { what: Self::WHAT };
        let mut open = match self.open.take() {
            None if chunk == 0 => return self.first(version, bytes),
            Some(open) if open.version == version && open.read == chunk => open,
            _ => return Err(missing),
        };
        read_runs(bytes, &mut open.runs)?;
        open.read += 1;
        self.finish(open)
    }

    fn first(
        &mut self,
        version: Version,
        bytes: &[u8],
    ) -> Result<Option<(Version, ChangeEntry)>, Malformed> {
        let mut fields = Fields::new(Self::WHAT, bytes);
        let flags = fields.u8()?;
        if flags & !(EVERYTHING | SUM_KNOWN) != 0 {
            return Err(fields.bad("flag"));
        }
        let page_one = match fields.u8()? {
            0 => PageOneClass::Untouched,
            1 => PageOneClass::Allocation,
            2 => PageOneClass::Schema,
            _ => return Err(fields.bad("page-1 class")),
        };
        let millis = fields.u64()?;
        let sum = Some(fields.u64()?).filter(|_| flags & SUM_KNOWN != 0);
        let chunks = fields.u16()?;
        if chunks == 0 {
            return Err(fields.bad("number of chunks"));
        }
        let mut runs = Vec::new();
        read_runs(fields.rest, &mut runs)?;
        let pages = if flags & EVERYTHING == 0 {
            Pages::Listed(PageSet::new())
        } else {
            Pages::Everything
        };
        self.finish(OpenEntry {
            version,
            entry: ChangeEntry {
                pages,
                page_one,
                millis,
                sum,
            },
            runs,
            read: 1,
            chunks,
        })
    }

    fn finish(&mut self, mut open: OpenEntry) -> Result<Option<(Version, ChangeEntry)>, Malformed> {
        if open.read < open.chunks {
            self.open = Some(open);
            return Ok(None);
        }
        if let Pages::Listed(pages) = &mut open.entry.pages {
            *pages = PageSet::try_from(open.runs).map_err(|_| Malformed::Field {
                what: Self::WHAT,
                field: "page run",
            })?;
        }
        Ok(Some((open.version, open.entry)))
    }

    /// Whether the last entry still misses chunks.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.open.is_some()
    }
}

fn read_runs(mut bytes: &[u8], runs: &mut Vec<PageRun>) -> Result<(), Malformed> {
    let bad = Malformed::Field {
        what: ChangeReader::WHAT,
        field: "page run",
    };
    let mut end = 0u32;
    while !bytes.is_empty() {
        let gap = take_number(&mut bytes).ok_or(bad)?;
        let more = take_number(&mut bytes).ok_or(bad)?;
        let first = end.checked_add(gap).ok_or(bad)?;
        let count = more.checked_add(1).ok_or(bad)?;
        end = first.checked_add(count).ok_or(bad)?;
        runs.push(PageRun { first, count });
    }
    Ok(())
}

fn put_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        // The low seven bits, and a mark that more follow.
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(number).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VERSION: Version = Version::from_bytes([4; 10]);

    fn entry(pages: &[u32]) -> ChangeEntry {
        ChangeEntry {
            pages: Pages::Listed(pages.iter().copied().collect()),
            page_one: PageOneClass::Allocation,
            millis: 0x0102,
            sum: Some(3),
        }
    }

    fn decode(chunks: &[Vec<u8>]) -> Result<Option<(Version, ChangeEntry)>, Malformed> {
        let mut reader = ChangeReader::default();
        let mut last = Ok(None);
        for (number, chunk) in chunks.iter().enumerate() {
            last = reader.push(VERSION, u16::try_from(number).unwrap(), chunk);
        }
        last
    }

    #[test]
    fn an_entry_is_a_header_and_runs_as_documented() {
        let chunks = entry(&[0, 3, 4, 300]).encode(8192, 1);
        let hex: String = chunks[0].iter().map(|byte| format!("{byte:02x}")).collect();
        let header = "0201000000000000010200000000000000030001";
        // Page 0; then 2 pages further on, two; then 295 further on, one.
        assert_eq!(hex, format!("{header}00000201a70200"));
        assert_eq!(chunks.len(), 1);
    }

    #[test]
    fn an_entry_of_too_many_runs_says_everything() {
        let scattered: Vec<u32> = (0..1000).map(|page| page * 1000).collect();
        let chunks = entry(&scattered).encode(64, 3);
        let (_, decoded) = decode(&chunks).unwrap().unwrap();
        assert_eq!(decoded.pages, Pages::Everything);
        assert_eq!(decoded.page_one, PageOneClass::Allocation);
        assert_eq!(chunks[0][0], EVERYTHING | SUM_KNOWN);
    }

    #[test]
    fn entries_that_miss_a_chunk_or_hold_impossible_bytes_are_refused() {
        let scattered: Vec<u32> = (0..100).map(|page| page * 1000).collect();
        let chunks = entry(&scattered).encode(64, 99);
        assert!(chunks.len() > 3);
        let mut reader = ChangeReader::default();
        assert_eq!(reader.push(VERSION, 0, &chunks[0]), Ok(None));
        assert!(reader.is_incomplete());
        reader
            .push(VERSION, 2, &chunks[2])
            .expect_err("chunk 1 is missing");
        ChangeReader::default()
            .push(VERSION, 1, &chunks[1])
            .expect_err("chunk 0 is missing");
        let good = entry(&[1]).encode(64, 1).remove(0);
        for (at, value) in [(0, 4), (1, 3), (19, 0)] {
            let mut bad = good.clone();
            bad[at] = value;
            decode(&[bad]).expect_err("an impossible field");
        }
        for runs in [
            &[0x80][..],
            &[1],
            &[0xff, 0xff, 0xff, 0xff, 0x7f, 0],
            &[0xff, 0xff, 0xff, 0xff, 0x0f, 0],
        ] {
            let bad = [&good[..HEADER_BYTES], runs].concat();
            decode(&[bad]).expect_err("an impossible run");
        }
    }

    proptest! {
        #[test]
        fn entries_survive_encoding_at_any_chunk_size(
            pages in prop::collection::btree_set(0u32..u32::MAX, 0..200),
            chunk_bytes in 30usize..200,
        ) {
            let pages: Vec<u32> = pages.into_iter().collect();
            let entry = entry(&pages);
            let chunks = entry.encode(chunk_bytes, u16::MAX);
            prop_assert!(chunks.iter().all(|chunk| chunk.len() <= chunk_bytes));
            prop_assert_eq!(decode(&chunks), Ok(Some((VERSION, entry))));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = ChangeReader::default().push(VERSION, 0, &bytes);
        }
    }
}
