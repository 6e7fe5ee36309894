//! Commits: what conflicts, what page 1 means, what shrinks, what is refused.

use mvsqlite_protocol::v2::{BeginReply, CommitRequest};
use mvsqlite_protocol::{Code, PageRun, PageSet, Version};
use mvstore::error::StoreError;
use mvstore::kv::Limits;
use mvstore::kv::faults::Fault;

use crate::support::{Fixture, filled, page_one};

type Pages = Vec<(u32, Vec<u8>)>;

fn reading(mut request: CommitRequest, pages: impl IntoIterator<Item = u32>) -> CommitRequest {
    request.read = pages.into_iter().collect();
    request
}

/// A database of ten pages with schema 1.
async fn database() -> (Fixture, BeginReply) {
    let f = Fixture::new().await;
    let mut pages: Vec<_> = (1..10).map(|index| (index, filled(index as u8))).collect();
    pages.push((0, page_one(10, 1)));
    f.put(&pages).await;
    let base = f.begin().await;
    (f, base)
}

#[tokio::test]
async fn a_page_that_was_read_and_changed_by_another_is_a_conflict_that_names_it() {
    let (f, base) = database().await;
    let other = f.put(&[(3, filled(99))]).await;
    let mine = reading(f.write(&base, &[(5, filled(50))]), [3, 4]);
    let refusal = f.commit(&mine).await.unwrap_err();
    let expected = StoreError::Conflict {
        page: Some(3),
        version: Some(other.version),
    };
    assert_eq!(refusal, expected);
    assert!(
        refusal.to_string().contains("page 4"),
        "SQLite counts from one: {refusal}"
    );
    assert_eq!(f.content(f.begin().await.version, 5).await, Some(filled(5)));
}

#[tokio::test]
async fn blind_writes_of_one_page_collide_and_of_two_pages_do_not() {
    let (f, base) = database().await;
    f.put(&[(3, filled(99))]).await;
    let same = f.commit(&f.write(&base, &[(3, filled(50))])).await;
    assert_eq!(same.unwrap_err().code(), Code::Conflict);
    let reply = f.commit(&f.write(&base, &[(4, filled(50))])).await.unwrap();
    assert_eq!(f.content(reply.version, 3).await, Some(filled(99)));
    assert_eq!(f.content(reply.version, 4).await, Some(filled(50)));
}

#[tokio::test]
async fn the_reply_tells_what_others_changed_since_the_base() {
    let (f, base) = database().await;
    let a = f.put(&[(3, filled(99))]).await;
    let b = f.put(&[(6, filled(99)), (3, filled(98))]).await;
    assert_eq!(a.seen, base.version);
    assert_eq!(a.changed, Some(PageSet::new()));
    let mine = f.commit(&f.write(&base, &[(4, filled(50))])).await.unwrap();
    assert_eq!(mine.seen, b.version);
    assert_eq!(mine.changed, Some([3, 6].into_iter().collect()));
    assert!(mine.read_version.sees(mine.version));
}

#[tokio::test]
async fn page_1_changed_only_in_its_counters_is_not_written() {
    let (f, base) = database().await;
    // Another grows the database meanwhile.
    let other = f.put(&[(0, page_one(11, 1)), (10, filled(10))]).await;
    let mut counters = page_one(10, 1);
    counters[24..28].copy_from_slice(&[1, 2, 3, 4]);
    counters[92..100].copy_from_slice(&[5; 8]);
    let mine = f.write(&base, &[(0, counters), (4, filled(50))]);
    let reply = f.commit(&mine).await.unwrap();
    assert_eq!(f.content(reply.version, 0).await, Some(page_one(11, 1)));
    let base = f.begin().await;
    let image = f.read(&base, reply.version, [0]).await.unwrap().remove(0);
    assert_eq!(image.from, other.version);
}

#[tokio::test]
async fn two_allocations_collide_and_an_update_in_place_collides_with_neither() {
    let (f, base) = database().await;
    let mut freelist = page_one(10, 1);
    freelist[32..40].copy_from_slice(&[0, 0, 0, 7, 0, 0, 0, 1]);
    f.put(&[(0, freelist)]).await;
    let grow = f.write(&base, &[(0, page_one(11, 1)), (10, filled(10))]);
    assert_eq!(f.commit(&grow).await.unwrap_err().code(), Code::Conflict);
    let update = reading(f.write(&base, &[(4, filled(50))]), [0, 4, 5]);
    f.commit(&update).await.unwrap();
}

