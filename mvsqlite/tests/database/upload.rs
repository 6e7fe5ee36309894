//! Transactions that are uploaded while they are written.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mvsqlite::client::{Reply, Request, Transport, TransportError};
use mvsqlite::system::Os;
use mvsqlite::{Config, Environment, LockLevel, SqliteCode};
use mvsqlite_protocol::v2::{self, StageRequest};

use crate::model::{Fault, Model};
use crate::pager::{Ended, PAGE_SIZE, Pager, new_page1, page_with};
use crate::{World, open};

const BUDGET: u64 = 16 * PAGE_SIZE as u64;

/// A process whose transactions keep 16 pages in memory, over a store that takes 4 inline.
fn small(world: &World) -> Arc<Environment> {
    {
        let limits = &mut world.model.state().limits;
        limits.inline_bytes = 4 * PAGE_SIZE as u64;
        limits.stage_batch_bytes = 4 * PAGE_SIZE as u64;
    }
    world.process_with(|config| {
        config.upload_bytes = BUDGET;
        config.cache_bytes = 0;
    })
}

/// Begins to fill an empty database: pages 2 to `count` with mark n, all of them spilled.
fn fill(pager: &mut Pager, count: u32) {
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(0, new_page1(count, 0)).unwrap();
    for index in 1..count {
        pager.change(index, page_with(index.into())).unwrap();
    }
    pager.spill().unwrap();
}

/// What is stored: the marks of pages 2 to the last.
fn marks(world: &World) -> Vec<u64> {
    let state = world.model.state();
    let head = state.head();
    let mark = |index| match state.page(index, head) {
        Some(page) => u64::from_be_bytes(page[..8].try_into().unwrap()),
        None => 0,
    };
    (1..state.page_count(head)).map(mark).collect()
}

#[test]
fn a_large_transaction_is_in_the_store_before_it_commits_and_visible_only_then() {
    let world = World::new();
    let mut pager = open(&small(&world));
    fill(&mut pager, 200);
    let staged: usize = world.model.state().stages.values().map(|s| s.len()).sum();
    assert!(staged > 180, "{staged} pages were uploaded");
    assert!(marks(&world).is_empty());
    world.model.calls();
    assert_eq!(pager.commit(false), Ended::Committed);
    let calls = world.model.calls();
    assert!(calls.len() <= 3, "{calls:?} at COMMIT");
    assert_eq!(marks(&world), (1..200).collect::<Vec<_>>());
}

#[test]
fn a_transaction_that_fits_one_request_is_sent_in_one() {
    let world = World::new();
    let mut pager = open(&world.process_with(|config| config.upload_bytes = BUDGET));
    world.model.calls();
    fill(&mut pager, 8);
    assert_eq!(pager.commit(false), Ended::Committed);
    assert_eq!(world.model.calls(), ["begin", "commit"]);
}

#[test]
fn uploaded_pages_are_read_back_and_a_scan_of_them_in_few_requests() {
    let world = World::new();
    let mut pager = open(&small(&world));
    fill(&mut pager, 200);
    world.model.calls();
    for index in 1..200 {
        assert_eq!(pager.page(index).unwrap(), page_with(index.into()));
    }
    let reads = world.model.calls().len();
    assert!((2..80).contains(&reads), "{reads} requests");
    assert_eq!(pager.commit(false), Ended::Committed);
}

#[test]
fn pages_written_again_are_stored_with_their_newest_content() {
    let world = World::new();
    let mut pager = open(&small(&world));
    fill(&mut pager, 100);
    for index in (1..100).step_by(3) {
        pager
            .change(index, page_with(1000 + u64::from(index)))
            .unwrap();
    }
    pager.spill().unwrap();
    for index in (1..100).step_by(9) {
        pager
            .change(index, page_with(2000 + u64::from(index)))
            .unwrap();
    }
    assert_eq!(pager.commit(false), Ended::Committed);
    let expected = (1..100).map(|index| match index {
        _ if index % 9 == 1 => 2000 + index,
        _ if index % 3 == 1 => 1000 + index,
        _ => index,
    });
    assert_eq!(marks(&world), expected.collect::<Vec<_>>());
}

