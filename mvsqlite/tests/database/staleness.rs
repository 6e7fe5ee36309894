//! Reads that may be a little behind: who sees what, and what it costs.

use std::sync::Arc;
use std::time::Duration;

use mvsqlite::system::System;
use mvsqlite::{ConnectionId, Environment};

use crate::model::Fault;
use crate::pager::{Ended, Pager, page_with};
use crate::{World, create, open};

const ALLOWED: Duration = Duration::from_millis(500);

fn stale_process(world: &World) -> Arc<Environment> {
    world.process_with(|config| config.read_staleness = ALLOWED)
}

fn read(pager: &mut Pager, page: u32) -> Vec<u8> {
    pager.begin().unwrap();
    let content = pager.page(page).unwrap();
    pager.end();
    content
}

fn write(pager: &mut Pager, page: u32, mark: u64) -> Ended {
    pager.begin().unwrap();
    pager.page(page).unwrap();
    pager.reserve().unwrap();
    pager.change(page, page_with(mark)).unwrap();
    pager.commit(false)
}

#[test]
fn a_read_soon_after_another_asks_nobody_and_a_late_one_does() {
    let world = World::new();
    let env = stale_process(&world);
    let mut writer = open(&world.process());
    create(&mut writer, 4);
    let mut reader = open(&env);
    assert_eq!(read(&mut reader, 2), page_with(2));
    world.model.calls();
    assert_eq!(write(&mut writer, 2, 77), Ended::Committed);
    world.model.calls();
    assert_eq!(read(&mut reader, 2), page_with(2), "as it was a moment ago");
    // Another connection of the process shares the snapshot; opening asks whether it is there.
    let mut second = open(&env);
    world.model.calls();
    assert_eq!(read(&mut second, 3), page_with(3));
    assert!(!world.model.calls().iter().any(|call| call == "begin"));
    world.system.sleep(ALLOWED + Duration::from_millis(1));
    assert_eq!(read(&mut reader, 2), page_with(77));
    assert!(world.model.calls().iter().any(|call| call == "begin"));
}

#[test]
fn a_process_sees_what_it_wrote_itself_at_once() {
    let world = World::new();
    let env = stale_process(&world);
    let (mut writer, mut reader) = (open(&env), open(&env));
    create(&mut writer, 4);
    assert_eq!(read(&mut reader, 2), page_with(2));
    for mark in 70..75 {
        assert_eq!(write(&mut writer, 2, mark), Ended::Committed);
        assert_eq!(read(&mut reader, 2), page_with(mark));
        assert_eq!(read(&mut writer, 2), page_with(mark));
    }
}

#[test]
fn a_writer_on_a_snapshot_that_is_behind_conflicts_and_then_has_a_new_one() {
    let world = World::new();
    let mut other = open(&world.process());
    create(&mut other, 4);
    let mut pager = open(&stale_process(&world));
    read(&mut pager, 2);
    assert_eq!(write(&mut other, 2, 50), Ended::Committed);
    // Of what the other wrote nothing is known here, and COMMIT finds out.
    let lost = write(&mut pager, 2, 60);
    assert_eq!(lost, Ended::Failed(mvsqlite::SqliteCode::BusySnapshot));
    assert_eq!(read(&mut pager, 2), page_with(50));
    assert_eq!(write(&mut pager, 2, 60), Ended::Committed);
}

#[test]
fn a_commit_whose_answer_was_lost_is_seen_at_once_too() {
    let world = World::new();
    let env = stale_process(&world);
    let (mut writer, mut reader) = (open(&env), open(&env));
    create(&mut writer, 4);
    read(&mut reader, 2);
    world.model.inject([None, Some(Fault::ReplyLost)]);
    assert_eq!(write(&mut writer, 2, 99), Ended::Committed);
    assert_eq!(read(&mut reader, 2), page_with(99));
}

#[test]
fn without_leave_every_transaction_asks() {
    let world = World::new();
    let mut pager = open(&world.process());
    create(&mut pager, 2);
    world.model.calls();
    for _ in 0..3 {
        read(&mut pager, 1);
    }
    assert_eq!(world.model.calls(), ["begin", "begin", "begin"]);
}

/// A connection that had just seen a commit in one database began on an older snapshot of another,
/// and the first could then be shown only at another moment: a transaction over both saw one half of
/// a commit.
#[test]
fn a_transaction_over_two_databases_shows_one_moment_all_the_same() {
    let world = World::new();
    let mut other = open(&world.process());
    create(&mut other, 4);
    let env = stale_process(&world);
    let (mut first, mut second) = (open(&env), open(&env));
    for pager in [&mut first, &mut second] {
        pager.file.set_connection(ConnectionId(7));
    }
    read(&mut first, 2);
    assert_eq!(write(&mut other, 2, 50), Ended::Committed);
    second.file.pragma("mvsqlite_staleness", Some("0"));
    assert_eq!(read(&mut second, 2), page_with(50));
    second.file.pragma("mvsqlite_staleness", Some("500"));

    first.begin().unwrap();
    second.begin().unwrap();
    assert_eq!(first.page(2).unwrap(), second.page(2).unwrap());
    second.end();
    first.end();
    // What was seen goes with the database that was closed.
    drop(second);
    world.model.calls();
    read(&mut first, 2);
    assert!(!world.model.calls().iter().any(|call| call == "begin"));
}
