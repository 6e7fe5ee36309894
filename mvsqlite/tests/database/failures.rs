//! When things go wrong: the code that SQLite gets, the text that people get, and what is stored.

use mvsqlite::database::Cause;
use mvsqlite::{ConnectionId, DatabaseFile, LockLevel, OpenOptions, SqliteCode};
use mvsqlite_protocol::{NamespaceId, Version};

use crate::model::{Fault, KEY};
use crate::pager::{Ended, PAGE_SIZE, Pager, new_page1, page_with};
use crate::{World, create, open, try_open};

/// A connection with page 2 changed, right before COMMIT.
fn about_to_commit(world: &World) -> Pager {
    let mut pager = open(&world.process());
    create(&mut pager, 4);
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(2, page_with(50)).unwrap();
    pager
}

fn stored(world: &World) -> Option<Vec<u8>> {
    let state = world.model.state();
    state.page(2, state.head())
}

#[test]
fn a_commit_whose_reply_is_lost_is_sent_again_and_made_once() {
    for fault in [
        Fault::ReplyLost,
        Fault::Twice,
        Fault::BadGateway,
        Fault::RequestLost,
    ] {
        let world = World::new();
        let mut pager = about_to_commit(&world);
        let before = world.model.state().commits.len();
        world.model.inject([Some(fault)]);
        assert_eq!(pager.commit(false), Ended::Committed, "{fault:?}");
        assert_eq!(world.model.state().commits.len(), before + 1, "{fault:?}");
        assert_eq!(stored(&world), Some(page_with(50)));
    }
}

#[test]
fn a_store_that_is_busy_or_restarts_is_waited_for() {
    let world = World::new();
    let mut pager = about_to_commit(&world);
    let busy = [Fault::Unavailable, Fault::Refused, Fault::Refused].map(Some);
    world.model.inject(busy);
    assert_eq!(pager.commit(false), Ended::Committed);
    world.model.inject(busy);
    pager.begin().unwrap();
    pager.end();
}

#[test]
fn a_commit_still_under_way_is_settled_and_cannot_happen_later() {
    let world = World::new();
    let mut pager = about_to_commit(&world);
    let head = world.model.state().head();
    world
        .model
        .inject([Some(Fault::Late(3)), Some(Fault::RequestLost)]);
    assert_eq!(pager.commit(false), Ended::Failed(SqliteCode::IoErrFsync));
    // The late request arrives meanwhile.
    for _ in 0..5 {
        pager.begin().unwrap();
        assert_eq!(pager.page(2).unwrap(), page_with(2));
        pager.end();
    }
    assert!(
        world
            .model
            .calls()
            .iter()
            .filter(|c| *c == "commit")
            .count()
            >= 2
    );
    assert_eq!(world.model.state().head(), head);
}

#[test]
fn a_commit_with_a_lost_reply_is_found_committed_by_settling() {
    let world = World::new();
    let mut pager = about_to_commit(&world);
    world
        .model
        .inject([Some(Fault::ReplyLost), Some(Fault::RequestLost)]);
    assert_eq!(pager.commit(false), Ended::Committed);
    assert_eq!(world.model.calls().last().unwrap(), "settle");
    pager.begin().unwrap();
    assert_eq!(pager.page(2).unwrap(), page_with(50));
    pager.end();
}

#[test]
fn a_refusal_of_a_repetition_is_settled_because_it_says_nothing_of_the_first_attempt() {
    let world = World::new();
    let mut pager = about_to_commit(&world);
    let head = {
        let mut state = world.model.state();
        state.commit_directly(vec![(2, page_with(60))])
    };
    world.model.calls();
    world.model.inject([Some(Fault::Late(4))]);
    assert_eq!(pager.commit(false), Ended::Failed(SqliteCode::BusySnapshot));
    assert_eq!(world.model.calls(), ["commit", "settle"]);
    for _ in 0..6 {
        pager.begin().unwrap();
        pager.end();
    }
    // The first attempt has arrived by now.
    assert!(world.model.calls().contains(&"commit".to_owned()));
    assert_eq!(world.model.state().head(), head);
}

#[test]
fn an_unknown_outcome_is_said_and_sqlites_cache_goes() {
    let world = World::new();
    let mut pager = about_to_commit(&world);
    // The first arrives; nothing else does, neither repetitions nor settling.
    let faults = std::iter::once(Some(Fault::ReplyLost));
    world
        .model
        .inject(faults.chain([Some(Fault::RequestLost); 3]));
    assert_eq!(
        pager.commit(false),
        Ended::Failed(SqliteCode::IoErrCommitAtomic)
    );
    let text = pager.file.pragma("mvsqlite_last_error", None);
    let text = format!("{text:?}");
    assert!(text.contains("MAY have been committed"), "{text}");
    pager.begin().unwrap();
    assert_eq!(pager.page(2).unwrap(), page_with(50));
    pager.end();
}

