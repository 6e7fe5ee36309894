//! The data plane: protocol v2, and the original's `/time2version`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::path::Path;
use axum::extract::rejection::PathRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use mvsqlite_protocol::v2::{
    BeginRequest, CommitRequest, GroupCommitRequest, GroupSettleRequest, LeaseRequest, ReadRequest,
    ResolveRequest, SettleRequest, StageRequest, decode,
};
use mvsqlite_protocol::{Code, NamespaceKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::body::{Charge, Received};
use super::exchange::Permit;
use super::reply::{Refusal, message, page_images};
use super::{Shared, exchange, health, v1};
use crate::error::StoreError;
use crate::store::Store;

pub(super) fn router(server: Arc<Shared>) -> Router {
    Router::new()
        .route("/v2/ns/{key}/begin", post(begin))
        .route("/v2/ns/{key}/resolve", post(resolve))
        .route("/v2/ns/{key}/read", post(read))
        .route("/v2/ns/{key}/stage", post(stage))
        .route("/v2/ns/{key}/commit", post(commit))
        .route("/v2/ns/{key}/settle", post(settle))
        .route("/v2/ns/{key}/lease", post(lease))
        .route("/v2/commit", post(commit_group))
        .route("/v2/settle", post(settle_group))
        .route("/time2version", any(time_to_version))
        .merge(v1::routes())
        .merge(health::routes())
        .fallback(elsewhere)
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            let allowed = if health::is_health(uri.path()) {
                "GET"
            } else {
                "POST"
            };
            exchange::method_not_allowed(&method, allowed)
        })
        .with_state(server)
}

/// No such path: said as the clients of either protocol expect it.
async fn elsewhere(State(server): Server, request: Request) -> Response {
    let path = request.uri().path();
    if path == "/v2" || path.starts_with("/v2/") {
        return exchange::not_found(request.uri()).into_response();
    }
    v1::elsewhere(&server, request.headers().clone()).await
}

/// The key of a path, percent-decoded.
type Key = Result<Path<String>, PathRejection>;

fn namespace(key: Key) -> Result<NamespaceKey, Refusal> {
    let Path(key) = key.map_err(|error| Refusal::malformed(error.body_text()))?;
    NamespaceKey::try_from(key).map_err(Refusal::malformed)
}

/// Names the caller as the owner of a namespace's lock, on `begin` and `commit`.
const LOCK_OWNER: &str = "x-lock-owner";

fn lock_owner(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let owner = headers.get(LOCK_OWNER).map(|owner| owner.to_str());
    let owner = owner.transpose().map_err(Refusal::malformed)?;
    Ok(owner.map(str::to_owned))
}

/// A call that has arrived whole.
struct Call<Q> {
    message: Q,
    /// The owner of a namespace's lock in whose name the caller comes.
    lock_owner: Option<String>,
    deadline: Instant,
    permit: Option<Permit>,
    /// The memory of the body, which is the message's now.
    charge: Charge,
}

impl<Q: DeserializeOwned> Call<Q> {
    async fn receive(
        server: &Shared,
        request: Request<Body>,
        body_limit: u64,
    ) -> Result<Self, Refusal> {
        let deadline = server.deadline();
        let permit = request.extensions().get::<Permit>().cloned();
        let lock_owner = lock_owner(request.headers())?;
        let Received { bytes, charge } = server.receive(request, body_limit, deadline).await?;
        let message = decode(&bytes).map_err(Refusal::malformed)?;
        Ok(Self {
            message,
            lock_owner,
            deadline,
            permit,
            charge,
        })
    }
}

impl<Q> Call<Q> {
    /// Makes a writing call. It runs to its end even if its client leaves or the deadline passes;
    /// then the answer is `late`.
    async fn write<T, F>(
        self,
        server: &Shared,
        name: &'static str,
        late: Code,
        work: impl FnOnce(Arc<Store>, Q) -> F,
    ) -> Answer
    where
        T: Serialize + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        if server.original.read_only {
            return Err(Refusal::new(
                Code::ReadOnly,
                "this server serves reads only",
            ));
        }
        let work = work(Arc::clone(&server.store), self.message);
        let charge = self.charge;
        let work = async move {
            let _charge = charge;
            work.await
        };
        let written = server.write(name, self.deadline, self.permit, late, work);
        message(&written.await?)
    }
}

type Answer = Result<Response, Refusal>;
type Server = State<Arc<Shared>>;

async fn begin(State(server): Server, key: Key, request: Request) -> Answer {
    let key = namespace(key)?;
    let limit = server.budget.bodies.small;
    let call = Call::<BeginRequest>::receive(&server, request, limit).await?;
    let owner = call.lock_owner.as_deref();
    let work = server.store.begin_as(owner, &key, call.message);
    message(&server.read("begin", call.deadline, work).await?)
}

