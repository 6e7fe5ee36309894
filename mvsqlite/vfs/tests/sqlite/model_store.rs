//! A store in memory behind the client's transport: the rules of data plane v2, as plainly as they
//! can be written. Judges the VFS without a server; the real server has tests of its own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mvsqlite::client::{PlainReply, PlainRequest, Reply, Request, Transport, TransportError};
use mvsqlite_protocol::page::staged_sum;
use mvsqlite_protocol::v2::{self, *};
use mvsqlite_protocol::{
    Code, IdempotencyKey, Incarnation, Moment, NamespaceId, PageData, PageImage, PageIndex,
    PageSet, Problem, ReadVersion, StageId, Version, problem,
};

// The client's own tests grant leases the same way.
#[path = "../../../tests/database/leases.rs"]
mod leases;

pub use leases::Leases;

/// The store.
pub struct ModelStore {
    servers: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clock: u64,
    namespaces: HashMap<String, Namespace>,
    stages: HashMap<StageId, BTreeMap<PageIndex, Vec<u8>>>,
    last_stage: u128,
    /// Owners of namespace locks, by key.
    locks: HashMap<String, String>,
    /// Calls that panic, as a bug in the client would: (key, call).
    bugs: HashSet<(String, &'static str)>,
    /// The pages of each `read` that was answered, by key.
    reads: HashMap<String, Vec<PageSet>>,
    /// What became of group commits, by idempotency key.
    groups: HashMap<IdempotencyKey, Option<Version>>,
    /// How many of the next calls are done and not answered: (key, call).
    lost_replies: HashMap<(String, &'static str), u32>,
    /// Run right before the next call: (key, call).
    before: HashMap<(String, &'static str), Box<dyn FnOnce() + Send>>,
}

struct Namespace {
    id: NamespaceId,
    commits: Vec<Commit>,
    keys: HashMap<IdempotencyKey, Option<Version>>,
    leases: Leases,
}

struct Commit {
    version: Version,
    /// Each page written; `None` for one that was cut off.
    pages: BTreeMap<PageIndex, Option<Vec<u8>>>,
    page1: Page1,
}

/// What a commit changes in page 1, besides the counters that never count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page1 {
    Nothing,
    Allocation,
    Schema,
}

const LIMITS: Limits = Limits {
    inline_bytes: 1 << 20,
    stage_batch_bytes: 1 << 20,
    commit_pages: 1 << 20,
    read_pages: 256,
    read_bytes: 1 << 20,
};

/// Content beyond the limit, over all members of a commit, has to be staged.
fn check_inline<'a>(pages: impl IntoIterator<Item = &'a PageData>) -> Result<(), Problem> {
    let bytes: usize = pages.into_iter().map(|page| page.data.len()).sum();
    match bytes as u64 > LIMITS.inline_bytes {
        true => Err(Problem::new(Code::TooLarge, "too much content inline")),
        false => Ok(()),
    }
}

impl ModelStore {
    pub fn new() -> Self {
        Self {
            servers: vec!["model".to_owned()],
            state: Mutex::default(),
        }
    }

    /// Makes an empty namespace.
    pub fn create(&self, key: &str) {
        let mut state = self.state();
        let id = NamespaceId::from(state.tick());
        let namespace = Namespace {
            id,
            commits: Vec::new(),
            keys: HashMap::new(),
            leases: Leases::default(),
        };
        state.namespaces.insert(key.to_owned(), namespace);
    }

    /// Does something with a namespace's leases, or looks at them.
    pub fn leases<T>(&self, key: &str, with: impl FnOnce(&mut Leases) -> T) -> T {
        let mut state = self.state();
        let namespace = state.namespaces.get_mut(key);
        with(&mut namespace.expect("a namespace that was made").leases)
    }

    /// Makes a namespace with what another one holds, which no cache knows.
    pub fn copy(&self, from: &str, to: &str) {
        let pages = self.export(from);
        let size = match u16::from_be_bytes([pages[16], pages[17]]) {
            1 => 65_536,
            size => usize::from(size),
        };
        self.create(to);
        let mut state = self.state();
        let version = state.tick();
        let pages = pages.chunks(size).zip(0..);
        let commit = Commit {
            version,
            pages: pages
                .map(|(page, index)| (index, Some(page.to_vec())))
                .collect(),
            page1: Page1::Schema,
        };
        let namespace = state.namespaces.get_mut(to).expect("just made");
        namespace.commits.push(commit);
    }

    /// The pages that each `read` of a namespace asked for so far.
    pub fn reads(&self, key: &str) -> Vec<PageSet> {
        self.state().reads.get(key).cloned().unwrap_or_default()
    }

