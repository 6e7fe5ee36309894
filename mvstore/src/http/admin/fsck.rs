//! `/v2/admin/fsck`: the server checks its store and sends what it finds, a line of JSON each, with
//! progress about every second; at last `done` or `error`.
//!
//! One check at a time, so that it never takes more than one server's share of the engine, and not
//! faster than it is told. It ends when its client goes or the server stops.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use mvsqlite_protocol::Code;
use serde::Deserialize;
use tokio::sync::mpsc::{self, Sender};
use tracing::{info, warn};

use super::Server;
use crate::fsck::{Event, FsckError};
use crate::fsck_command::{Done, Line, PROGRESS};
use crate::http::Shared;
use crate::http::exchange::Permit;
use crate::http::reply::Refusal;

/// Read in a second where the caller does not say: a part of what a disk gives.
const BYTES_PER_SECOND: u64 = 64 << 20;
/// Lines that wait for a client that reads slowly. One that lets more findings pile up is left.
const LINES: usize = 10_000;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    sqlite: bool,
    bytes_per_second: Option<u64>,
}

pub(super) async fn fsck(
    State(server): Server,
    query: Result<Query<Asked>, QueryRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Query(asked) = query.map_err(|error| Refusal::malformed(error.body_text()))?;
    let permit = request.extensions().get::<Permit>().cloned();
    let Ok(turn) = Arc::clone(&server.fsck).try_acquire_owned() else {
        return Err(
            Refusal::new(Code::Unavailable, "another check of the store is running")
                .hint("wait until it has ended"),
        );
    };
    let (lines, to_send) = mpsc::channel(LINES);
    let shared = Arc::clone(&server);
    server.tasks.spawn(async move {
        // The check may be waiting for its pace when nobody wants it any more.
        tokio::select! {
            () = run(&shared, &asked, &lines) => {}
            () = lines.closed() => info!("the check of the store was left by its caller"),
            () = shared.stopping.cancelled() => info!("the check of the store was ended by the shutdown"),
        }
        drop((turn, permit));
    });
    let body = stream::unfold(to_send, |mut to_send| async {
        let line: String = to_send.recv().await?;
        Some((Ok::<_, Infallible>(line), to_send))
    });
    let content_type = HeaderValue::from_static("application/x-ndjson");
    Ok(([(CONTENT_TYPE, content_type)], Body::from_stream(body)).into_response())
}

async fn run(server: &Shared, asked: &Asked, lines: &Sender<String>) {
    let since = Instant::now();
    let rate = asked.bytes_per_second.unwrap_or(BYTES_PER_SECOND);
    let mut told = Instant::now();
    let mut findings = 0u64;
    let tell = |event| {
        if lines.is_closed() || server.stopping.is_cancelled() {
            return ControlFlow::Break(());
        }
        match event {
            // Progress that is not read in time is left out.
            Event::Progress(_) if told.elapsed() < PROGRESS || lines.capacity() < LINES / 2 => {
                ControlFlow::Continue(())
            }
            Event::Progress(counts) => {
                told = Instant::now();
                send(lines, &Line::Progress(counts))
            }
            Event::Found(finding) => {
                warn!(%finding, "the check of the store found something");
                findings += 1;
                send(lines, &Line::Finding(finding))
            }
        }
    };
    let checked = server.store.fsck(asked.sqlite, Some(rate), tell).await;
    let seconds = since.elapsed().as_secs_f64();
    let last = match checked {
        Ok(counts) => {
            info!(findings, seconds, "the store was checked");
            Line::Done(Done { counts, seconds })
        }
        Err(FsckError::Stopped) => {
            info!(findings, seconds, "the check of the store was stopped");
            Line::Error("the check was stopped before its end".to_owned())
        }
        Err(error) => {
            warn!(%error, findings, "the store could not be checked");
            Line::Error(error.to_string())
        }
    };
    // A client that has gone does not need to know.
    let _ = send(lines, &last);
}

fn send(lines: &Sender<String>, line: &Line) -> ControlFlow<()> {
    let text = serde_json::to_string(line).ok();
    let sent = text.and_then(|text| lines.try_send(text + "\n").ok());
    match sent {
        Some(()) => ControlFlow::Continue(()),
        None => ControlFlow::Break(()),
    }
}
