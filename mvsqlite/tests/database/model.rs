//! A data plane in memory: versioned pages, the conflict rules of the store, idempotent commits
//! that can be settled, and faults on the way.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mvsqlite::client::{Reply, Request, Transport, TransportError};
use mvsqlite::system::System;
use mvsqlite_protocol::page::staged_sum;
use mvsqlite_protocol::v2::{
    self, BeginReply, BeginRequest, CommitReply, CommitRequest, LeaseReply, LeaseRequest, Limits,
    ReadRequest, ResolveReply, ResolveRequest, SettleReply, SettleRequest, StageReply,
    StageRequest,
};
use mvsqlite_protocol::{
    Code, IdempotencyKey, Incarnation, Moment, NamespaceId, PageImage, PageIndex, PageSet, Problem,
    ReadVersion, StageId, Version, problem,
};
use serde_bytes::ByteBuf;

use crate::leases::Leases;
use crate::system::SimSystem;

/// What happens to a request on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No connection.
    Refused,
    /// The request gets lost.
    RequestLost,
    /// The request is done, the reply gets lost.
    ReplyLost,
    /// The request arrives only after this many others.
    Late(u32),
    /// The request is done twice, the second reply arrives.
    Twice,
    /// The server says that it is overloaded.
    Unavailable,
    /// Something on the way answers for the server.
    BadGateway,
}

pub(crate) struct Commit {
    pub(crate) version: Version,
    pub(crate) changed: PageSet,
    /// Whether page 1 changed in its allocation fields, and whether anywhere else.
    allocates: bool,
    alters: bool,
}

#[derive(Default)]
struct Pages(BTreeMap<PageIndex, Vec<PageVersion>>);

/// `None`: it does not exist from this version on.
type PageVersion = (Version, Option<Vec<u8>>);

pub(crate) struct State {
    pub(crate) incarnation: Incarnation,
    pub(crate) namespace: NamespaceId,
    pub(crate) exists: bool,
    pub(crate) leases: Leases,
    pub(crate) limits: Limits,
    /// Milliseconds that `resolve` by time takes for each commit: commit n was made at n seconds.
    pub(crate) commits: Vec<Commit>,
    pages: Pages,
    next: u64,
    outcomes: HashMap<IdempotencyKey, Option<CommitReply>>,
    pub(crate) stages: HashMap<StageId, BTreeMap<PageIndex, Vec<u8>>>,
    pub(crate) faults: VecDeque<Option<Fault>>,
    late: Vec<(u32, String, Vec<u8>)>,
    /// Calls by name, each time one arrives.
    pub(crate) calls: Vec<String>,
    /// `seen` of a commit reply lags this many commits behind.
    pub(crate) lag: usize,
}

pub(crate) struct Model {
    servers: Vec<String>,
    /// Waiting for a reply that never comes takes time.
    system: Arc<SimSystem>,
    state: Mutex<State>,
}

pub(crate) const KEY: &str = "test";