    /// Makes every such call on a namespace panic inside the client, or no longer.
    pub fn set_bug(&self, key: &str, call: &'static str, present: bool) {
        let bug = (key.to_owned(), call);
        let bugs = &mut self.state().bugs;
        match present {
            true => bugs.insert(bug),
            false => bugs.remove(&bug),
        };
    }

    /// The replies to the next such calls get lost. A group goes by its first member's key.
    pub fn lose_replies(&self, key: &str, call: &'static str, count: u32) {
        let call = (key.to_owned(), call);
        self.state().lost_replies.insert(call, count);
    }

    /// Runs something, which may use the store, right before the next such call.
    pub fn before(&self, key: &str, call: &'static str, action: impl FnOnce() + Send + 'static) {
        let call = (key.to_owned(), call);
        self.state().before.insert(call, Box::new(action));
    }

    /// The versions a namespace went through, oldest first.
    pub fn versions(&self, key: &str) -> Vec<Version> {
        let state = self.state();
        let commits = &state.namespaces[key].commits;
        commits.iter().map(|commit| commit.version).collect()
    }

    /// The database as a file, as of its last commit.
    pub fn export(&self, key: &str) -> Vec<u8> {
        let state = self.state();
        let namespace = &state.namespaces[key];
        let Some(page1) = namespace.page(0, Version::from_bytes([0xff; 10])).1 else {
            return Vec::new();
        };
        let count = u32::from_be_bytes(page1[28..32].try_into().expect("four bytes"));
        let mut file = Vec::new();
        for index in 0..count {
            let page = namespace.page(index, Version::from_bytes([0xff; 10])).1;
            file.extend(page.unwrap_or_else(|| vec![0; page1.len()]));
        }
        file
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tick(&mut self) -> Version {
        self.clock += 1;
        Version::new(self.clock, 0)
    }

    fn namespace(&mut self, key: &str) -> Result<&mut Namespace, Problem> {
        let missing = || Problem::new(Code::NamespaceNotFound, format!("no namespace '{key}'"));
        self.namespaces.get_mut(key).ok_or_else(missing)
    }

    fn answer(&mut self, key: &str, call: &str, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let now = ReadVersion(self.clock);
        match call {
            "group commit" => reply(&self.commit_group(request(body)?)?),
            "group settle" => reply(&self.settle_group(&request(body)?, now)),
            "begin" => reply(&self.namespace(key)?.begin(&request(body)?, now)),
            "resolve" => reply(&self.namespace(key)?.resolve(&request(body)?, now)?),
            "read" => self.read(key, &request(body)?),
            "stage" => reply(&self.stage(request(body)?, now)),
            "commit" => reply(&self.commit(key, request(body)?)?),
            "lease" => reply(&self.namespace(key)?.lease(&request(body)?, now)?),
            "settle" => reply(&self.namespace(key)?.settle(&request(body)?, now)),
            _ => Err(Problem::new(Code::NotFound, call)),
        }
    }

    fn read(&mut self, key: &str, request: &ReadRequest) -> Result<Vec<u8>, Problem> {
        let own = request.stage.map(|stage| self.stages[&stage].clone());
        let own = own.unwrap_or_default();
        let namespace = self.namespace(key)?;
        let mut body = Vec::new();
        for index in request.pages.iter() {
            let mut image = namespace.image(index, request.version);
            if let Some(page) = own.get(&index) {
                image.data = Some(page.clone().into());
                image.from = request.version;
            }
            body.extend(reply(&image)?);
        }
        Ok(body)
    }

    /// All members, or none: each is checked before any is written.
    fn commit_group(&mut self, request: GroupCommitRequest) -> Result<GroupCommitReply, Problem> {
        let done = self.groups.get(&request.key).copied();
        let version = match done {
            Some(Some(version)) => version,
            Some(None) => return Err(Problem::new(Code::Aborted, "settled")),
            None => self.install_group(&request)?,
        };
        self.groups.insert(request.key, Some(version));
        let mut members = Vec::new();
        for member in &request.members {
            let namespace = self.namespace(member.ns.as_str())?;
            members.push(GroupChanges {
                seen: member.base.max(namespace.head_but(version)),
                changed: Some(namespace.changed(member.base, &[version])),
            });
        }
        Ok(GroupCommitReply {
            version,
            read_version: ReadVersion(self.clock),
            members,
        })
    }

    fn install_group(&mut self, request: &GroupCommitRequest) -> Result<Version, Problem> {
        let inline = request.members.iter().flat_map(|member| &member.pages);
        check_inline(inline)?;
        let mut parts = Vec::new();
        for member in &request.members {
            let staged = member.stage.and_then(|stage| self.stages.get(&stage.stage));
            let mut pages = staged.cloned().unwrap_or_default();
            let inline = member.pages.iter();
            pages.extend(inline.map(|page| (page.index, page.data.to_vec())));
            let namespace = self.namespace(member.ns.as_str())?;
            namespace.check(member.base, &member.read, &mut pages.clone())?;
            if !pages.is_empty() {
                namespace.leases.judge(member.lease)?;
            }
            parts.push(pages);
        }
        let version = self.tick();
        for (member, pages) in request.members.iter().zip(parts) {
            if member.pages.is_empty() && member.stage.is_none() {
                continue;
            }
            let namespace = self.namespace(member.ns.as_str())?;
            namespace.install(member.base, version, &member.read, pages)?;
            namespace.leases.committed(member.lease);
        }
        Ok(version)
    }

    fn settle_group(
        &mut self,
        request: &GroupSettleRequest,
        read_version: ReadVersion,
    ) -> SettleReply {
        match self.groups.entry(request.key).or_insert(None) {
            Some(version) => SettleReply::Committed {
                version: *version,
                read_version,
            },
            None => SettleReply::Aborted,
        }
    }

    fn stage(&mut self, request: StageRequest, read_version: ReadVersion) -> StageReply {
        let stage = request.stage.unwrap_or_else(|| {
            self.last_stage += 1;
            StageId::from_bytes(self.last_stage.to_be_bytes())
        });
        let pages = self.stages.entry(stage).or_default();
        for index in request.unstage.iter() {
            pages.remove(&index);
        }
        for page in request.pages {
            pages.insert(page.index, page.data.into_vec());
        }
        let sums = pages.iter().map(|(i, d)| staged_sum(*i, d));
        StageReply {
            stage,
            count: pages.len() as u64,
            sum: sums.fold(0, |a, b| a ^ b),
            read_version,
        }
    }

    fn commit(&mut self, key: &str, request: CommitRequest) -> Result<CommitReply, Problem> {
        check_inline(&request.pages)?;
        let mut pages: BTreeMap<PageIndex, Vec<u8>> = match request.stage {
            Some(stage) => {
                let pages = self.stages.remove(&stage.stage).unwrap_or_default();
                let sums = pages.iter().map(|(i, d)| staged_sum(*i, d));
                let sum = sums.fold(0, |a, b| a ^ b);
                assert_eq!((stage.count, stage.sum), (pages.len() as u64, sum));
                pages
            }
            None => BTreeMap::new(),
        };
        let inline = request.pages.into_iter();
        pages.extend(inline.map(|page| (page.index, page.data.into_vec())));
        let version = self.tick();
        let read_version = ReadVersion(self.clock);
        let namespace = self.namespace(key)?;
        let base = request.base;
        let version = match namespace.keys.get(&request.key) {
            Some(Some(version)) => *version,
            Some(None) => return Err(Problem::new(Code::Aborted, "settled")),
            None => {
                namespace.leases.judge(request.lease)?;
                namespace.install(base, version, &request.read, pages)?;
                namespace.leases.committed(request.lease);
                namespace.keys.insert(request.key, Some(version));
                version
            }
        };
        let others = namespace.changed(base, &[version]);
        Ok(CommitReply {
            version,
            seen: base.max(namespace.head_but(version)),
            read_version,
            changed: Some(others),
        })
    }
}

impl Namespace {
    fn lease(&mut self, request: &LeaseRequest, now: ReadVersion) -> Result<LeaseReply, Problem> {
        let head = self.head();
        self.leases.answer(request, head, now)
    }

