//! The file that SQLite sees: page sizes, headers, offsets, pragmas, and how pages come and go.

use mvsqlite::database::Cause;
use mvsqlite::{LockLevel, Pragma, Read, SqliteCode};

use crate::model::KEY;
use crate::pager::{Ended, PAGE_SIZE, new_page1, page_with};
use crate::{World, create, open, try_open};

/// A page 1 for any page size.
fn page1_of(size: u32) -> Vec<u8> {
    let mut page = vec![0; size as usize];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    let field = if size == 65_536 { 1 } else { size as u16 };
    page[16..18].copy_from_slice(&field.to_be_bytes());
    page[18..20].fill(1);
    page[24..28].copy_from_slice(&1u32.to_be_bytes());
    page[28..32].copy_from_slice(&1u32.to_be_bytes());
    page[92..96].copy_from_slice(&1u32.to_be_bytes());
    page
}

#[test]
fn every_page_size_from_512_to_32768_is_taken_and_65536_refused() {
    for size in (9..=16).map(|shift| 1u32 << shift) {
        let world = World::new();
        let env = world.process();
        let mut file = try_open(&env, KEY).unwrap();
        file.lock(LockLevel::Exclusive).unwrap();
        let written = file.write(0, &page1_of(size));
        if size == 65_536 {
            let error = written.unwrap_err();
            assert!(matches!(error.cause(), Cause::PageSizeUnsupported(65_536)));
            assert_eq!(error.sqlite_code(), SqliteCode::Error);
            continue;
        }
        written.unwrap();
        file.sync(None).unwrap();
        file.unlock(LockLevel::None);
        let mut again = try_open(&env, KEY).unwrap();
        assert_eq!(again.page_size(), Some(size));
        assert_eq!(again.default_page_size(), size);
        assert_eq!(again.size().unwrap(), u64::from(size));
    }
}

#[test]
fn a_change_of_the_page_size_is_refused_before_anything_is_written() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 3);
    let head = world.model.state().head();
    let refused = |error: &mvsqlite::Error| {
        let text = error.to_string();
        assert!(matches!(
            error.cause(),
            Cause::PageSizeChange { from: 512, .. }
        ));
        assert!(text.contains("VACUUM INTO"), "{text}");
    };
    // VACUUM writes pages of the old size: its header tells.
    pager.begin().unwrap();
    let old = pager.page(0).unwrap();
    pager.file.lock(LockLevel::Exclusive).unwrap();
    refused(&pager.file.write(0, &page1_of(1024)[..512]).unwrap_err());
    // The playback.
    pager.file.write(0, &old).unwrap();
    pager.file.sync(None).unwrap();
    pager.end();
    // Pages of the new size tell as well.
    pager.begin().unwrap();
    pager.file.lock(LockLevel::Exclusive).unwrap();
    refused(&pager.file.write(1024, &page1_of(1024)).unwrap_err());
    pager.end();
    // With the pragma, the very beginning of the VACUUM does.
    pager.file.overwrite().unwrap();
    assert_eq!(
        pager.file.pragma("page_size", Some("1024")),
        Pragma::NotOurs
    );
    pager.begin().unwrap();
    refused(&pager.file.overwrite().unwrap_err());
    pager.end();
    assert_eq!(world.model.state().head(), head);
}

#[test]
fn a_page_1_that_is_no_sqlite_header_is_refused() {
    let world = World::new();
    let mut file = try_open(&world.process(), KEY).unwrap();
    file.lock(LockLevel::Exclusive).unwrap();
    let error = file.write(0, &[1; 512]).unwrap_err();
    assert_eq!(error.sqlite_code(), SqliteCode::NotADatabase);
    // What others have stored there is not taken for an empty file.
    let world = World::new();
    world.model.state().commit_directly(vec![(0, vec![1; 512])]);
    let error = try_open(&world.process(), KEY).err().unwrap();
    assert_eq!(error.sqlite_code(), SqliteCode::NotADatabase);
}

