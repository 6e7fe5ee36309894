//! Calls of the store by a client that may say anything: well-formed requests whose parts do not fit
//! each other or what is stored, over a store in memory.

use std::ops::ControlFlow;

use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, CommitRequest, GroupCommitRequest, GroupMember, GroupName,
    GroupSettleRequest, KnownState, LeaseAction, LeaseRequest, ReadRequest, ResolveRequest,
    SettleRequest, StageRef, StageReply, StageRequest,
};
use mvsqlite_protocol::{
    Code, IdempotencyKey, Incarnation, LeaseNonce, Moment, NamespaceId, NamespaceKey, PageData,
    PageImage, PageRun, PageSet, Problem, ReadVersion, StageId, Version, v2,
};
use mvstore::store::Store;
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::Input;
use crate::honest::{self, KEYS};
use crate::seed::page_one;

const PAGE_SIZE: usize = 512;

/// Whatever is asked, the store answers or refuses: it neither panics nor finds itself corrupt, and
/// the pages it reads are those that were asked for, in order.
pub(super) fn store_calls(bytes: &[u8]) {
    let mut client = Client {
        store: honest::store(),
        input: Input::new(bytes),
        ids: Vec::new(),
        versions: vec![Version::ZERO],
        read_version: ReadVersion(0),
        incarnation: Incarnation::from_bytes([0; 8]),
        stages: vec![StageId::from_bytes([0; 16])],
        sums: vec![(0, 0)],
    };
    for key in KEYS {
        let begun: BeginReply = client.said(key, "begin", &BeginRequest::default());
        client.ids.push(begun.namespace);
        client.incarnation = begun.incarnation;
    }
    client.ids.push(NamespaceId::from_bytes([9; 10]));
    while !client.input.is_empty() {
        client.step();
    }
}

struct Client<'a> {
    store: Store,
    input: Input<'a>,
    ids: Vec<NamespaceId>,
    versions: Vec<Version>,
    read_version: ReadVersion,
    incarnation: Incarnation,
    stages: Vec<StageId>,
    /// What the stage of the same place holds: count and sum.
    sums: Vec<(u64, u64)>,
}

