//! Exclusive mode: who may write, and when the lease is asked for, kept, renewed and given back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mvsqlite::system::Os;
use mvsqlite::{Config, Environment, LockLevel, SqliteCode};
use mvsqlite_protocol::LeaseNonce;
use mvsqlite_protocol::v2::Concurrency;

use crate::model::Fault;
use crate::pager::{Ended, Pager, page_with};
use crate::{World, create, open};

const SOMEBODY: LeaseNonce = LeaseNonce::from_bytes([7; 16]);

/// A world whose namespace is in exclusive mode and has four pages.
fn exclusive() -> World {
    let world = World::new();
    create(&mut open(&world.process()), 4);
    world.model.state().leases.mode = Concurrency::Exclusive;
    world.model.calls();
    world
}

fn is_free(world: &World) -> bool {
    let state = world.model.state();
    state.leases.holder.is_none() && state.leases.queue.is_empty()
}

fn code(result: Result<(), mvsqlite::Error>) -> SqliteCode {
    result.unwrap_err().sqlite_code()
}

#[test]
fn a_small_transaction_costs_three_requests() {
    let world = exclusive();
    let mut pager = open(&world.process());
    world.model.calls();
    pager.begin().unwrap();
    pager.reserve().unwrap();
    let mut page1 = pager.page(0).unwrap();
    page1[200] = 9;
    pager.change(0, page1).unwrap();
    assert_eq!(pager.commit(false), Ended::Committed);
    assert_eq!(world.model.calls(), ["begin", "lease", "commit"]);
    assert!(is_free(&world));
}

#[test]
fn a_reader_needs_no_lease() {
    let world = exclusive();
    world.model.state().leases.holder = Some(SOMEBODY);
    let mut pager = open(&world.process());
    pager.begin().unwrap();
    assert_eq!(pager.page(1).unwrap(), page_with(1));
    pager.end();
    assert!(!world.model.calls().contains(&"lease".to_owned()));
}

#[test]
fn while_another_writes_reserved_is_busy_and_the_place_outlives_the_drop_to_none() {
    let world = exclusive();
    world.model.state().leases.holder = Some(SOMEBODY);
    let mut pager = open(&world.process());
    for _ in 0..3 {
        pager.begin().unwrap();
        assert_eq!(code(pager.reserve()), SqliteCode::Busy);
        pager.end();
        assert_eq!(world.model.state().leases.queue.len(), 1);
    }
    world.model.state().leases.holder = None;
    write(&mut pager);
    assert!(is_free(&world));
}

fn write(pager: &mut Pager) {
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(2, page_with(50)).unwrap();
    assert_eq!(pager.commit(false), Ended::Committed);
}

#[test]
fn a_transaction_that_read_before_another_committed_is_refused_at_its_first_write() {
    let world = exclusive();
    let env = world.process();
    let (mut a, mut b) = (open(&env), open(&world.process()));
    a.begin().unwrap();
    a.page(1).unwrap();
    write(&mut b);
    assert_eq!(code(a.reserve()), SqliteCode::BusySnapshot);
    // The lease is kept for the retry, which needs no further request.
    assert!(world.model.state().leases.holder.is_some());
    a.end();
    world.model.calls();
    write(&mut a);
    assert_eq!(world.model.calls(), ["begin", "read", "commit"]);
}

#[test]
fn what_ends_a_write_transaction_gives_the_lease_back() {
    let world = exclusive();
    let mut pager = open(&world.process());
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(2, page_with(50)).unwrap();
    assert!(!is_free(&world));
    pager.rollback(false);
    assert!(is_free(&world));

    // A transaction that wrote nothing.
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.end();
    assert!(is_free(&world));

    // A COMMIT that fails: somebody wrote behind the lease's back, which a restore can do.
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(2, page_with(51)).unwrap();
    let restored = vec![(2, page_with(52))];
    world.model.state().commit_directly(restored);
    assert_eq!(pager.commit(false), Ended::Failed(SqliteCode::BusySnapshot));
    assert!(is_free(&world));
}

