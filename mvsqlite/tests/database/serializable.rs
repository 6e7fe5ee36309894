//! Several connections in two processes doing as they please, with faults on the way. Whatever
//! happens: each read is the snapshot's, each commit saw what was there just before it, what was
//! acknowledged is stored, and what was refused never is.

use std::collections::{BTreeMap, BTreeSet};

use mvsqlite::{Error, SqliteCode};
use mvsqlite_protocol::{PageIndex, Version};
use proptest::prelude::*;

use crate::model::Fault;
use crate::pager::{Ended, Pager, new_page1, page_with};
use crate::{World, create, open};

const PAGERS: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    Begin,
    Read(PageIndex),
    Reserve,
    Change(PageIndex),
    Alter,
    Grow(u32),
    Shrink(u32),
    Spill,
    Commit { stay: bool },
    Rollback { stay: bool },
    End,
    Inject(Fault),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Refused),
        Just(Fault::RequestLost),
        Just(Fault::ReplyLost),
        (0u32..12).prop_map(Fault::Late),
        Just(Fault::Twice),
        Just(Fault::Unavailable),
        Just(Fault::BadGateway),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Begin),
        6 => (1u32..12).prop_map(Op::Read),
        4 => Just(Op::Reserve),
        6 => (1u32..12).prop_map(Op::Change),
        1 => Just(Op::Alter),
        1 => (1u32..4).prop_map(Op::Grow),
        1 => (1u32..3).prop_map(Op::Shrink),
        1 => Just(Op::Spill),
        4 => any::<bool>().prop_map(|stay| Op::Commit { stay }),
        1 => any::<bool>().prop_map(|stay| Op::Rollback { stay }),
        2 => Just(Op::End),
        2 => fault().prop_map(Op::Inject),
    ]
}

/// A connection and what it must see.
struct Connection {
    pager: Pager,
    base: Option<Version>,
    writing: bool,
    count: u32,
    /// Written in this transaction, uncommitted.
    dirty: BTreeMap<PageIndex, Vec<u8>>,
    /// Committed since SHARED.
    own: BTreeMap<PageIndex, Vec<u8>>,
    /// First seen content of each page since SHARED.
    used: BTreeMap<PageIndex, Vec<u8>>,
    /// Marks written in the open write transaction.
    marks: Vec<u64>,
}

struct Run {
    world: World,
    connections: Vec<Connection>,
    next_mark: u64,
    /// Of transactions that failed definitely.
    refused: BTreeSet<u64>,
}

/// Page 1 without what does not count.
fn without_counters(page: &[u8]) -> Vec<u8> {
    let mut page = page.to_vec();
    page[24..28].fill(0);
    page[92..100].fill(0);
    page
}

fn comparable(index: PageIndex, page: &[u8]) -> Vec<u8> {
    match index {
        0 => without_counters(page),
        _ => page.to_vec(),
    }
}

impl Run {
    fn new(lag: usize, read_bytes: u64, cache_bytes: u64, upload_bytes: u64) -> Self {
        let world = World::new();
        {
            let mut state = world.model.state();
            state.lag = lag;
            state.limits.read_bytes = read_bytes;
            state.limits.inline_bytes = 3 * 512;
            state.limits.stage_batch_bytes = 2 * 512;
        }
        let first = world.process_with(|config| config.upload_bytes = upload_bytes);
        let second = world.process_with(|config| {
            config.cache_bytes = cache_bytes;
            config.upload_bytes = upload_bytes;
        });
        let mut pagers: Vec<_> = (0..PAGERS)
            .map(|number| open([&first, &second][number % 2]))
            .collect();
        create(&mut pagers[0], 8);
        let connection = |pager| Connection {
            pager,
            base: None,
            writing: false,
            count: 0,
            dirty: BTreeMap::new(),
            own: BTreeMap::new(),
            used: BTreeMap::new(),
            marks: Vec::new(),
        };
        Self {
            world,
            connections: pagers.into_iter().map(connection).collect(),
            next_mark: 1000,
            refused: BTreeSet::new(),
        }
    }

    fn step(&mut self, who: usize, op: &Op) {
        let connection = &self.connections[who];
        let (open, writing) = (connection.base.is_some(), connection.writing);
        match op {
            Op::Begin if !open => self.begin(who),
            Op::Read(page) if open => self.read(who, *page),
            Op::Reserve if open && !writing => self.reserve(who),
            Op::Change(page) if writing => self.change(who, *page),
            Op::Alter if writing => self.alter(who),
            Op::Grow(by) if writing => self.resize(who, |count| count + by),
            Op::Shrink(by) if writing => self.resize(who, |count| count.saturating_sub(*by).max(4)),
            Op::Spill if writing => self.spill(who),
            Op::Commit { stay } if writing => self.commit(who, *stay),
            Op::Rollback { stay } if writing => self.rollback(who, *stay),
            Op::End if open && !writing => self.end(who),
            Op::Inject(fault) => self.world.model.inject([Some(*fault)]),
            _ => {}
        }
    }

