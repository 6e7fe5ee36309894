//! Truncation: what is readable stays as it was, everything else goes, and the counters are exact.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use mvsqlite_protocol::v2::{CommitReply, StageRef};
use mvsqlite_protocol::{Code, NamespaceId, PageIndex, Version};
use mvstore::error::StoreError;
use mvstore::kv::faults::{Fault, SeededFaults};
use mvstore::kv::{Engine, Freshness, Isolation, KeyRange, RangeOptions};
use mvstore::store::{Knobs, LockReleased, ReleaseMode, Truncated};

use crate::support::{Fixture, PAGE_SIZE, filled, page_one};

/// Bytes before a stored page's content, and the tags of a page that lies in a stage or is absent.
const OVERHEAD: usize = 9;
const STAGED: u8 = 2;
const ABSENT: u8 = 3;

pub(crate) async fn truncate(
    f: &Fixture,
    before: Version,
    apply: bool,
) -> Result<Truncated, StoreError> {
    let go_on = |_| ControlFlow::Continue(());
    f.store
        .truncate_namespace(&f.key, before, apply, go_on)
        .await
}

/// Every pair below a namespace with this tag, the key from behind the tag on.
async fn stored(f: &Fixture, id: NamespaceId, tag: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    let prefix = [b"m\0d", &id.as_bytes()[..], &[tag]].concat();
    let options = RangeOptions {
        limit: 1_000_000,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let txn = f.engine.begin(Freshness::Strict);
    let pairs = txn.get_range(&KeyRange::prefix(&prefix), options).await;
    let behind = |key: &[u8]| key[prefix.len()..].to_vec();
    let pairs = pairs.unwrap().into_iter();
    pairs
        .map(|(key, value)| (behind(&key), value.to_vec()))
        .collect()
}

/// What a full scan finds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Scan {
    /// Page versions, and whether each is absent.
    versions: BTreeMap<(PageIndex, Version), bool>,
    /// Bytes of content in them.
    bytes: u64,
    /// Staged pages with no page version that refers to them.
    orphans: usize,
    /// Versions with a changelog entry.
    changes: BTreeSet<Version>,
}

async fn scan(f: &Fixture, id: NamespaceId) -> Scan {
    let mut scan = Scan::default();
    let mut staged: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for (key, value) in stored(f, id, b's').await {
        if key[16] == b'p' {
            staged.insert(key, value.len() - OVERHEAD);
        }
    }
    for (key, value) in stored(f, id, b'p').await {
        let index = PageIndex::from_be_bytes(key[..4].try_into().unwrap());
        let version = Version::from_slice(&key[4..]).unwrap();
        let bytes = match value[0] {
            STAGED => {
                let place = [&value[OVERHEAD..], b"p", &key[..4]].concat();
                staged.remove(&place).expect("a staged page has one owner")
            }
            _ => value.len() - OVERHEAD,
        };
        scan.bytes += bytes as u64;
        scan.versions.insert((index, version), value[0] == ABSENT);
    }
    scan.orphans = staged.len();
    for (key, _) in stored(f, id, b'l').await {
        scan.changes
            .insert(Version::from_slice(&key[..10]).unwrap());
    }
    scan
}

/// Whether the counters say what a full scan finds.
async fn expect_exact(f: &Fixture, id: NamespaceId) -> Scan {
    let scan = scan(f, id).await;
    let usage = f.store.usage(&f.key).await.unwrap();
    assert_eq!(usage.page_versions, scan.versions.len() as u64);
    assert_eq!(usage.page_bytes, scan.bytes);
    scan
}

/// A namespace as it was and should be.
struct Model {
    id: NamespaceId,
    /// Every version there ever was, with what each page was then.
    states: BTreeMap<Version, BTreeMap<PageIndex, Vec<u8>>>,
    /// Every page version there ever was, and whether it was absent.
    written: BTreeMap<(PageIndex, Version), bool>,
    /// Restores that are not folded: where each stands, and what it shows.
    restores: Vec<(Version, Version)>,
    horizon: Version,
}

impl Model {
    async fn new(f: &Fixture) -> Self {
        let id = f.begin().await.namespace;
        Self {
            id,
            states: BTreeMap::from([(id.as_version(), BTreeMap::new())]),
            written: BTreeMap::new(),
            restores: Vec::new(),
            horizon: id.as_version(),
        }
    }

