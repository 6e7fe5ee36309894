//! What a commit asks for: the rules that need no store, and the digest by which a retry is known.

use mvsqlite_protocol::v2::{CommitRequest, Limits, PAGE_1};
use mvsqlite_protocol::{PageIndex, PageRun};
use xxhash_rust::xxh3::Xxh3;

use crate::error::StoreError;
use crate::layout::page_sum;
use crate::page::stage::expect_size;

/// A page that the commit brings along.
#[derive(Debug, Clone, Copy)]
pub(super) struct InlinePage<'a> {
    /// Which page.
    pub index: PageIndex,
    /// Its content.
    pub content: &'a [u8],
    /// Its sum.
    pub sum: u64,
}

/// A commit request in order.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// What was asked.
    pub request: &'a CommitRequest,
    /// Of everything that decides what the commit does; the same for each sending of it.
    pub digest: u128,
    /// Page 1, if it comes along.
    pub page_one: Option<InlinePage<'a>>,
    /// The other pages that come along, ascending.
    pub pages: Vec<InlinePage<'a>>,
}

impl<'a> Plan<'a> {
    /// Checks and orders the request.
    pub(super) fn new(request: &'a CommitRequest, limits: &Limits) -> Result<Self, StoreError> {
        let bytes = request.pages.iter().map(|page| page.data.len() as u64);
        let bytes: u64 = bytes.sum();
        if bytes > limits.inline_bytes {
            return Err(StoreError::TooLarge {
                what: "bytes of page content brought inline by one commit",
                amount: bytes,
                limit: limits.inline_bytes,
            });
        }
        let mut pages = Vec::with_capacity(request.pages.len());
        for page in &request.pages {
            if page.index == PageIndex::MAX {
                return Err(impossible(
                    page.index,
                    "is beyond the last that SQLite can have",
                ));
            }
            expect_size(&page.data)?;
            pages.push(InlinePage {
                index: page.index,
                content: &page.data,
                sum: page_sum(page.index, &page.data),
            });
        }
        pages.sort_unstable_by_key(|page| page.index);
        if let Some(pair) = pages.windows(2).find(|pair| pair[0].index == pair[1].index) {
            return Err(impossible(pair[0].index, "is written twice by one commit"));
        }
        let digest = digest(request, &pages);
        let page_one = pages.first().copied().filter(|page| page.index == PAGE_1);
        if page_one.is_some() {
            pages.remove(0);
        }
        Ok(Self {
            request,
            digest,
            page_one,
            pages,
        })
    }
}

pub(super) fn impossible(index: PageIndex, what: &str) -> StoreError {
    StoreError::BadPages {
        reason: format!("page {} {what}", u64::from(index) + 1),
        hint: "this is a fault of the client program: update it",
    }
}

fn digest(request: &CommitRequest, pages: &[InlinePage<'_>]) -> u128 {
    let mut hash = Xxh3::new();
    let mut number = |number: u64| hash.update(&number.to_be_bytes());
    number(request.read.runs().len() as u64);
    for PageRun { first, count } in request.read.runs() {
        number(u64::from(*first) << 32 | u64::from(*count));
    }
    number(pages.len() as u64);
    for page in pages {
        number(page.index.into());
        number(page.content.len() as u64);
        number(page.sum);
    }
    if let Some(stage) = request.stage {
        number(stage.count);
        number(stage.sum);
        hash.update(stage.stage.as_bytes());
    }
    hash.update(request.namespace.as_bytes());
    hash.update(request.base.as_bytes());
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvsqlite_protocol::v2::StageRef;
    use mvsqlite_protocol::{IdempotencyKey, NamespaceId, PageData, ReadVersion, StageId, Version};

    const LIMITS: Limits = Limits {
        inline_bytes: 4096,
        stage_batch_bytes: 4096,
        commit_pages: 10,
        read_pages: 10,
        read_bytes: 4096,
    };

    fn request(pages: &[(PageIndex, usize)]) -> CommitRequest {
        let page = |(index, len): &(PageIndex, usize)| PageData {
            index: *index,
            data: vec![7; *len].into(),
        };
        CommitRequest {
            namespace: NamespaceId::from_bytes([1; 10]),
            base: Version::new(5, 0),
            read_version: ReadVersion(9),
            key: IdempotencyKey::from_bytes([2; 16]),
            retry: false,
            read: [1, 2].into_iter().collect(),
            pages: pages.iter().map(page).collect(),
            stage: None,
            incarnation: None,
            lease: None,
        }
    }

    #[test]
    fn pages_come_in_order_and_page_1_apart() {
        let request = request(&[(9, 512), (0, 512), (3, 512)]);
        let plan = Plan::new(&request, &LIMITS).unwrap();
        assert_eq!(plan.page_one.unwrap().index, 0);
        let indexes: Vec<_> = plan.pages.iter().map(|page| page.index).collect();
        assert_eq!(indexes, [3, 9]);
    }

    #[test]
    fn impossible_pages_are_refused() {
        for pages in [
            &[(3, 512), (3, 512)][..],
            &[(u32::MAX, 512)],
            &[(3, 0)],
            &[(3, 65536)],
        ] {
            let limits = Limits {
                inline_bytes: 1 << 20,
                ..LIMITS
            };
            let refusal = Plan::new(&request(pages), &limits).unwrap_err();
            assert!(matches!(refusal, StoreError::BadPages { .. }), "{refusal}");
        }
        let refusal = Plan::new(&request(&[(3, 4097)]), &LIMITS).unwrap_err();
        assert!(matches!(refusal, StoreError::TooLarge { .. }), "{refusal}");
    }

    #[test]
    fn the_digest_tells_requests_apart_but_not_their_sendings() {
        let digest = |request: &CommitRequest| Plan::new(request, &LIMITS).unwrap().digest;
        let first = request(&[(0, 512), (3, 512)]);
        let mut again = request(&[(3, 512), (0, 512)]);
        again.retry = true;
        again.read_version = ReadVersion(10);
        assert_eq!(digest(&first), digest(&again));

        let others: [fn(&mut CommitRequest); 6] = [
            |other| other.base = Version::new(6, 0),
            |other| other.namespace = NamespaceId::from_bytes([3; 10]),
            |other| other.read.insert(3),
            |other| other.pages[1].data[100] ^= 1,
            |other| other.pages[1].index = 4,
            |other| {
                other.stage = Some(StageRef {
                    stage: StageId::from_bytes([1; 16]),
                    count: 1,
                    sum: 1,
                });
            },
        ];
        for change in others {
            let mut other = first.clone();
            change(&mut other);
            assert_ne!(digest(&first), digest(&other));
        }
    }
}