impl Client<'_> {
    fn step(&mut self) {
        let what = self.input.u8();
        let which = usize::from(what >> 7);
        let key = KEYS[which];
        match what & 0x0f {
            0..=2 => self.begin(key),
            3 | 4 => self.read(key, which),
            5 | 6 => self.stage(key, which),
            7..=9 => self.commit(key, which),
            10 => self.commit_group(),
            11 => self.settle(key, which),
            12 => self.lease(key, which),
            13 => self.resolve(key),
            14 => self.fork_or_restore(which),
            _ => self.raw(key),
        }
    }

    /// The reply to a request; `None` if it is refused.
    fn ask<Q: Serialize>(&self, path: &str, request: &Q) -> Option<Vec<u8>> {
        let body = v2::encode(request).expect("a message of ours");
        match honest::wait(honest::call(&self.store, path, &body)) {
            Ok(reply) => Some(reply),
            Err(problem) => {
                expected(&problem);
                None
            }
        }
    }

    fn call<Q: Serialize>(&self, key: &str, call: &str, request: &Q) -> Option<Vec<u8>> {
        self.ask(&format!("/v2/ns/{key}/{call}"), request)
    }

    fn said<Q: Serialize, R: serde::de::DeserializeOwned>(
        &self,
        key: &str,
        call: &str,
        request: &Q,
    ) -> R {
        let reply = self.call(key, call, request).expect("it cannot be refused");
        v2::decode(&reply).expect("a reply decodes")
    }

    fn id(&mut self, which: usize) -> NamespaceId {
        match self.input.u8() {
            255 => self.ids[2],
            254 => self.ids[1 - which],
            _ => self.ids[which],
        }
    }

    fn version(&mut self) -> Version {
        match self.input.u8() {
            255 => Version::new(u64::MAX, 7),
            254 => self.ids[0].as_version(),
            253 => Version::new(self.input.u8().into(), 1),
            back => {
                self.versions[self.versions.len() - 1 - usize::from(back) % self.versions.len()]
            }
        }
    }

    fn read_version(&mut self) -> ReadVersion {
        match self.input.u8() {
            255 => ReadVersion(u64::MAX),
            254 => ReadVersion(0),
            _ => self.read_version,
        }
    }

    fn key(&mut self) -> IdempotencyKey {
        IdempotencyKey::from_bytes([self.input.u8(); 16])
    }

    fn nonce(&mut self) -> LeaseNonce {
        LeaseNonce::from_bytes([self.input.u8() & 3; 16])
    }

    fn set(&mut self) -> PageSet {
        let runs = (0..self.input.u8() & 7).map(|_| {
            let (first, count) = (self.input.u8(), self.input.u8());
            let far = if first > 250 { 1 << 31 } else { 0 };
            PageRun {
                first: u32::from(first) + far,
                count: (u32::from(count & 0x7f) + 1) << (u32::from(count >> 7) * 22),
            }
        });
        PageSet::try_from(runs.collect::<Vec<_>>()).unwrap_or_default()
    }

    fn pages(&mut self) -> Vec<PageData> {
        let count = self.input.u8() & 7;
        (0..count)
            .map(|_| {
                let (index, content) = (u32::from(self.input.u8()), self.input.u8());
                let data = match index {
                    0 if content >= 190 => page_one(PAGE_SIZE, u32::MAX - u32::from(content - 190)),
                    0 if content < 180 => page_one(PAGE_SIZE, u32::from(content)),
                    _ if content == 255 => vec![content; usize::from(self.input.u8()) * 16],
                    _ => vec![content; PAGE_SIZE],
                };
                PageData {
                    index,
                    data: ByteBuf::from(data),
                }
            })
            .collect()
    }

    fn a_stage(&mut self) -> usize {
        usize::from(self.input.u8()) % self.stages.len()
    }

    fn stage_ref(&mut self) -> Option<StageRef> {
        let how = self.input.u8();
        (how & 1 != 0).then(|| {
            let at = self.a_stage();
            let (count, sum) = self.sums[at];
            StageRef {
                stage: self.stages[at],
                count: count + u64::from(how & 2),
                sum: sum ^ u64::from(how & 4),
            }
        })
    }

    fn begin(&mut self, key: &str) {
        let how = self.input.u8();
        let known = (how & 1 != 0).then(|| KnownState {
            incarnation: self.incarnation,
            namespace: self.ids[usize::from(how >> 7)],
            version: self.version(),
            own: (0..how >> 4 & 3).map(|_| self.version()).collect(),
        });
        let request = BeginRequest {
            known,
            want_pages: how & 2 != 0,
            as_of: (how & 4 != 0).then(|| self.read_version()),
        };
        if let Some(reply) = self.call(key, "begin", &request) {
            let begun: BeginReply = v2::decode(&reply).expect("a reply decodes");
            assert!(begun.read_version.sees(begun.version));
            self.note(begun.version, begun.read_version);
        }
    }

    fn note(&mut self, version: Version, read_version: ReadVersion) {
        self.versions.push(version);
        self.read_version = self.read_version.max(read_version);
    }

    fn read(&mut self, key: &str, which: usize) {
        let request = ReadRequest {
            namespace: self.id(which),
            version: self.version(),
            read_version: self.read_version(),
            pages: self.set(),
            incarnation: None,
            stage: None,
        };
        let Some(reply) = self.call(key, "read", &request) else {
            return;
        };
        let mut rest = reply.as_slice();
        let mut asked = request.pages.iter();
        while !rest.is_empty() {
            let image: PageImage = v2::decode_next(&mut rest).expect("an image decodes");
            assert_eq!(asked.next(), Some(image.index));
            assert!(image.from <= request.version);
        }
    }

    fn stage(&mut self, key: &str, which: usize) {
        let at = self.a_stage();
        let request = StageRequest {
            namespace: self.id(which),
            read_version: self.read_version(),
            stage: (at > 0).then(|| self.stages[at]),
            pages: self.pages(),
            unstage: self.set(),
            incarnation: None,
        };
        if let Some(reply) = self.call(key, "stage", &request) {
            let staged: StageReply = v2::decode(&reply).expect("a reply decodes");
            let known = self.stages.iter().position(|stage| *stage == staged.stage);
            let at = known.unwrap_or_else(|| {
                self.stages.push(staged.stage);
                self.sums.push((0, 0));
                self.stages.len() - 1
            });
            self.sums[at] = (staged.count, staged.sum);
        }
    }

    fn commit(&mut self, key: &str, which: usize) {
        let request = CommitRequest {
            namespace: self.id(which),
            base: self.version(),
            read_version: self.read_version(),
            key: self.key(),
            retry: self.input.u8() & 1 != 0,
            read: self.set(),
            pages: self.pages(),
            stage: self.stage_ref(),
            incarnation: None,
            lease: (self.input.u8() & 1 != 0).then(|| self.nonce()),
        };
        if let Some(reply) = self.call(key, "commit", &request) {
            let done: v2::CommitReply = v2::decode(&reply).expect("a reply decodes");
            assert!(done.version > request.base);
            self.note(done.version, done.read_version);
        }
    }

    fn commit_group(&mut self) {
        let count = self.input.u8() % 20;
        let members = (0..count).map(|at| {
            let which = usize::from(at) % 2;
            GroupMember {
                ns: name(KEYS[which]),
                namespace: self.id(which),
                base: self.version(),
                read: self.set(),
                pages: self.pages(),
                stage: self.stage_ref(),
                lease: None,
            }
        });
        let members = members.collect();
        let request = GroupCommitRequest {
            key: self.key(),
            retry: false,
            incarnation: None,
            read_version: self.read_version(),
            members,
        };
        if let Some(reply) = self.ask("/v2/commit", &request) {
            let done: v2::GroupCommitReply = v2::decode(&reply).expect("a reply decodes");
            assert_eq!(done.members.len(), request.members.len());
            self.note(done.version, done.read_version);
        }
    }

    fn settle(&mut self, key: &str, which: usize) {
        let namespace = self.id(which);
        let request = SettleRequest {
            namespace,
            key: self.key(),
        };
        self.call(key, "settle", &request);
        let members = (0..self.input.u8() % 4).map(|_| GroupName {
            ns: name(key),
            namespace: self.id(which),
        });
        let members = members.collect();
        let request = GroupSettleRequest {
            key: request.key,
            members,
        };
        self.ask("/v2/settle", &request);
    }

    fn lease(&mut self, key: &str, which: usize) {
        let how = self.input.u8();
        let place = (how & 4 != 0).then(|| u64::from(self.input.u8()));
        let request = LeaseRequest {
            namespace: self.id(which),
            incarnation: (how & 8 != 0).then_some(self.incarnation),
            nonce: self.nonce(),
            action: match how & 3 {
                0 | 1 => LeaseAction::Acquire { place },
                2 => LeaseAction::Renew,
                _ => LeaseAction::Release { place },
            },
        };
        self.call(key, "lease", &request);
    }

    fn resolve(&mut self, key: &str) {
        let moment = match self.input.u8() {
            millis @ 0..=100 => Moment::UnixMillis(u64::from(millis) << (millis % 50)),
            _ => Moment::Version(self.version()),
        };
        self.call(key, "resolve", &ResolveRequest { moment });
    }

    fn fork_or_restore(&mut self, which: usize) {
        let (how, at, id) = (self.input.u8(), self.version(), self.id(which));
        let (store, key) = (&self.store, name(KEYS[which]));
        let done = honest::wait(async {
            match how % 5 {
                0 => store.restore_namespace(&key, at).await.map(drop),
                1 => store.fork_namespace(&name("fork"), id, at).await.map(drop),
                2 => store.delete_namespace(&name("fork")).await,
                3 => store.fold_layers().await.map(drop),
                _ => store
                    .truncate_namespace(&key, at, how > 127, |_| ControlFlow::Continue(()))
                    .await
                    .map(drop),
            }
        });
        if let Err(error) = done {
            expected(&Problem::from(error));
        }
    }

    /// A request of the input's own bytes.
    fn raw(&mut self, key: &str) {
        const CALLS: [&str; 8] = [
            "begin", "resolve", "read", "stage", "commit", "settle", "lease", "other",
        ];
        let call = CALLS[usize::from(self.input.u8()) % CALLS.len()];
        let body = self.input.chunk();
        let path = format!("/v2/ns/{key}/{call}");
        if let Err(problem) = honest::wait(honest::call(&self.store, &path, body)) {
            expected(&problem);
        }
    }
}