#[test]
fn a_wal_header_is_served_as_rollback_mode_and_stays_as_it_is_stored() {
    let world = World::new();
    let mut page1 = new_page1(2, 0);
    page1[18..20].fill(2);
    let pages = vec![(0, page1), (1, page_with(1))];
    world.model.state().commit_directly(pages);
    let mut pager = open(&world.process());
    pager.begin().unwrap();
    assert_eq!(pager.page(0).unwrap()[18..20], [1, 1]);
    pager.reserve().unwrap();
    pager.change(1, page_with(9)).unwrap();
    assert_eq!(pager.commit(false), Ended::Committed);
    let state = world.model.state();
    assert!(!state.commits.last().unwrap().changed.contains(0));
    assert_eq!(state.page(0, state.head()).unwrap()[18..20], [2, 2]);
}

#[test]
fn any_offset_and_length_can_be_read_and_the_end_is_zero_filled() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 3);
    let mut whole = vec![0; 3 * PAGE_SIZE];
    pager.begin().unwrap();
    assert_eq!(pager.file.read(0, &mut whole).unwrap(), Read::Full);
    for (offset, length) in [(24, 16), (500, 30), (1, 1535), (1000, 100), (1535, 1)] {
        let mut part = vec![0xEE; length];
        let read = pager.file.read(offset as u64, &mut part).unwrap();
        assert_eq!(read, Read::Full);
        assert_eq!(part, whole[offset..offset + length]);
    }
    let mut part = vec![0xEE; 100];
    let read = pager.file.read(1500, &mut part).unwrap();
    assert_eq!(read, Read::Short(36));
    assert_eq!(part[..36], whole[1500..]);
    assert_eq!(part[36..], [0; 64]);
    let read = pager.file.read(u64::MAX - 5, &mut part).unwrap();
    assert_eq!(read, Read::Short(0));
    pager.end();
}

#[test]
fn a_hole_reads_as_zeros_and_a_cut_off_page_does_not_come_back() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 4);
    pager.begin().unwrap();
    pager.file.lock(LockLevel::Exclusive).unwrap();
    pager.file.truncate(2 * PAGE_SIZE as u64).unwrap();
    // Grows again with the last page only.
    let last = 5 * PAGE_SIZE as u64;
    pager.file.write(last, &page_with(55)).unwrap();
    assert_eq!(pager.file.size().unwrap(), last + PAGE_SIZE as u64);
    let mut page = vec![0xEE; PAGE_SIZE];
    for hole in 2..5 {
        let offset = hole * PAGE_SIZE as u64;
        assert_eq!(pager.file.read(offset, &mut page).unwrap(), Read::Full);
        assert_eq!(page, [0; PAGE_SIZE]);
    }
    pager.end();
}

#[test]
fn what_is_too_large_for_one_request_is_staged_with_page_1_inline() {
    let world = World::new();
    {
        let mut state = world.model.state();
        state.limits.inline_bytes = 4 * PAGE_SIZE as u64;
        state.limits.stage_batch_bytes = 3 * PAGE_SIZE as u64;
    }
    let mut pager = open(&world.process());
    world.model.calls();
    create(&mut pager, 9);
    let calls = world.model.calls();
    // Three pages go along with page 1.
    assert_eq!(calls, ["begin", "stage", "stage", "commit"]);
    let mut reader = open(&world.process());
    reader.begin().unwrap();
    for page in 1..9 {
        assert_eq!(reader.page(page).unwrap(), page_with(u64::from(page)));
    }
    reader.end();
}

#[test]
fn more_pages_than_a_commit_may_have_are_sqlite_full() {
    let world = World::new();
    world.model.state().limits.commit_pages = 3;
    let mut file = try_open(&world.process(), KEY).unwrap();
    file.lock(LockLevel::Exclusive).unwrap();
    for page in 1..4 {
        file.write(page * 512, &page_with(page)).unwrap();
    }
    let error = file.write(0, &new_page1(4, 0)).unwrap_err();
    assert_eq!(error.sqlite_code(), SqliteCode::Full);
    assert!(error.to_string().contains("more than 3 pages"), "{error}");
}