    fn begin(&mut self, who: usize) {
        let connection = &mut self.connections[who];
        if connection.pager.begin().is_err() {
            return;
        }
        connection.base = connection.pager.snapshot;
        connection.own.clear();
        connection.used.clear();
        connection.count = connection.pager.count().unwrap();
        let state = self.world.model.state();
        assert_eq!(
            connection.base,
            Some(state.head()),
            "not the newest version"
        );
        drop(state);
        self.check(who, 0);
    }

    /// What a connection must see.
    fn expected(&self, who: usize, index: PageIndex) -> Vec<u8> {
        let connection = &self.connections[who];
        let written = connection.dirty.get(&index).or(connection.own.get(&index));
        let stored = || {
            let base = connection.base.unwrap();
            self.world.model.state().page(index, base)
        };
        written.cloned().or_else(stored).unwrap_or(vec![0; 512])
    }

    fn check(&mut self, who: usize, index: PageIndex) {
        let expected = comparable(index, &self.expected(who, index));
        let page = match self.connections[who].pager.page(index) {
            Ok(page) => comparable(index, &page),
            Err(error) => return self.read_failed(who, &error),
        };
        assert_eq!(page, expected, "page {index} of connection {who}");
        let connection = &mut self.connections[who];
        if !connection.dirty.contains_key(&index) {
            connection.used.entry(index).or_insert(page);
        }
    }

    /// After an I/O error SQLite rolls the transaction back.
    fn read_failed(&mut self, who: usize, error: &Error) {
        assert_eq!(error.sqlite_code(), SqliteCode::IoErrRead);
        match self.connections[who].writing {
            true => self.rollback(who, false),
            false => self.end(who),
        }
    }

    fn read(&mut self, who: usize, index: PageIndex) {
        if index < self.connections[who].count {
            self.check(who, index);
        }
    }

    fn reserve(&mut self, who: usize) {
        let connection = &mut self.connections[who];
        if connection.pager.reserve().is_ok() {
            connection.writing = true;
        }
    }

    fn change(&mut self, who: usize, index: PageIndex) {
        if index >= self.connections[who].count {
            return;
        }
        self.check(who, index);
        let connection = &mut self.connections[who];
        if !connection.writing {
            return;
        }
        self.next_mark += 1;
        connection.marks.push(self.next_mark);
        let page = page_with(self.next_mark);
        connection.pager.change(index, page.clone()).unwrap();
        connection.dirty.insert(index, page);
    }

    /// A spill that fails fails its statement, and SQLite rolls the transaction back.
    fn spill(&mut self, who: usize) {
        if let Err(error) = self.connections[who].pager.spill() {
            assert_eq!(error.sqlite_code(), SqliteCode::IoErrWrite);
            self.rollback(who, false);
        }
    }

    fn alter(&mut self, who: usize) {
        let connection = &mut self.connections[who];
        let mut page1 = connection.pager.page(0).unwrap();
        page1[200] = page1[200].wrapping_add(1);
        connection.pager.change(0, page1.clone()).unwrap();
        connection.dirty.insert(0, page1);
    }

    fn resize(&mut self, who: usize, to: impl Fn(u32) -> u32) {
        let connection = &mut self.connections[who];
        let (before, after) = (connection.count, to(connection.count));
        // A file does not grow again in the transaction that shrank it: SQLite would leave a hole.
        if after == before || after > 14 || connection.dirty.keys().any(|index| *index >= after) {
            return;
        }
        connection.pager.set_count(after).unwrap();
        connection
            .dirty
            .insert(0, connection.pager.page(0).unwrap());
        connection.count = after;
        for index in before..after {
            self.next_mark += 1;
            let page = page_with(self.next_mark);
            let connection = &mut self.connections[who];
            // What was cut off in this transaction is read for the journal.
            if let Err(error) = connection.pager.change(index, page.clone()) {
                return self.read_failed(who, &error);
            }
            connection.marks.push(self.next_mark);
            connection.dirty.insert(index, page);
        }
    }

    fn commit(&mut self, who: usize, stay: bool) {
        let before = self.world.model.state().head();
        let ended = self.connections[who].pager.commit(stay);
        let marks = std::mem::take(&mut self.connections[who].marks);
        match ended {
            Ended::Committed => self.committed(who, before),
            Ended::Failed(
                SqliteCode::BusySnapshot | SqliteCode::IoErrFsync | SqliteCode::IoErrWrite,
            ) => {
                self.refused.extend(marks);
                self.undone(who);
            }
            // It may have been committed or not.
            Ended::Failed(SqliteCode::IoErrCommitAtomic) => self.undone(who),
            Ended::Failed(other) => panic!("COMMIT failed with {other:?}"),
        }
        if !stay {
            self.forget(who);
        }
    }