fn name(key: &str) -> NamespaceKey {
    key.parse().expect("a key")
}

/// A client can bring about any refusal but those that say that the store is broken.
fn expected(problem: &Problem) {
    let broken = matches!(problem.code, Code::Corrupt | Code::Internal | Code::Unknown);
    assert!(!broken, "{problem:?}");
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    // One page 1 and another page; no read set, no stage, no lease.
    let commit = |key: u8| vec![7, 0, 0, 0, key, 0, 0, 2, 0, 3, 2, 9, 0, 0];
    // Page 1 alone, with the page count that this content stands for.
    let counts = |key: u8, content: u8| vec![0, 2, 7, 0, 0, 0, key, 0, 0, 1, 0, content, 0, 0];
    let first = [&[0, 2][..], &commit(1), &[0, 2]].concat();
    let read: &[u8] = &[3, 0, 0, 0, 1, 0, 4];
    let stage: &[u8] = &[5, 0, 0, 0, 2, 5, 8, 6, 9, 0];
    let staged: &[u8] = &[7, 0, 0, 0, 3, 0, 0, 1, 0, 9, 1, 1, 0];
    let group: &[u8] = &[
        0, 2, 128, 2, 10, 2, 0, 0, 0, 1, 0, 5, 0, 0, 0, 0, 1, 0, 4, 0, 7, 0,
    ];
    let lease: &[u8] = &[12, 0, 0, 1, 12, 0, 0, 2, 12, 2, 0, 1, 12, 3, 0, 1];
    vec![
        ("commit-and-read", [&first[..], read].concat()),
        (
            "commit-twice",
            [&first[..], &commit(1), &commit(2)].concat(),
        ),
        (
            "stage-and-commit",
            [&first[..], stage, staged, read].concat(),
        ),
        ("group", [group, read].concat()),
        (
            "settle",
            [&first[..], &[11, 0, 1, 2, 0, 0], &[11, 0, 9, 0], &commit(9)].concat(),
        ),
        ("lease", [lease, &first].concat()),
        (
            "restore",
            [
                &first[..],
                &commit(2),
                &[14, 0, 1, 0, 0, 2],
                read,
                &[14, 3, 0, 0],
            ]
            .concat(),
        ),
        (
            "fork",
            [&first[..], &[14, 1, 0, 0, 14, 2, 0, 0, 14, 4, 0, 0]].concat(),
        ),
        (
            "four-billion-pages",
            [
                &counts(1, 3)[..],
                &counts(2, 190),
                &counts(3, 2),
                read,
                &counts(4, 190),
                &[14, 0, 1, 0, 14, 3, 0, 0],
                read,
            ]
            .concat(),
        ),
        ("resolve", [&first[..], &[13, 7, 13, 200, 0]].concat()),
        (
            "raw",
            [&first[..], &[15, 0, 0, 1, 0x80, 15, 4, 0, 2, 0xc0, 0xc1]].concat(),
        ),
    ]
}
