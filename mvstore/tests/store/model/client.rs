//! A client as the real one is: a cache that lives from snapshot to snapshot, read sets, commits
//! inline or staged, and a network that loses replies and repeats requests.

use std::collections::BTreeMap;
use std::rc::Rc;

use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, CommitReply, CommitRequest, KnownState, SettleReply, SettleRequest,
    StageRef,
};
use mvsqlite_protocol::{Code, PageIndex, PageSet, Version};
use mvstore::error::StoreError;
use tokio::task::{JoinHandle, spawn_local};

use super::World;
use crate::support::{PAGE_SIZE, Random, page_one};

pub(super) type Content = Option<Vec<u8>>;

/// A commit that its client was told of.
pub(super) struct Committed {
    pub(super) version: Version,
    /// What its transaction saw.
    pub(super) observed: BTreeMap<PageIndex, Content>,
    /// What it wrote.
    pub(super) written: BTreeMap<PageIndex, Vec<u8>>,
}

pub(super) struct Client {
    world: Rc<World>,
    random: Random,
    number: u64,
    writes: u64,
    known: Option<KnownState>,
    cache: BTreeMap<PageIndex, Content>,
}

/// A transaction under way.
struct Transaction {
    base: BeginReply,
    count: u32,
    observed: BTreeMap<PageIndex, Content>,
    written: BTreeMap<PageIndex, Vec<u8>>,
}

pub(super) fn page_count(page_one: &[u8]) -> u32 {
    u32::from_be_bytes(page_one[28..32].try_into().unwrap())
}

impl Client {
    pub(super) fn new(world: &Rc<World>, seed: u64, number: u64) -> Self {
        Self {
            world: Rc::clone(world),
            random: Random::new(seed ^ (number + 1) << 40),
            number,
            writes: 0,
            known: None,
            cache: BTreeMap::new(),
        }
    }

    /// One transaction, from begin to a definite outcome.
    pub(super) async fn transact(&mut self) {
        let mut transaction = self.begin().await;
        for _ in 0..self.random.below(4) {
            let index = self.page_inside(&transaction);
            self.observe(&mut transaction, index).await;
        }
        self.change(&mut transaction);
        if transaction.written.is_empty() {
            return;
        }
        let Some(request) = self.request(&transaction).await else {
            // The stage could not be made: rolled back.
            return;
        };
        // After a refusal the cache stands where the snapshot was.
        if let Some(reply) = self.send(request).await {
            self.succeed(transaction, reply);
        }
    }

    async fn begin(&mut self) -> Transaction {
        let acknowledged = self.world.acknowledged.get();
        let request = BeginRequest {
            known: self.known.take(),
            want_pages: self.random.chance(50),
            as_of: None,
        };
        let fixture = &self.world.fixture;
        let base = fixture.store.begin(&fixture.key, request).await.unwrap();
        assert!(base.version >= acknowledged, "begin is strict");
        self.forget(base.changed.as_ref());
        for image in &base.pages {
            let data = image.data.as_ref().map(|data| data.to_vec());
            self.cache.insert(image.index, data);
        }
        self.known = Some(KnownState {
            incarnation: base.incarnation,
            namespace: base.namespace,
            version: base.version,
            own: Vec::new(),
        });
        let mut transaction = Transaction {
            base,
            count: 1,
            observed: BTreeMap::new(),
            written: BTreeMap::new(),
        };
        // SQLite looks at page 1 in each transaction.
        let first = self.observe(&mut transaction, 0).await;
        transaction.count = page_count(&first.unwrap());
        transaction
    }

    fn forget(&mut self, changed: Option<&PageSet>) {
        match changed {
            None => self.cache.clear(),
            Some(changed) => self.cache.retain(|index, _| !changed.contains(*index)),
        }
    }

    fn page_inside(&self, transaction: &Transaction) -> PageIndex {
        1 + self.random.below(u64::from(transaction.count) - 1) as PageIndex
    }

    /// Reads a page, from the cache if it is there.
    async fn observe(&mut self, transaction: &mut Transaction, index: PageIndex) -> Content {
        if !self.cache.contains_key(&index) {
            let base = &transaction.base;
            let fixture = &self.world.fixture;
            // Neighbours come along, as a prefetch brings them.
            let images = fixture.read(base, base.version, index..index + 3).await;
            for image in images.unwrap() {
                let data = image.data.map(|data| data.into_vec());
                let kept = self
                    .cache
                    .entry(image.index)
                    .or_insert_with(|| data.clone());
                assert_eq!(*kept, data, "page {} was kept too long", image.index);
            }
        }
        let content = self.cache[&index].clone();
        transaction.observed.insert(index, content.clone());
        content
    }

    fn fresh_page(&mut self) -> Vec<u8> {
        self.writes += 1;
        let mut page = vec![self.number as u8; PAGE_SIZE];
        page[..8].copy_from_slice(&(self.number << 32 | self.writes).to_be_bytes());
        page
    }