#[tokio::test]
async fn a_schema_change_collides_with_everybody_behind_it() {
    let (f, base) = database().await;
    f.put(&[(4, filled(44))]).await;
    let change = f.write(&base, &[(0, page_one(10, 2)), (5, filled(55))]);
    let change = f.commit(&change).await.unwrap();
    let update = f.commit(&f.write(&base, &[(7, filled(77))])).await;
    let expected = StoreError::Conflict {
        page: Some(0),
        version: Some(change.version),
    };
    assert_eq!(update.unwrap_err(), expected);
}

#[tokio::test]
async fn content_that_is_no_database_is_stored_as_given_whatever_its_sizes() {
    let f = Fixture::new().await;
    let mut page = filled(7);
    page[24] = 1;
    let version = f
        .put(&[(0, page.clone()), (1, vec![1; 7]), (2, vec![2; 32_768])])
        .await;
    assert_eq!(f.content(version.version, 0).await, Some(page.clone()));
    assert_eq!(f.content(version.version, 1).await, Some(vec![1; 7]));
    page[24] = 2;
    let version = f.put(&[(0, page.clone())]).await.version;
    assert_eq!(f.content(version, 0).await, Some(page));
}

#[tokio::test]
async fn pages_of_another_size_than_the_databases_are_refused() {
    let (f, base) = database().await;
    let mut larger = page_one(10, 1);
    larger.resize(1024, 0);
    larger[16..18].copy_from_slice(&1024u16.to_be_bytes());
    let mut huge = page_one(10, 1);
    huge[16..18].copy_from_slice(&1u16.to_be_bytes());
    let cases: [(Pages, &str); 4] = [
        (vec![(0, larger)], "from 512 to 1024"),
        (vec![(0, huge)], "65536"),
        (vec![(3, vec![0; 1024])], "has 1024 bytes"),
        (vec![(3, vec![0; 65_536])], "65536"),
    ];
    for (pages, words) in cases {
        let refusal = f.commit(&f.write(&base, &pages)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::BadPages);
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
    assert_eq!(f.begin().await.version, base.version);
}

#[tokio::test]
async fn a_shrunken_databases_lost_pages_are_absent_from_then_on() {
    let (f, base) = database().await;
    let shrunk = f.put(&[(0, page_one(4, 1))]).await.version;
    let regrown = f.put(&[(0, page_one(8, 1)), (7, filled(77))]).await.version;
    let now = f.begin().await;
    let existing = async |version| {
        let images = f.read(&now, version, 0..10).await.unwrap();
        let exists = |image: &&mvsqlite_protocol::PageImage| image.data.is_some();
        images
            .iter()
            .filter(exists)
            .map(|image| image.index)
            .collect::<Vec<_>>()
    };
    assert_eq!(existing(base.version).await, (0..10).collect::<Vec<_>>());
    assert_eq!(existing(shrunk).await, [0, 1, 2, 3]);
    assert_eq!(existing(regrown).await, [0, 1, 2, 3, 7]);
    // The pages that went were changed: whoever relied on one has a conflict.
    let late = reading(f.write(&base, &[(2, filled(22))]), [9]);
    assert_eq!(f.commit(&late).await.unwrap_err().code(), Code::Conflict);
    let unaffected = f.write(&base, &[(2, filled(22))]);
    f.commit(&unaffected).await.unwrap();
}

#[tokio::test]
async fn a_shrinking_commit_collides_with_an_update_of_a_page_it_cuts_off() {
    let (f, base) = database().await;
    f.put(&[(9, filled(99))]).await;
    let shrink = f.commit(&f.write(&base, &[(0, page_one(4, 1))])).await;
    assert_eq!(shrink.unwrap_err().code(), Code::Conflict);
}

#[tokio::test]
async fn pages_written_and_cut_off_again_by_the_same_transaction_are_not_part_of_it() {
    let (f, base) = database().await;
    let mine = f.write(
        &base,
        &[
            (0, page_one(8, 1)),
            (3, filled(33)),
            (9, filled(99)),
            (20, filled(1)),
        ],
    );
    let version = f.commit(&mine).await.unwrap().version;
    assert_eq!(f.content(version, 3).await, Some(filled(33)));
    assert_eq!(f.content(version, 9).await, None);
    assert_eq!(f.content(version, 20).await, None);
}

#[tokio::test]
async fn a_base_that_is_no_version_of_the_namespace_is_refused() {
    let (f, base) = database().await;
    f.store.record_time().await.unwrap();
    f.put(&[(4, filled(44))]).await;
    let commit = |version| {
        let mut request = f.write(&base, &[(3, filled(33))]);
        request.base = version;
        request
    };
    let between = Version::new(base.version.commit() + 1, 0);
    let above = Version::new(base.version.commit() + 1000, 0);
    for version in [between, above] {
        let refusal = f.commit(&commit(version)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::VersionUnknown);
    }
    let refusal = f.commit(&commit(Version::ZERO)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::SnapshotTooOld);
}

#[tokio::test]
async fn the_check_is_exact_over_long_intervals_and_large_read_sets() {
    let f = Fixture::new().await;
    f.put(&[(0, page_one(u32::MAX - 1, 1))]).await;
    let base = f.begin().await;
    // More commits than one transaction walks along.
    for round in 0..4500u32 {
        f.put(&[(1_000_001 + 2 * (round % 3000), filled(1))]).await;
    }
    // Every second page of 400,000, between the ones that were written.
    let mut read: Vec<PageRun> = (0..200_000)
        .map(|number| PageRun {
            first: 900_000 + 2 * number,
            count: 1,
        })
        .collect();
    let mut mine = f.write(&base, &[(5, filled(5))]);
    mine.read = PageSet::try_from(read.clone()).unwrap();
    let reply = f.commit(&mine).await.unwrap();
    // 4,500 commits are more than is told, so the client drops its cache.
    assert_eq!(reply.changed, None);

    read.push(PageRun {
        first: 1_000_001 + 2 * 2999,
        count: 1,
    });
    let mut mine = f.write(&base, &[(6, filled(6))]);
    mine.read = PageSet::try_from(read).unwrap();
    let Err(StoreError::Conflict { page, .. }) = f.commit(&mine).await else {
        panic!("one page of 200,001 was changed");
    };
    assert_eq!(page, Some(1_000_001 + 2 * 2999));
}

#[tokio::test]
async fn commits_beyond_the_engines_transaction_are_refused_with_a_way_out() {
    let f = Fixture::with_limits(Limits::FOUNDATIONDB).await;
    let pages: Vec<_> = (1..130).map(|index| (index, vec![1; 32_768])).collect();
    let base = f.begin().await;
    let refusal = f.commit(&f.write(&base, &pages)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::TooLarge);
    // As many bytes and pages as the limits allow do fit.
    let most = usize::try_from(base.limits.inline_bytes).unwrap() / 512;
    let pages: Vec<_> = (1..=most as u32)
        .map(|index| (index * 3, filled(1)))
        .collect();
    let mut mine = f.write(&base, &pages);
    mine.read = (0..50_000).map(|page| page * 7).collect();
    f.commit(&mine).await.unwrap();
    // More pages than fit, by their number alone.
    let pages: Vec<_> = (1..30_000).map(|index| (index, vec![1])).collect();
    let refusal = f.commit(&f.write(&base, &pages)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::TooLarge);
    // A file may be cut off by any number of pages.
    f.put(&[(0, page_one(1_000_000, 1))]).await;
    let cut = f.put(&[(0, page_one(1, 1))]).await.version;
    assert_eq!(f.content(cut, 3).await, None);
}

#[tokio::test]
async fn conflicts_of_the_engine_are_looked_into_and_given_up_after_five() {
    let (f, base) = database().await;
    f.faults([
        Some(Fault::Conflict),
        Some(Fault::TooOld),
        Some(Fault::Conflict),
    ]);
    f.commit(&f.write(&base, &[(3, filled(33))])).await.unwrap();
    f.faults([Some(Fault::Conflict); 5]);
    let refusal = f
        .commit(&f.write(&base, &[(4, filled(44))]))
        .await
        .unwrap_err();
    let unseen = StoreError::Conflict {
        page: None,
        version: None,
    };
    assert_eq!(refusal, unseen);
    f.faults([Some(Fault::StorageFull)]);
    let refusal = f
        .commit(&f.write(&base, &[(4, filled(44))]))
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::StorageFull);
    assert_eq!(f.content(f.begin().await.version, 4).await, Some(filled(4)));
}

#[tokio::test]
async fn usage_counts_every_page_version() {
    let (f, _) = database().await;
    f.put(&[(3, filled(33))]).await;
    f.put(&[(0, page_one(8, 1))]).await;
    let usage = f.store.usage(&f.key).await.unwrap();
    // Ten pages, one more of page 4, then page 1 and two that are absent.
    assert_eq!(usage.page_versions, 10 + 1 + 3);
    assert_eq!(usage.page_bytes, 512 * (10 + 1 + 1));
    assert_eq!((usage.staged_pages, usage.staged_bytes), (0, 0));
}
