//! Sets of pages, against a set of numbers.

use std::collections::BTreeSet;

use mvsqlite_protocol::{PageIndex, PageRun, PageSet, v2};

use crate::Input;

/// Most pages of a set that is compared with a model page by page.
const FEW: u64 = 4096;

/// - what decodes is ascending, disjoint and apart, holds every page of every run that was given
///   and no other, and survives encoding;
/// - two sets of small numbers, built page by page, do as sets of numbers do.
pub(super) fn page_set(bytes: &[u8]) {
    decoded(bytes);
    let mut input = Input::new(bytes);
    let (mut left, mut right) = (Pair::default(), Pair::default());
    while !input.is_empty() {
        let (side, page) = (input.u8(), PageIndex::from(input.u8()));
        let pair = if side & 1 == 0 { &mut left } else { &mut right };
        pair.set.insert(page);
        pair.model.insert(page);
    }
    left.check();
    right.check();
    let common = left.model.intersection(&right.model).next().copied();
    assert_eq!(left.set.first_common(&right.set), common);
    left.set.extend(&right.set);
    left.model.extend(&right.model);
    left.check();
}

#[derive(Default)]
struct Pair {
    set: PageSet,
    model: BTreeSet<PageIndex>,
}

impl Pair {
    fn check(&self) {
        let pages: Vec<PageIndex> = self.set.iter().collect();
        assert!(pages.iter().eq(&self.model));
        assert_eq!(self.set.len(), self.model.len() as u64);
        assert_eq!(self.model.iter().copied().collect::<PageSet>(), self.set);
        for page in 0..=256 {
            assert_eq!(self.set.contains(page), self.model.contains(&page));
        }
        in_order(&self.set);
    }
}

fn in_order(set: &PageSet) {
    assert!(set.runs().iter().all(|run| run.count > 0));
    for pair in set.runs().windows(2) {
        assert!(pair[0].end() < u64::from(pair[1].first));
    }
}

fn decoded(bytes: &[u8]) {
    let given: Option<Vec<(PageIndex, u32)>> = v2::decode(bytes).ok();
    let Ok(set) = v2::decode::<PageSet>(bytes) else {
        return;
    };
    in_order(&set);
    let encoded = v2::encode(&set).expect("a set can be encoded");
    assert_eq!(v2::decode::<PageSet>(&encoded).expect("it decodes"), set);
    let given = given.expect("a set is an array of pairs");
    for run in given.iter().copied().map(PageRun::from) {
        let last = PageIndex::try_from(run.end() - 1).expect("runs end below 2^32");
        assert!(set.contains(run.first) && set.contains(last));
        let around = set.runs().iter().filter(|other| other.contains(run.first));
        assert!(around.clone().count() == 1 && around.clone().all(|all| all.contains(last)));
    }
    let pages = given
        .iter()
        .map(|(_, count)| u64::from(*count))
        .sum::<u64>();
    assert!(set.len() <= pages, "pages that were not given");
    if pages <= FEW {
        let runs = given.iter().copied().map(PageRun::from);
        let model: BTreeSet<u64> = runs
            .flat_map(|run| u64::from(run.first)..run.end())
            .collect();
        assert!(set.iter().map(u64::from).eq(model));
    }
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let encode = |runs: &[(u32, u32)]| v2::encode(&runs).expect("pairs of numbers");
    vec![
        ("overlapping", encode(&[(5, 3), (0, 1), (6, 10), (16, 1)])),
        ("all", encode(&[(0, u32::MAX), (7, 3)])),
        ("empty-run", encode(&[(5, 0)])),
        ("too-far", encode(&[(u32::MAX, 1)])),
        ("pages", vec![0, 3, 0, 4, 0, 5, 1, 5, 1, 9, 0, 1, 0, 2]),
    ]
}