    fn head(&self) -> (Version, BTreeMap<PageIndex, Vec<u8>>) {
        let (version, state) = self.states.last_key_value().unwrap();
        (*version, state.clone())
    }

    /// Commits random pages: some inline, some staged, sometimes with a shorter database.
    async fn commit(&mut self, f: &Fixture) {
        let (_, mut state) = self.head();
        let base = f.begin().await;
        let count = 2 + f.random.below(12) as u32;
        let before = state.get(&0).map_or(0, |page| count_in(page));
        let mut inline = vec![(0, page_one(count, f.random.next() as u8))];
        let mut staged = Vec::new();
        for _ in 0..f.random.below(4) {
            let index = 1 + f.random.below(u64::from(count) - 1) as u32;
            let content = filled(f.random.next() as u8);
            let taken = |pages: &[(u32, Vec<u8>)]| pages.iter().any(|(at, _)| *at == index);
            if taken(&inline) || taken(&staged) {
                continue;
            }
            if f.random.chance(40) {
                staged.push((index, content));
            } else {
                inline.push((index, content));
            }
        }
        let mut request = f.write(&base, &inline);
        if !staged.is_empty() {
            let reply = f.stage(&base, None, &staged).await.unwrap();
            request.stage = Some(StageRef {
                stage: reply.stage,
                count: reply.count,
                sum: reply.sum,
            });
        }
        let CommitReply { version, .. } = f.commit(&request).await.unwrap();
        for (index, content) in inline.into_iter().chain(staged) {
            // A page 1 that says nothing new is not written.
            if index == 0 && state.get(&0) == Some(&content) {
                continue;
            }
            state.insert(index, content);
            self.written.insert((index, version), false);
        }
        for index in count..before {
            state.remove(&index);
            self.written.insert((index, version), true);
        }
        self.states.insert(version, state);
    }

    /// Goes back to a random version that is kept, as the rollback of a lock does.
    async fn roll_back(&mut self, f: &Fixture) {
        let kept: Vec<Version> = self.states.range(self.horizon..).map(|(v, _)| *v).collect();
        let to = kept[f.random.below(kept.len() as u64) as usize];
        let (head, _) = self.head();
        f.store.acquire_lock(&f.key, "w", Some(to)).await.unwrap();
        let released = f.store.release_lock(&f.key, "w", ReleaseMode::Rollback);
        assert_eq!(released.await.unwrap(), LockReleased::Released);
        if to != head {
            let at = f.begin().await.version;
            self.states.insert(at, self.states[&to].clone());
            self.restores.push((at, to));
        }
    }

    /// Where a truncation to `before` ends.
    fn raise(&mut self, before: Version) {
        let below_restores = self.restores.first().map(|(at, _)| *at);
        let mut possible = self.states.keys().filter(|version| **version <= before);
        let highest = possible.rfind(|version| below_restores.is_none_or(|at| **version < at));
        self.horizon = self.horizon.max(*highest.unwrap());
    }

    /// Versions below the horizon that restores show.
    fn pins(&self) -> impl Iterator<Item = Version> {
        let shown = self.restores.iter().map(|(_, to)| *to);
        shown.filter(|to| *to < self.horizon)
    }

    /// The versions that have to be left: seen at the horizon or above it.
    fn kept(&self) -> BTreeMap<(PageIndex, Version), bool> {
        let anchors: Vec<Version> = self.pins().chain([self.horizon]).collect();
        let mut kept = BTreeMap::new();
        for ((index, version), is_absent) in &self.written {
            let newer = |at: Version| {
                let mut versions = self.written.range((*index, *version)..=(*index, at));
                versions
                    .next_back()
                    .is_none_or(|((_, newest), _)| newest > version)
            };
            let seen = |at: &Version| at >= version && !newer(*at);
            let below = kept.last_key_value();
            let hides = below.is_some_and(|((at, _), is_absent)| at == index && !is_absent);
            if *version > self.horizon || (anchors.iter().any(seen) && (!is_absent || hides)) {
                kept.insert((*index, *version), *is_absent);
            }
        }
        kept
    }