#[test]
fn a_store_that_is_gone_fails_each_operation_with_its_own_code() {
    let world = World::new();
    let mut pager = about_to_commit(&world);
    world.model.inject([Some(Fault::Refused); 200]);
    assert_eq!(pager.commit(false), Ended::Failed(SqliteCode::IoErrFsync));
    assert_eq!(stored(&world), Some(page_with(2)));
    world.model.state().faults.clear();
    world.model.inject([Some(Fault::Refused); 200]);
    assert_eq!(
        pager.begin().unwrap_err().sqlite_code(),
        SqliteCode::IoErrLock
    );
    world.model.state().faults.clear();
    let mut reader = open(&world.process());
    reader.begin().unwrap();
    world.model.inject([Some(Fault::Refused); 200]);
    assert_eq!(
        reader.page(3).unwrap_err().sqlite_code(),
        SqliteCode::IoErrRead
    );
    world.model.state().faults.clear();
    assert_eq!(reader.page(3).unwrap(), page_with(3));
    reader.end();
}

#[test]
fn a_namespace_made_anew_is_not_the_one_that_was_opened() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 2);
    world.model.state().namespace = NamespaceId::from(Version::new(9, 0));
    let error = pager.begin().unwrap_err();
    assert_eq!(error.sqlite_code(), SqliteCode::ReadOnlyDbMoved);
    assert!(error.to_string().contains("open it again"), "{error}");
}

#[test]
fn a_transaction_open_across_fork_fails_in_the_child_which_can_begin_its_own() {
    let world = World::new();
    let mut pager = about_to_commit(&world);
    let head = world.model.state().head();
    world.system.fork();
    let mut page = [0; PAGE_SIZE];
    let error = pager.file.read(0, &mut page).unwrap_err();
    assert!(matches!(error.cause(), Cause::Forked));
    assert_eq!(error.sqlite_code(), SqliteCode::IoErrRead);
    assert!(pager.file.write(0, &new_page1(4, 0)).is_err());
    pager.file.sync(None).unwrap();
    pager.file.unlock(LockLevel::Shared);
    pager.end();
    assert_eq!(world.model.state().head(), head);
    pager.begin().unwrap();
    assert_eq!(pager.page(2).unwrap(), page_with(2));
    pager.reserve().unwrap();
    pager.change(2, page_with(51)).unwrap();
    assert_eq!(pager.commit(false), Ended::Committed);
}

#[test]
fn a_commit_in_the_child_of_a_transaction_of_the_parent_is_refused() {
    let world = World::new();
    let mut pager = about_to_commit(&world);
    pager.spill().unwrap();
    let page1 = {
        let mut page1 = pager.page(0).unwrap();
        page1[27] += 1;
        page1
    };
    pager.file.write(0, &page1).unwrap();
    let head = world.model.state().head();
    world.system.fork();
    assert!(pager.file.sync(None).is_err());
    assert_eq!(world.model.state().head(), head);
}

#[test]
fn a_namespace_attached_twice_cannot_be_written_through_both_names() {
    let world = World::new();
    let env = world.process();
    create(&mut open(&env), 4);
    let [mut a, mut b] = [open(&env), open(&env)];
    for pager in [&mut a, &mut b] {
        pager.file.set_connection(ConnectionId(7));
        pager.begin().unwrap();
        pager.reserve().unwrap();
        pager.change(2, page_with(60)).unwrap();
        pager.spill().unwrap();
        let mut page1 = pager.page(0).unwrap();
        page1[27] += 1;
        pager.file.write(0, &page1).unwrap();
    }
    let head = world.model.state().head();
    let both = &mut [&mut a.file, &mut b.file];
    let error = DatabaseFile::commit_together(both).unwrap_err();
    assert!(matches!(error.cause(), Cause::AttachedTwice), "{error}");
    assert_eq!(error.sqlite_code(), SqliteCode::Error);
    assert_eq!(world.model.state().head(), head);
    for pager in [&mut a, &mut b] {
        pager.rollback(true);
        pager.end();
    }
}

// The main database was an ordinary file, and writing ours failed in the middle of the COMMIT. SQLite
// deleted the super-journal after the first playback and skipped ours, so that its cache kept what
// had failed; with SHARED kept by another statement the next transaction stored it.
#[test]
fn after_a_failed_write_transaction_nothing_is_written_until_none() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 4);
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(2, page_with(70)).unwrap();
    pager.spill().unwrap();
    pager.file.write(7, &[0; 9]).unwrap_err();
    pager.rollback(true);
    let error = pager.reserve().unwrap_err();
    assert_eq!(error.sqlite_code(), SqliteCode::BusySnapshot);
    pager.end();
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.rollback(false);
}

