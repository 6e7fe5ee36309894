//! Trees of two and three levels, made by hand.

use super::*;

/// An interior table page with these children (by index); the rowids below them end at 10, 20, ...
fn interior(children: &[PageIndex]) -> Arc<[u8]> {
    let mut page = vec![0; 512];
    let (last, cells) = children.split_last().unwrap();
    page[0] = 5;
    page[3..5].copy_from_slice(&(cells.len() as u16).to_be_bytes());
    page[8..12].copy_from_slice(&(last + 1).to_be_bytes());
    for (number, child) in cells.iter().enumerate() {
        let at = 500 - 8 * number;
        page[12 + 2 * number..14 + 2 * number].copy_from_slice(&(at as u16).to_be_bytes());
        page[at..at + 4].copy_from_slice(&(child + 1).to_be_bytes());
        page[at + 4] = 10 * (number as u8 + 1);
    }
    Arc::from(page)
}

fn place(parent: PageIndex, number: usize) -> Place {
    Place { parent, number }
}

#[test]
fn the_next_leaf_is_found_across_interior_pages_once_they_are_at_hand() {
    let mut trees = Trees::default();
    trees.learn(1, &interior(&[2, 3]));
    trees.learn(2, &interior(&[10, 11]));
    let nothing = |_| None;
    let third = interior(&[12, 13]);
    let third = |page| (page == 3).then(|| Arc::clone(&third));
    let forward = Direction::Forward;
    let inside = trees.next(place(2, 0), forward, &nothing);
    assert_eq!(inside, Next::Page(place(2, 1), 11));
    assert_eq!(trees.next(place(2, 1), forward, &nothing), Next::Needs(3));
    let across = trees.next(place(2, 1), forward, &third);
    assert_eq!(across, Next::Page(place(3, 0), 12));
    let back = trees.next(place(3, 0), Direction::Backward, &nothing);
    assert_eq!(back, Next::Page(place(2, 1), 11));
    assert_eq!(trees.next(place(3, 1), forward, &nothing), Next::End);
    assert_eq!((trees.root(13), trees.root(77)), (1, 77));
}

#[test]
fn a_rowid_leads_to_its_leaf_or_to_the_page_that_is_missing_on_the_way() {
    let mut trees = Trees::default();
    trees.learn(1, &interior(&[2, 3]));
    trees.learn(2, &interior(&[20, 21]));
    let leaf: Arc<[u8]> = Arc::from([13; 512]);
    let at_hand = |page| (page == 20 || page == 21).then(|| Arc::clone(&leaf));
    // The first child of the root ends at rowid 10, and so does its own first child.
    let found = trees.leaf_of(1, 4, &at_hand);
    assert_eq!(found, Next::Page(place(2, 0), 20));
    // What is not at hand may be the leaf or an interior page: it is to be asked for.
    assert_eq!(trees.leaf_of(1, 11, &at_hand), Next::Page(place(1, 1), 3));
    assert_eq!(trees.leaf_of(9, 11, &at_hand), Next::Needs(9));
}

#[test]
fn pages_that_refer_to_each_other_in_circles_end_the_walk() {
    let mut trees = Trees::default();
    trees.learn(1, &interior(&[2, 1]));
    trees.learn(2, &interior(&[1, 2]));
    let nothing = |_| None;
    for direction in [Direction::Forward, Direction::Backward] {
        for at in [place(1, 0), place(1, 1), place(2, 0), place(2, 1)] {
            let _ = trees.next(at, direction, &nothing);
        }
    }
    for rowid in [i64::MIN, 5, i64::MAX] {
        assert_eq!(trees.leaf_of(1, rowid, &nothing), Next::End);
    }
    let _ = trees.root(1);
}

#[test]
fn a_child_that_moved_is_no_child_of_its_old_parent() {
    let mut trees = Trees::default();
    trees.learn(1, &interior(&[2, 3]));
    trees.learn(1, &interior(&[2, 4]));
    assert_eq!(trees.place(3), None);
    assert_eq!(trees.place(4), Some(place(1, 1)));
}

/// Only children were counted: interior pages that have few, as those of an index of long keys, or one
/// and the same, as those of a damaged file, stayed in memory without end.
#[test]
fn interior_pages_with_few_children_do_not_fill_memory() {
    let mut trees = Trees::default();
    for index in 10..40_000 {
        trees.learn(index, &interior(&[1]));
        // Read again in a newer version.
        trees.learn(index, &interior(&[2]));
    }
    let bytes: usize = trees.interiors.values().map(|page| page.len()).sum();
    assert!(bytes <= MOST_BYTES, "{bytes}");
    assert_eq!(bytes, trees.bytes);
}