async fn resolve(State(server): Server, key: Key, request: Request) -> Answer {
    let key = namespace(key)?;
    let limit = server.budget.bodies.small;
    let call = Call::<ResolveRequest>::receive(&server, request, limit).await?;
    let work = server.store.resolve(&key, call.message);
    message(&server.read("resolve", call.deadline, work).await?)
}

async fn read(State(server): Server, key: Key, request: Request) -> Answer {
    let key = namespace(key)?;
    let limit = server.budget.bodies.read;
    let call = Call::<ReadRequest>::receive(&server, request, limit).await?;
    let limits = server.store.limits();
    let pages = &call.message.pages;
    let reserved = server.budget.reserve_reply(pages, &limits, call.deadline);
    let mut charge = reserved.await?;
    let work = server.store.read(&key, call.message);
    let images = server.read("read", call.deadline, work).await?;
    let bytes = images.iter().filter_map(|image| image.data.as_ref());
    charge.shrink_to(bytes.map(|data| data.len() as u64).sum());
    page_images(images, charge)
}

async fn stage(State(server): Server, key: Key, request: Request) -> Answer {
    let key = namespace(key)?;
    let limit = server.budget.bodies.stage;
    let call = Call::<StageRequest>::receive(&server, request, limit).await?;
    let work = |store: Arc<Store>, batch| async move { store.stage(&key, batch).await };
    call.write(&server, "stage", Code::Timeout, work).await
}

async fn commit(State(server): Server, key: Key, request: Request) -> Answer {
    let key = namespace(key)?;
    let limit = server.budget.bodies.commit;
    let mut call = Call::<CommitRequest>::receive(&server, request, limit).await?;
    let owner = call.lock_owner.take();
    let work =
        |store: Arc<Store>, changes| async move { store.commit_as(owner, &key, changes).await };
    call.write(&server, "commit", Code::OutcomeUnknown, work)
        .await
}

/// A commit of several namespaces, named in the body. It takes the memory of one.
async fn commit_group(State(server): Server, request: Request) -> Answer {
    let limit = server.budget.bodies.commit;
    let mut call = Call::<GroupCommitRequest>::receive(&server, request, limit).await?;
    let owner = call.lock_owner.take();
    let work = |store: Arc<Store>, group| async move { store.commit_group_as(owner, group).await };
    call.write(&server, "commit", Code::OutcomeUnknown, work)
        .await
}

async fn settle(State(server): Server, key: Key, request: Request) -> Answer {
    let key = namespace(key)?;
    let limit = server.budget.bodies.small;
    let call = Call::<SettleRequest>::receive(&server, request, limit).await?;
    let work = |store: Arc<Store>, which| async move { store.settle(&key, which).await };
    call.write(&server, "settle", Code::OutcomeUnknown, work)
        .await
}

async fn settle_group(State(server): Server, request: Request) -> Answer {
    let limit = server.budget.bodies.small;
    let call = Call::<GroupSettleRequest>::receive(&server, request, limit).await?;
    let work = |store: Arc<Store>, group| async move { store.settle_group(group).await };
    call.write(&server, "settle", Code::OutcomeUnknown, work)
        .await
}

async fn lease(State(server): Server, key: Key, request: Request) -> Answer {
    let key = namespace(key)?;
    let limit = server.budget.bodies.small;
    let call = Call::<LeaseRequest>::receive(&server, request, limit).await?;
    let work = |store: Arc<Store>, asked| async move { store.lease(&key, asked).await };
    // It may be sent again: the nonce tells whose it was.
    call.write(&server, "lease", Code::Timeout, work).await
}

#[derive(Deserialize)]
struct Time {
    t: u64,
}

/// The original's clients end their process at a refusal below 500, so whatever is wrong is a 500
/// here.
async fn time_to_version(State(server): Server, headers: HeaderMap, uri: Uri) -> Response {
    if let Err(refused) = v1::known_caller(&server, headers).await {
        return refused.into_response();
    }
    let Ok(Query(Time { t })) = Query::<Time>::try_from_uri(&uri) else {
        let reason = "expected ?t=SECONDS, a time in whole seconds since 1970\n";
        return (StatusCode::INTERNAL_SERVER_ERROR, reason).into_response();
    };
    let work = server.store.time_to_version(t);
    match server.read("time2version", server.deadline(), work).await {
        Ok(bracket) => axum::Json(bracket).into_response(),
        Err(refusal) if refusal.status().is_server_error() => refusal.into_response(),
        Err(refusal) => refusal
            .with_status(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response(),
    }
}