    fn change(&mut self, transaction: &mut Transaction) {
        for _ in 0..self.random.below(4) {
            let index = self.page_inside(transaction);
            let page = self.fresh_page();
            transaction.written.insert(index, page);
        }
        let count = transaction.count;
        let mut first = transaction.observed[&0].clone().unwrap();
        let schema = first[200];
        match self.random.below(10) {
            // Grow.
            0 | 1 => {
                let more = 1 + self.random.below(3) as u32;
                for index in count..count + more {
                    let page = self.fresh_page();
                    transaction.written.insert(index, page);
                }
                first = page_one(count + more, schema);
            }
            // Shrink; what was written behind the new end stays in the request at times.
            2 if count > 6 => {
                let left = count - 1 - self.random.below(3) as u32;
                if self.random.chance(50) {
                    transaction.written.retain(|index, _| *index < left);
                }
                first = page_one(left, schema);
            }
            // The freelist.
            3 => first[39] = self.random.next() as u8,
            // The schema.
            4 => first[201] = self.random.next() as u8,
            // Counters only.
            5 => first[27] ^= 1,
            _ => return,
        }
        transaction.written.insert(0, first);
    }

    /// The commit's request; its pages inline or staged.
    async fn request(&mut self, transaction: &Transaction) -> Option<CommitRequest> {
        let fixture = &self.world.fixture;
        let (mut inline, mut staged) = (Vec::new(), Vec::new());
        let stages = self.random.chance(30);
        for (index, page) in &transaction.written {
            let target = if stages && *index > 0 && self.random.chance(70) {
                &mut staged
            } else {
                &mut inline
            };
            target.push((*index, page.clone()));
        }
        let mut request = fixture.write(&transaction.base, &inline);
        request.read = transaction.observed.keys().copied().collect();
        if staged.is_empty() {
            return Some(request);
        }
        let mut reply = fixture.stage(&transaction.base, None, &staged[..1]).await;
        if staged.len() > 1 {
            let stage = reply.ok()?.stage;
            let (one, two) = tokio::join!(
                fixture.stage(&transaction.base, Some(stage), &staged[1..2]),
                fixture.stage(&transaction.base, Some(stage), &staged[1..]),
            );
            let newest = [one.ok()?, two.ok()?];
            reply = Ok(newest
                .into_iter()
                .max_by_key(|reply| reply.read_version)
                .unwrap());
        }
        let reply = reply.ok()?;
        request.read_version = request.read_version.max(reply.read_version);
        request.stage = Some(StageRef {
            stage: reply.stage,
            count: reply.count,
            sum: reply.sum,
        });
        Some(request)
    }

    /// Sends a commit over a bad network until its outcome is definite: the reply if it happened.
    async fn send(&mut self, request: CommitRequest) -> Option<CommitReply> {
        let first = self.deliver(&request);
        let lost = self.random.below(10);
        if lost > 3 {
            let outcome = first.await.unwrap();
            return self.definite(&request, outcome).await;
        }
        // No reply in time. The first sending goes on, wherever it is.
        let mut again = request.clone();
        again.retry = true;
        let outcome = if lost > 0 {
            self.deliver(&again).await.unwrap()
        } else {
            Err(StoreError::OutcomeUnknown {
                key: request.key,
                reason: "no reply".to_owned(),
            })
        };
        let definite = self.definite(&again, outcome).await;
        let late = first.await.unwrap();
        match (&late, &definite) {
            (Ok(late), Some(reply)) => assert_eq!(late.version, reply.version),
            (Ok(late), None) => panic!("{} happened after it was said never to", late.version),
            _ => (),
        }
        definite
    }

    fn deliver(&self, request: &CommitRequest) -> JoinHandle<Result<CommitReply, StoreError>> {
        let (world, request) = (Rc::clone(&self.world), request.clone());
        spawn_local(async move { world.fixture.commit(&request).await })
    }

    async fn definite(
        &self,
        request: &CommitRequest,
        outcome: Result<CommitReply, StoreError>,
    ) -> Option<CommitReply> {
        match outcome {
            Ok(reply) => return Some(reply),
            Err(error) if error.code() != Code::OutcomeUnknown => {
                let expected = [Code::Conflict, Code::Aborted, Code::Unavailable];
                assert!(expected.contains(&error.code()), "{error}");
                return None;
            }
            Err(_) => (),
        }
        let fixture = &self.world.fixture;
        let settle = SettleRequest {
            namespace: request.namespace,
            key: request.key,
        };
        loop {
            match fixture.store.settle(&fixture.key, settle).await {
                Ok(SettleReply::Committed {
                    version,
                    read_version,
                }) => {
                    return Some(CommitReply {
                        version,
                        seen: version,
                        read_version,
                        changed: None,
                    });
                }
                Ok(SettleReply::Aborted) => return None,
                Err(error) => assert_eq!(error.code(), Code::OutcomeUnknown),
            }
        }
    }

    fn succeed(&mut self, transaction: Transaction, reply: CommitReply) {
        let newest = self.world.acknowledged.get().max(reply.version);
        self.world.acknowledged.set(newest);
        self.forget(reply.changed.as_ref());
        let first = transaction
            .written
            .get(&0)
            .or(transaction.observed[&0].as_ref());
        let count = page_count(first.unwrap());
        for (index, page) in &transaction.written {
            // Page 1 may not have been written after all, and another's may stand there.
            if *index > 0 && *index < count {
                self.cache.insert(*index, Some(page.clone()));
            }
        }
        self.cache.remove(&0);
        self.cache.retain(|index, _| *index < count);
        let own = (reply.seen != reply.version).then_some(reply.version);
        self.known = Some(KnownState {
            incarnation: transaction.base.incarnation,
            namespace: transaction.base.namespace,
            version: reply.seen,
            own: own.into_iter().collect(),
        });
        self.world.committed.borrow_mut().push(Committed {
            version: reply.version,
            observed: transaction.observed,
            written: transaction.written,
        });
    }
}
