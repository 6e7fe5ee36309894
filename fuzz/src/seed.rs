//! Well-formed bytes that several targets begin with.

/// Bytes from hex digits; whatever else stands between them is for the reader.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// A page 1 with a header and the b-tree header of a leaf without cells.
pub(crate) fn page_one(page_size: usize, count: u32) -> Vec<u8> {
    let mut page = vec![0; page_size];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    let size = u16::try_from(page_size).unwrap_or(1);
    page[16..18].copy_from_slice(&size.to_be_bytes());
    page[18..20].fill(1);
    page[21..24].copy_from_slice(&[64, 32, 32]);
    page[28..32].copy_from_slice(&count.to_be_bytes());
    page[100] = 13;
    page[105..107].copy_from_slice(&size.to_be_bytes());
    page
}

/// A b-tree page of a kind with these cells; an interior one names its last child.
pub(crate) fn btree_page(size: usize, kind: u8, cells: &[&[u8]], last_child: u32) -> Vec<u8> {
    let mut page = vec![0; size];
    let interior = kind == 2 || kind == 5;
    page[0] = kind;
    page[4] = cells.len() as u8;
    let mut pointer = 8;
    if interior {
        page[8..12].copy_from_slice(&last_child.to_be_bytes());
        pointer = 12;
    }
    let mut end = size;
    for cell in cells {
        end -= cell.len();
        page[end..end + cell.len()].copy_from_slice(cell);
        page[pointer..pointer + 2].copy_from_slice(&(end as u16).to_be_bytes());
        pointer += 2;
    }
    page
}