#[test]
fn a_scan_asks_for_many_pages_at_once_and_point_reads_for_one() {
    let world = World::new();
    let mut writer = open(&world.process());
    create(&mut writer, 400);
    let mut reader = open(&world.process());
    reader.begin().unwrap();
    world.model.calls();
    for page in 1..400 {
        assert_eq!(reader.page(page).unwrap(), page_with(u64::from(page)));
    }
    let requests = world.model.calls().len();
    assert!(requests < 12, "{requests} requests for a scan");
    reader.end();
    let mut reader = open(&world.process());
    reader.begin().unwrap();
    world.model.calls();
    let pages = [300, 20, 150, 77, 390];
    for page in pages {
        reader.page(page).unwrap();
    }
    assert_eq!(world.model.calls().len(), pages.len());
    reader.end();
}

#[test]
fn read_ahead_does_not_add_to_what_was_read() {
    let world = World::new();
    let mut writer = open(&world.process());
    create(&mut writer, 50);
    let mut reader = open(&world.process());
    reader.begin().unwrap();
    for page in 1..8 {
        reader.page(page).unwrap();
    }
    reader.reserve().unwrap();
    reader.change(3, page_with(99)).unwrap();
    // Fetched along, but not read.
    let foreign = (12, page_with(100));
    world.model.state().commit_directly(vec![foreign]);
    assert_eq!(reader.commit(false), Ended::Committed);
}

#[test]
fn the_pragmas_that_would_break_something_are_answered() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 2);
    let head = world.model.state().head();
    let answer = |text: &str| Pragma::Answer(Some(text.to_owned()));
    let mut ask = |name, value| pager.file.pragma(name, value);
    for mode in [None, Some("WAL"), Some("memory"), Some("off")] {
        assert_eq!(ask("journal_mode", mode), answer("delete"));
    }
    assert_eq!(ask("synchronous", Some("OFF")), answer("2"));
    assert_eq!(ask("synchronous", None), Pragma::NotOurs);
    assert_eq!(ask("Mmap_Size", Some("1000000")), answer("0"));
    assert!(matches!(
        ask("locking_mode", Some("Exclusive")),
        Pragma::Refused(_)
    ));
    assert_eq!(ask("locking_mode", Some("normal")), Pragma::NotOurs);
    assert!(matches!(
        ask("page_size", Some("65536")),
        Pragma::Refused(_)
    ));
    assert_eq!(ask("page_size", None), Pragma::NotOurs);
    assert_eq!(ask("user_version", Some("3")), Pragma::NotOurs);
    assert_eq!(ask("mvsqlite_version", None), answer(&head.to_string()));
    assert_eq!(ask("mvsqlite_namespace", None), answer(KEY));
    assert!(matches!(
        ask("mvsqlite_frobnicate", None),
        Pragma::Refused(_)
    ));
}

#[test]
fn a_time_is_the_version_of_then_and_zero_is_now() {
    let world = World::new();
    let mut pager = open(&world.process());
    let at = |pager: &crate::pager::Pager, t| pager.file.time_to_version(t).unwrap();
    assert_eq!(at(&pager, 0), None);
    create(&mut pager, 2);
    let first = world.model.state().head();
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(1, page_with(7)).unwrap();
    assert_eq!(pager.commit(false), Ended::Committed);
    let second = world.model.state().head();
    // The model's commit n is made at second n.
    assert_eq!(at(&pager, 1), Some(first));
    assert_eq!(at(&pager, 2), Some(second));
    assert_eq!(at(&pager, 0), Some(second));
    assert_eq!(at(&pager, -1), None);
}
