//! The client against a server that lies: open databases, as SQLite's pager uses them, over answers
//! that are wrong in any way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mvsqlite::client::{PlainReply, PlainRequest, Reply, Request, Transport, TransportError};
use mvsqlite::system::{RandomError, System};
use mvsqlite::{Config, ConnectionId, DatabaseFile, Environment, LockLevel, OpenOptions, Release};
use mvsqlite_protocol::v2::{BeginReply, Limits, ReadRequest};
use mvsqlite_protocol::{Code, PageSet, Problem, Version, problem, v2};
use mvstore::store::Store;
use serde_bytes::ByteBuf;

use crate::Input;
use crate::honest::{self, KEYS};
use crate::seed::page_one;

const PAGE_SIZE: usize = 512;
/// Pages of a database as long as nobody lies about it.
const MOST_PAGES: u8 = 48;
/// Requests of one input: a client that never stops asking has none to give it up.
const MOST_REQUESTS: usize = 20_000;

/// Whatever a server answers, the client neither panics nor asks for ever, and takes no memory for
/// what is only claimed. As long as the server is honest, no page is asked for that there is not.
///
/// First a byte of settings, then what happens: calls of the file, and between them how the server
/// answers. A byte of zeros is an honest answer.
pub(super) fn evil_server(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let settings = input.u8();
    let server = Arc::new(Server {
        names: vec!["evil".to_owned(), "twin".to_owned()],
        store: honest::store(),
        script: Mutex::new(Script {
            bytes: input.rest().to_vec(),
            at: 0,
            requests: 0,
            lied: false,
        }),
    });
    let config = Config {
        page_size: PAGE_SIZE as u32,
        cache_bytes: if settings & 1 == 0 { 1 << 20 } else { 4 << 10 },
        upload_bytes: if settings & 2 == 0 { 1 << 20 } else { 8 << 10 },
        exclusive: settings & 4 != 0,
        read_staleness: Duration::from_millis(u64::from(settings & 8) * 100),
        prefetch_depth: (settings & 16 != 0).then_some(3),
        ..Config::default()
    };
    let system = Arc::new(Time::default());
    let env = Environment::with_transport(config, Arc::clone(&server) as Arc<_>, system);
    let mut user = User {
        env,
        server,
        files: [None, None],
    };
    while let Some(step) = user.server.next() {
        user.step(step);
    }
}

/// A clock that moves when somebody looks or sleeps.
#[derive(Default)]
struct Time(AtomicU64);

impl System for Time {
    fn now(&self) -> Duration {
        Duration::from_micros(self.0.fetch_add(50, Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2);
        self.0.fetch_add(micros, Ordering::Relaxed);
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        for byte in buffer {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            *byte = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
        }
        Ok(())
    }

    fn process_id(&self) -> u32 {
        1
    }
}

/// A server, and what it is told to do.
struct Server {
    names: Vec<String>,
    store: Store,
    script: Mutex<Script>,
}

struct Script {
    bytes: Vec<u8>,
    at: usize,
    requests: usize,
    lied: bool,
}

impl Script {
    fn input(&mut self) -> Input<'_> {
        Input::new(&self.bytes[self.at..])
    }

    fn u8(&mut self) -> u8 {
        let byte = self.input().u8();
        self.at = (self.at + 1).min(self.bytes.len());
        byte
    }

    fn chunk(&mut self) -> Vec<u8> {
        let length = usize::from(self.u8());
        let chunk = self.input().take(length).to_vec();
        self.at += chunk.len();
        chunk
    }
}

impl Server {
    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next byte of the script, if there is one.
    fn next(&self) -> Option<u8> {
        let mut script = self.script();
        (script.at < script.bytes.len()).then(|| script.u8())
    }

    fn chunk(&self) -> Vec<u8> {
        self.script().chunk()
    }

    fn u8(&self) -> u8 {
        self.script().u8()
    }

    fn honest(&self, request: Request<'_>) -> Reply {
        honest::answer(&self.store, request.path, request.body)
    }

