//! The admin API: the original's paths, status codes and texts, and ours beside them under `/v2/admin`.
//!
//! On the original's paths, as in the original, the method and the content type are ignored, refusals are lines of text, and
//! a body that is not the JSON it should be is answered with 500.

mod collect;
mod fsck;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use futures_util::stream;
use mvsqlite_protocol::admin::{
    CreateNamespace, ListedNamespace, NamespaceByKey, OverlayBase, RenameNamespace, SetConcurrency,
};
use mvsqlite_protocol::{Code, NamespaceId, NamespaceKey, Version};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{error, info};

use super::body::ADMIN_BODY;
use super::exchange::Permit;
use super::reply::Refusal;
use super::{Shared, health};

/// Namespaces in one piece of a list.
const LIST_BATCH: usize = 1000;

/// Without the admin API on a server that only reads.
pub(super) fn router(server: Arc<Shared>) -> Router {
    let routes = if server.original.read_only {
        Router::new()
    } else {
        routes()
    };
    routes
        .merge(health::routes())
        .fallback(|| async { StatusCode::NOT_FOUND })
        .with_state(server)
}

fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/create_namespace", any(create_namespace))
        .route("/api/rename_namespace", any(rename_namespace))
        .route("/api/delete_namespace", any(delete_namespace))
        .route("/api/list_namespace", any(list_namespace))
        .route("/api/stat_namespace", any(stat_namespace))
        .route("/api/set_concurrency", any(set_concurrency))
        .route("/api/truncate_namespace", any(collect::truncate_namespace))
        .route(
            "/api/delete_unreferenced_content",
            any(collect::delete_unreferenced_content),
        )
        .route("/v2/admin/fsck", any(fsck::fsck))
        .route("/fdb/status", any(fdb_status))
}

/// A cluster's status is the cluster's to tell, and its client library tells it by keys that are not
/// part of what an engine promises.
async fn fdb_status() -> TextRefusal {
    Refusal::new(Code::NotFound, "the status of a cluster is not told here")
        .hint("use fdbcli --exec 'status json' beside the cluster file")
        .into()
}

/// A refusal as a line of text.
struct TextRefusal(Refusal);

impl<E: Into<Refusal>> From<E> for TextRefusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for TextRefusal {
    fn into_response(self) -> Response {
        self.0.into_text()
    }
}

type Answer = Result<Response, TextRefusal>;
type Server = State<Arc<Shared>>;

/// A call that has arrived whole.
struct Call<Q> {
    message: Q,
    deadline: Instant,
    permit: Option<Permit>,
}

impl<Q: DeserializeOwned> Call<Q> {
    async fn receive(server: &Shared, request: Request<Body>) -> Result<Self, Refusal> {
        let deadline = server.deadline();
        let permit = request.extensions().get::<Permit>().cloned();
        let received = server.receive(request, ADMIN_BODY, deadline).await?;
        let message = serde_json::from_slice(&received.bytes).map_err(|error| {
            Refusal::malformed(format!(
                "the body is not the JSON that is expected: {error}"
            ))
            .with_status(StatusCode::INTERNAL_SERVER_ERROR)
        })?;
        Ok(Self {
            message,
            deadline,
            permit,
        })
    }
}

fn namespace_key(key: String) -> Result<NamespaceKey, Refusal> {
    NamespaceKey::of_original(key).map_err(Refusal::malformed)
}

async fn create_namespace(State(server): Server, request: Request) -> Answer {
    let call = Call::<CreateNamespace>::receive(&server, request).await?;
    let base = call.message.overlay_base.map(base_of).transpose()?;
    let key = namespace_key(call.message.key)?;
    let mode = call.message.concurrency.unwrap_or_default();
    let store = Arc::clone(&server.store);
    let work = async move {
        let id = match base {
            None => store.create_namespace_as(&key, mode).await?,
            Some((base, at)) => store.fork_namespace_as(&key, base, at, mode).await?,
        };
        let base = base.map(|(base, _)| base.to_string());
        info!(%key, %id, base, "namespace created");
        Ok(())
    };
    let (deadline, permit) = (call.deadline, call.permit);
    let done = server.write("create_namespace", deadline, permit, Code::Timeout, work);
    match done.await {
        Ok(()) => Ok((StatusCode::CREATED, "created\n").into_response()),
        Err(refusal) => Err(as_the_original_says(refusal).into()),
    }
}

async fn rename_namespace(State(server): Server, request: Request) -> Answer {
    let call = Call::<RenameNamespace>::receive(&server, request).await?;
    let old = namespace_key(call.message.old_key)?;
    let new = namespace_key(call.message.new_key)?;
    let store = Arc::clone(&server.store);
    let work = async move {
        store.rename_namespace(&old, &new).await?;
        info!(%old, %new, "namespace renamed");
        Ok(())
    };
    let (deadline, permit) = (call.deadline, call.permit);
    let done = server.write("rename_namespace", deadline, permit, Code::Timeout, work);
    match done.await {
        Ok(()) => Ok("renamed\n".into_response()),
        Err(refusal) => Err(as_the_original_says(refusal).into()),
    }
}