#[test]
fn what_was_uploaded_and_cut_off_is_a_hole_when_the_file_grows_again() {
    let world = World::new();
    let mut pager = open(&small(&world));
    fill(&mut pager, 100);
    let file = &mut pager.file;
    file.truncate(20 * PAGE_SIZE as u64).unwrap();
    file.write(49 * PAGE_SIZE as u64, &page_with(77)).unwrap();
    let mut hole = vec![1; PAGE_SIZE];
    file.read(30 * PAGE_SIZE as u64, &mut hole).unwrap();
    assert_eq!(hole, vec![0; PAGE_SIZE]);
    let mut page1 = new_page1(50, 0);
    page1[24..28].copy_from_slice(&9_u32.to_be_bytes());
    file.write(0, &page1).unwrap();
    file.sync(None).unwrap();
    file.commit_phase_two().unwrap();
    file.unlock(LockLevel::None);
    let mut expected: Vec<u64> = (1..20).collect();
    expected.resize(48, 0);
    expected.push(77);
    assert_eq!(marks(&world), expected);
}

#[test]
fn a_savepoint_rolled_back_after_its_upload_leaves_nothing() {
    let world = World::new();
    let mut pager = open(&small(&world));
    fill(&mut pager, 100);
    assert_eq!(pager.commit(false), Ended::Committed);
    pager.begin().unwrap();
    pager.reserve().unwrap();
    for index in 1..100 {
        pager.change(index, page_with(5000)).unwrap();
    }
    pager.spill().unwrap();
    // ROLLBACK TO writes the old pages over the new ones.
    for index in 1..100 {
        pager.change(index, page_with(index.into())).unwrap();
    }
    pager.spill().unwrap();
    pager.change(40, page_with(6000)).unwrap();
    assert_eq!(pager.commit(false), Ended::Committed);
    let mut expected: Vec<u64> = (1..100).collect();
    expected[39] = 6000;
    assert_eq!(marks(&world), expected);
}

#[test]
fn a_rollback_after_uploads_leaves_the_database_as_it_was() {
    let world = World::new();
    let mut pager = open(&small(&world));
    fill(&mut pager, 60);
    assert_eq!(pager.commit(false), Ended::Committed);
    pager.begin().unwrap();
    pager.reserve().unwrap();
    for index in 1..60 {
        pager.change(index, page_with(5000)).unwrap();
    }
    pager.spill().unwrap();
    pager.rollback(false);
    assert_eq!(marks(&world), (1..60).collect::<Vec<_>>());
    pager.begin().unwrap();
    assert_eq!(pager.page(30).unwrap(), page_with(30));
    pager.end();
}

#[test]
fn after_a_commit_that_stays_at_shared_the_uploaded_pages_are_the_commits() {
    let world = World::new();
    let mut pager = open(&small(&world));
    fill(&mut pager, 100);
    assert_eq!(pager.commit(true), Ended::Committed);
    // Nobody else's newer pages may show.
    world
        .model
        .state()
        .commit_directly(vec![(50, page_with(9))]);
    for index in [2u32, 50, 99] {
        let mut page = vec![0; PAGE_SIZE];
        let offset = u64::from(index) * PAGE_SIZE as u64;
        pager.file.read(offset, &mut page).unwrap();
        assert_eq!(page, page_with(index.into()));
    }
    pager.end();
}

#[test]
fn a_conflict_after_uploads_is_a_conflict_and_the_next_attempt_commits() {
    let world = World::new();
    let env = small(&world);
    let mut pager = open(&env);
    fill(&mut pager, 60);
    assert_eq!(pager.commit(false), Ended::Committed);
    for expected in [Ended::Failed(SqliteCode::BusySnapshot), Ended::Committed] {
        pager.begin().unwrap();
        pager.reserve().unwrap();
        for index in 1..60 {
            pager.change(index, page_with(7000)).unwrap();
        }
        pager.spill().unwrap();
        if expected != Ended::Committed {
            world.model.state().commit_directly(vec![(5, page_with(1))]);
        }
        assert_eq!(pager.commit(false), expected);
    }
    assert_eq!(marks(&world), vec![7000; 59]);
}

