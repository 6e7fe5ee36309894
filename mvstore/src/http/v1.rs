//! Data plane v1: the paths of the original, for its clients.
//!
//! Their rules decide what is answered:
//! - The method is not looked at.
//! - 5xx means "try again", which they do for ever. 409 on a commit is a conflict. Anything else below
//!   500 ends a commit's process, so it is answered only where trying again is hopeless.
//! - `/stat` is refused with 404 or 410 only.
//! - A namespace key that comes along is judged first, on whatever path.

/// Makes a call for a namespace; makes the namespace first if it is not there and may be made.
macro_rules! on_namespace {
    ($server:expr, $key:expr, $call:expr) => {
        match $call.await {
            Err(missing @ StoreError::NamespaceNotFound { .. }) => {
                $server.make_missing($key, missing).await?;
                $call.await
            }
            done => done,
        }
    };
}

mod caller;
mod lock;
mod reply;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use mvsqlite_protocol::v1::{
    CommitBody, CommitReply, Frames, MAX_READS, MAX_WRITES, PageHash, ReadRequest, StatReply,
    WriteReply, WriteRequest, decode, encode, push,
};
use mvsqlite_protocol::{Code, NamespaceKey};
use tokio::time::Instant;
use tracing::info;

use self::caller::{caller, expect_key};
use self::reply::{Refused, body, pages, refused};
use super::Shared;
use super::body::Received;
use super::exchange::Permit;
use crate::error::StoreError;
use crate::v1::{CommitRules, Committed, ReadItem, StatRequest};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/stat", any(stat))
        .route("/batch/read", any(read))
        .route("/batch/write", any(write))
        .route("/batch/commit", any(commit))
        .route("/nslock/acquire", any(lock::acquire))
        .route("/nslock/release", any(lock::release))
}

type Answer = Result<Response, Refused>;

type Server = State<Arc<Shared>>;

