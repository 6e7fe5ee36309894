//! Whether the process runs, and whether it can serve. On every listener.
//!
//! A store whose disk is full is ready: it serves reads, and whoever takes it out of service for
//! that takes the reads away too.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use super::Shared;
use crate::error::StoreError;

/// How long the engine may take to say that it is well.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";

/// Whether the path is answered here.
pub(super) fn is_health(path: &str) -> bool {
    path == HEALTHZ || path == READYZ
}

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route(HEALTHZ, get(|| async { "ok\n" }))
        .route(READYZ, get(ready))
}

async fn ready(State(server): State<Arc<Shared>>) -> (StatusCode, String) {
    let not_ready = |reason: String| {
        let line = format!("not ready: {reason}\n");
        (StatusCode::SERVICE_UNAVAILABLE, line)
    };
    if server.stopping.is_cancelled() {
        return not_ready("the server is shutting down".into());
    }
    match tokio::time::timeout(CHECK_TIMEOUT, server.store.check()).await {
        Ok(Ok(())) => (
            StatusCode::OK,
            format!("ready: {}\n", server.store.describe()),
        ),
        Ok(Err(full @ StoreError::StorageFull { .. })) => (
            StatusCode::OK,
            format!(
                "ready: {}; reading works, writing is refused: {full}\n",
                server.store.describe()
            ),
        ),
        Ok(Err(error)) => not_ready(error.to_string()),
        Err(_) => not_ready(format!(
            "{} did not answer within {CHECK_TIMEOUT:?}",
            server.store.describe()
        )),
    }
}