    /// The commit saw what was there just before it, and is stored.
    fn committed(&mut self, who: usize, before: Version) {
        let state = self.world.model.state();
        let connection = &mut self.connections[who];
        connection.writing = false;
        let dirty = std::mem::take(&mut connection.dirty);
        let known = connection.pager.file.last_known_version();
        // Late copies of other commits may have been stored in between.
        let own = state.commits.iter().position(|c| Some(c.version) == known);
        let stored = own.is_some_and(|at| state.commits[at].version > before);
        if dirty.is_empty() {
            assert!(!stored, "a commit without changes was stored");
            return;
        }
        let at = own.expect("an acknowledged commit is not there");
        assert!(stored, "an acknowledged commit is not there");
        let version = state.commits[at].version;
        let previous = state.commits[at - 1].version;
        let stored_page1 = state.commits[at].changed.contains(0);
        for (index, page) in &dirty {
            if *index == 0 && !stored_page1 {
                // Changed and changed back, to what an own commit before it may have made.
                let own = connection.own.get(&0).cloned();
                let base = own.or_else(|| state.page(0, connection.base.unwrap()));
                assert_eq!(without_counters(page), without_counters(&base.unwrap()));
                continue;
            }
            let found = state.page(*index, version).unwrap();
            assert_eq!(comparable(*index, &found), comparable(*index, page));
        }
        let count = state.page_count(version);
        assert!(
            dirty.keys().all(|index| *index < count),
            "a write behind the end"
        );
        assert!(!stored_page1 || count == connection.count);
        for (index, page) in &connection.used {
            let mut found = state.page(*index, previous).unwrap_or(vec![0; 512]);
            let mut page = page.clone();
            if *index == 0 && !stored_page1 {
                // Who does not allocate does not mind who does.
                found[28..40].fill(0);
                page[28..40].fill(0);
            }
            assert_eq!(
                comparable(*index, &found),
                page,
                "lost update of page {index}"
            );
        }
        for (index, page) in dirty {
            connection.used.insert(index, comparable(index, &page));
            connection.own.insert(index, page);
        }
        let count = connection.count;
        connection.used.retain(|index, _| *index < count);
        connection.own.retain(|index, _| *index < count);
    }

    fn undone(&mut self, who: usize) {
        let connection = &mut self.connections[who];
        connection.writing = false;
        connection.dirty.clear();
        connection.marks.clear();
        if connection.base.is_some() {
            let count = self.seen_count(who);
            self.connections[who].count = count;
        }
    }

    fn seen_count(&self, who: usize) -> u32 {
        let page1 = self.expected(who, 0);
        u32::from_be_bytes(page1[28..32].try_into().unwrap())
    }

    fn rollback(&mut self, who: usize, stay: bool) {
        let connection = &mut self.connections[who];
        connection.pager.rollback(stay);
        self.refused.extend(std::mem::take(&mut connection.marks));
        self.undone(who);
        if !stay {
            self.forget(who);
        }
    }

    fn end(&mut self, who: usize) {
        self.connections[who].pager.end();
        self.forget(who);
    }

    fn forget(&mut self, who: usize) {
        let connection = &mut self.connections[who];
        connection.base = None;
        connection.own.clear();
        connection.used.clear();
    }

    /// Everything late arrives; then nothing that was refused may be stored in any version.
    fn finish(mut self) {
        self.world.model.state().faults.clear();
        for who in 0..PAGERS {
            if self.connections[who].writing {
                self.rollback(who, false);
            } else if self.connections[who].base.is_some() {
                self.end(who);
            }
        }
        for _ in 0..20 {
            self.begin(0);
            self.end(0);
        }
        let state = self.world.model.state();
        let versions: Vec<_> = state.commits.iter().map(|c| c.version).collect();
        for version in versions {
            for index in 1..state.page_count(version) {
                let page = state.page(index, version).unwrap_or(vec![0; 512]);
                let mark = u64::from_be_bytes(page[..8].try_into().unwrap());
                assert!(!self.refused.contains(&mark), "a refused write is stored");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn commits_are_serializable_and_reads_are_the_snapshots(
        ops in prop::collection::vec((0..PAGERS, op()), 1..150),
        lag in 0usize..3,
        read_bytes in prop_oneof![Just(512u64), Just(1 << 20)],
        cache_bytes in prop_oneof![Just(0u64), Just(2000), Just(1 << 20)],
        upload_bytes in prop_oneof![Just(2048u64), Just(4096), Just(1 << 20)],
    ) {
        let mut run = Run::new(lag, read_bytes, cache_bytes, upload_bytes);
        for (who, op) in &ops {
            run.step(*who, op);
        }
        run.finish();
    }
}

#[test]
fn the_header_of_the_model_is_one_that_sqlite_would_write() {
    assert_eq!(without_counters(&new_page1(3, 9)), new_page1(3, 9));
}
