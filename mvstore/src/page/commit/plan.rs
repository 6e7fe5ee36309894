//! What a commit asks for: the rules that need no store, and the digest by which a retry is known.

use std::collections::HashSet;

use mvsqlite_protocol::v2::{Limits, MAX_GROUP, PAGE_1};
use mvsqlite_protocol::{NamespaceId, PageIndex, PageRun};
use xxhash_rust::xxh3::Xxh3;

use super::request::{Commit, ConflictRule, Dialect, Effect, Member};
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

/// A commit in order.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// What was asked.
    pub commit: &'a Commit,
    /// Of everything that decides what the commit does; the same for each sending of it.
    pub digest: u128,
    /// Its namespaces, in the order in which they were named.
    pub members: Vec<MemberPlan<'a>>,
    /// The member where its outcome is kept: that of the smallest id.
    pub home: &'a Member,
}

/// One namespace's part of it.
#[derive(Debug)]
pub(super) struct MemberPlan<'a> {
    /// What was asked.
    pub member: &'a Member,
    /// Page 1, if it comes along.
    pub page_one: Option<InlinePage<'a>>,
    /// The other pages that come along, ascending.
    pub pages: Vec<InlinePage<'a>>,
}

impl<'a> Plan<'a> {
    /// Checks and orders the request.
    pub(super) fn new(commit: &'a Commit, limits: &Limits) -> Result<Self, StoreError> {
        let home = expect_group(commit)?;
        let pages = commit.members.iter().flat_map(|member| &member.pages);
        let bytes: u64 = pages.map(|page| page.data.len() as u64).sum();
        if bytes > limits.inline_bytes {
            return Err(StoreError::TooLarge {
                what: "bytes of page content brought inline by one commit",
                amount: bytes,
                limit: limits.inline_bytes,
            });
        }
        let members: Vec<_> = commit
            .members
            .iter()
            .map(MemberPlan::new)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            commit,
            digest: digest(&members),
            members,
            home,
        })
    }
}

