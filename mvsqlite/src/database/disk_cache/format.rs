//! A file of the disk cache: pages of one namespace as they are at one version. Written once, never
//! changed. Integers are big-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | `mvsqpgs1` |
//! | 8 | 8 | the store's incarnation |
//! | 16 | 10 | the namespace's id |
//! | 26 | 10 | the version at which all pages are as they stand here |
//! | 36 | 4 | page size |
//! | 40 | 4 | number of pages, n |
//! | 44 | 8 | checksum of bytes 0..44 and of all rows |
//! | 52 | 22 n | rows: page index (4), version it is valid from (10), checksum (8) |
//! | 52 + 22 n | | the pages, in the order of their rows |
//!
//! A checksum is XXH3-64. That of a page has as its seed the XXH3-64 of the file's bytes 8..26 and of
//! the row's first 14: a page does not pass for another one, nor for one of another version, namespace
//! or store.

use mvsqlite_protocol::{Incarnation, NamespaceId, PageIndex, Version};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::database::cache::Identity;

const MAGIC: &[u8; 8] = b"mvsqpgs1";
/// Bytes before the rows.
pub(super) const HEADER: usize = 52;
/// Bytes of a row.
pub(super) const ROW: usize = 22;
/// Where the header's checksum stands.
const CHECKSUM: usize = 44;

/// What a file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) identity: Identity,
    pub(super) version: Version,
    pub(super) page_size: u32,
    pub(super) count: u32,
}

/// What a file says about one of its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) page: PageIndex,
    pub(crate) from: Version,
    pub(crate) checksum: u64,
}

impl Header {
    /// The header and the rows as they stand in the file.
    pub(super) fn encode(&self, rows: &[Row]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + ROW * rows.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.identity.incarnation.as_bytes());
        bytes.extend_from_slice(self.identity.namespace.as_bytes());
        bytes.extend_from_slice(self.version.as_bytes());
        bytes.extend_from_slice(&self.page_size.to_be_bytes());
        bytes.extend_from_slice(&self.count.to_be_bytes());
        bytes.extend_from_slice(&[0; 8]);
        for row in rows {
            bytes.extend_from_slice(&row.page.to_be_bytes());
            bytes.extend_from_slice(row.from.as_bytes());
            bytes.extend_from_slice(&row.checksum.to_be_bytes());
        }
        let checksum = checksum(&bytes);
        bytes[CHECKSUM..HEADER].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// The header alone, without its checksum.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER || !bytes.starts_with(MAGIC) {
            return None;
        }
        Some(Self {
            identity: Identity {
                incarnation: Incarnation::from_bytes(array(bytes, 8)?),
                namespace: NamespaceId::from_bytes(array(bytes, 16)?),
            },
            version: Version::from_bytes(array(bytes, 26)?),
            page_size: u32::from_be_bytes(array(bytes, 36)?),
            count: u32::from_be_bytes(array(bytes, 40)?),
        })
    }

    /// The rows, if header and rows are what was written.
    pub(super) fn rows(&self, bytes: &[u8]) -> Option<Vec<Row>> {
        let rows = bytes.get(HEADER..)?;
        let whole = rows.len() == ROW * self.count as usize;
        let stored = u64::from_be_bytes(array(bytes, CHECKSUM)?);
        if !whole || stored != checksum(bytes) {
            return None;
        }
        let row = |row: &[u8]| {
            Some(Row {
                page: u32::from_be_bytes(array(row, 0)?),
                from: Version::from_bytes(array(row, 4)?),
                checksum: u64::from_be_bytes(array(row, 14)?),
            })
        };
        rows.chunks_exact(ROW).map(row).collect()
    }
}

/// The checksum of a page with its place.
pub(super) fn page_checksum(
    identity: Identity,
    page: PageIndex,
    from: Version,
    content: &[u8],
) -> u64 {
    let mut place = Vec::with_capacity(32);
    place.extend_from_slice(identity.incarnation.as_bytes());
    place.extend_from_slice(identity.namespace.as_bytes());
    place.extend_from_slice(&page.to_be_bytes());
    place.extend_from_slice(from.as_bytes());
    xxh3_64_with_seed(content, xxh3_64(&place))
}

/// Of header and rows, but for the checksum itself.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    let (head, rest) = bytes.split_at(CHECKSUM.min(bytes.len()));
    xxh3_64_with_seed(rest.get(8..).unwrap_or_default(), xxh3_64(head))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> (Header, Vec<Row>) {
        let identity = Identity {
            incarnation: Incarnation::from_bytes([1; 8]),
            namespace: NamespaceId::from_bytes([2; 10]),
        };
        let version = Version::from_bytes([3; 10]);
        let row = Row {
            page: 7,
            from: version,
            checksum: page_checksum(identity, 7, version, b"content"),
        };
        let header = Header {
            identity,
            version,
            page_size: 512,
            count: 1,
        };
        (header, vec![row])
    }

    #[test]
    fn the_bytes_are_those_documented() {
        let (header, rows) = header();
        let bytes = header.encode(&rows);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "6d76737170677331",
            "0101010101010101",
            "02020202020202020202",
            "03030303030303030303",
            "00000200",
            "00000001",
            "f61c4137a5595f5b",
            "00000007",
            "03030303030303030303",
            "c6d15f786e226945",
        );
        assert_eq!(hex, expected);
        assert_eq!(Header::decode(&bytes), Some(header));
        assert_eq!(header.rows(&bytes), Some(rows));
    }

    #[test]
    fn a_changed_or_missing_byte_of_header_or_rows_is_noticed() {
        let (header, rows) = header();
        let bytes = header.encode(&rows);
        let read = |bytes: &[u8]| Header::decode(bytes).and_then(|header| header.rows(bytes));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(read(&damaged), None, "byte {at}");
            assert_eq!(read(&bytes[..at]), None, "cut at {at}");
        }
        let long = [&bytes[..], &[0; ROW]].concat();
        assert_eq!(read(&long), None);
    }

    #[test]
    fn a_page_passes_for_no_other() {
        let (header, _) = header();
        let (identity, version) = (header.identity, header.version);
        let other = Identity {
            namespace: NamespaceId::from_bytes([9; 10]),
            ..identity
        };
        let sums = [
            page_checksum(identity, 7, version, b"content"),
            page_checksum(identity, 8, version, b"content"),
            page_checksum(other, 7, version, b"content"),
            page_checksum(identity, 7, Version::ZERO, b"content"),
            page_checksum(identity, 7, version, b"contenu"),
        ];
        for (at, sum) in sums.iter().enumerate() {
            assert!(!sums[..at].contains(sum));
        }
    }
}
