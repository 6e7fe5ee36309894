//! The rules of one database per transaction, one test each.

use mvsqlite::database::Cause;
use mvsqlite::{LockLevel, Read, SqliteCode};
use mvsqlite_protocol::Version;

use crate::model::{Fault, KEY};
use crate::pager::{Ended, PAGE_SIZE, new_page1, page_with};
use crate::{World, create, open, try_open};

fn conflict() -> Ended {
    Ended::Failed(SqliteCode::BusySnapshot)
}

#[test]
fn a_new_database_is_empty_and_reads_short_before_any_lock() {
    let world = World::new();
    let env = world.process();
    let mut file = try_open(&env, KEY).unwrap();
    let mut header = [9; 100];
    assert_eq!(file.read(0, &mut header).unwrap(), Read::Short(0));
    assert_eq!(header, [0; 100]);
    assert_eq!((file.size().unwrap(), file.page_size()), (0, None));
    assert_eq!(file.last_known_version(), None);
    let mut pager = open(&env);
    create(&mut pager, 3);
    let state = world.model.state();
    assert_eq!(state.page_count(state.head()), 3);
    assert_eq!(state.page(2, state.head()), Some(page_with(2)));
}

#[test]
fn shared_is_one_begin_and_cached_reads_are_no_request() {
    let world = World::new();
    let env = world.process();
    let mut pager = open(&env);
    create(&mut pager, 4);
    pager.begin().unwrap();
    pager.page(3).unwrap();
    pager.end();
    world.model.calls();
    pager.begin().unwrap();
    pager.page(3).unwrap();
    pager.end();
    // A second connection of the process finds the pages in the process's cache.
    let mut second = open(&env);
    second.begin().unwrap();
    assert_eq!(second.page(3).unwrap(), page_with(3));
    second.end();
    assert_eq!(world.model.calls(), ["begin", "begin", "begin"]);
}

#[test]
fn a_conflict_is_busy_snapshot_and_the_playback_is_accepted_and_ignored() {
    let world = World::new();
    let mut a = open(&world.process());
    let mut b = open(&world.process());
    create(&mut a, 4);
    for pager in [&mut a, &mut b] {
        pager.begin().unwrap();
        pager.page(2).unwrap();
        pager.reserve().unwrap();
        pager.change(2, page_with(77)).unwrap();
    }
    assert_eq!(a.commit(false), Ended::Committed);
    let head = world.model.state().head();
    // The commit helper plays back and expects each step to succeed.
    assert_eq!(b.commit(false), conflict());
    assert_eq!(world.model.state().head(), head);
    // The retry starts from what the other side wrote.
    b.begin().unwrap();
    assert_eq!(b.page(2).unwrap(), page_with(77));
    b.reserve().unwrap();
    b.change(2, page_with(78)).unwrap();
    assert_eq!(b.commit(false), Ended::Committed);
}

#[test]
fn after_a_conflict_a_kept_snapshot_cannot_be_written_on_until_none() {
    let world = World::new();
    let mut a = open(&world.process());
    let mut b = open(&world.process());
    create(&mut a, 4);
    for pager in [&mut a, &mut b] {
        pager.begin().unwrap();
        pager.reserve().unwrap();
        pager.change(2, page_with(77)).unwrap();
    }
    assert_eq!(a.commit(false), Ended::Committed);
    assert_eq!(b.commit(true), conflict());
    // Reading goes on where it was.
    assert_eq!(b.page(3).unwrap(), page_with(3));
    let error = b.reserve().unwrap_err();
    assert_eq!(error.sqlite_code(), SqliteCode::BusySnapshot);
    b.end();
    b.begin().unwrap();
    b.reserve().unwrap();
    b.rollback(false);
}

#[test]
fn updates_of_different_pages_do_not_conflict_because_page_1_is_not_sent() {
    let world = World::new();
    let mut a = open(&world.process());
    let mut b = open(&world.process());
    create(&mut a, 4);
    for (pager, page) in [(&mut a, 2), (&mut b, 3)] {
        pager.begin().unwrap();
        pager.reserve().unwrap();
        pager.change(page, page_with(50)).unwrap();
    }
    assert_eq!(a.commit(false), Ended::Committed);
    assert_eq!(b.commit(false), Ended::Committed);
    let state = world.model.state();
    assert!(!state.commits.last().unwrap().changed.contains(0));
}

