//! Calls that collect garbage and tell how far they are: lines of running counts, then `DONE` or
//! `ERROR`.
//!
//! The work runs in a task of its own, counted by the server's shutdown, and looks after each step
//! whether its caller is still there and whether the server stops. How fast the caller reads does not
//! matter: counts that it does not read in time are left out, except for the last.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use mvsqlite_protocol::admin::{DeleteUnreferencedContent, TruncateNamespace};
use mvsqlite_protocol::{Code, Version};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::{Answer, Call, Server, namespace_key};
use crate::error::StoreError;
use crate::http::Shared;
use crate::http::exchange::Permit;
use crate::http::reply::Refusal;

pub(super) async fn truncate_namespace(State(server): Server, request: Request) -> Answer {
    let call = Call::<TruncateNamespace>::receive(&server, request).await?;
    let TruncateNamespace {
        key,
        before_version,
        apply,
    } = call.message;
    let key = namespace_key(key)?;
    let before = before_version.parse().map_err(Refusal::malformed)?;
    expect_old_enough(&server, before).await?;
    let store = Arc::clone(&server.store);
    let work = async move |progress: Progress| {
        let told = |count| progress.tell(count);
        let done = store.truncate_namespace(&key, before, apply, told).await?;
        if apply {
            info!(%key, horizon = %done.horizon, removed = done.page_versions, "history truncated");
        }
        Ok(done.is_complete)
    };
    Ok(counted(&server, "truncate_namespace", call.permit, work).await?)
}

/// History younger than the policy says is not truncated, not even to count it.
async fn expect_old_enough(server: &Shared, before: Version) -> Result<(), Refusal> {
    let min_age = server.original.truncate_min_age_seconds;
    if min_age == 0 {
        return Ok(());
    }
    let young = |detail: String| {
        Refusal::new(
            Code::Forbidden,
            format!("truncate_min_age policy: {detail}"),
        )
    };
    let now = server.store.unix_seconds();
    let then = server.store.time_to_version(now.saturating_sub(min_age));
    let bracket = server.read("truncate_namespace", server.deadline(), then);
    match bracket.await?.after {
        Some(point) if before <= point.version => Ok(()),
        Some(point) => Err(young(format!(
            "{before} is not {min_age} seconds old; the newest version that is, is {}",
            point.version
        ))),
        None => Err(young(format!("no version is {min_age} seconds old yet"))),
    }
}

pub(super) async fn delete_unreferenced_content(State(server): Server, request: Request) -> Answer {
    let call = Call::<DeleteUnreferencedContent>::receive(&server, request).await?;
    let DeleteUnreferencedContent { key, apply } = call.message;
    let key = namespace_key(key)?;
    let store = Arc::clone(&server.store);
    let work = async move |progress: Progress| {
        let told = |count| progress.tell(count);
        store.delete_unreferenced(&key, apply, told).await
    };
    match counted(&server, "delete_unreferenced_content", call.permit, work).await {
        Err(refusal) if refusal.code() == Code::NamespaceNotFound => {
            Ok((StatusCode::BAD_REQUEST, "this key does not exist").into_response())
        }
        answer => Ok(answer?),
    }
}

/// Where a call tells how far it is.
struct Progress {
    counts: watch::Sender<u64>,
    server: Arc<Shared>,
}

impl Progress {
    fn tell(&self, count: u64) -> ControlFlow<()> {
        self.counts.send_if_modified(|told| {
            let more = *told != count;
            *told = count;
            more
        });
        if self.counts.is_closed() || self.server.stopping.is_cancelled() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// Runs the work and answers with its counts. It says whether it came to its end. A namespace that is
/// not there is found before the status is sent.
async fn counted<F>(
    server: &Arc<Shared>,
    name: &'static str,
    permit: Option<Permit>,
    work: impl FnOnce(Progress) -> F,
) -> Result<Response, Refusal>
where
    F: Future<Output = Result<bool, StoreError>> + Send + 'static,
{
    let (counts, told) = watch::channel(0);
    let progress = Progress {
        counts,
        server: Arc::clone(server),
    };
    let (tell_end, mut end) = oneshot::channel();
    let work = work(progress);
    server.tasks.spawn(async move {
        let ended = work.await;
        if let Err(error) = &ended {
            warn!(call = name, %error, "collecting ended before its end");
        }
        drop(permit);
        // A caller who has gone does not need to know.
        let _ = tell_end.send(ended);
    });
    let mut first = told.clone();
    let early = tokio::select! {
        biased;
        ended = &mut end => Some(ended),
        _ = first.changed() => None,
    };
    if let Some(Ok(Err(missing @ StoreError::NamespaceNotFound { .. }))) = early {
        return Err(missing.into());
    }
    let lines = Lines {
        told,
        said: 0,
        end: match early {
            Some(ended) => End::Known(matches!(ended, Ok(Ok(true)))),
            None => End::ToCome(end),
        },
    };
    let lines = stream::unfold(Some(lines), |lines| async { Some(lines?.next().await) });
    Ok(Body::from_stream(lines).into_response())
}

/// The lines that are still to be sent.
struct Lines {
    told: watch::Receiver<u64>,
    /// The count that was sent last.
    said: u64,
    end: End,
}

/// How the work ends.
enum End {
    /// It came to its end, or not.
    Known(bool),
    ToCome(oneshot::Receiver<Result<bool, StoreError>>),
}

impl Lines {
    /// The next piece, and what follows it.
    async fn next(mut self) -> (Result<String, Infallible>, Option<Self>) {
        while self.told.changed().await.is_ok() {
            let count = *self.told.borrow_and_update();
            if count != self.said {
                self.said = count;
                return (Ok(format!("{count}\n")), Some(self));
            }
        }
        // Nobody is there any more to tell a count.
        let is_complete = match self.end {
            End::Known(is_complete) => is_complete,
            End::ToCome(end) => matches!(end.await, Ok(Ok(true))),
        };
        let last = if is_complete { "DONE\n" } else { "ERROR\n" };
        (Ok(last.to_owned()), None)
    }
}