    /// How an honest reply is spoiled.
    fn lie(&self, how: u8, request: Request<'_>) -> Result<Reply, TransportError> {
        let lost = |maybe_sent| TransportError {
            maybe_sent,
            reason: "the connection was lost".to_owned(),
        };
        match how % 8 {
            0 => Err(lost(how & 8 != 0)),
            1 => Ok(reply(200, v2::CONTENT_TYPE, self.chunk())),
            2 => Ok(self.refusal()),
            3 => {
                let mut reply = self.honest(request);
                for change in self.chunk().chunks_exact(2) {
                    let at = usize::from(change[0]) % reply.body.len().max(1);
                    if let Some(byte) = reply.body.get_mut(at) {
                        *byte = change[1];
                    }
                }
                Ok(reply)
            }
            4 => {
                let mut reply = self.honest(request);
                let keep = reply.body.len() * usize::from(self.u8()) / 256;
                reply.body.truncate(keep);
                Ok(reply)
            }
            5 => {
                let status = 100 + u16::from(self.u8()) * 2;
                let types = ["", "text/html", problem::CONTENT_TYPE, v2::CONTENT_TYPE];
                let content_type = types[usize::from(self.u8()) % types.len()];
                Ok(reply(status, content_type, self.chunk()))
            }
            6 => {
                self.honest(request);
                Err(lost(true))
            }
            _ => Ok(self.about_begin(self.honest(request))),
        }
    }

    fn refusal(&self) -> Reply {
        const CODES: [Code; 12] = [
            Code::Conflict,
            Code::Aborted,
            Code::NamespaceNotFound,
            Code::NamespaceChanged,
            Code::SnapshotTooOld,
            Code::StageInvalid,
            Code::Locked,
            Code::ReadOnly,
            Code::Unavailable,
            Code::OutcomeUnknown,
            Code::StorageFull,
            Code::Internal,
        ];
        let code = CODES[usize::from(self.u8()) % CODES.len()];
        let mut refusal = Problem::new(code, "so it is");
        refusal.page = (self.u8() & 1 == 0).then_some(u32::MAX);
        let body = serde_json::to_vec(&refusal).expect("a problem can be encoded");
        reply(refusal.status, problem::CONTENT_TYPE, body)
    }

    /// A well-formed answer to `begin` that is not true.
    fn about_begin(&self, honest: Reply) -> Reply {
        let Ok(mut begun) = v2::decode::<BeginReply>(&honest.body) else {
            return honest;
        };
        match self.u8() % 8 {
            0 => {
                begun.limits = Limits {
                    inline_bytes: 0,
                    stage_batch_bytes: 0,
                    commit_pages: 0,
                    read_pages: 0,
                    read_bytes: 0,
                }
            }
            1 => begun.version = Version::ZERO,
            2 => begun.changed = Some(everything()),
            3 => begun.mode = v2::Concurrency::Exclusive,
            4 => begun.page_size = u32::from(self.u8()) << 8,
            5 => begun.pages.clear(),
            _ => {
                let mut page = page_one(PAGE_SIZE << (self.u8() % 3), u32::MAX);
                let spoil = self.chunk();
                page[16..16 + spoil.len().min(84)].copy_from_slice(&spoil[..spoil.len().min(84)]);
                begun.page_size = PAGE_SIZE as u32;
                for image in &mut begun.pages {
                    image.data = Some(ByteBuf::from(page.clone()));
                }
            }
        }
        let body = v2::encode(&begun).expect("a message of ours");
        Reply { body, ..honest }
    }
}

fn everything() -> PageSet {
    let all = mvsqlite_protocol::PageRun {
        first: 0,
        count: u32::MAX,
    };
    PageSet::try_from(vec![all]).expect("a run below 2^32")
}

fn reply(status: u16, content_type: &str, body: Vec<u8>) -> Reply {
    Reply {
        status,
        content_type: (!content_type.is_empty()).then(|| content_type.to_owned()),
        body,
    }
}

impl Transport for Server {
    fn servers(&self) -> &[String] {
        &self.names
    }