impl Model {
    pub(crate) fn new(system: Arc<SimSystem>) -> Self {
        let namespace = NamespaceId::from(Version::new(10, 0));
        let limits = Limits {
            inline_bytes: 1 << 20,
            stage_batch_bytes: 1 << 20,
            commit_pages: 100_000,
            read_pages: 100,
            read_bytes: 1 << 20,
        };
        Self {
            servers: vec!["model".to_owned()],
            system,
            state: Mutex::new(State {
                incarnation: Incarnation::from_bytes([1; 8]),
                namespace,
                exists: true,
                leases: Leases::default(),
                limits,
                commits: Vec::new(),
                pages: Pages::default(),
                next: 11,
                outcomes: HashMap::new(),
                stages: HashMap::new(),
                faults: VecDeque::new(),
                late: Vec::new(),
                calls: Vec::new(),
                lag: 0,
            }),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next requests meet these.
    pub(crate) fn inject(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.state().faults.extend(faults);
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }
}

impl Transport for Model {
    fn servers(&self) -> &[String] {
        &self.servers
    }

    fn call(
        &self,
        _server: usize,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<Reply, TransportError> {
        let mut state = self.state();
        state.deliver_late();
        let failed = |maybe_sent| {
            if maybe_sent {
                self.system.sleep(timeout);
            }
            Err(TransportError {
                maybe_sent,
                reason: "injected".to_owned(),
            })
        };
        match state.faults.pop_front().flatten() {
            None => Ok(state.handle(request.path, request.body)),
            Some(Fault::Refused) => failed(false),
            Some(Fault::RequestLost) => failed(true),
            Some(Fault::ReplyLost) => {
                state.handle(request.path, request.body);
                failed(true)
            }
            Some(Fault::Late(after)) => {
                let late = (after, request.path.to_owned(), request.body.to_vec());
                state.late.push(late);
                failed(true)
            }
            Some(Fault::Twice) => {
                state.handle(request.path, request.body);
                Ok(state.handle(request.path, request.body))
            }
            Some(Fault::Unavailable) => Ok(refusal(Problem::new(Code::Unavailable, "busy"))),
            Some(Fault::BadGateway) => Ok(Reply {
                status: 502,
                content_type: Some("text/html".to_owned()),
                body: b"<html>".to_vec(),
            }),
        }
    }
}

fn refusal(problem: Problem) -> Reply {
    Reply {
        status: problem.status,
        content_type: Some(problem::CONTENT_TYPE.to_owned()),
        body: serde_json::to_vec(&problem).unwrap(),
    }
}

fn refuse<T>(code: Code, detail: &str) -> Result<T, Problem> {
    Err(Problem::new(code, detail))
}

impl State {
    /// The newest version; that of the empty namespace if there is none.
    pub(crate) fn head(&self) -> Version {
        let id = self.namespace.as_version();
        self.commits.last().map_or(id, |commit| commit.version)
    }

    /// A page at a version.
    pub(crate) fn page(&self, index: PageIndex, at: Version) -> Option<Vec<u8>> {
        self.entry(index, at).1
    }

    fn entry(&self, index: PageIndex, at: Version) -> (Version, Option<Vec<u8>>) {
        let versions = self.pages.0.get(&index);
        let entry = versions.and_then(|all| all.iter().rev().find(|(v, _)| *v <= at));
        entry
            .cloned()
            .unwrap_or((self.namespace.as_version(), None))
    }

    pub(crate) fn page_count(&self, at: Version) -> u32 {
        self.page(0, at).map_or(0, |page| {
            u32::from_be_bytes(page[28..32].try_into().unwrap())
        })
    }

    /// Commits as a client elsewhere would, without any check.
    pub(crate) fn commit_directly(&mut self, pages: Vec<(PageIndex, Vec<u8>)>) -> Version {
        let base = self.head();
        self.store(base, pages)
    }

    fn deliver_late(&mut self) {
        let mut due = Vec::new();
        self.late.retain_mut(|(after, path, body)| {
            if *after == 0 {
                due.push((path.clone(), std::mem::take(body)));
                return false;
            }
            *after -= 1;
            true
        });
        for (path, body) in due {
            self.handle(&path, &body);
        }
    }

    fn handle(&mut self, path: &str, body: &[u8]) -> Reply {
        let call = path.rsplit('/').next().unwrap().to_owned();
        self.calls.push(call.clone());
        let answer = match path == format!("/v2/ns/{KEY}/{call}") && self.exists {
            true => self.answer(&call, body),
            false => refuse(Code::NamespaceNotFound, "there is no such namespace"),
        };
        match answer {
            Ok(body) => Reply {
                status: 200,
                content_type: Some(v2::CONTENT_TYPE.to_owned()),
                body,
            },
            Err(problem) => refusal(problem),
        }
    }

    fn answer(&mut self, call: &str, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let reply = match call {
            "begin" => v2::encode(&self.begin(v2::decode(body).unwrap())),
            "resolve" => v2::encode(&self.resolve(v2::decode(body).unwrap())?),
            "read" => return self.read(v2::decode(body).unwrap()),
            "stage" => v2::encode(&self.stage(v2::decode(body).unwrap())?),
            "commit" => v2::encode(&self.commit(v2::decode(body).unwrap())?),
            "lease" => v2::encode(&self.lease(&v2::decode(body).unwrap())?),
            "settle" => v2::encode(&self.settle(v2::decode(body).unwrap())),
            other => panic!("unknown call {other}"),
        };
        Ok(reply.unwrap())
    }

    fn image(&self, index: PageIndex, at: Version) -> PageImage {
        let (from, data) = self.entry(index, at);
        PageImage {
            index,
            from,
            data: data.map(ByteBuf::from),
        }
    }

    fn page_size(&self, at: Version) -> u32 {
        self.page(0, at).map_or(0, |page| page.len() as u32)
    }

    fn read_version(&self) -> ReadVersion {
        ReadVersion(self.head().commit())
    }

    fn begin(&self, request: BeginRequest) -> BeginReply {
        let head = self.head();
        let changed = request.known.and_then(|known| {
            let known_here =
                known.incarnation == self.incarnation && known.namespace == self.namespace;
            known_here.then(|| self.changed(known.version, head, &known.own))
        });
        let wanted = request.want_pages && self.page(0, head).is_some();
        BeginReply {
            incarnation: self.incarnation,
            namespace: self.namespace,
            version: head,
            read_version: self.read_version(),
            page_size: self.page_size(head),
            mode: self.leases.mode,
            limits: self.limits,
            changed,
            pages: wanted.then(|| self.image(0, head)).into_iter().collect(),
        }
    }

    /// Pages changed in (from, through] by commits that are not in `own`.
    fn changed(&self, from: Version, through: Version, own: &[Version]) -> PageSet {
        let mut changed = PageSet::new();
        self.commits
            .iter()
            .filter(|commit| commit.version > from && commit.version <= through)
            .filter(|commit| !own.contains(&commit.version))
            .for_each(|commit| changed.extend(&commit.changed));
        changed
    }

    fn resolve(&self, request: ResolveRequest) -> Result<ResolveReply, Problem> {
        let id = self.namespace.as_version();
        let version = match request.moment {
            Moment::Version(version) if version > self.head() => {
                return refuse(Code::VersionUnknown, "above the head");
            }
            Moment::Version(version) => {
                let at = self.commits.iter().rev().find(|c| c.version <= version);
                at.map_or(id, |commit| commit.version)
            }
            Moment::UnixMillis(millis) => {
                let count = (millis / 1000).min(self.commits.len() as u64) as usize;
                self.commits[..count].last().map_or(id, |c| c.version)
            }
        };
        Ok(ResolveReply {
            incarnation: self.incarnation,
            namespace: self.namespace,
            version,
            read_version: self.read_version(),
            page_size: self.page_size(version),
            limits: self.limits,
        })
    }

    fn read(&self, request: ReadRequest) -> Result<Vec<u8>, Problem> {
        assert_eq!(request.namespace, self.namespace);
        assert!(request.pages.len() <= u64::from(self.limits.read_pages));
        assert!(request.read_version.sees(request.version));
        let mut body = Vec::new();
        let mut bytes = 0;
        for index in request.pages.iter() {
            let image = self.staged(&request, index);
            let image = image.unwrap_or_else(|| self.image(index, request.version));
            bytes += image.data.as_ref().map_or(0, |data| data.len() as u64);
            body.extend(v2::encode(&image).unwrap());
            if bytes >= self.limits.read_bytes {
                break;
            }
        }
        Ok(body)
    }

    /// A page of the transaction's own stage.
    fn staged(&self, request: &ReadRequest, index: PageIndex) -> Option<PageImage> {
        let page = self.stages[&request.stage?].get(&index)?;
        Some(PageImage {
            index,
            from: request.version,
            data: Some(ByteBuf::from(page.clone())),
        })
    }

    fn stage(&mut self, request: StageRequest) -> Result<StageReply, Problem> {
        let bytes: u64 = request.pages.iter().map(|p| p.data.len() as u64).sum();
        assert!(bytes <= self.limits.stage_batch_bytes);
        let id = match request.stage {
            Some(id) => id,
            None => {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&(self.stages.len() as u64).to_be_bytes());
                StageId::from_bytes(id)
            }
        };
        let stage = self.stages.entry(id).or_default();
        for index in request.unstage.iter() {
            stage.remove(&index);
        }
        for page in request.pages {
            stage.insert(page.index, page.data.into_vec());
        }
        Ok(StageReply {
            stage: id,
            count: stage.len() as u64,
            sum: stage
                .iter()
                .fold(0, |all, (i, page)| all ^ staged_sum(*i, page)),
            read_version: self.read_version(),
        })
    }

    fn lease(&mut self, request: &LeaseRequest) -> Result<LeaseReply, Problem> {
        let (head, read_version) = (self.head(), self.read_version());
        self.leases.answer(request, head, read_version)
    }

    fn commit(&mut self, request: CommitRequest) -> Result<CommitReply, Problem> {
        match self.outcomes.get(&request.key) {
            Some(Some(reply)) => return Ok(reply.clone()),
            Some(None) => return refuse(Code::Aborted, "settled as aborted"),
            None => {}
        }
        if request.namespace != self.namespace {
            return refuse(Code::NamespaceChanged, "another namespace");
        }
        self.leases.judge(request.lease)?;
        let pages = self.written(&request)?;
        self.check_conflicts(&request, &pages)?;
        self.leases.committed(request.lease);
        let seen = self.commits.len().saturating_sub(self.lag);
        let seen = self.commits[..seen].last().map(|commit| commit.version);
        let seen = seen.map_or(request.base, |seen| seen.max(request.base));
        let changed = self.changed(request.base, seen, &[]);
        let version = self.store(request.base, pages);
        let reply = CommitReply {
            version,
            seen,
            read_version: self.read_version(),
            changed: Some(changed),
        };
        self.outcomes.insert(request.key, Some(reply.clone()));
        Ok(reply)
    }

    /// The pages that a commit writes, from wherever they come.
    fn written(&self, request: &CommitRequest) -> Result<Vec<(PageIndex, Vec<u8>)>, Problem> {
        let inline = request.pages.iter().map(|p| (p.index, p.data.to_vec()));
        let mut pages: BTreeMap<_, _> = inline.collect();
        assert_eq!(pages.len(), request.pages.len(), "a page twice");
        let bytes: u64 = pages.values().map(|page| page.len() as u64).sum();
        assert!(bytes <= self.limits.inline_bytes);
        if let Some(wanted) = request.stage {
            let Some(stage) = self.stages.get(&wanted.stage) else {
                return refuse(Code::StageInvalid, "unknown");
            };
            let sum = stage.iter().fold(0, |all, (i, p)| all ^ staged_sum(*i, p));
            if (wanted.count, wanted.sum) != (stage.len() as u64, sum) {
                return refuse(Code::StageInvalid, "holds something else");
            }
            for (index, page) in stage {
                let twice = pages.insert(*index, page.clone());
                assert!(twice.is_none(), "a page inline and staged");
            }
        }
        if let Some(page1) = pages.get(&0) {
            assert_eq!(page1[24..28], [0; 4], "a change counter was sent");
            assert_eq!(page1[92..100], [0; 8], "a change counter was sent");
            let base = self.page(0, request.base);
            assert_ne!(base.as_ref(), Some(page1), "an unchanged page 1 was sent");
        }
        assert!(!pages.is_empty(), "an empty commit was sent");
        Ok(pages.into_iter().collect())
    }

    fn check_conflicts(
        &self,
        request: &CommitRequest,
        pages: &[(PageIndex, Vec<u8>)],
    ) -> Result<(), Problem> {
        let mut touched = request.read.clone();
        touched.extend(&pages.iter().map(|(index, _)| *index).collect());
        let writes_page1 = pages.iter().any(|(index, _)| *index == 0);
        let touched: PageSet = touched.iter().filter(|index| *index != 0).collect();
        for commit in self.commits.iter().filter(|c| c.version > request.base) {
            let page1 = commit.alters || (commit.allocates && writes_page1);
            let page = match page1 {
                true => Some(0),
                false => commit.changed.first_common(&touched),
            };
            if let Some(page) = page {
                let mut problem = Problem::new(Code::Conflict, "changed by another transaction");
                problem.page = Some(page);
                problem.version = Some(commit.version);
                return Err(problem);
            }
        }
        Ok(())
    }

    fn store(&mut self, base: Version, pages: Vec<(PageIndex, Vec<u8>)>) -> Version {
        let version = Version::new(self.next, 0);
        // Versions have gaps, as those of a store with other namespaces.
        self.next += 1 + self.next % 3;
        let old = self.page(0, base);
        let before = self.page_count(self.head());
        let mut changed: PageSet = pages.iter().map(|(index, _)| *index).collect();
        let (mut allocates, mut alters) = (false, false);
        for (index, page) in pages {
            if index == 0 {
                let old = old.clone().unwrap_or_else(|| vec![0; page.len()]);
                let differs = |range: std::ops::Range<usize>| old[range.clone()] != page[range];
                allocates = differs(28..40);
                alters = differs(0..24) || differs(40..92) || differs(100..page.len());
                let after = u32::from_be_bytes(page[28..32].try_into().unwrap());
                for absent in after..before {
                    changed.insert(absent);
                    let versions = self.pages.0.entry(absent).or_default();
                    versions.push((version, None));
                }
            }
            let versions = self.pages.0.entry(index).or_default();
            versions.push((version, Some(page)));
        }
        self.commits.push(Commit {
            version,
            changed,
            allocates,
            alters,
        });
        version
    }

    fn settle(&mut self, request: SettleRequest) -> SettleReply {
        let read_version = self.read_version();
        match self.outcomes.entry(request.key).or_insert(None) {
            Some(reply) => SettleReply::Committed {
                version: reply.version,
                read_version,
            },
            None => SettleReply::Aborted,
        }
    }
}
