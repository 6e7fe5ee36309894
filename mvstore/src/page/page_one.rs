//! Page 1: what its header says, and what a commit changed in it.
//!
//! SQLite rewrites page 1 at every COMMIT, so if it were judged like any other page, every pair
//! of writers would collide on it. What counts as a change, and for whom, is decided here; how
//! the classes conflict is decided in `conflict`.

use mvsqlite_protocol::page::{MAX_PAGE_SIZE, MIN_PAGE_SIZE};

use crate::error::StoreError;
use crate::layout::PageOneClass;

const MAGIC: &[u8] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;

/// What the header of a SQLite database says about its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Page size in bytes; one that this store can hold.
    pub page_size: u32,
    /// Page count; 0 is "unknown" in files of SQLite versions before 3.7.0.
    pub page_count: u32,
}

impl Header {
    /// Reads the header of a page 1; `None` if the content is not that of a SQLite database.
    ///
    /// # Errors
    /// [`StoreError::BadPages`] for a page size that SQLite does not know, or that this store
    /// cannot hold.
    pub(crate) fn parse(page: &[u8]) -> Result<Option<Self>, StoreError> {
        if page.len() < HEADER_BYTES || !page.starts_with(MAGIC) {
            return Ok(None);
        }
        let page_size = u32::from(u16::from_be_bytes([page[16], page[17]]));
        if page_size == 1 {
            return Err(StoreError::BadPages {
                reason: "the database has pages of 65536 bytes; the largest that can be stored are of 32768".to_owned(),
                hint: "make the database with 'PRAGMA page_size = 32768', or VACUUM a local copy to that size first",
            });
        }
        if !page_size.is_power_of_two() || !(MIN_PAGE_SIZE..=MAX_PAGE_SIZE).contains(&page_size) {
            return Err(StoreError::BadPages {
                reason: format!(
                    "page 1 gives a page size of {page_size} bytes, which no SQLite database has"
                ),
                hint: "check that the file is an intact SQLite database",
            });
        }
        Ok(Some(Self {
            page_size,
            page_count: u32::from_be_bytes([page[28], page[29], page[30], page[31]]),
        }))
    }
}

/// What a commit that brings page 1 changes in it, compared with page 1 at its base.
///
/// Change counter (24..28), version-valid-for and library version (92..100) never count. Content
/// that does not begin like a SQLite database, before or after, is taken as it comes: any write
/// of it is a change of everything.
pub(crate) fn classify(old: Option<&[u8]>, new: &[u8]) -> PageOneClass {
    let is_database = |page: &[u8]| page.len() >= HEADER_BYTES && page.starts_with(MAGIC);
    let Some(old) = old.filter(|old| old.len() == new.len()) else {
        return PageOneClass::Schema;
    };
    if !is_database(old) || !is_database(new) {
        return PageOneClass::Schema;
    }
    let same = |from: usize, to: usize| old[from..to] == new[from..to];
    if !same(0, 24) || !same(40, 92) || !same(HEADER_BYTES, new.len()) {
        PageOneClass::Schema
    } else if !same(28, 40) {
        PageOneClass::Allocation
    } else {
        PageOneClass::Untouched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn page_one(page_size: u16, page_count: u32) -> Vec<u8> {
        let mut page = vec![0; 512];
        page[..16].copy_from_slice(MAGIC);
        page[16..18].copy_from_slice(&page_size.to_be_bytes());
        page[28..32].copy_from_slice(&page_count.to_be_bytes());
        page
    }

    #[test]
    fn the_header_gives_page_size_and_count() {
        for page_size in [512, 1024, 4096, 32768] {
            let header = Header::parse(&page_one(page_size, 7)).unwrap();
            let expected = Header {
                page_size: page_size.into(),
                page_count: 7,
            };
            assert_eq!(header, Some(expected));
        }
        assert_eq!(Header::parse(b"SQLite format 3\0"), Ok(None));
        assert_eq!(Header::parse(&[0; 512]), Ok(None));
    }

    #[test]
    fn page_sizes_that_cannot_be_stored_are_refused_by_name() {
        let refusal = |page_size| {
            Header::parse(&page_one(page_size, 1))
                .unwrap_err()
                .to_string()
        };
        assert!(refusal(1).contains("65536"));
        assert!(refusal(1000).contains("1000"));
        assert!(refusal(256).contains("256"));
    }

    proptest! {
        #[test]
        fn each_byte_of_page_1_has_its_class(at in 0usize..512, bit in 0u8..8) {
            let old = page_one(512, 7);
            let mut new = old.clone();
            new[at] ^= 1 << bit;
            let expected = match at {
                24..28 | 92..100 => PageOneClass::Untouched,
                28..40 => PageOneClass::Allocation,
                _ => PageOneClass::Schema,
            };
            prop_assert_eq!(classify(Some(&old), &new), expected);
        }
    }

    #[test]
    fn content_that_is_no_database_changes_everything() {
        let page = page_one(512, 7);
        assert_eq!(classify(None, &page), PageOneClass::Schema);
        assert_eq!(classify(Some(&[1; 512]), &[1; 512]), PageOneClass::Schema);
        assert_eq!(classify(Some(&page), &[1; 512]), PageOneClass::Schema);
        assert_eq!(
            classify(Some(&page), &[page.as_slice(), &[0; 512]].concat()),
            PageOneClass::Schema
        );
    }
}