    fn call(
        &self,
        server: usize,
        request: Request<'_>,
        _timeout: Duration,
    ) -> Result<Reply, TransportError> {
        assert!(server < self.names.len());
        let (how, lied) = {
            let mut script = self.script();
            script.requests += 1;
            assert!(script.requests <= MOST_REQUESTS, "it never stops asking");
            let how = script.u8();
            script.lied |= how > 127;
            (how, script.lied)
        };
        if !lied && request.path.ends_with("/read") {
            let read: ReadRequest = v2::decode(request.body).expect("a request of ours");
            let last = read.pages.runs().last().expect("pages are asked for").end();
            assert!(
                last <= u64::from(MOST_PAGES),
                "page {last} is beyond the end"
            );
        }
        match how {
            0..=127 => Ok(self.honest(request)),
            _ => self.lie(how, request),
        }
    }

    fn plain_call(
        &self,
        _server: usize,
        _request: PlainRequest<'_>,
        _timeout: Duration,
    ) -> Result<PlainReply, TransportError> {
        let status = 100 + u16::from(self.u8()) * 2;
        let owner = String::from_utf8_lossy(&self.chunk()).into_owned();
        Ok(PlainReply {
            status,
            headers: vec![("x-lock-owner".to_owned(), owner)],
            body: self.chunk(),
        })
    }
}

/// What SQLite does.
struct User {
    env: Arc<Environment>,
    server: Arc<Server>,
    files: [Option<DatabaseFile>; 2],
}

impl User {
    fn step(&mut self, step: u8) {
        let which = usize::from(step >> 7);
        if step & 0x1f == 31 {
            return self.commit_together();
        }
        let Some(mut file) = self.files[which].take().or_else(|| self.open(which)) else {
            return;
        };
        match step & 0x1f {
            0..=3 => drop(file.lock(LockLevel::Shared)),
            4 | 5 => drop(file.lock(LockLevel::Reserved)),
            6 => drop(file.lock(LockLevel::Exclusive)),
            7 => file.unlock(LockLevel::Shared),
            8 | 9 => file.unlock(LockLevel::None),
            10..=14 => self.read(&mut file),
            15..=19 => self.write(&mut file),
            20..=23 => self.commit(&mut file),
            24 => drop(file.truncate(u64::from(self.server.u8()) * PAGE_SIZE as u64)),
            25 => drop(file.size()),
            26 => self.others(&mut file),
            27 => drop(file.sync(None)),
            28 => drop(file.commit_phase_two()),
            29 => drop(file.overwrite()),
            _ => return,
        }
        self.files[which] = Some(file);
    }

    fn open(&self, which: usize) -> Option<DatabaseFile> {
        let name = KEYS[which].parse().expect("a name");
        let env = Arc::clone(&self.env);
        let mut file = DatabaseFile::open(env, name, OpenOptions::default()).ok()?;
        file.set_connection(ConnectionId(1));
        Some(file)
    }

    fn read(&self, file: &mut DatabaseFile) {
        let (page, length) = (self.server.u8(), usize::from(self.server.u8()) * 8);
        let offset = u64::from(page % MOST_PAGES) * PAGE_SIZE as u64 + length as u64 % 7;
        let mut buffer = vec![0xee; length];
        if let Ok(mvsqlite::Read::Short(found)) = file.read(offset, &mut buffer) {
            assert!(buffer[found..].iter().all(|byte| *byte == 0));
        }
    }

    fn write(&self, file: &mut DatabaseFile) {
        let (page, content) = (self.server.u8() % MOST_PAGES, self.server.u8());
        let mut bytes = vec![content; PAGE_SIZE];
        if page == 0 {
            match page_one_with(file, content, 0) {
                Some(page) => bytes = page,
                None => return,
            }
        }
        drop(file.write(u64::from(page) * PAGE_SIZE as u64, &bytes));
    }

    /// What stands before the COMMIT: page 1 with a new change counter.
    fn prepare(&self, file: &mut DatabaseFile) -> bool {
        if file.lock(LockLevel::Exclusive).is_err() {
            return false;
        }
        let page = page_one_with(file, self.server.u8(), 1);
        page.is_some_and(|page| file.write(0, &page).is_ok())
    }