async fn delete_namespace(State(server): Server, request: Request) -> Answer {
    let call = Call::<NamespaceByKey>::receive(&server, request).await?;
    let key = namespace_key(call.message.key)?;
    let store = Arc::clone(&server.store);
    let work = async move {
        store.delete_namespace_without_forks(&key).await?;
        info!(%key, "namespace deleted");
        Ok(())
    };
    let (deadline, permit) = (call.deadline, call.permit);
    let done = server.write("delete_namespace", deadline, permit, Code::Timeout, work);
    done.await?;
    Ok("deleted\n".into_response())
}

async fn set_concurrency(State(server): Server, request: Request) -> Answer {
    let call = Call::<SetConcurrency>::receive(&server, request).await?;
    let mode = call.message.concurrency;
    let key = namespace_key(call.message.key)?;
    let store = Arc::clone(&server.store);
    let work = async move {
        store.set_concurrency(&key, mode).await?;
        info!(%key, ?mode, "concurrency mode set");
        Ok(())
    };
    let (deadline, permit) = (call.deadline, call.permit);
    let done = server.write("set_concurrency", deadline, permit, Code::Timeout, work);
    done.await?;
    Ok("set\n".into_response())
}

async fn stat_namespace(State(server): Server, request: Request) -> Answer {
    let call = Call::<NamespaceByKey>::receive(&server, request).await?;
    let key = namespace_key(call.message.key)?;
    let work = server.store.stat_namespace(&key);
    let stat = server.read("stat_namespace", call.deadline, work).await?;
    Ok(Json(stat).into_response())
}

#[derive(Deserialize)]
struct Prefix {
    #[serde(default)]
    prefix: String,
}

/// One line of JSON a namespace, in byte order of their keys, read from the store as they are sent.
async fn list_namespace(
    State(server): Server,
    query: Result<Query<Prefix>, QueryRejection>,
) -> Answer {
    let Query(Prefix { prefix }) = query.map_err(|error| Refusal::malformed(error.body_text()))?;
    // The first batch is read before the status is sent, so that a store that is down is a 503.
    let first = list_batch(&server, &prefix, None).await?;
    let start = Some((None, Some(first)));
    let batches = stream::unfold(start, move |state| {
        let (server, prefix) = (Arc::clone(&server), prefix.clone());
        async move {
            let (after, ready): (Option<String>, _) = state?;
            let batch = match ready {
                Some(batch) => Ok(batch),
                None => list_batch(&server, &prefix, after.as_deref()).await,
            };
            Some(match batch {
                Ok(batch) => {
                    let full = batch.len() == LIST_BATCH;
                    let last = batch.last().filter(|_| full);
                    let next = last.map(|last| (Some(last.nskey.clone()), None));
                    (lines(&batch), next)
                }
                Err(refusal) => {
                    // The status is sent already: the body ends before its end.
                    error!(?refusal, "a list of namespaces broke off");
                    (Err("the list broke off".to_owned()), None)
                }
            })
        }
    });
    let content_type = HeaderValue::from_static("application/x-ndjson");
    Ok(([(CONTENT_TYPE, content_type)], Body::from_stream(batches)).into_response())
}

async fn list_batch(
    server: &Shared,
    prefix: &str,
    after: Option<&str>,
) -> Result<Vec<ListedNamespace>, Refusal> {
    let work = server.store.list_namespaces(prefix, after, LIST_BATCH);
    server.read("list_namespace", server.deadline(), work).await
}

fn lines(batch: &[ListedNamespace]) -> Result<String, String> {
    let mut text = String::new();
    for namespace in batch {
        text += &serde_json::to_string(namespace).map_err(|error| error.to_string())?;
        text.push('\n');
    }
    Ok(text)
}

/// What a fork is to be a fork of.
fn base_of(base: OverlayBase) -> Result<(NamespaceId, Version), Refusal> {
    let id = base.ns_id.parse().map_err(Refusal::malformed)?;
    let at = base.snapshot_version.parse().map_err(Refusal::malformed)?;
    Ok((id, at))
}

/// The original's status and words where they differ from ours.
fn as_the_original_says(refusal: Refusal) -> Refusal {
    match refusal.code() {
        Code::NamespaceExists => Refusal::new(Code::NamespaceExists, "this key already exists")
            .with_status(StatusCode::UNPROCESSABLE_ENTITY),
        // The base of a fork: truncated past the version, locked, or too far from its own base.
        Code::SnapshotTooOld | Code::Locked | Code::TooLarge => {
            refusal.with_status(StatusCode::CONFLICT)
        }
        _ => refusal,
    }
}
