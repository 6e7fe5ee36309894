//! Files that are whole, damaged, foreign, or being replaced.

use super::*;
use mvsqlite_protocol::{Incarnation, NamespaceId};
use std::os::unix::fs::PermissionsExt;

const SIZE: u32 = 512;

fn identity() -> Identity {
    Identity {
        incarnation: Incarnation::from_bytes([1; 8]),
        namespace: NamespaceId::from_bytes([2; 10]),
    }
}

fn key(name: &str) -> NamespaceKey {
    name.parse().unwrap()
}

fn content(page: PageIndex) -> Arc<[u8]> {
    Arc::from(vec![page as u8; SIZE as usize])
}

fn pages(range: std::ops::Range<PageIndex>) -> Vec<Unsaved> {
    let page = |page| Unsaved {
        page,
        from: Version::new(u64::from(page), 0),
        content: Source::Memory(content(page)),
    };
    range.map(page).collect()
}

fn save(cache: &DiskCache, name: &str, pages: Vec<Unsaved>) -> Option<Arc<SavedPages>> {
    cache.save(&key(name), identity(), Version::new(50, 0), pages)
}

/// What can be read of a namespace.
fn readable(cache: &DiskCache, name: &str) -> Vec<PageIndex> {
    let Some(saved) = cache.load(&key(name)) else {
        return Vec::new();
    };
    let mut readable = Vec::new();
    for (page, from, stored) in saved.stored() {
        if let Some(read) = stored.read() {
            assert_eq!(read, content(page));
            assert_eq!(from, Version::new(u64::from(page), 0));
            readable.push(page);
        }
    }
    readable
}

#[test]
fn what_is_saved_is_read_again_and_saved_again_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let cache = DiskCache::new(directory.path().join("made/when/needed"), 1 << 20);
    assert!(readable(&cache, "a").is_empty());
    let first = save(&cache, "a", pages(1..9)).unwrap();
    assert_eq!(first.identity(), identity());
    assert_eq!(readable(&cache, "a"), (1..9).collect::<Vec<_>>());
    let moved = first.stored().map(|(page, from, stored)| Unsaved {
        page,
        from,
        content: Source::Disk(stored),
    });
    let moved: Vec<_> = moved.chain(pages(9..12)).collect();
    save(&cache, "a", moved).unwrap();
    assert_eq!(readable(&cache, "a"), (1..12).collect::<Vec<_>>());
    // Whoever had the first one open goes on with it.
    assert!(first.stored().all(|(_, _, stored)| stored.read().is_some()));
    let file = cache.path(&key("a")).metadata().unwrap();
    assert_eq!(file.mode() & 0o777, 0o600);
}

#[test]
fn a_file_cut_off_or_changed_anywhere_gives_right_pages_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let cache = DiskCache::new(directory.path().to_owned(), 1 << 20);
    save(&cache, "a", pages(1..4)).unwrap();
    let path = cache.path(&key("a"));
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&path, &damaged).unwrap();
        assert!(readable(&cache, "a").len() < 3, "byte {at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(readable(&cache, "a").len() < 3, "cut at {at}");
    }
    for foreign in [&b""[..], b"mvsqpgs1", &[0xff; 4096]] {
        std::fs::write(&path, foreign).unwrap();
        assert!(readable(&cache, "a").is_empty());
    }
    // A file of another namespace in its place says whose it is.
    std::fs::write(&path, &whole).unwrap();
    std::fs::rename(&path, cache.path(&key("b"))).unwrap();
    assert_eq!(cache.load(&key("b")).unwrap().identity(), identity());
}

#[test]
fn what_others_may_write_or_point_to_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let cache = DiskCache::new(directory.path().to_owned(), 1 << 20);
    save(&cache, "a", pages(1..4)).unwrap();
    let path = cache.path(&key("a"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o622)).unwrap();
    assert!(cache.load(&key("a")).is_none());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&path, cache.path(&key("b"))).unwrap();
    assert!(cache.load(&key("b")).is_none());
    assert!(cache.load(&key("a")).is_some());
}

#[test]
fn the_oldest_files_make_room_and_one_takes_half_at_most() {
    let directory = tempfile::tempdir().unwrap();
    let cache = DiskCache::new(directory.path().to_owned(), 40 * 540);
    // The first ones are those last used: they are kept.
    save(&cache, "a", pages(1..40)).unwrap();
    let kept = readable(&cache, "a");
    assert!(kept.len() < 21 && kept.len() > 15, "{kept:?}");
    assert_eq!(kept[0], 1);
    let long_ago = SystemTime::now() - Duration::from_secs(5000);
    let age = |path: &Path| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(long_ago).unwrap();
    };
    age(&cache.path(&key("a")));
    let abandoned = directory.path().join("x.1-1.tmp");
    std::fs::write(&abandoned, b"half").unwrap();
    age(&abandoned);
    save(&cache, "b", pages(1..16)).unwrap();
    save(&cache, "c", pages(1..16)).unwrap();
    assert!(readable(&cache, "a").is_empty());
    assert_eq!(readable(&cache, "b").len(), 15);
    assert_eq!(readable(&cache, "c").len(), 15);
    assert!(!abandoned.exists());
}

#[test]
fn where_nothing_can_be_written_nothing_is_kept_and_nobody_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, b"in the way").unwrap();
    let cache = DiskCache::new(file.join("below"), 1 << 20);
    assert!(save(&cache, "a", pages(1..4)).is_none());
    assert!(cache.load(&key("a")).is_none());
    let full = DiskCache::new(PathBuf::from("/dev"), 1 << 20);
    assert!(full.load(&key("a")).is_none());
}

#[test]
fn pages_of_another_size_or_from_later_versions_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let cache = DiskCache::new(directory.path().to_owned(), 1 << 20);
    let mut pages = pages(1..4);
    pages[1].content = Source::Memory(Arc::from([0; 10]));
    pages[2].from = Version::new(51, 0);
    save(&cache, "a", pages);
    assert_eq!(readable(&cache, "a"), [1]);
}