#[test]
fn an_upload_is_tried_again_and_one_that_fails_for_good_fails_the_transaction() {
    let world = World::new();
    let mut pager = open(&small(&world));
    pager.begin().unwrap();
    pager.reserve().unwrap();
    pager.change(0, new_page1(100, 0)).unwrap();
    for index in 1..100 {
        pager.change(index, page_with(index.into())).unwrap();
    }
    let blip = [Fault::Refused, Fault::Unavailable, Fault::BadGateway];
    world.model.inject(blip.map(Some));
    pager.spill().unwrap();
    for index in 1..100 {
        pager.change(index, page_with(500)).unwrap();
    }
    // Longer than any request is repeated.
    world.model.inject([Some(Fault::Refused); 1000]);
    let error = pager.spill().unwrap_err();
    assert_eq!(error.sqlite_code(), SqliteCode::IoErrWrite);
    assert!(error.to_string().contains("no answer"), "{error}");
    world.model.state().faults.clear();
    let Ended::Failed(code) = pager.commit(false) else {
        panic!("it was committed without its uploads");
    };
    assert_eq!(code, SqliteCode::IoErrFsync);
    assert!(marks(&world).is_empty());
    fill(&mut pager, 100);
    assert_eq!(pager.commit(false), Ended::Committed);
}

#[test]
fn what_came_back_from_the_stage_must_be_what_was_uploaded() {
    let world = World::new();
    let mut pager = open(&small(&world));
    fill(&mut pager, 100);
    for stage in world.model.state().stages.values_mut() {
        stage.values_mut().for_each(|page| page[100] ^= 1);
    }
    let error = pager.page(1).unwrap_err();
    assert_eq!(error.sqlite_code(), SqliteCode::IoErrRead);
    assert!(error.to_string().contains("page 2 "), "{error}");
}

#[test]
fn a_child_forked_while_uploads_wait_fails_and_does_not_hang() {
    let world = World::new();
    let mut pager = open(&small(&world));
    fill(&mut pager, 100);
    world.system.fork();
    let error = pager
        .file
        .write(PAGE_SIZE as u64, &page_with(1))
        .unwrap_err();
    assert!(error.to_string().contains("forked"), "{error}");
    pager.end();
    fill(&mut pager, 40);
    assert_eq!(pager.commit(false), Ended::Committed);
    assert_eq!(marks(&world), (1..40).collect::<Vec<_>>());
}

/// Passes requests on to the model, slowly, and looks at the batches that are under way.
struct Slow {
    model: Arc<Model>,
    names: Vec<String>,
    under_way: Mutex<BTreeSet<u32>>,
    batches: AtomicUsize,
    most_batches: AtomicUsize,
}

impl Transport for Slow {
    fn servers(&self) -> &[String] {
        &self.names
    }

    fn call(
        &self,
        server: usize,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<Reply, TransportError> {
        if !request.path.ends_with("/stage") {
            return self.model.call(server, request, timeout);
        }
        let batch: StageRequest = v2::decode(request.body).unwrap();
        let pages: Vec<_> = batch.pages.iter().map(|page| page.index).collect();
        for page in &pages {
            let first = self.under_way.lock().unwrap().insert(*page);
            assert!(first, "page {page} is under way twice");
        }
        let now = self.batches.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_batches.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(2));
        let reply = self.model.call(server, request, timeout);
        self.batches.fetch_sub(1, Ordering::SeqCst);
        for page in &pages {
            self.under_way.lock().unwrap().remove(page);
        }
        reply
    }
}

#[test]
fn several_batches_are_under_way_at_once_and_no_page_in_two_of_them() {
    let world = World::new();
    drop(small(&world));
    let transport = Arc::new(Slow {
        model: Arc::clone(&world.model),
        names: vec!["slow".to_owned()],
        under_way: Mutex::default(),
        batches: AtomicUsize::new(0),
        most_batches: AtomicUsize::new(0),
    });
    let config = Config {
        page_size: 512,
        upload_bytes: BUDGET,
        cache_bytes: 0,
        ..Config::default()
    };
    let slow: Arc<dyn Transport> = Arc::<Slow>::clone(&transport);
    let mut pager = open(&Environment::with_transport(
        config,
        slow,
        Arc::new(Os::new()),
    ));
    fill(&mut pager, 300);
    // The same few pages again and again, some of them while they are under way.
    for round in 0..40_u64 {
        for index in 1..9 {
            pager.change(index, page_with(round * 100)).unwrap();
        }
        pager.spill().unwrap();
    }
    assert_eq!(pager.commit(false), Ended::Committed);
    let mut expected: Vec<u64> = (1..300).collect();
    expected[..8].fill(3900);
    assert_eq!(marks(&world), expected);
    assert!(transport.most_batches.load(Ordering::SeqCst) > 1);
}