    fn head(&self) -> Version {
        let last = self.commits.last();
        last.map_or(self.id.as_version(), |commit| commit.version)
    }

    /// The newest commit at or below a moment.
    fn newest(&self, moment: Version) -> Version {
        let below = self.commits.iter().rev().find(|c| c.version <= moment);
        below.map_or(self.id.as_version(), |commit| commit.version)
    }

    /// The newest commit besides this one.
    fn head_but(&self, version: Version) -> Version {
        let others = self.commits.iter().rev().find(|c| c.version != version);
        others.map_or(self.id.as_version(), |commit| commit.version)
    }

    /// A page at a version, and since when it is so.
    fn page(&self, index: PageIndex, at: Version) -> (Version, Option<Vec<u8>>) {
        let seen = self.commits.iter().rev().filter(|c| c.version <= at);
        seen.filter_map(|c| Some((c.version, c.pages.get(&index)?.clone())))
            .next()
            .unwrap_or((self.id.as_version(), None))
    }

    fn image(&self, index: PageIndex, at: Version) -> PageImage {
        let (from, data) = self.page(index, at);
        let data = data.map(Into::into);
        PageImage { index, from, data }
    }

    fn page_size(&self, at: Version) -> u32 {
        let page1 = self.page(0, at).1;
        page1.map_or(0, |page| u32::try_from(page.len()).expect("a page"))
    }

