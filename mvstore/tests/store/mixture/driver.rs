//! The one who commits, and who knows what must be there.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::OptionFuture;
use mvsqlite_protocol::v1::{CommitBody, CommitNamespace, CommitNamespaceInit, WrittenPage};
use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, GroupCommitRequest, GroupMember, GroupName, GroupSettleRequest,
    KnownState, LeaseAction, LeaseReply, LeaseRequest, SettleReply, StageRef, StageRequest,
};
use mvsqlite_protocol::{Code, IdempotencyKey, LeaseNonce, NamespaceKey, PageData, Version};
use mvstore::environment::Entropy;
use mvstore::store::{LockAcquired, LockReleased, ReleaseMode, Store};
use mvstore::v1::{CommitError, CommitRules, Committed};

use super::{Namespace, PAGES, State, World, expect, is_too_old, read};
use crate::support::{PAGE_SIZE, Random, filled, key, page, page_one};

const RULES: CommitRules = CommitRules {
    whole_from_pages: 1000,
    most_read: 2000,
};
const OWNER: &str = "owner";

/// What one member of a commit writes.
#[derive(Default)]
struct Written {
    inline: Vec<PageData>,
    staged: Vec<PageData>,
    state: State,
}

pub(super) struct Driver {
    pub(super) world: Rc<World>,
    pub(super) random: Random,
    pub(super) made: u64,
    pub(super) bytes: u8,
}

impl Driver {
    fn below(&self, end: usize) -> usize {
        self.random.below(end as u64) as usize
    }

    fn server(&self) -> &Store {
        &self.world.servers[self.below(2)]
    }

    fn namespace(&self, at: usize) -> Namespace {
        self.world.namespaces.borrow()[at].clone()
    }

    fn some(&self) -> usize {
        self.below(self.world.namespaces.borrow().len())
    }

    fn happened(&self, at: usize, version: Version, state: State) {
        let mut namespaces = self.world.namespaces.borrow_mut();
        assert!(namespaces[at].last().0 < version);
        namespaces[at].versions.push((version, state));
    }

    fn next_byte(&mut self) -> u8 {
        self.bytes = self.bytes % 250 + 1;
        self.bytes
    }