/// What lies nowhere.
pub(super) async fn elsewhere(server: &Shared, headers: HeaderMap) -> Response {
    match known_caller(server, headers).await {
        Ok(()) => Refused::new(StatusCode::NOT_FOUND, "not found").into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// Whether a key that comes along, if any, names a namespace.
pub(super) async fn known_caller(server: &Shared, headers: HeaderMap) -> Result<(), Refused> {
    match caller(&headers)? {
        Some(key) => server.expect_known(&key).await,
        None => Ok(()),
    }
}

impl Shared {
    /// A call that only reads, until the deadline.
    async fn reading<T>(
        &self,
        name: &'static str,
        deadline: Instant,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Refused> {
        self.read(name, deadline, async { Ok(work.await) })
            .await?
            .map_err(refused)
    }

    /// Makes a namespace that is missing, if a server like this does that.
    async fn make_missing(
        &self,
        key: &NamespaceKey,
        missing: StoreError,
    ) -> Result<(), StoreError> {
        if !self.original.auto_create_namespace || self.original.read_only {
            return Err(missing);
        }
        match self.store.create_namespace(key).await {
            Ok(id) => {
                info!(%key, %id, "namespace created for a client");
                Ok(())
            }
            // Another client was quicker.
            Err(StoreError::NamespaceExists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn expect_known(&self, key: &NamespaceKey) -> Result<(), Refused> {
        let find = async { on_namespace!(self, key, self.store.original().find(key)) };
        self.reading("find", self.deadline(), find).await?;
        Ok(())
    }

    /// What cannot be asked of a namespace; of one that is not there, that is what is said.
    async fn refuse(&self, key: &NamespaceKey, refused: Refused) -> Refused {
        self.expect_known(key).await.err().unwrap_or(refused)
    }

    fn expect_writable(&self) -> Result<(), Refused> {
        if self.original.read_only {
            return Err(Refused::new(StatusCode::FORBIDDEN, ""));
        }
        Ok(())
    }
}

/// The last value of each parameter.
fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let value = pairs.into_iter().rev().find(|(key, _)| key == name)?.1;
    Some(value).filter(|value| !value.is_empty())
}

async fn stat(State(server): Server, request: Request) -> Answer {
    let deadline = server.deadline();
    let key = expect_key(request.headers())?;
    let from = parameter(request.uri(), "from_version").map(|text| text.parse());
    let Ok(from) = from.transpose() else {
        let malformed = Refused::again("from_version is not 20 hex digits");
        return Err(server.refuse(&key, malformed).await);
    };
    let asked = StatRequest {
        from,
        lock_owner: parameter(request.uri(), "lock_owner"),
    };
    let original = server.store.original();
    let stat = async { on_namespace!(server, &key, original.stat(&key, &asked)) };
    let found = server.reading("stat", deadline, stat).await;
    let Some(stat) = found.map_err(Refused::for_stat)? else {
        return Err(Refused::new(StatusCode::GONE, ""));
    };
    let reply = StatReply {
        version: stat.version.to_string(),
        metadata: String::new(),
        read_only: server.original.read_only,
        interval: stat.interval,
    };
    Ok(axum::Json(reply).into_response())
}

async fn read(State(server): Server, request: Request) -> Answer {
    let deadline = server.deadline();
    let key = expect_key(request.headers())?;
    let limit = server.budget.bodies.v1_read;
    let Received { bytes, .. } = server.receive(request, limit, deadline).await?;
    let asked = match asked_pages(&bytes) {
        Ok(asked) => asked,
        Err(refused) => return Err(server.refuse(&key, refused).await),
    };
    let mut charge = server.budget.reserve_pages(asked.len(), deadline).await?;
    let items: Vec<ReadItem> = asked.iter().map(|(_, item)| *item).collect();
    let original = server.store.original();
    let read = async { on_namespace!(server, &key, original.read(&key, &items)) };
    let found = match server.reading("read", deadline, read).await {
        Ok(found) => found,
        Err(refused) => return Err(refused.for_read()),
    };
    let asked = asked.iter().map(|(request, _)| request);
    let reply = pages(asked, &found, server.original.wire_zstd)?;
    charge.shrink_to(reply.len() as u64);
    Ok(body(reply, charge))
}

/// What a read asks for. A batch that is not understood is refused as a whole: asking again would not
/// help.
fn asked_pages(bytes: &[u8]) -> Result<Vec<(ReadRequest<'_>, ReadItem)>, Refused> {
    let mut frames = Frames::of_request(bytes);
    let mut asked = Vec::new();
    while !frames.is_empty() {
        if asked.len() == MAX_READS {
            return Err(Refused::bad("too many pages in one read"));
        }
        let request: ReadRequest<'_> = frames.message().map_err(Refused::bad)?;
        let item = match request.hash {
            Some(hash) => ReadItem::Content {
                hash: PageHash::try_from(hash).map_err(|_| Refused::bad("invalid hash"))?,
            },
            None => ReadItem::At {
                index: request.page_index,
                version: request.version.parse().map_err(Refused::bad)?,
            },
        };
        asked.push((request, item));
    }
    Ok(asked)
}

async fn write(State(server): Server, request: Request) -> Answer {
    let deadline = server.deadline();
    let key = expect_key(request.headers())?;
    if let Err(refused) = server.expect_writable() {
        return Err(server.refuse(&key, refused).await);
    }
    let permit = request.extensions().get::<Permit>().cloned();
    let limit = server.budget.bodies.v1_write;
    let Received { bytes, charge } = server.receive(request, limit, deadline).await?;
    let shared = Arc::clone(&server);
    let work = async move {
        let _charge = charge;
        Ok(upload(&shared, &key, &bytes).await)
    };
    let written = server.write("upload", deadline, permit, Code::Timeout, work);
    let hashes = written.await??;
    let mut reply = Vec::new();
    let ends = hashes.iter().map(|hash| &hash[..]).chain([&[][..]]);
    for hash in ends {
        push(&mut reply, &WriteReply { hash }).map_err(Refused::internal)?;
    }
    Ok(body(reply, Default::default()))
}

async fn upload(
    server: &Shared,
    key: &NamespaceKey,
    bytes: &[u8],
) -> Result<Vec<PageHash>, Refused> {
    let contents = match brought_pages(bytes) {
        Ok(contents) => contents,
        Err(refused) => return Err(server.refuse(key, refused).await),
    };
    let original = server.store.original();
    let uploaded = async { on_namespace!(server, key, original.upload(key, &contents)) };
    uploaded.await.map_err(refused)
}

/// The pages up to the empty frame, which has to come.
fn brought_pages(bytes: &[u8]) -> Result<Vec<&[u8]>, Refused> {
    let mut frames = Frames::of_request(bytes);
    let mut contents = Vec::new();
    loop {
        let frame = frames.bytes().map_err(Refused::bad)?;
        if frame.is_empty() {
            return Ok(contents);
        }
        if contents.len() == MAX_WRITES {
            return Err(Refused::bad("too many pages in one write"));
        }
        let request: WriteRequest<'_> = decode(frame).map_err(Refused::bad)?;
        contents.push(request.data);
    }
}

async fn commit(State(server): Server, request: Request) -> Answer {
    let deadline = server.deadline();
    let headers = request.headers().clone();
    known_caller(&server, headers).await?;
    server.expect_writable()?;
    let permit = request.extensions().get::<Permit>().cloned();
    let limit = server.budget.bodies.v1_commit;
    let Received { bytes, charge } = server.receive(request, limit, deadline).await?;
    let shared = Arc::clone(&server);
    let work = async move {
        let _charge = charge;
        Ok(commit_body(&shared, &bytes).await)
    };
    let committed = server.write("commit", deadline, permit, Code::OutcomeUnknown, work);
    let committed = committed.await??;
    let reply = CommitReply {
        changelog: committed.changelog,
    };
    let reply = encode(&reply).map_err(Refused::internal)?;
    let headers = [
        ("x-committed-version", committed.version.to_string()),
        ("x-last-version", "f".repeat(20)),
    ];
    Ok((headers, Body::from(reply)).into_response())
}

async fn commit_body(server: &Shared, bytes: &[u8]) -> Result<Committed, Refused> {
    let original = &server.original;
    let rules = CommitRules {
        whole_from_pages: original.knob_commit_multi_phase_threshold as usize,
        most_read: original.knob_plcc_read_set_size_threshold as usize,
    };
    let body = CommitBody::decode(bytes)?;
    let committed = server.store.original().commit(rules, &body).await;
    Ok(committed?)
}