    /// Pages changed after a version, but by none of these commits.
    fn changed(&self, after: Version, but: &[Version]) -> PageSet {
        let commits = self.commits.iter().filter(|c| c.version > after);
        let others = commits.filter(|commit| !but.contains(&commit.version));
        others.flat_map(|c| c.pages.keys().copied()).collect()
    }

    fn begin(&self, request: &BeginRequest, read_version: ReadVersion) -> BeginReply {
        let version = match request.as_of {
            Some(moment) => self.newest(Version::new(moment.0, u16::MAX)),
            None => self.head(),
        };
        let known = request.known.as_ref().filter(|k| k.namespace == self.id);
        let page1 = self.image(0, version);
        let wanted = request.want_pages && page1.data.is_some();
        BeginReply {
            incarnation: Incarnation::from_bytes([7; 8]),
            namespace: self.id,
            version,
            read_version,
            page_size: self.page_size(version),
            mode: self.leases.mode,
            limits: LIMITS,
            changed: known
                .filter(|known| known.version <= version)
                .map(|known| self.changed(known.version, &known.own)),
            pages: wanted.then_some(page1).into_iter().collect(),
        }
    }

    fn resolve(
        &self,
        request: &ResolveRequest,
        read_version: ReadVersion,
    ) -> Result<ResolveReply, Problem> {
        let moment = match request.moment {
            Moment::Version(version) if version > self.head() => {
                return Err(Problem::new(Code::VersionUnknown, "never reached"));
            }
            Moment::Version(version) => version,
            Moment::UnixMillis(_) => self.head(),
        };
        let version = self.newest(moment);
        Ok(ResolveReply {
            incarnation: Incarnation::from_bytes([7; 8]),
            namespace: self.id,
            version,
            read_version,
            page_size: self.page_size(version),
            limits: LIMITS,
        })
    }

    fn settle(&mut self, request: &SettleRequest, read_version: ReadVersion) -> SettleReply {
        match self.keys.entry(request.key).or_insert(None) {
            Some(version) => SettleReply::Committed {
                version: *version,
                read_version,
            },
            None => SettleReply::Aborted,
        }
    }

    /// Checks for conflicts; drops a page 1 that did not change.
    fn check(
        &self,
        base: Version,
        read: &PageSet,
        pages: &mut BTreeMap<PageIndex, Vec<u8>>,
    ) -> Result<Page1, Problem> {
        let old_page1 = self.page(0, base).1.unwrap_or_default();
        let page1 = pages
            .get(&0)
            .map_or(Page1::Nothing, |new| Page1::of(&old_page1, new));
        if page1 == Page1::Nothing {
            pages.remove(&0);
        }
        for commit in self.commits.iter().filter(|commit| commit.version > base) {
            let touched = |index: &PageIndex| read.contains(*index) || pages.contains_key(index);
            let page = commit
                .pages
                .keys()
                .filter(|i| **i != 0)
                .find(|i| touched(i));
            let page1_conflicts = commit.page1 == Page1::Schema
                || commit.page1 == Page1::Allocation && page1 != Page1::Nothing;
            if page.is_some() || page1_conflicts {
                let mut problem = Problem::new(Code::Conflict, "changed meanwhile");
                problem.page = Some(page.copied().unwrap_or(0));
                problem.version = Some(commit.version);
                return Err(problem);
            }
        }
        Ok(page1)
    }