    fn commit(&self, file: &mut DatabaseFile) {
        if self.prepare(file) && file.sync(None).is_ok() {
            file.commit_phase_two()
                .expect("nothing fails after a commit");
        }
        file.unlock(LockLevel::Shared);
    }

    fn commit_together(&mut self) {
        let [Some(mut first), Some(mut second)] = [self.files[0].take(), self.files[1].take()]
        else {
            return;
        };
        let ready = self.prepare(&mut first) && self.prepare(&mut second);
        if ready && DatabaseFile::commit_together(&mut [&mut first, &mut second]).is_ok() {
            for file in [&mut first, &mut second] {
                file.commit_phase_two()
                    .expect("nothing fails after a commit");
            }
        }
        for file in [&mut first, &mut second] {
            file.unlock(LockLevel::None);
        }
        self.files = [Some(first), Some(second)];
    }

    fn others(&self, file: &mut DatabaseFile) {
        match self.server.u8() % 8 {
            0 => drop(file.pin(Version::new(u64::from(self.server.u8()), 0))),
            1 => drop(file.unpin()),
            2 => drop(file.acquire_lock("me", None)),
            3 => drop(file.release_lock("me", Release::Rollback)),
            4 => drop(file.time_to_version(i64::from(self.server.u8()))),
            5 => file.give_up_lease(),
            6 => {
                let name = self.server.chunk();
                let name = String::from_utf8_lossy(&name).into_owned();
                drop(file.pragma(&name, Some("4096")));
            }
            _ => drop(file.pragma("mvsqlite_version", None)),
        }
    }
}

/// A page 1 with the change counter that there is, or the next one: SQLite counts once in a transaction,
/// at its COMMIT.
fn page_one_with(file: &mut DatabaseFile, count: u8, more: u32) -> Option<Vec<u8>> {
    let mut counter = [0; 4];
    file.read(24, &mut counter).ok()?;
    let counter = u32::from_be_bytes(counter).wrapping_add(more);
    let mut page = page_one(PAGE_SIZE, u32::from(count % MOST_PAGES).max(1));
    page[24..28].copy_from_slice(&counter.to_be_bytes());
    page[92..96].copy_from_slice(&counter.to_be_bytes());
    Some(page)
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    // Lock, write a few pages, commit, read them again: each call of the server is answered with 0.
    let honest: &[u8] = &[
        0, 6, 0, 15, 5, 7, 15, 9, 8, 20, 12, 0, 9, 0, 0, 10, 5, 64, 0, 10, 9, 64, 0, 8,
    ];
    let lies = |how: u8, more: &[u8]| {
        let mut script = honest.to_vec();
        script.extend([0, how]);
        script.extend(more);
        script.extend([10, 7, 64, 0, 4, 0, 15, 3, 3, 20, how]);
        script.extend(more);
        script
    };
    let both: &[u8] = &[
        0, 6, 0, 134, 0, 15, 5, 7, 143, 5, 7, 31, 9, 9, 0, 0, 10, 5, 64,
    ];
    vec![
        ("honest", honest.to_vec()),
        (
            "large",
            [
                &[2][..],
                &honest[1..],
                &[4, 0],
                &(1..40).flat_map(|page| [16, page, 1]).collect::<Vec<_>>(),
                &[20, 47, 0],
            ]
            .concat(),
        ),
        ("two-databases", both.to_vec()),
        ("exclusive", [&[4][..], &honest[1..]].concat()),
        ("lost", lies(128, &[])),
        ("garbage", lies(129, &[4, 0x81, 0xa1, b'x', 0xc0])),
        ("refused", lies(130, &[0, 0])),
        ("changed", lies(131, &[2, 20, 0xff])),
        ("cut", lies(132, &[100])),
        ("elsewhere", lies(133, &[201, 1, 2, b'h', b'i'])),
        ("answer-lost", lies(134, &[])),
        ("limits-of-nothing", lies(135, &[0])),
        ("everything-changed", lies(135, &[2])),
        ("endless-file", lies(135, &[6, 0, 0])),
    ]
}