    fn nonce(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).unwrap();
        bytes
    }

    pub(super) async fn step(&mut self) {
        let at = self.some();
        match self.random.below(22) {
            0..=7 => self.commit(at, None).await,
            8..=12 => self.commit_v1(at, None).await,
            13..=14 => self.restore(at).await,
            15..=16 => self.lock(at).await,
            17 => self.fork(at).await,
            18 => self.commit(at, None).await,
            19 => self.delete(at).await,
            20 => self.abandon(at).await,
            _ => self.world.f.clock.advance(2_000_000),
        }
        for _ in 0..3 {
            self.look().await;
        }
    }

    /// Begins, and checks what is said to have changed.
    async fn begin(&self, at: usize, owner: Option<&str>) -> BeginReply {
        let namespace = self.namespace(at);
        let (known, before) = &namespace.versions[self.below(namespace.versions.len())];
        let store = self.server();
        let asked = self.random.chance(70);
        let request = BeginRequest {
            known: asked.then(|| KnownState {
                incarnation: store.incarnation(),
                namespace: namespace.id,
                version: *known,
                own: Vec::new(),
            }),
            want_pages: self.random.chance(50),
            as_of: None,
        };
        let begun = store
            .begin_as(owner, &namespace.key, request)
            .await
            .unwrap();
        let (version, state) = namespace.last();
        assert_eq!((begun.namespace, begun.version), (namespace.id, *version));
        if let Some(changed) = begun.changed.as_ref().filter(|_| asked) {
            for page in state.differing(before) {
                assert!(changed.contains(page), "page {page} changed since {known}");
            }
        }
        for image in &begun.pages {
            let found = image.data.as_ref().map(|data| data[PAGE_SIZE - 1]);
            assert_eq!(found, state.pages.get(&image.index).copied());
        }
        begun
    }

    fn new_count(&self, old: u32) -> u32 {
        match self.random.below(100) {
            _ if old == 0 => 5,
            0..25 => (old + 1 + self.random.below(20) as u32).min(PAGES - 10),
            25..32 => PAGES - 20,
            32..55 if old > 3 => 2 + self.random.below(u64::from(old) - 2) as u32,
            _ => old,
        }
    }

    /// Some pages of our own dialect.
    fn write(&mut self, state: &State) -> Written {
        let mut written = Written {
            state: state.clone(),
            ..Written::default()
        };
        let (old, count) = (state.count, self.new_count(state.count));
        let stages = self.random.chance(60);
        let amount = if self.random.chance(30) { 40 } else { 6 };
        for _ in 0..self.random.below(amount) {
            let index = 1 + self.random.below(u64::from(old.max(count)) + 3) as u32;
            let byte = self.next_byte();
            let list = match stages {
                true => &mut written.staged,
                false => &mut written.inline,
            };
            list.retain(|page| page.index != index);
            list.push(page(index, &filled(byte)));
            if index < count {
                written.state.pages.insert(index, byte);
            }
        }
        let nothing = written.inline.is_empty() && written.staged.is_empty();
        if count != old || nothing || self.random.chance(20) {
            let byte = self.next_byte();
            let mut first = page_one(count, 1);
            first[PAGE_SIZE - 1] = byte;
            written.inline.push(page(0, &first));
            written.state.count = count;
            written.state.pages.insert(0, byte);
            written.state.pages.retain(|index, _| *index < count);
        }
        written
    }

    async fn stage(&self, ns: &Namespace, base: &BeginReply, pages: &[PageData]) -> StageRef {
        let request = StageRequest {
            namespace: base.namespace,
            read_version: base.read_version,
            stage: None,
            pages: pages.to_vec(),
            unstage: Default::default(),
            incarnation: None,
        };
        let reply = self.server().stage(&ns.key, request).await.unwrap();
        StageRef {
            stage: reply.stage,
            count: reply.count,
            sum: reply.sum,
        }
    }

    async fn lease(&self, ns: &Namespace, action: LeaseAction, nonce: LeaseNonce) -> LeaseReply {
        let request = LeaseRequest {
            namespace: ns.id,
            incarnation: None,
            nonce,
            action,
        };
        self.server().lease(&ns.key, request).await.unwrap()
    }

    /// A transaction over one namespace or several, some of them only read.
    async fn commit(&mut self, at: usize, owner: Option<&str>) {
        let mut chosen = vec![at];
        while owner.is_none() && self.random.chance(35) {
            let another = self.some();
            if !chosen.contains(&another) {
                chosen.push(another);
            }
        }
        let mut members = Vec::new();
        let mut states = Vec::new();
        let mut leases = Vec::new();
        let mut read_version = Default::default();
        for at in chosen {
            let ns = self.namespace(at);
            let base = self.begin(at, owner).await;
            read_version = base.read_version.max(read_version);
            let mut member = GroupMember {
                ns: ns.key.clone(),
                namespace: ns.id,
                base: base.version,
                read: [1, 2].into_iter().collect(),
                pages: Vec::new(),
                stage: None,
                lease: None,
            };
            if members.is_empty() || self.random.chance(60) {
                let written = self.write(&ns.last().1);
                member.pages = written.inline;
                if !written.staged.is_empty() {
                    member.stage = Some(self.stage(&ns, &base, &written.staged).await);
                }
                states.push((at, written.state));
            }
            if owner.is_none() && self.random.chance(30) {
                let nonce = LeaseNonce::from_bytes(self.nonce());
                let action = LeaseAction::Acquire { place: None };
                let reply = self.lease(&ns, action, nonce).await;
                assert!(matches!(reply, LeaseReply::Granted { head, .. } if head == base.version));
                member.lease = Some(nonce);
                leases.push((ns, nonce));
            }
            members.push(member);
        }
        let request = GroupCommitRequest {
            key: IdempotencyKey::from_bytes(self.nonce()),
            retry: false,
            incarnation: None,
            read_version,
            members,
        };
        match self.send(request, owner).await {
            Some(version) => {
                for (at, state) in states {
                    self.happened(at, version, state);
                }
            }
            None => {
                for (ns, nonce) in leases {
                    let action = LeaseAction::Release { place: None };
                    self.lease(&ns, action, nonce).await;
                }
            }
        }
    }

    /// Sends a commit until its outcome is definite.
    async fn send(&self, mut request: GroupCommitRequest, owner: Option<&str>) -> Option<Version> {
        let owner = owner.map(str::to_owned);
        let sent = self
            .server()
            .commit_group_as(owner.clone(), request.clone());
        let version = match sent.await {
            Ok(reply) => reply.version,
            Err(error) if error.code() != Code::OutcomeUnknown => {
                let expected = [Code::Conflict, Code::Aborted, Code::Unavailable];
                assert!(expected.contains(&error.code()), "{error}");
                return None;
            }
            Err(_) => return self.settle(&request).await,
        };
        if self.random.chance(30) {
            request.retry = true;
            let again = self.server().commit_group_as(owner, request).await;
            assert_eq!(again.unwrap().version, version);
        }
        Some(version)
    }

    async fn settle(&self, request: &GroupCommitRequest) -> Option<Version> {
        let members = request.members.iter().map(|member| GroupName {
            ns: member.ns.clone(),
            namespace: member.namespace,
        });
        let settle = GroupSettleRequest {
            key: request.key,
            members: members.collect(),
        };
        loop {
            match self.server().settle_group(settle.clone()).await {
                Ok(SettleReply::Committed { version, .. }) => return Some(version),
                Ok(SettleReply::Aborted) => return None,
                Err(error) => assert_eq!(error.code(), Code::OutcomeUnknown),
            }
        }
    }

    /// A transaction of the original's client: a few pages, or more than fit into a transaction.
    async fn commit_v1(&mut self, at: usize, owner: Option<&str>) {
        let ns = self.namespace(at);
        let (base, mut state) = ns.last().clone();
        let mut pages = BTreeMap::new();
        if state.count < 5 || self.random.chance(40) {
            let byte = self.next_byte();
            state.count = state.count.max(if self.random.chance(30) {
                PAGES - 20
            } else {
                5
            });
            let mut first = page_one(state.count, 1);
            first[PAGE_SIZE - 1] = byte;
            pages.insert(0, first);
            state.pages.insert(0, byte);
        }
        let amount = match self.random.chance(25) {
            true => state.count,
            false => self.random.below(8) as u32,
        };
        for _ in 0..amount {
            let index = 1 + self.random.below(u64::from(state.count) - 1) as u32;
            let byte = self.next_byte();
            pages.insert(index, filled(byte));
            state.pages.insert(index, byte);
        }
        let contents: Vec<&[u8]> = pages.values().map(Vec::as_slice).collect();
        let mut hashes = Vec::new();
        for some in contents.chunks(90) {
            hashes.extend(
                self.server()
                    .original()
                    .upload(&ns.key, some)
                    .await
                    .unwrap(),
            );
        }
        let inline = pages.len() < 10 && self.random.chance(40);
        let version = base.to_string();
        let init = CommitNamespaceInit {
            ns_key: ns.key.as_str(),
            ns_key_hashproof: None,
            version: &version,
            metadata: None,
            num_pages: pages.len() as u32,
            read_set: self.random.chance(60).then(|| vec![1, 2]),
        };
        let written = pages
            .iter()
            .zip(hashes)
            .map(|((index, data), hash)| WrittenPage {
                index: *index,
                hash,
                data: inline.then_some(data.as_slice()),
            });
        let mut body = CommitBody {
            key: IdempotencyKey::from_bytes(self.nonce()),
            retry: false,
            lock_owner: owner,
            namespaces: vec![CommitNamespace {
                init,
                pages: written.collect(),
            }],
        };
        // The original's clients give up on a slow answer and send again.
        body.retry = self.random.chance(30);
        let first = self.server().original();
        let early = body.retry.then(|| first.commit(RULES, &body));
        let again = self.send_v1(&body);
        let (early, again) = tokio::join!(OptionFuture::from(early), again);
        if let Some(Ok(early)) = &early {
            assert_eq!(again.as_ref().map(|done| done.version), Some(early.version));
        }
        let Some(committed) = again else { return };
        let changed = committed.changelog.get(ns.key.as_str());
        assert!(changed.is_none_or(Vec::is_empty), "{changed:?}");
        let version = committed.version;
        self.happened(at, version, state);
    }

    /// Sends it until its outcome is definite.
    async fn send_v1(&self, body: &CommitBody<'_>) -> Option<Committed> {
        let mut body = body.clone();
        for _ in 0..50 {
            match self.server().original().commit(RULES, &body).await {
                Ok(committed) => {
                    if self.random.chance(30) {
                        body.retry = true;
                        let again = self.server().original().commit(RULES, &body).await;
                        assert_eq!(again.unwrap().version, committed.version);
                    }
                    return Some(committed);
                }
                Err(CommitError::Store(error)) => match error.code() {
                    Code::Conflict | Code::Aborted => return None,
                    // What the original's clients send again.
                    Code::Unavailable | Code::OutcomeUnknown | Code::StageInvalid => {
                        body.retry = true;
                    }
                    _ => panic!("{error}"),
                },
                Err(error) => panic!("{error}"),
            }
        }
        panic!("it is never done");
    }

    async fn restore(&mut self, at: usize) {
        let ns = self.namespace(at);
        let (to, state) = ns.versions[self.below(ns.versions.len())].clone();
        match self.server().restore_namespace(&ns.key, to).await {
            Ok(version) if to == ns.last().0 => assert_eq!(version, to),
            Ok(version) => self.happened(at, version, state),
            Err(error) if is_too_old(&error) => assert!(to < self.namespace(at).cut),
            Err(error) => assert_eq!(error.code(), Code::Unavailable, "{error}"),
        }
    }

    /// Takes the lock, writes as its owner, and ends it one way or the other.
    async fn lock(&mut self, at: usize) {
        let ns = self.namespace(at);
        let (snapshot, state) = match self.random.chance(60) {
            true => ns.last().clone(),
            false => ns.versions[self.below(ns.versions.len())].clone(),
        };
        let acquired = self
            .server()
            .acquire_lock(&ns.key, OWNER, Some(snapshot))
            .await;
        match acquired.unwrap() {
            LockAcquired::Acquired => (),
            LockAcquired::Refused { .. } => return,
            other => panic!("{other:?}"),
        }
        for _ in 0..self.random.below(3) {
            match self.random.chance(50) {
                true => self.commit(at, Some(OWNER)).await,
                false => self.commit_v1(at, Some(OWNER)).await,
            }
            let seen = self.server().begin(&ns.key, BeginRequest::default()).await;
            assert_eq!(seen.unwrap().version, snapshot);
            self.look().await;
        }
        if self.random.chance(40) {
            self.release(&ns.key, ReleaseMode::Commit).await;
            return;
        }
        let head = self.namespace(at).last().0;
        self.release(&ns.key, ReleaseMode::Rollback).await;
        let begun = self.server().begin(&ns.key, BeginRequest::default()).await;
        let version = begun.unwrap().version;
        match head == snapshot {
            true => assert_eq!(version, head),
            false => self.happened(at, version, state),
        }
    }

    async fn release(&self, key: &NamespaceKey, mode: ReleaseMode) {
        for _ in 0..50 {
            match self.server().release_lock(key, OWNER, mode).await {
                Ok(released) => return assert_eq!(released, LockReleased::Released),
                Err(error) => assert_eq!(error.code(), Code::Unavailable, "{error}"),
            }
        }
        panic!("the lock is never released");
    }

    async fn fork(&mut self, at: usize) {
        if self.world.namespaces.borrow().len() > 6 {
            return;
        }
        let ns = self.namespace(at);
        let (version, state) = ns.versions[self.below(ns.versions.len())].clone();
        self.made += 1;
        let name = key(&format!("fork{}", self.made));
        match self.server().fork_namespace(&name, ns.id, version).await {
            Ok(id) => {
                let fork = Namespace::new(name, id, state);
                self.world.namespaces.borrow_mut().push(fork);
            }
            Err(error) if is_too_old(&error) => assert!(version < self.namespace(at).cut),
            Err(error) => assert_eq!(error.code(), Code::TooLarge, "{error}"),
        }
    }

    async fn delete(&mut self, at: usize) {
        if self.world.namespaces.borrow().len() > 2 {
            let gone = self.world.namespaces.borrow_mut().remove(at);
            self.server().delete_namespace(&gone.key).await.unwrap();
        }
    }

    /// A transaction that stages pages and is never heard of again.
    async fn abandon(&mut self, at: usize) {
        let base = self.begin(at, None).await;
        let pages = [page(3, &filled(1)), page(4, &filled(2))];
        self.stage(&self.namespace(at), &base, &pages).await;
    }

    async fn look(&self) {
        let at = self.some();
        let ns = self.namespace(at);
        let (version, state) = &ns.versions[self.below(ns.versions.len())];
        let first = self.random.below(u64::from(PAGES)) as u32;
        let end = PAGES.min(first + 1 + self.random.below(40) as u32);
        let pages: Vec<u32> = (first..end).filter(|_| self.random.chance(70)).collect();
        if !pages.is_empty() {
            let found = read(self.server(), &ns, *version, &pages).await;
            let is_kept = |at: usize| *version >= self.namespace(at).cut;
            expect(found, &pages, state, || is_kept(at), &ns, *version);
        }
    }
}
