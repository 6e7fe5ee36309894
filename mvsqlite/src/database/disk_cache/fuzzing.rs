//! What fuzzing asks of files of the disk cache.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use super::format::checksum;
use super::*;

/// A file of any bytes, and the same with its checksums put right. Whatever it says, what is read of
/// it is what it says: pages of its size from not after its version.
pub fn disk_cache(bytes: &[u8], directory: &Path) {
    let cache = DiskCache::new(directory.to_owned(), 1 << 20);
    let key: NamespaceKey = "a".parse().expect("a key");
    let mut sealed = bytes.to_vec();
    for whole in [false, seal(&mut sealed)] {
        let bytes = if whole { &sealed } else { bytes };
        let path = cache.path(&key);
        let _ = fs::remove_file(&path);
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o600).open(&path);
        made.and_then(|mut file| file.write_all(bytes))
            .expect("a temporary file is written");
        let saved = cache.load(&key);
        assert!(
            saved.is_some() || !whole,
            "a file that is whole is not read"
        );
        if let Some(saved) = saved {
            read(&saved, bytes);
        }
    }
}

fn read(saved: &Arc<SavedPages>, bytes: &[u8]) {
    let size = saved.header.page_size as usize;
    assert!((MIN_PAGE_SIZE as usize..=MAX_PAGE_SIZE as usize).contains(&size));
    let header = saved.header.encode(&saved.rows);
    assert!(
        bytes.starts_with(&header),
        "what was read is not what stands there"
    );
    for (number, (page, from, stored)) in saved.stored().enumerate() {
        assert!(from <= saved.version());
        let begin = header.len() + number * size;
        if let Some(content) = stored.read() {
            assert_eq!(Some(&*content), bytes.get(begin..begin + size));
            assert!(stored.is_same(saved.identity(), page, from, saved.header.page_size));
        }
    }
}

/// Makes the bytes a whole file if they are one but for their checksums.
fn seal(bytes: &mut [u8]) -> bool {
    let Some(header) = Header::decode(bytes) else {
        return false;
    };
    let (count, size) = (header.count as usize, header.page_size as usize);
    let sizes = MIN_PAGE_SIZE..=MAX_PAGE_SIZE;
    let behind = HEADER + ROW * count;
    if header.count > MOST_PAGES || !sizes.contains(&header.page_size) || bytes.len() < behind {
        return false;
    }
    for row in 0..count {
        let at = HEADER + ROW * row;
        let place = &bytes[at..at + 14];
        let page = PageIndex::from_be_bytes([place[0], place[1], place[2], place[3]]);
        let from = Version::from_slice(&place[4..]).expect("ten bytes");
        if from > header.version {
            return false;
        }
        let content = bytes.get(behind + row * size..behind + (row + 1) * size);
        if let Some(content) = content {
            let sum = page_checksum(header.identity, page, from, content);
            bytes[at + 14..at + ROW].copy_from_slice(&sum.to_be_bytes());
        }
    }
    let sum = checksum(&bytes[..behind]);
    bytes[HEADER - 8..HEADER].copy_from_slice(&sum.to_be_bytes());
    true
}
