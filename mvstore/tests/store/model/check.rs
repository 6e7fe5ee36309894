//! The plain model, and what must be true of the store afterwards.

use std::collections::BTreeMap;

use mvsqlite_protocol::v2::ResolveRequest;
use mvsqlite_protocol::{Moment, PageIndex, Version};
use mvstore::kv::faults::{Fault, SeededFaults};

use super::World;
use super::client::{Committed, page_count};

type Pages = BTreeMap<PageIndex, (Version, Vec<u8>)>;

/// What the model expects of the counters.
#[derive(Default)]
struct Counted {
    versions: u64,
    bytes: u64,
}

pub(super) async fn check(world: &World, first: Version, pages: &[(PageIndex, Vec<u8>)]) {
    let mut committed = world.committed.take();
    committed.sort_by_key(|commit| commit.version);
    // Whatever is folded so far; then in the middle of it; then all of it.
    check_history(world, first, pages, &committed).await;
    let fixture = &world.fixture;
    let unreliable = SeededFaults::new(world.seed, 300, [Fault::Unavailable]);
    fixture.engine.set_plan(unreliable);
    let stopped = fixture.store.fold_layers().await.is_err();
    fixture.faults([]);
    if stopped {
        check_history(world, first, pages, &committed).await;
    }
    while fixture.store.fold_layers().await.unwrap().more {}
    let counted = check_history(world, first, pages, &committed).await;
    expect_usage(world, &counted).await;
}

async fn check_history(
    world: &World,
    first: Version,
    pages: &[(PageIndex, Vec<u8>)],
    committed: &[Committed],
) -> Counted {
    let mut counted = Counted::default();
    let mut model: Pages = BTreeMap::new();
    for (index, page) in pages {
        model.insert(*index, (first, page.clone()));
        counted.add(page.len());
    }
    let mut last = first;
    expect_snapshot(world, first, &model).await;
    for commit in committed {
        assert_ne!(commit.version, last, "two commits at one version");
        expect_fresh_reads(commit, &model);
        apply(commit, &mut model, &mut counted);
        expect_snapshot(world, commit.version, &model).await;
        expect_nothing_between(world, last, commit.version).await;
        last = commit.version;
    }
    assert_eq!(world.fixture.begin().await.version, last);
    counted
}

/// Everything a transaction saw is still so where it is placed. Of page 1, a transaction that does
/// not write it relies on all but the allocation fields.
fn expect_fresh_reads(commit: &Committed, model: &Pages) {
    for (index, seen) in &commit.observed {
        let now = model.get(index).map(|(_, page)| page.clone());
        if *index > 0 {
            assert_eq!(*seen, now, "page {index} read stale at {}", commit.version);
            continue;
        }
        let (mut seen, mut now) = (seen.clone().unwrap(), now.unwrap());
        let writes_page_one = commit
            .written
            .get(&0)
            .is_some_and(|new| relevant(new) != relevant(&seen));
        if !writes_page_one {
            seen[28..40].fill(0);
            now[28..40].fill(0);
        }
        assert_eq!(seen, now, "page 1 read stale at {}", commit.version);
    }
}

/// Page 1 without what never counts.
fn relevant(page: &[u8]) -> Vec<u8> {
    let mut page = page.to_vec();
    page[24..28].fill(0);
    page[92..100].fill(0);
    page
}

fn apply(commit: &Committed, model: &mut Pages, counted: &mut Counted) {
    let before = commit.observed[&0].as_ref().unwrap();
    let new = commit
        .written
        .get(&0)
        .filter(|new| relevant(new) != relevant(before));
    let count = page_count(new.unwrap_or(before));
    for (index, page) in &commit.written {
        if *index > 0 && *index < count {
            model.insert(*index, (commit.version, page.clone()));
            counted.add(page.len());
        }
    }
    if let Some(new) = new {
        model.insert(0, (commit.version, new.clone()));
        counted.add(new.len());
        model.retain(|index, _| *index < count);
        (count..page_count(before)).for_each(|_| counted.add(0));
    }
}

impl Counted {
    fn add(&mut self, bytes: usize) {
        self.versions += 1;
        self.bytes += bytes as u64;
    }
}

async fn expect_snapshot(world: &World, version: Version, model: &Pages) {
    let fixture = &world.fixture;
    let base = fixture.begin().await;
    let images = fixture.read(&base, version, 0..100).await.unwrap();
    assert_eq!(images.len(), 100);
    for image in images {
        let found = image.data.map(|data| (image.from, data.into_vec()));
        let expected = model.get(&image.index);
        assert_eq!(
            found.as_ref(),
            expected,
            "page {} at {version}",
            image.index
        );
    }
    // One page alone takes another way than a run.
    for index in [0, 7] {
        let image = fixture
            .read(&base, version, [index])
            .await
            .unwrap()
            .remove(0);
        let found = image.data.map(|data| (image.from, data.into_vec()));
        assert_eq!(found.as_ref(), model.get(&index));
    }
}

async fn expect_nothing_between(world: &World, last: Version, next: Version) {
    let fixture = &world.fixture;
    let moment = Moment::Version(Version::new(next.commit() - 1, u16::MAX));
    let before = fixture
        .store
        .resolve(&fixture.key, ResolveRequest { moment })
        .await;
    assert_eq!(
        before.unwrap().version,
        last,
        "a commit that nobody was told of"
    );
}

async fn expect_usage(world: &World, counted: &Counted) {
    let fixture = &world.fixture;
    // Stages of transactions that came to nothing.
    fixture.clock.advance(3 * 3600 * 1000);
    while fixture.store.collect_expired().await.unwrap().more {}
    let usage = fixture.store.usage(&fixture.key).await.unwrap();
    assert_eq!(usage.page_versions, counted.versions);
    assert_eq!(usage.page_bytes, counted.bytes);
    assert_eq!((usage.staged_pages, usage.staged_bytes), (0, 0));
}
