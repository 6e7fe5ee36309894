//! What a check looks at as SQLite would, on request.

use mvsqlite_protocol::PageIndex;
use mvstore::fsck::{self, Finding, FsckOptions, Kind};

use crate::support::{Fixture, PAGE_SIZE, filled, page_one};

/// Where page 1's b-tree begins.
const BTREE: usize = 100;

async fn findings(f: &Fixture) -> Vec<Finding> {
    let options = FsckOptions {
        sqlite: true,
        ..FsckOptions::new("mvstore-test", "m")
    };
    let engine = std::sync::Arc::new(f.engine.clone());
    fsck::check(engine, options).await.unwrap().findings
}

/// A database of four pages whose schema's root has these bytes; page 2 is a leaf of a table.
async fn store(root: &[u8]) -> Fixture {
    let f = Fixture::new().await;
    let mut first = page_one(4, 0);
    first[BTREE..BTREE + root.len()].copy_from_slice(root);
    let mut leaf = vec![0; PAGE_SIZE];
    leaf[0] = 0x0d;
    let pages: Vec<(PageIndex, Vec<u8>)> = vec![(0, first), (1, leaf), (2, filled(9))];
    f.put(&pages).await;
    f
}

/// The header of an interior page of a table with no cell and this page below it.
fn interior(child: u32) -> Vec<u8> {
    let mut header = vec![0x05, 0, 0, 0, 0, 0, 0, 0];
    header.extend_from_slice(&child.to_be_bytes());
    header
}

#[tokio::test]
async fn a_schema_that_sqlite_would_take_is_plausible() {
    for root in [vec![0x0d], interior(2)] {
        assert_eq!(findings(&store(&root).await).await, []);
    }
}

#[tokio::test]
async fn a_schema_that_sqlite_would_not_take_is_found() {
    for (root, page) in [
        // No b-tree page, or one of an index.
        (vec![0x07], 1),
        (vec![0x0a], 1),
        // Below it: a page that is not there, one of something else, one beyond the end, none.
        (interior(4), 4),
        (interior(3), 3),
        (interior(5), 1),
        (interior(0), 1),
    ] {
        let found = findings(&store(&root).await).await;
        let places: Vec<_> = found.iter().map(|found| (found.kind, found.page)).collect();
        assert_eq!(places, [(Kind::SqliteImplausible, Some(page))], "{root:?}");
    }
}

#[tokio::test]
async fn what_is_no_sqlite_database_is_left_alone() {
    let f = Fixture::new().await;
    f.put(&[(0, filled(1)), (1, filled(2))]).await;
    assert_eq!(findings(&f).await, []);
}
