//! SQLite's b-tree pages, as far as guessing needs them: who is whose child, which rowids stand in
//! an index, where overflow begins. See "Database File Format" of SQLite's documentation, 1.6.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | kind: 2 interior index, 5 interior table, 10 leaf index, 13 leaf table |
//! | 3 | 2 | number of cells |
//! | 8 | 4 | interior only: the last child |
//! | 8, 12 | 2 each | where each cell begins |
//!
//! On page 1 all this begins at 100; cell offsets count from the page's beginning nevertheless.
//!
//! The bytes may be anything: every method answers `None` rather than looking beyond the page.

use mvsqlite_protocol::PageIndex;
use mvsqlite_protocol::v2::PAGE_1;

/// Length of the header of the file, which stands before the b-tree header of page 1.
const FILE_HEADER: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    InteriorIndex,
    InteriorTable,
    LeafIndex,
    LeafTable,
}

/// A b-tree page.
#[derive(Debug, Clone, Copy)]
pub(super) struct BtreePage<'a> {
    bytes: &'a [u8],
    header: usize,
    pub(super) kind: Kind,
    cells: usize,
}

/// Where a payload goes on when it does not fit its cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overflow {
    pub(super) first: PageIndex,
    /// Pages of the chain, at least one.
    pub(super) pages: u32,
}

/// A cell's payload: how long it is, and the part of it that lies in the cell.
struct Payload<'a> {
    length: usize,
    local: &'a [u8],
    behind: &'a [u8],
}

impl<'a> BtreePage<'a> {
    /// The page, if it looks like one of a b-tree.
    pub(super) fn parse(index: PageIndex, bytes: &'a [u8]) -> Option<Self> {
        let header = if index == PAGE_1 { FILE_HEADER } else { 0 };
        let kind = match bytes.get(header)? {
            2 => Kind::InteriorIndex,
            5 => Kind::InteriorTable,
            10 => Kind::LeafIndex,
            13 => Kind::LeafTable,
            _ => return None,
        };
        let cells = usize::from(be16(bytes, header + 3)?);
        let page = Self {
            bytes,
            header,
            kind,
            cells,
        };
        // The pointers must fit.
        bytes.get(page.pointers() + 2 * cells..)?;
        Some(page)
    }

    pub(super) fn is_interior(&self) -> bool {
        matches!(self.kind, Kind::InteriorIndex | Kind::InteriorTable)
    }

    /// Number of cells; an interior page has one child more.
    pub(super) fn cells(&self) -> usize {
        self.cells
    }

    fn pointers(&self) -> usize {
        self.header + if self.is_interior() { 12 } else { 8 }
    }