impl<'a> MemberPlan<'a> {
    fn new(member: &'a Member) -> Result<Self, StoreError> {
        let mut pages = Vec::with_capacity(member.pages.len());
        for page in &member.pages {
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
        let page_one = pages.first().copied().filter(|page| page.index == PAGE_1);
        if page_one.is_some() {
            pages.remove(0);
        }
        Ok(Self {
            member,
            page_one,
            pages,
        })
    }

    /// How many pages come along.
    pub(super) fn inline(&self) -> u64 {
        (self.pages.len() + usize::from(self.page_one.is_some())) as u64
    }

    /// Adds everything that decides what the commit does here.
    fn hash_into(&self, hash: &mut Xxh3) {
        let member = self.member;
        hash.update(member.id.as_bytes());
        hash.update(member.base.as_bytes());
        let mut number = |number: u64| hash.update(&number.to_be_bytes());
        number(match member.effect {
            Effect::Read => 0,
            Effect::Write => 1,
        });
        number(match member.dialect {
            Dialect::V2 => 0,
            Dialect::V1 => 1,
        });
        match &member.rule {
            ConflictRule::Whole => number(u64::MAX),
            ConflictRule::Pages {
                read,
                written_count_as_read,
            } => {
                number(read.runs().len() as u64);
                for PageRun { first, count } in read.runs() {
                    number(u64::from(*first) << 32 | u64::from(*count));
                }
                number((*written_count_as_read).into());
            }
        }
        let brought = || self.page_one.iter().chain(&self.pages);
        number(brought().count() as u64);
        for page in brought() {
            number(page.index.into());
            number(page.content.len() as u64);
            number(page.sum);
        }
        number(member.stage.is_some().into());
        if let Some(stage) = member.stage {
            number(stage.count);
            number(stage.sum);
            hash.update(stage.stage.as_bytes());
        }
    }
}

/// The rules for a commit's members as a whole. Returns the one of the smallest id.
fn expect_group(commit: &Commit) -> Result<&Member, StoreError> {
    let members = &commit.members;
    let bad = |reason: String| Err(StoreError::BadGroup { reason });
    if members.len() > MAX_GROUP {
        return bad(format!(
            "{} namespaces in one commit; at most {MAX_GROUP} are taken",
            members.len()
        ));
    }
    let ids: HashSet<NamespaceId> = members.iter().map(|member| member.id).collect();
    if ids.len() < members.len() {
        return bad("a namespace is named twice by one commit".to_owned());
    }
    if !members.iter().any(Member::is_written) {
        return bad("a commit that writes to no namespace".to_owned());
    }
    match members.iter().min_by_key(|member| member.id) {
        Some(home) => Ok(home),
        None => bad("a commit without namespaces".to_owned()),
    }
}

pub(super) fn impossible(index: PageIndex, what: &str) -> StoreError {
    StoreError::BadPages {
        reason: format!("page {} {what}", u64::from(index) + 1),
        hint: "this is a fault of the client program: update it",
    }
}

/// The members in the order of their ids, in whichever they were named.
fn digest(members: &[MemberPlan<'_>]) -> u128 {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_unstable_by_key(|plan| plan.member.id);
    let mut hash = Xxh3::new();
    for member in members {
        member.hash_into(&mut hash);
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvsqlite_protocol::v2::{CommitRequest, StageRef};
    use mvsqlite_protocol::{IdempotencyKey, PageData, ReadVersion, StageId, Version};

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

    fn commit(request: &CommitRequest) -> Commit {
        Commit::of_one(&"db".parse().unwrap(), request.clone())
    }

    fn refusal(commit: &Commit, limits: &Limits) -> StoreError {
        Plan::new(commit, limits).unwrap_err()
    }

    #[test]
    fn pages_come_in_order_and_page_1_apart() {
        let commit = commit(&request(&[(9, 512), (0, 512), (3, 512)]));
        let plan = Plan::new(&commit, &LIMITS).unwrap();
        let member = &plan.members[0];
        assert_eq!(member.page_one.unwrap().index, 0);
        let indexes: Vec<_> = member.pages.iter().map(|page| page.index).collect();
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
            let refusal = refusal(&commit(&request(pages)), &limits);
            assert!(matches!(refusal, StoreError::BadPages { .. }), "{refusal}");
        }
        let refusal = refusal(&commit(&request(&[(3, 4097)])), &LIMITS);
        assert!(matches!(refusal, StoreError::TooLarge { .. }), "{refusal}");
    }

    #[test]
    fn inline_bytes_are_bounded_over_all_members() {
        let mut group = group(2);
        group.members[0].pages = request(&[(3, 4000)]).pages;
        Plan::new(&group, &LIMITS).unwrap();
        group.members[1].pages = request(&[(3, 97)]).pages;
        let refusal = refusal(&group, &LIMITS);
        assert!(matches!(refusal, StoreError::TooLarge { .. }), "{refusal}");
    }

    /// A commit of that many namespaces, with ids that fall.
    fn group(members: u8) -> Commit {
        let mut group = commit(&request(&[]));
        group.members = (0..members)
            .map(|number| {
                let mut request = request(&[]);
                request.namespace = NamespaceId::from_bytes([100 - number; 10]);
                commit(&request).members.remove(0)
            })
            .collect();
        group
    }

    #[test]
    fn a_group_has_a_home_a_writer_and_each_namespace_once() {
        let full = group(16);
        let plan = Plan::new(&full, &LIMITS).unwrap();
        assert_eq!(plan.home.id, NamespaceId::from_bytes([85; 10]));
        let mut twice = group(2);
        twice.members[1].id = twice.members[0].id;
        let mut unwritten = group(2);
        for member in &mut unwritten.members {
            member.effect = Effect::Read;
        }
        for bad in [group(0), group(17), twice, unwritten] {
            let refusal = refusal(&bad, &LIMITS);
            assert!(matches!(refusal, StoreError::BadGroup { .. }), "{refusal}");
        }
    }

    #[test]
    fn the_digest_tells_requests_apart_but_not_their_sendings() {
        let digest = |request: &CommitRequest| {
            let commit = commit(request);
            Plan::new(&commit, &LIMITS).unwrap().digest
        };
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

    #[test]
    fn the_digest_of_a_group_does_not_depend_on_the_order_of_its_members() {
        let digest = |group: &Commit| Plan::new(group, &LIMITS).unwrap().digest;
        let first = group(3);
        let mut turned = group(3);
        turned.members.rotate_left(1);
        assert_eq!(digest(&first), digest(&turned));
        assert_ne!(digest(&first), digest(&group(2)));
        let others: [fn(&mut Member); 4] = [
            |member| member.effect = Effect::Read,
            |member| member.dialect = Dialect::V1,
            |member| member.rule = ConflictRule::Whole,
            |member| {
                member.rule = ConflictRule::Pages {
                    read: [1, 2].into_iter().collect(),
                    written_count_as_read: false,
                }
            },
        ];
        for change in others {
            let mut other = group(3);
            change(&mut other.members[1]);
            assert_ne!(digest(&first), digest(&other));
        }
    }
}
