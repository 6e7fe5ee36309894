//! SQLite's page 1: the header fields that the protocol between SQLite and us turns on.
//!
//! | bytes | field | stored | served |
//! |---|---|---|---|
//! | 16..18 | page size | as written | as stored |
//! | 18..20 | write and read format | as written | WAL (2) as rollback journal (1) |
//! | 24..28 | change counter | zero | the handle's counter |
//! | 28..32 | page count | as written | as stored |
//! | 92..96 | version the change counter is valid for | zero | the handle's counter |
//! | 96..100 | library version | zero | zero |

use std::ops::Range;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const FORMATS: Range<usize> = 18..20;
const CHANGE_COUNTER: Range<usize> = 24..28;
const PAGE_COUNT: Range<usize> = 28..32;
const VALID_FOR: Range<usize> = 92..96;
/// Valid-for and library version together.
const VALID_FOR_AND_LIBRARY: Range<usize> = 92..100;

const ROLLBACK_JOURNAL: u8 = 1;
const WAL: u8 = 2;

/// The bytes of page 1 whose reading tells SQLite whether its cache is still good.
pub(super) const CACHE_CHECK: Range<u64> = 24..28;

/// Whether these bytes are the beginning of a SQLite database, header complete.
pub(super) fn is_sqlite(page: &[u8]) -> bool {
    page.len() >= 512 && page.starts_with(MAGIC)
}

/// The page size by the header, in bytes, whether or not it is one we can store.
pub(super) fn page_size(page: &[u8]) -> u32 {
    match u32::from(page[16]) << 8 | u32::from(page[17]) {
        1 => 65_536,
        size => size,
    }
}

/// Bytes at the end of each page that SQLite leaves alone.
pub(super) fn reserved(page: &[u8]) -> usize {
    page.get(20).copied().map_or(0, usize::from)
}

/// The size of the database in pages.
pub(super) fn page_count(page: &[u8]) -> u32 {
    big_endian(&page[PAGE_COUNT])
}

/// The change counter.
pub(super) fn change_counter(page: &[u8]) -> u32 {
    big_endian(&page[CHANGE_COUNTER])
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

/// Page 1 as SQLite gets to see it.
pub(super) fn served(stored: &[u8], counter: u32) -> Vec<u8> {
    let mut page = stored.to_vec();
    if !is_sqlite(stored) {
        return page;
    }
    for format in &mut page[FORMATS] {
        if *format == WAL {
            *format = ROLLBACK_JOURNAL;
        }
    }
    page[CHANGE_COUNTER].copy_from_slice(&counter.to_be_bytes());
    page[VALID_FOR].copy_from_slice(&counter.to_be_bytes());
    page
}

/// Page 1 as it is stored when SQLite has written this one over `base`.
pub(super) fn stored(written: &[u8], base: Option<&[u8]>) -> Vec<u8> {
    let mut page = written.to_vec();
    page[CHANGE_COUNTER].fill(0);
    page[VALID_FOR_AND_LIBRARY].fill(0);
    // SQLite was shown WAL as rollback journal; writing that back changes nothing.
    for byte in FORMATS {
        if base.is_some_and(|base| base[byte] == WAL) && page[byte] == ROLLBACK_JOURNAL {
            page[byte] = WAL;
        }
    }
    page
}

/// Whether a page 1 in stored form says the same as `base`, leaving counters aside.
pub(super) fn is_unchanged(stored_form: &[u8], base: &[u8]) -> bool {
    stored(base, None) == stored_form
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(counter: u32, formats: u8, count: u32) -> Vec<u8> {
        let mut page = vec![7; 512];
        page[..16].copy_from_slice(MAGIC);
        page[16..18].copy_from_slice(&[2, 0]);
        page[FORMATS].fill(formats);
        page[CHANGE_COUNTER].copy_from_slice(&counter.to_be_bytes());
        page[VALID_FOR].copy_from_slice(&counter.to_be_bytes());
        page[PAGE_COUNT].copy_from_slice(&count.to_be_bytes());
        page
    }

    #[test]
    fn counters_and_library_version_are_stored_as_zeros() {
        let stored = stored(&page(9, 1, 4), None);
        assert_eq!(stored[CHANGE_COUNTER], [0; 4]);
        assert_eq!(stored[VALID_FOR_AND_LIBRARY], [0; 8]);
        assert_eq!((page_count(&stored), page_size(&stored)), (4, 512));
        assert!(is_unchanged(&stored, &page(1234, 1, 4)));
        assert!(!is_unchanged(&stored, &page(9, 1, 5)));
    }

    #[test]
    fn both_counters_are_served_alike_and_a_wal_header_as_rollback_mode() {
        let served = served(&page(0, WAL, 4), 0x0102_0304);
        assert_eq!(served[CHANGE_COUNTER], [1, 2, 3, 4]);
        assert_eq!(served[VALID_FOR], [1, 2, 3, 4]);
        assert_eq!(served[FORMATS], [1, 1]);
    }

    #[test]
    fn a_wal_header_written_back_as_it_was_served_is_no_change() {
        let base = page(0, WAL, 4);
        let written = served(&base, 77);
        assert!(is_unchanged(&stored(&written, Some(&base)), &base));
    }

    #[test]
    fn the_largest_page_size_is_stored_as_one() {
        let mut page = page(0, 1, 1);
        page[16..18].copy_from_slice(&[0, 1]);
        assert_eq!(page_size(&page), 65_536);
    }
}
