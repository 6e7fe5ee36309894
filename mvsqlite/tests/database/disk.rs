//! Pages kept on disk: what a process reads that begins with them.

use std::path::Path;
use std::sync::Arc;

use mvsqlite::Environment;
use mvsqlite_protocol::PageIndex;

use crate::pager::{Ended, page_with};
use crate::{World, create, open};

const PAGES: u32 = 40;

fn process(world: &World, directory: &Path) -> Arc<Environment> {
    world.process_with(|config| config.disk_cache = Some(directory.to_owned()))
}

/// Opens the database in a new process, reads all of it and closes it. Returns its calls of `read`.
fn read_all(world: &World, directory: &Path) -> usize {
    let mut pager = open(&process(world, directory));
    world.model.calls();
    pager.begin().unwrap();
    for index in 1..PAGES {
        let expected = {
            let state = world.model.state();
            state.page(index, state.head()).unwrap()
        };
        assert_eq!(pager.page(index).unwrap(), expected, "page {index}");
    }
    pager.end();
    let calls = world.model.calls();
    calls.iter().filter(|call| call.as_str() == "read").count()
}

fn change(world: &World, index: PageIndex, mark: u64) {
    let pages = vec![(index, page_with(mark))];
    world.model.state().commit_directly(pages);
}

#[test]
fn a_new_process_reads_from_disk_what_did_not_change_since() {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    create(&mut open(&world.process()), PAGES);
    assert!(read_all(&world, directory.path()) > 0);
    assert_eq!(read_all(&world, directory.path()), 0);
    change(&world, 7, 700);
    change(&world, 9, 900);
    assert!((1..=2).contains(&read_all(&world, directory.path())));
    assert!(read_all(&world, directory.path()) <= 2);
    // A process that writes, and one that reads beside it.
    let mut writer = open(&process(&world, directory.path()));
    for round in 0..20 {
        writer.begin().unwrap();
        writer.reserve().unwrap();
        writer
            .change(1 + round % 5, page_with(u64::from(round) + 5000))
            .unwrap();
        assert_eq!(writer.commit(false), Ended::Committed);
        writer.end();
        if round % 3 == 0 {
            change(&world, 20 + round, 7000);
        }
        read_all(&world, directory.path());
    }
    drop(writer);
    read_all(&world, directory.path());
}

#[test]
fn files_damaged_or_made_unreadable_between_processes_cost_requests_and_nothing_else() {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    create(&mut open(&world.process()), PAGES);
    read_all(&world, directory.path());
    let file = std::fs::read_dir(directory.path()).unwrap().next().unwrap();
    let path = file.unwrap().path();
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(331) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        read_all(&world, directory.path());
        std::fs::write(&path, &whole[..at]).unwrap();
        read_all(&world, directory.path());
    }
    std::fs::remove_dir_all(directory.path()).unwrap();
    std::fs::write(directory.path(), b"no directory").unwrap();
    assert!(read_all(&world, directory.path()) > 0);
    std::fs::remove_file(directory.path()).unwrap();
    std::fs::create_dir(directory.path()).unwrap();
}

#[test]
fn a_store_with_another_incarnation_is_read_anew() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::new();
    create(&mut open(&world.process()), PAGES);
    read_all(&world, directory.path());
    // The same name, id and versions, and other pages.
    let other = World::new();
    other.model.state().incarnation = mvsqlite_protocol::Incarnation::from_bytes([9; 8]);
    create(&mut open(&other.process()), PAGES);
    for index in 1..PAGES {
        change(&other, index, 10_000 + u64::from(index));
    }
    assert!(read_all(&other, directory.path()) > 0);
    assert!(read_all(&world, directory.path()) > 0);
}