// A transaction wrote an ordinary file too, which failed after our part was committed. SQLite put its
// cache back to what was before; while another statement kept SHARED, the next transaction wrote
// over its own commit from that cache, and nobody noticed.
#[test]
fn after_a_playback_over_a_commit_nothing_is_written_until_none() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 4);
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(2, page_with(70)).unwrap();
    pager.spill().unwrap();
    let mut page1 = pager.page(0).unwrap();
    page1[27] += 1;
    pager.file.write(0, &page1).unwrap();
    pager.file.sync(None).unwrap();
    pager.rollback(true);
    let error = pager.reserve().unwrap_err();
    assert_eq!(error.sqlite_code(), SqliteCode::BusySnapshot);
    pager.end();
    pager.begin().unwrap();
    assert_eq!(pager.page(2).unwrap(), page_with(70));
}

#[test]
fn a_second_database_that_is_only_read_or_only_locked_is_fine() {
    let world = World::new();
    let env = world.process();
    let mut a = open(&env);
    create(&mut a, 4);
    let mut b = open(&env);
    a.file.set_connection(ConnectionId(7));
    b.file.set_connection(ConnectionId(7));
    // BEGIN IMMEDIATE locks all databases of the connection.
    for pager in [&mut a, &mut b] {
        pager.begin().unwrap();
        pager.reserve().unwrap();
    }
    a.change(2, page_with(9)).unwrap();
    assert_eq!(a.commit(false), Ended::Committed);
    b.rollback(false);
    b.begin().unwrap();
    a.begin().unwrap();
    a.reserve().unwrap();
    a.change(2, page_with(10)).unwrap();
    assert_eq!(a.commit(false), Ended::Committed);
    b.end();
}

#[test]
fn a_connection_that_never_unlocks_cannot_write_twice_and_loses_nothing_silently() {
    let world = World::new();
    let mut pager = about_to_commit(&world);
    pager.spill().unwrap();
    let mut page1 = pager.page(0).unwrap();
    page1[27] += 1;
    pager.file.write(0, &page1).unwrap();
    pager.file.sync(None).unwrap();
    pager.file.commit_phase_two().unwrap();
    // In exclusive locking mode the next transaction writes without a lock or a new counter.
    let error = pager.file.write(1024, &page_with(51)).unwrap_err();
    assert!(matches!(error.cause(), Cause::ExclusiveLocking));
    // Its playback is accepted. Should SQLite take this for a commit, that fails.
    pager.file.write(1024, &page_with(51)).unwrap();
    assert!(pager.file.commit_phase_two().is_err());
    assert_eq!(stored(&world), Some(page_with(50)));
}

#[test]
fn a_write_that_failed_fails_the_commit_too_if_sqlite_goes_on() {
    let world = World::new();
    let env = world.process_with(|config| config.transaction_bytes = 2 * PAGE_SIZE as u64);
    let mut pager = open(&env);
    create(&mut pager, 2);
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.file.lock(LockLevel::Exclusive).unwrap();
    let head = world.model.state().head();
    let mut page1 = pager.page(0).unwrap();
    page1[27] += 1;
    pager.file.write(0, &page1).unwrap();
    pager.file.write(512, &page_with(8)).unwrap();
    let error = pager.file.write(1024, &page_with(9)).unwrap_err();
    assert_eq!(error.sqlite_code(), SqliteCode::Full);
    // A commit does not go through.
    pager.file.write(0, &page1).unwrap();
    let error = pager.file.sync(None).unwrap_err();
    assert!(matches!(error.cause(), Cause::Doomed(_)), "{error}");
    // A playback does.
    page1[27] -= 1;
    pager.file.write(0, &page1).unwrap();
    pager.file.sync(None).unwrap();
    assert_eq!(world.model.state().head(), head);
    pager.file.unlock(LockLevel::None);
    pager.begin().unwrap();
    pager.end();
}

#[test]
fn a_database_opened_read_only_cannot_be_written() {
    let world = World::new();
    let env = world.process();
    create(&mut open(&env), 2);
    let options = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    let mut file = DatabaseFile::open(env, KEY.parse().unwrap(), options).unwrap();
    assert!(file.is_read_only() && !file.is_immutable());
    file.lock(LockLevel::Shared).unwrap();
    let error = file.lock(LockLevel::Reserved).unwrap_err();
    assert_eq!(error.sqlite_code(), SqliteCode::ReadOnly);
    assert!(try_open(&world.process(), "nonexistent").is_err());
}