#[test]
fn a_commit_that_changes_nothing_but_counters_sends_nothing() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 2);
    let head = world.model.state().head();
    pager.begin().unwrap();
    pager.reserve().unwrap();
    world.model.calls();
    assert_eq!(pager.commit(true), Ended::Committed);
    // The transaction that goes on under the same SHARED is an ordinary one.
    pager.reserve().unwrap();
    assert_eq!(world.model.calls(), [""; 0]);
    pager.change(1, page_with(9)).unwrap();
    assert_eq!(pager.commit(false), Ended::Committed);
    assert!(world.model.state().head() > head);
}

#[test]
fn a_rollback_after_a_spill_syncs_without_committing() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 4);
    let head = world.model.state().head();
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.set_count(6).unwrap();
    for index in 1..6 {
        pager.change(index, page_with(99)).unwrap();
    }
    pager.spill().unwrap();
    pager.rollback(false);
    assert_eq!(world.model.state().head(), head);
    pager.begin().unwrap();
    assert_eq!(pager.count().unwrap(), 4);
    assert_eq!(pager.page(2).unwrap(), page_with(2));
    pager.end();
}

#[test]
fn a_rollback_of_a_first_transaction_after_a_spill_leaves_nothing() {
    let world = World::new();
    let mut pager = open(&world.process());
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(0, new_page1(2, 0)).unwrap();
    pager.change(1, page_with(1)).unwrap();
    pager.spill().unwrap();
    pager.rollback(false);
    assert!(world.model.state().commits.is_empty());
    create(&mut pager, 2);
}

#[test]
fn spilled_pages_are_read_back_before_the_commit() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 4);
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(2, page_with(50)).unwrap();
    pager.spill().unwrap();
    let mut page = vec![0; PAGE_SIZE];
    pager.file.read(2 * PAGE_SIZE as u64, &mut page).unwrap();
    assert_eq!(page, page_with(50));
    pager.rollback(false);
}

#[test]
fn the_page_count_is_that_of_page_1_and_the_late_truncation_cannot_fail() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 6);
    pager.begin().unwrap();
    pager.reserve().unwrap();
    // A VACUUM rewrites pages that are then cut off.
    pager.change(5, page_with(50)).unwrap();
    pager.set_count(3).unwrap();
    pager.spill().unwrap();
    assert_eq!(pager.commit(false), Ended::Committed);
    {
        let state = world.model.state();
        let head = state.head();
        assert_eq!(state.page_count(head), 3);
        assert_eq!(state.page(5, head), None);
    }
    pager.begin().unwrap();
    assert_eq!(pager.file.size().unwrap(), 3 * PAGE_SIZE as u64);
    // Growing again must not bring back what was cut off, not from the cache either.
    pager.reserve().unwrap();
    pager.set_count(6).unwrap();
    assert_eq!(pager.commit(false), Ended::Committed);
    pager.begin().unwrap();
    assert_eq!(pager.page(4).unwrap(), vec![0; PAGE_SIZE]);
    pager.end();
}

#[test]
fn the_counter_stands_still_for_readers_and_moves_with_versions_and_own_writes() {
    let world = World::new();
    let mut a = open(&world.process());
    let mut b = open(&world.process());
    create(&mut a, 4);
    let counter = |pager: &mut crate::pager::Pager| {
        pager.begin().unwrap();
        let mut bytes = [0; 4];
        pager.file.read(24, &mut bytes).unwrap();
        pager.end();
        u32::from_be_bytes(bytes)
    };
    let first = counter(&mut b);
    assert_eq!(counter(&mut b), first);
    a.begin().unwrap();
    a.reserve().unwrap();
    a.change(2, page_with(9)).unwrap();
    assert_eq!(a.commit(false), Ended::Committed);
    let second = counter(&mut b);
    assert!(second > first);
    assert_eq!(counter(&mut b), second);
    let after_own = counter(&mut a);
    assert_eq!(counter(&mut a), after_own);
}

#[test]
fn pages_that_sqlite_kept_from_earlier_transactions_are_in_the_read_set() {
    // Write skew: each of two connections reads, from its old cache, what the other one writes.
    let world = World::new();
    let mut a = open(&world.process());
    let mut b = open(&world.process());
    create(&mut a, 4);
    for pager in [&mut a, &mut b] {
        pager.begin().unwrap();
        pager.page(2).unwrap();
        pager.page(3).unwrap();
        pager.end();
    }
    for (pager, page) in [(&mut a, 2), (&mut b, 3)] {
        pager.begin().unwrap();
        // From SQLite's cache: no call reaches the file.
        pager.page(2).unwrap();
        pager.page(3).unwrap();
        pager.reserve().unwrap();
        pager.change(page, page_with(50)).unwrap();
    }
    assert_eq!(a.commit(false), Ended::Committed);
    assert_eq!(b.commit(false), conflict());
}