#[test]
fn closing_gives_back_the_lease_and_the_place() {
    let world = exclusive();
    let mut holder = open(&world.process());
    holder.begin().unwrap();
    holder.reserve().unwrap();
    let mut waiting = open(&world.process());
    waiting.begin().unwrap();
    assert_eq!(code(waiting.reserve()), SqliteCode::Busy);
    drop(waiting);
    assert!(world.model.state().leases.queue.is_empty());
    drop(holder);
    assert!(is_free(&world));
}

#[test]
fn a_lost_lease_fails_the_commit_and_a_new_transaction_cures_it() {
    let world = exclusive();
    let mut pager = open(&world.process());
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(2, page_with(50)).unwrap();
    let head = world.model.state().head();
    world.model.state().leases.holder = Some(SOMEBODY);
    assert_eq!(pager.commit(false), Ended::Failed(SqliteCode::BusySnapshot));
    assert_eq!(world.model.state().head(), head);
    assert_eq!(world.model.state().leases.holder, Some(SOMEBODY));
    world.model.state().leases.holder = None;
    write(&mut pager);
}

#[test]
fn an_optimistic_writer_meets_a_lease_at_commit_as_a_conflict() {
    let world = exclusive();
    world.model.state().leases.mode = Concurrency::Optimistic;
    let careful = world.process_with(|config| config.exclusive = true);
    let (mut careful, mut other) = (open(&careful), open(&world.process()));
    other.begin().unwrap();
    other.reserve().unwrap();
    other.change(1, page_with(60)).unwrap();
    careful.begin().unwrap();
    careful.reserve().unwrap();
    assert_eq!(other.commit(false), Ended::Failed(SqliteCode::BusySnapshot));
    careful.change(2, page_with(50)).unwrap();
    assert_eq!(careful.commit(false), Ended::Committed);
    write(&mut other);
}

#[test]
fn a_lost_answer_to_the_question_brings_the_same_lease_again() {
    let world = exclusive();
    let mut pager = open(&world.process());
    pager.begin().unwrap();
    world.model.inject([Some(Fault::ReplyLost)]);
    pager.reserve().unwrap();
    let held = world.model.state().leases.holder;
    assert!(held.is_some() && world.model.state().leases.queue.is_empty());
    pager.change(2, page_with(50)).unwrap();
    assert_eq!(pager.commit(false), Ended::Committed);
    assert!(is_free(&world));
}

#[test]
fn after_a_commit_that_stays_at_shared_the_next_write_takes_the_lease_anew() {
    let world = exclusive();
    let mut pager = open(&world.process());
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(2, page_with(50)).unwrap();
    assert_eq!(pager.commit(true), Ended::Committed);
    assert!(is_free(&world));
    pager.reserve().unwrap();
    pager.change(2, page_with(51)).unwrap();
    assert_eq!(pager.commit(true), Ended::Committed);
    // Others come in between: reading goes on, writing does not.
    write(&mut open(&world.process()));
    assert_eq!(code(pager.reserve()), SqliteCode::BusySnapshot);
    pager.end();
    write(&mut pager);
}

#[test]
fn a_forked_child_leaves_its_parents_lease_alone() {
    let world = exclusive();
    let env = world.process();
    let (mut parents, mut other) = (open(&env), open(&env));
    parents.begin().unwrap();
    parents.reserve().unwrap();
    let held = world.model.state().leases.holder;
    world.system.fork();
    // The child's copy of the parent's connection is closed, and a connection of its own waits.
    drop(parents);
    assert_eq!(world.model.state().leases.holder, held);
    other.begin().unwrap();
    assert_eq!(code(other.reserve()), SqliteCode::Busy);
    other.end();
}

#[test]
fn a_kept_lease_that_may_be_over_is_asked_for_again_under_the_same_name() {
    let world = exclusive();
    let (mut a, mut b) = (open(&world.process()), open(&world.process()));
    a.begin().unwrap();
    a.page(1).unwrap();
    write(&mut b);
    world.model.state().leases.ttl_millis = 1000;
    assert_eq!(code(a.reserve()), SqliteCode::BusySnapshot);
    a.end();
    sleep(&world, Duration::from_millis(600));
    world.model.calls();
    a.begin().unwrap();
    a.reserve().unwrap();
    assert!(world.model.calls().contains(&"lease".to_owned()));
    a.rollback(false);
    assert!(is_free(&world));
}