    /// Reads every version at every page.
    async fn expect_readable(&self, f: &Fixture) {
        let base = f.begin().await;
        for (version, state) in &self.states {
            let read = f.read(&base, *version, 0..16).await;
            if *version < self.horizon {
                assert_eq!(read.unwrap_err().code(), Code::SnapshotTooOld);
                continue;
            }
            for image in read.unwrap() {
                let found = image.data.map(|data| data.into_vec());
                assert_eq!(
                    found.as_ref(),
                    state.get(&image.index),
                    "{version} {}",
                    image.index
                );
            }
        }
    }
}

fn count_in(page: &[u8]) -> u32 {
    u32::from_be_bytes(page[28..32].try_into().unwrap())
}

/// One random history of commits and truncations, of which some are cut short.
async fn random_history(seed: u64, faults: bool) {
    let engine = Arc::new(mvstore::kv::memory::MemoryEngine::new());
    let f = Fixture::over(engine, seed).await;
    let mut model = Model::new(&f).await;
    for _ in 0..12 {
        for _ in 0..=f.random.below(5) {
            model.commit(&f).await;
        }
        if f.random.chance(30) && model.restores.len() < 8 {
            model.roll_back(&f).await;
            model.commit(&f).await;
        }
        let versions: Vec<Version> = model.states.keys().copied().collect();
        let before = versions[f.random.below(versions.len() as u64) as usize];
        let would = truncate(&f, before, false).await.unwrap();
        if faults {
            use Fault::{Conflict, TooOld, Unavailable, UnknownCommitted, UnknownNotCommitted};
            let all = [
                Conflict,
                TooOld,
                UnknownCommitted,
                UnknownNotCommitted,
                Unavailable,
            ];
            f.engine.set_plan(SeededFaults::new(seed, 200, all));
        }
        let mut steps = f.random.below(6);
        let stop_early = f.random.chance(50);
        let progress = |_| {
            steps = steps.saturating_sub(1);
            if stop_early && steps == 0 {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        let cut_short = (f.store.truncate_namespace(&f.key, before, true, progress)).await;
        f.faults([]);
        // Whether it got as far as raising the horizon shows in what can be read.
        if let Ok(done) = &cut_short {
            model.raise(before);
            assert_eq!(done.horizon, model.horizon);
            model.expect_readable(&f).await;
        }
        expect_exact(&f, model.id).await;
        // A mark that was left behind by a failure is dead by then.
        f.clock.advance(60_000);
        let done = truncate(&f, before, true).await.unwrap();
        model.raise(before);
        assert_eq!((done.horizon, done.is_complete), (model.horizon, true));
        if let Ok(first) = cut_short.filter_exact(faults) {
            assert_eq!(
                first.page_versions + done.page_versions,
                would.page_versions
            );
        }
        model.expect_readable(&f).await;
        let scan = expect_exact(&f, model.id).await;
        assert_eq!(scan.versions, model.kept());
        assert_eq!(scan.orphans, 0, "staged pages are left behind");
        let entries = model.states.keys().copied();
        let entries = entries.filter(|version| *version >= model.horizon);
        let mut expected: BTreeSet<_> = entries.chain(model.pins()).collect();
        expected.remove(&model.id.as_version());
        assert_eq!(scan.changes, expected);
    }
}

/// Counts are exact as long as no outcome was unknown.
trait FilterExact {
    fn filter_exact(self, faults: bool) -> Result<Truncated, ()>;
}

impl FilterExact for Result<Truncated, StoreError> {
    fn filter_exact(self, faults: bool) -> Result<Truncated, ()> {
        self.ok().filter(|_| !faults).ok_or(())
    }
}

#[tokio::test]
async fn what_is_readable_stays_and_everything_else_goes() {
    for seed in 0..8 {
        println!("seed {seed}");
        random_history(seed, false).await;
    }
}

#[tokio::test]
async fn the_counters_are_exact_whatever_the_engine_answers() {
    for seed in 100..110 {
        println!("seed {seed}");
        random_history(seed, true).await;
    }
}

#[tokio::test]
async fn below_the_horizon_every_call_is_refused_as_too_old() {
    let f = Fixture::new().await;
    let old = f.begin().await;
    let first = f.put(&[(0, page_one(2, 1)), (1, filled(1))]).await.version;
    let last = f.put(&[(1, filled(2))]).await.version;
    // A moment between two commits, or above the last, means the commit before it.
    let above = Version::new(last.commit(), u16::MAX);
    let done = truncate(&f, above, true).await.unwrap();
    assert_eq!((done.horizon, done.page_versions), (last, 1));
    for version in [old.version, first] {
        let read = f.read(&old, version, [1]).await.unwrap_err();
        assert_eq!(read.code(), Code::SnapshotTooOld);
        let moment = mvsqlite_protocol::Moment::Version(version);
        let request = mvsqlite_protocol::v2::ResolveRequest { moment };
        let resolved = f.store.resolve(&f.key, request).await.unwrap_err();
        assert_eq!(resolved.code(), Code::SnapshotTooOld);
        let mut base = old.clone();
        base.version = version;
        let commit = f.write(&base, &[(1, filled(3))]);
        assert_eq!(
            f.commit(&commit).await.unwrap_err().code(),
            Code::SnapshotTooOld
        );
    }
    assert_eq!(f.content(last, 1).await, Some(filled(2)));
    let stat = f.store.stat_namespace(&f.key).await.unwrap();
    assert_eq!(stat.metadata.truncated_before, Some(last));
    // A lower cut later on changes nothing.
    let again = truncate(&f, first, true).await.unwrap();
    assert_eq!((again.horizon, again.page_versions), (last, 0));
}

/// The first commit of a namespace was sent again after the history below its version had gone. Its
/// base, the namespace's creation, needs no changelog entry to begin a walk at, so the answer said
/// that nobody else had changed anything, where somebody had.
#[tokio::test]
async fn a_commit_replayed_after_truncation_does_not_tell_changes_it_cannot_know() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    f.put(&[(5, filled(5))]).await;
    let request = f.write(&base, &[(1, filled(1))]);
    let first = f.commit(&request).await.unwrap();
    assert_eq!(first.changed, Some([5].into_iter().collect()));
    f.put(&[(2, filled(2))]).await;
    truncate(&f, first.version, true).await.unwrap();
    let again = f.commit(&request).await.unwrap();
    assert_eq!((again.version, again.changed), (first.version, None));
}

#[tokio::test]
async fn a_second_truncation_waits_until_the_first_has_ended_or_died() {
    let f = Fixture::new().await;
    f.put(&[(1, filled(1))]).await;
    let last = f.put(&[(1, filled(2))]).await.version;
    // An engine that fails from the second transaction on leaves the mark behind.
    f.faults([None, Some(Fault::Unavailable), Some(Fault::Unavailable)]);
    truncate(&f, last, true).await.unwrap_err();
    f.faults([]);
    let refusal = truncate(&f, last, true).await.unwrap_err();
    assert!(
        refusal
            .to_string()
            .contains("another truncation of the namespace 'db' is running")
    );
    // Looking is free.
    assert_eq!(truncate(&f, last, false).await.unwrap().page_versions, 1);
    f.clock.advance(31_000);
    assert_eq!(truncate(&f, last, true).await.unwrap().page_versions, 1);
    assert_eq!(truncate(&f, last, true).await.unwrap().page_versions, 0);
}

#[tokio::test]
async fn removing_versions_conflicts_with_no_commit() {
    let f = Fixture::new().await;
    let id = f.put(&[(1, filled(1))]).await;
    let id = (f.begin().await.namespace, id.version);
    f.put(&[(1, filled(2))]).await;
    let last = f.put(&[(1, filled(3))]).await.version;
    // Raises the horizon, and stops before it removes anything.
    let leave = |_| ControlFlow::Break(());
    let begun = f.store.truncate_namespace(&f.key, last, true, leave).await;
    assert!(!begun.unwrap().is_complete);
    let mut reader = f.engine.begin(Freshness::Strict);
    reader.read_version().await.unwrap();
    for tag in [b'p', b'l'] {
        let prefix = [b"m\0d", &id.0.as_bytes()[..], &[tag]].concat();
        reader.add_read_conflict(&KeyRange::prefix(&prefix));
    }
    reader.set(b"scratch", b"");
    assert_eq!(truncate(&f, last, true).await.unwrap().page_versions, 2);
    reader.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_go_on_while_history_is_truncated() {
    let f = Arc::new(Fixture::new().await);
    f.put(&[(0, page_one(40, 1))]).await;
    let id = f.begin().await.namespace;
    let writers: Vec<_> = (0..3u32)
        .map(|writer| {
            let f = f.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while done < 60u32 {
                    let base = f.begin().await;
                    let request = f.write(&base, &[(1 + writer, filled(done as u8))]);
                    match f.commit(&request).await {
                        Ok(_) => done += 1,
                        // The horizon rose just then, several times in a row.
                        Err(error) => assert!(matches!(
                            error.code(),
                            Code::Conflict | Code::SnapshotTooOld
                        )),
                    }
                }
            })
        })
        .collect();
    while writers.iter().any(|writer| !writer.is_finished()) {
        let head = f.begin().await.version;
        truncate(&f, head, true).await.unwrap();
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let head = f.begin().await.version;
    truncate(&f, head, true).await.unwrap();
    let scan = expect_exact(&f, id).await;
    assert_eq!(scan.versions.len(), 4, "{scan:?}");
    for writer in 0..3 {
        assert_eq!(f.content(head, 1 + writer).await, Some(filled(59)));
    }
}

/// A page with a long history takes many steps, some of which end in the middle of it.
#[tokio::test]
async fn long_histories_are_swept_in_bounded_steps() {
    let f = Fixture::new().await;
    f.put(&[(0, page_one(9, 1)), (7, filled(7))]).await;
    let mut last = Version::ZERO;
    for n in 0..700u32 {
        last = f.put(&[(1 + n % 2, filled(n as u8))]).await.version;
    }
    let mut counts = Vec::new();
    let progress = |count| {
        counts.push(count);
        ControlFlow::Continue(())
    };
    let done = f
        .store
        .truncate_namespace(&f.key, last, true, progress)
        .await;
    assert_eq!(done.unwrap().page_versions, 698);
    assert!(counts.is_sorted() && counts.last() == Some(&698));
    counts.dedup();
    assert!(counts.len() > 3, "{counts:?}");
    let scan = expect_exact(&f, f.begin().await.namespace).await;
    assert_eq!(scan.versions.len(), 4);
    assert_eq!(scan.bytes, 4 * PAGE_SIZE as u64);
    assert_eq!(scan.changes.len(), 1);
}

/// Large commits, restores and their folding in between. Which page versions those make is theirs to
/// decide; but everything stays readable, the counters are exact once all is folded, and a truncation
/// then leaves one version of each page there is.
#[tokio::test]
async fn history_with_layers_is_truncated_as_far_as_they_let_it() {
    for seed in 200..208 {
        println!("seed {seed}");
        let engine = Arc::new(mvstore::kv::memory::MemoryEngine::new());
        let f = Fixture::with_options(engine, seed, |options| {
            options.knobs = Knobs {
                layer_bytes: Some(300),
                fold_pages: Some(2),
            };
        })
        .await;
        let mut model = Model::new(&f).await;
        for _ in 0..15 {
            for _ in 0..=f.random.below(3) {
                model.commit(&f).await;
            }
            if f.random.chance(25) {
                model.roll_back(&f).await;
            }
            if f.random.chance(50) {
                f.store.fold_layers().await.unwrap();
            }
            let versions: Vec<Version> = model.states.keys().copied().collect();
            let before = versions[f.random.below(versions.len() as u64) as usize];
            let done = truncate(&f, before, true).await.unwrap();
            assert!(done.horizon >= model.horizon && done.is_complete);
            assert!(done.horizon <= before.max(model.horizon));
            model.horizon = done.horizon;
            model.expect_readable(&f).await;
        }
        while f.store.fold_layers().await.unwrap().more {}
        expect_exact(&f, model.id).await;
        let (head, state) = model.head();
        assert_eq!(truncate(&f, head, true).await.unwrap().horizon, head);
        model.horizon = head;
        model.expect_readable(&f).await;
        let scan = expect_exact(&f, model.id).await;
        let left: Vec<PageIndex> = scan.versions.keys().map(|(index, _)| *index).collect();
        let expected: Vec<PageIndex> = state.keys().copied().collect();
        assert_eq!(left, expected, "one version of each page");
        assert_eq!(scan.orphans, 0);
    }
}