#[test]
fn a_commit_that_stays_at_shared_is_written_on_only_if_nobody_came_between() {
    for foreign in [false, true] {
        let world = World::new();
        let mut pager = open(&world.process());
        create(&mut pager, 5);
        pager.begin().unwrap();
        pager.page(4).unwrap();
        pager.reserve().unwrap();
        pager.change(2, page_with(50)).unwrap();
        if foreign {
            let page = (3, page_with(33));
            world.model.state().commit_directly(vec![page]);
        }
        assert_eq!(pager.commit(true), Ended::Committed);
        // The own page lies over the snapshot; the rest stays where it was.
        let mut page = vec![0; PAGE_SIZE];
        pager.file.read(2 * PAGE_SIZE as u64, &mut page).unwrap();
        assert_eq!(page, page_with(50));
        assert_eq!(pager.page(3).unwrap(), page_with(3));
        match foreign {
            true => {
                let error = pager.reserve().unwrap_err();
                assert!(matches!(error.cause(), Cause::StaleSnapshot));
                pager.end();
                pager.begin().unwrap();
                assert_eq!(pager.page(3).unwrap(), page_with(33));
                pager.end();
            }
            false => {
                pager.reserve().unwrap();
                pager.change(3, page_with(51)).unwrap();
                assert_eq!(pager.commit(false), Ended::Committed);
            }
        }
    }
}

// A connection allocated page 4 and committed while another statement kept SHARED, so that the page
// stayed in SQLite's cache. It was never read from the file, so it was in no read set: another
// connection could change it unnoticed by the next transaction, which used it from that cache.
// Found by the test of serializability. What is written is part of the read set from then on.
#[test]
fn pages_written_by_a_commit_that_stays_at_shared_are_in_the_read_set() {
    let world = World::new();
    let mut a = open(&world.process());
    let mut b = open(&world.process());
    create(&mut a, 4);
    a.begin().unwrap();
    a.reserve().unwrap();
    a.set_count(5).unwrap();
    a.change(4, page_with(40)).unwrap();
    assert_eq!(a.commit(true), Ended::Committed);
    a.reserve().unwrap();
    // From SQLite's cache.
    assert_eq!(a.page(4).unwrap(), page_with(40));
    a.change(2, page_with(41)).unwrap();
    b.begin().unwrap();
    b.reserve().unwrap();
    b.change(4, page_with(50)).unwrap();
    assert_eq!(b.commit(false), Ended::Committed);
    assert_eq!(a.commit(false), conflict());
}

#[test]
fn a_past_version_is_immutable_and_needs_no_lock() {
    let world = World::new();
    let env = world.process();
    let mut pager = open(&env);
    create(&mut pager, 3);
    let past = world.model.state().head();
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(2, page_with(50)).unwrap();
    assert_eq!(pager.commit(false), Ended::Committed);
    let mut file = try_open(&env, &format!("{KEY}@{past}")).unwrap();
    assert!(file.is_immutable() && file.is_read_only());
    assert_eq!(file.last_known_version(), Some(past));
    let mut page = vec![0; PAGE_SIZE];
    let offset = 2 * PAGE_SIZE as u64;
    assert_eq!(file.read(offset, &mut page).unwrap(), Read::Full);
    assert_eq!(page, page_with(2));
    let error = file.write(0, &page).unwrap_err();
    assert_eq!(error.sqlite_code(), SqliteCode::ReadOnly);
    assert_eq!(
        file.lock(LockLevel::Reserved).unwrap_err().sqlite_code(),
        SqliteCode::ReadOnly
    );
    let future = Version::new(u64::MAX, 0);
    let error = try_open(&env, &format!("{KEY}@{future}")).err().unwrap();
    assert_eq!(error.sqlite_code(), SqliteCode::CantOpen);
}

#[test]
fn a_missing_namespace_and_a_dead_store_cannot_be_opened() {
    let world = World::new();
    let env = world.process();
    world.model.state().exists = false;
    let error = try_open(&env, KEY).err().unwrap();
    assert_eq!(error.sqlite_code(), SqliteCode::CantOpen);
    assert!(error.to_string().contains("'test'"), "{error}");
    world.model.state().exists = true;
    world.model.inject([Some(Fault::Refused); 1000]);
    let error = try_open(&env, KEY).err().unwrap();
    assert_eq!(error.sqlite_code(), SqliteCode::CantOpen);
    assert!(
        error.to_string().contains("check that mvstore runs"),
        "{error}"
    );
}