fn sleep(world: &World, duration: Duration) {
    use mvsqlite::system::System;
    world.system.sleep(duration);
}

/// SQLite's busy handler sleeps through `xSleep` on the thread that was refused.
#[test]
fn the_sleep_of_the_busy_handler_ends_with_the_grant() {
    let world = exclusive();
    let mut pager = open(&world.process());
    let mut holder = open(&world.process());
    holder.begin().unwrap();
    holder.reserve().unwrap();
    pager.begin().unwrap();
    assert_eq!(code(pager.reserve()), SqliteCode::Busy);
    pager.end();
    assert!(mvsqlite::sleep_for_lease(Duration::from_millis(5)));
    assert_eq!(world.model.state().leases.queue.len(), 1, "still waiting");
    assert!(
        !mvsqlite::sleep_for_lease(Duration::from_millis(5)),
        "nobody was refused since"
    );

    pager.begin().unwrap();
    assert_eq!(code(pager.reserve()), SqliteCode::Busy);
    pager.end();
    holder.rollback(false);
    assert!(mvsqlite::sleep_for_lease(Duration::from_millis(100)));
    assert!(world.model.state().leases.holder.is_some());
    world.model.calls();
    write(&mut pager);
    assert!(!world.model.calls().contains(&"lease".to_owned()));
    assert!(is_free(&world));
}

#[test]
fn a_long_sleep_is_the_programs_own() {
    let world = exclusive();
    world.model.state().leases.holder = Some(SOMEBODY);
    let mut pager = open(&world.process());
    pager.begin().unwrap();
    assert_eq!(code(pager.reserve()), SqliteCode::Busy);
    pager.end();
    assert!(!mvsqlite::sleep_for_lease(Duration::from_millis(101)));
}

#[test]
fn higher_locks_ask_no_second_time() {
    let world = exclusive();
    let env: Arc<Environment> = world.process();
    let mut pager = open(&env);
    pager.begin().unwrap();
    pager.reserve().unwrap();
    world.model.calls();
    pager.file.lock(LockLevel::Exclusive).unwrap();
    assert_eq!(world.model.calls(), [""; 0]);
    pager.rollback(false);
}

/// A process of this world with threads, which look after its leases.
fn with_threads(world: &World) -> Arc<Environment> {
    let config = Config {
        page_size: 512,
        ..Config::default()
    };
    let model = Arc::clone(&world.model);
    Environment::with_transport(config, model, Arc::new(Os::new()))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// The thread that gives such leases back began with the first lease that was used: before that, one
/// that came too late for its snapshot kept everybody waiting until it ended by itself.
#[test]
fn the_very_first_lease_is_given_back_if_the_retry_it_is_kept_for_does_not_come() {
    let world = exclusive();
    let (mut a, mut b) = (open(&with_threads(&world)), open(&world.process()));
    a.begin().unwrap();
    a.page(1).unwrap();
    write(&mut b);
    assert_eq!(code(a.reserve()), SqliteCode::BusySnapshot);
    wait_until("nobody gives it back", || is_free(&world));
    a.end();
}

/// As above, for a sleep of the program's own that was taken for the busy handler's.
#[test]
fn a_lease_that_a_sleep_brought_is_given_back_if_nobody_takes_it_up() {
    let world = exclusive();
    let mut holder = open(&world.process());
    holder.begin().unwrap();
    holder.reserve().unwrap();
    let mut pager = open(&with_threads(&world));
    pager.begin().unwrap();
    assert_eq!(code(pager.reserve()), SqliteCode::Busy);
    pager.end();
    holder.rollback(false);
    assert!(mvsqlite::sleep_for_lease(Duration::from_millis(100)));
    wait_until("nobody gives it back", || is_free(&world));
}