    /// Checks for conflicts and writes the pages.
    fn install(
        &mut self,
        base: Version,
        version: Version,
        read: &PageSet,
        mut pages: BTreeMap<PageIndex, Vec<u8>>,
    ) -> Result<(), Problem> {
        let page1 = self.check(base, read, &mut pages)?;
        let old_page1 = self.page(0, base).1.unwrap_or_default();
        let mut pages: BTreeMap<PageIndex, Option<Vec<u8>>> = pages
            .into_iter()
            .map(|(index, data)| (index, Some(data)))
            .collect();
        if let Some(Some(new)) = pages.get(&0) {
            let (before, after) = (page_count(&old_page1), page_count(new));
            pages.extend((after..before).map(|index| (index, None)));
        }
        self.commits.push(Commit {
            version,
            pages,
            page1,
        });
        Ok(())
    }
}

impl Page1 {
    fn of(old: &[u8], new: &[u8]) -> Self {
        let differs = |range: std::ops::Range<usize>| old.get(range.clone()) != new.get(range);
        if old.len() != new.len() || differs(0..24) || differs(40..92) || differs(100..new.len()) {
            Self::Schema
        } else if differs(28..40) {
            Self::Allocation
        } else {
            Self::Nothing
        }
    }
}

fn page_count(page1: &[u8]) -> u32 {
    page1.get(28..32).map_or(0, |bytes| {
        u32::from_be_bytes(bytes.try_into().expect("four bytes"))
    })
}

fn request<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    v2::decode(body).map_err(|error| Problem::new(Code::Malformed, error.to_string()))
}

fn reply<T: serde::Serialize>(message: &T) -> Result<Vec<u8>, Problem> {
    v2::encode(message).map_err(|error| Problem::new(Code::Internal, error.to_string()))
}

/// The namespace, of a group that of its first member, and the call.
fn addressed(request: &Request<'_>) -> (String, &'static str) {
    const CALLS: [&str; 7] = [
        "begin", "resolve", "read", "stage", "commit", "settle", "lease",
    ];
    if request.path == "/v2/commit" {
        let group: GroupCommitRequest = v2::decode(request.body).expect("a group");
        return (group.members[0].ns.to_string(), "group commit");
    }
    if request.path == "/v2/settle" {
        let group: GroupSettleRequest = v2::decode(request.body).expect("a group");
        return (group.members[0].ns.to_string(), "group settle");
    }
    let path = request.path.strip_prefix("/v2/ns/").expect("a path of v2");
    let (key, call) = path.rsplit_once('/').expect("key and call");
    let call = CALLS.iter().find(|known| **known == call).expect("a call");
    (key.replace("%2F", "/"), call)
}

impl Transport for ModelStore {
    fn servers(&self) -> &[String] {
        &self.servers
    }

    /// Namespace locks, as far as taking and giving back goes.
    fn plain_call(
        &self,
        _server: usize,
        request: PlainRequest<'_>,
        _timeout: Duration,
    ) -> Result<PlainReply, TransportError> {
        let key = request
            .headers
            .iter()
            .find(|(name, _)| *name == "x-namespace-key");
        let key = key.expect("the namespace's key").1.to_owned();
        let body: serde_json::Value = serde_json::from_slice(request.body).expect("JSON");
        let owner = body["owner"].as_str().expect("an owner").to_owned();
        let locks = &mut self.state().locks;
        let holder = locks.get(&key).cloned();
        let free = holder.as_ref().is_none_or(|holder| *holder == owner);
        let status = match (request.path, free) {
            ("/nslock/acquire", true) => {
                locks.insert(key, owner);
                201
            }
            ("/nslock/acquire", false) => 409,
            _ if holder.is_some() && free => {
                locks.remove(&key);
                201
            }
            _ => 422,
        };
        let named = holder.filter(|_| status >= 400);
        Ok(PlainReply {
            status,
            headers: named
                .map(|owner| ("x-lock-owner".to_owned(), owner))
                .into_iter()
                .collect(),
            body: Vec::new(),
        })
    }

    fn call(
        &self,
        _server: usize,
        request: Request<'_>,
        _timeout: Duration,
    ) -> Result<Reply, TransportError> {
        let (key, call) = addressed(&request);
        let before = {
            let before = &mut self.state().before;
            before.remove(&(key.clone(), call))
        };
        if let Some(action) = before {
            action();
        }
        let mut state = self.state();
        let bug = state.bugs.contains(&(key.clone(), call));
        assert!(!bug, "a bug made for a test");
        let answer = state.answer(&key, call, request.body);
        if call == "read"
            && let Ok(read) = v2::decode::<ReadRequest>(request.body)
        {
            state.reads.entry(key.clone()).or_default().push(read.pages);
        }
        if let Some(lost @ 1..) = state.lost_replies.get_mut(&(key, call)) {
            *lost -= 1;
            return Err(TransportError {
                maybe_sent: true,
                reason: "injected".to_owned(),
            });
        }
        Ok(match answer {
            Ok(body) => Reply {
                status: 200,
                content_type: Some(v2::CONTENT_TYPE.to_owned()),
                body,
            },
            Err(refusal) => Reply {
                status: refusal.status,
                content_type: Some(problem::CONTENT_TYPE.to_owned()),
                body: serde_json::to_vec(&refusal).expect("a problem is JSON"),
            },
        })
    }
}