    fn cell(&self, number: usize) -> Option<&'a [u8]> {
        if number >= self.cells {
            return None;
        }
        let offset = be16(self.bytes, self.pointers() + 2 * number)?;
        self.bytes.get(usize::from(offset)..)
    }

    /// A child of an interior page, `0..=cells()`.
    pub(super) fn child(&self, number: usize) -> Option<PageIndex> {
        if !self.is_interior() {
            return None;
        }
        let page = match number == self.cells {
            true => be32(self.bytes, self.header + 8)?,
            false => be32(self.cell(number)?, 0)?,
        };
        page.checked_sub(1)
    }

    /// The rowid in a cell of a table's page: of an interior one, the largest below its child.
    pub(super) fn rowid(&self, number: usize) -> Option<i64> {
        let cell = self.cell(number)?;
        let rest = match self.kind {
            Kind::InteriorTable => cell.get(4..)?,
            Kind::LeafTable => varint(cell)?.1,
            Kind::InteriorIndex | Kind::LeafIndex => return None,
        };
        Some(varint(rest)?.0.cast_signed())
    }

    /// The child of an interior table page that a rowid lies below.
    pub(super) fn child_of_rowid(&self, rowid: i64) -> Option<usize> {
        let (mut low, mut high) = (0, self.cells);
        while low < high {
            let middle = (low + high) / 2;
            match self.rowid(middle)? < rowid {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Some(low)
    }

    /// The last column of a cell of an index leaf, if it is an integer: the rowid, unless the table
    /// is one WITHOUT ROWID. `usable`: bytes of a page that SQLite uses.
    pub(super) fn indexed_rowid(&self, number: usize, usable: usize) -> Option<i64> {
        if self.kind != Kind::LeafIndex {
            return None;
        }
        let payload = self.payload(self.cell(number)?, usable)?;
        if payload.local.len() < payload.length {
            return None;
        }
        last_integer(payload.local)
    }

    /// Where the payload of a leaf's cell goes on, if it does.
    pub(super) fn overflow(&self, number: usize, usable: usize) -> Option<Overflow> {
        let cell = self.cell(number)?;
        let payload = self.payload(cell, usable)?;
        let left = payload.length.checked_sub(payload.local.len())?;
        if left == 0 {
            return None;
        }
        let pages = left.div_ceil(usable.checked_sub(4)?.max(1));
        Some(Overflow {
            first: be32(payload.behind, 0)?.checked_sub(1)?,
            pages: u32::try_from(pages).unwrap_or(u32::MAX),
        })
    }

    /// The payload of a leaf's cell.
    fn payload(&self, cell: &'a [u8], usable: usize) -> Option<Payload<'a>> {
        let (length, rest) = varint(cell)?;
        let length = usize::try_from(length).ok()?;
        let fifth = |part: usize| (usable.checked_sub(12)? * part / 255).checked_sub(23);
        let (most, rest) = match self.kind {
            Kind::LeafTable => (usable.checked_sub(35)?, varint(rest)?.1),
            Kind::LeafIndex => (fifth(64)?, rest),
            Kind::InteriorIndex | Kind::InteriorTable => return None,
        };
        let local = if length <= most {
            length
        } else {
            let least = fifth(32)?;
            let fitting = least + (length.checked_sub(least)?) % usable.checked_sub(4)?.max(1);
            if fitting <= most { fitting } else { least }
        };
        Some(Payload {
            length,
            local: rest.get(..local)?,
            behind: rest.get(local..)?,
        })
    }
}

/// The page behind this one in an overflow chain; `None` at its end.
pub(super) fn next_overflow(bytes: &[u8]) -> Option<PageIndex> {
    be32(bytes, 0)?.checked_sub(1)
}

/// The last column of a record that is there as a whole, if it is an integer.
fn last_integer(record: &[u8]) -> Option<i64> {
    let (header_length, _) = varint(record)?;
    let header = record.get(..usize::try_from(header_length).ok()?)?;
    let mut types = varint(header)?.1;
    let mut last = None;
    while !types.is_empty() {
        let (serial_type, rest) = varint(types)?;
        (last, types) = (Some(serial_type), rest);
    }
    let size = match last? {
        length @ 1..=4 => length as usize,
        5 => 6,
        6 => 8,
        8 => return Some(0),
        9 => return Some(1),
        _ => return None,
    };
    let start = record.len().checked_sub(size)?;
    if start < header.len() {
        return None;
    }
    let bytes = record.get(start..)?;
    let sign = if bytes.first()? & 0x80 == 0 { 0 } else { -1 };
    Some(bytes.iter().fold(sign, |n, byte| n << 8 | i64::from(*byte)))
}

/// SQLite's variable-length integer, and what stands behind it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for length in 0..8 {
        let byte = *bytes.get(length)?;
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[length + 1..]));
        }
    }
    let last = *bytes.get(8)?;
    Some((value << 8 | u64::from(last), &bytes[9..]))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(field.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whatever a page says, all that can be asked of it.
    fn ask_everything(index: PageIndex, bytes: &[u8], usable: usize) {
        let _ = next_overflow(bytes);
        let Some(page) = BtreePage::parse(index, bytes) else {
            return;
        };
        for number in 0..=page.cells().min(600) + 1 {
            let _ = (page.child(number), page.rowid(number));
            let _ = page.indexed_rowid(number, usable);
            let _ = page.overflow(number, usable);
        }
        for rowid in [i64::MIN, -1, 0, 7, i64::MAX] {
            assert!(page.child_of_rowid(rowid).is_none_or(|n| n <= page.cells()));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_answered_without_a_panic(
            index in 0u32..2,
            kind in prop::sample::select(vec![2u8, 5, 10, 13, 0, 255]),
            mut bytes in prop::collection::vec(any::<u8>(), 0..1200),
            usable in 0usize..70_000,
        ) {
            let header = if index == 0 { 100 } else { 0 };
            if let Some(first) = bytes.get_mut(header) {
                *first = kind;
            }
            // Few cells now and then, so that the pointers fit.
            if let Some(high) = bytes.get_mut(header + 3) && *high > 3 {
                *high = 0;
            }
            ask_everything(index, &bytes, usable);
        }

        #[test]
        fn a_page_cut_off_anywhere_is_answered_without_a_panic(
            cut in 0usize..512,
            flip in 0usize..512,
            value in any::<u8>(),
        ) {
            let mut bytes = interior_table(&[(3, 10), (4, 20)], 9);
            bytes[flip] = value;
            ask_everything(1, &bytes[..cut], 512);
        }
    }

    fn interior_table(cells: &[(u32, u8)], last: u32) -> Vec<u8> {
        let mut page = vec![0; 512];
        page[0] = 5;
        page[3..5].copy_from_slice(&(cells.len() as u16).to_be_bytes());
        page[8..12].copy_from_slice(&last.to_be_bytes());
        for (number, (child, rowid)) in cells.iter().enumerate() {
            let at = 500 - 8 * number;
            page[12 + 2 * number..14 + 2 * number].copy_from_slice(&(at as u16).to_be_bytes());
            page[at..at + 4].copy_from_slice(&child.to_be_bytes());
            page[at + 4] = *rowid;
        }
        page
    }

    #[test]
    fn an_interior_table_page_names_its_children_and_finds_rowids_below_them() {
        let bytes = interior_table(&[(3, 10), (4, 20)], 9);
        let page = BtreePage::parse(1, &bytes).unwrap();
        let children: Vec<_> = (0..4).map(|number| page.child(number)).collect();
        assert_eq!(children, [Some(2), Some(3), Some(8), None]);
        let found = [-5, 10, 11, 20, 21].map(|rowid| page.child_of_rowid(rowid));
        assert_eq!(found, [0, 0, 1, 1, 2].map(Some));
    }

    #[test]
    fn rowids_of_every_width_stand_at_the_end_of_an_index_record() {
        // Header of three bytes: its length, a text of one byte, the integer's type.
        let record = |serial_type: u8, body: &[u8]| {
            let mut record = vec![3, 15, serial_type, b'x'];
            record.extend_from_slice(body);
            last_integer(&record)
        };
        assert_eq!(record(1, &[0xff]), Some(-1));
        assert_eq!(record(2, &[0x01, 0x02]), Some(0x0102));
        assert_eq!(record(5, &[0x80, 0, 0, 0, 0, 0]), Some(-(1 << 47)));
        assert_eq!(
            record(6, &[0x7f, 0, 0, 0, 0, 0, 0, 1]),
            Some(0x7f00_0000_0000_0001)
        );
        assert_eq!(record(8, &[]), Some(0));
        assert_eq!(record(9, &[]), Some(1));
        assert_eq!(record(15, b"y"), None);
        assert_eq!(record(6, &[1]), None);
    }

    #[test]
    fn a_varint_takes_up_to_nine_bytes() {
        assert_eq!(varint(&[0x7f, 9]), Some((0x7f, &[9][..])));
        assert_eq!(varint(&[0x81, 0]), Some((128, &[][..])));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, &[][..])));
        assert_eq!(varint(&[0xff; 8]), None);
    }
}
