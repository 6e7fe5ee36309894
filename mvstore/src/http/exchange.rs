//! One request and its answer: the request id, the limit on requests in work, the log line.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::ORIGIN;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use mvsqlite_protocol::Code;
use tokio::sync::OwnedSemaphorePermit;
use tower::Service;
use tracing::{Level, debug, error, info};

use super::Shared;
use super::health;
use super::reply::{Refusal, Refused};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over from a client, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// A request's place among those in work; in the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Permit(
    #[expect(dead_code, reason = "held, not looked at")] Arc<OwnedSemaphorePermit>,
);

/// Makes request ids: a random start for each process, then counted.
pub(super) struct RequestIds {
    process: u32,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        Self {
            // Without randomness the ids of two processes may be alike, which only confuses logs.
            process: getrandom::u32().unwrap_or_default(),
            next: AtomicU64::new(1),
        }
    }

    /// The client's own id if it is visible ASCII of a sane length, else a new one.
    fn of(&self, request: &Request<Incoming>) -> HeaderValue {
        let sane = |id: &&HeaderValue| {
            (1..=MAX_REQUEST_ID).contains(&id.len())
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        if let Some(id) = request.headers().get(&REQUEST_ID).filter(sane) {
            return id.clone();
        }
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:08x}-{count:x}", self.process);
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("0"))
    }
}

/// What one listener serves.
pub(super) struct Plane {
    shared: Arc<Shared>,
    router: Router,
}

impl Plane {
    pub(super) fn new(shared: Arc<Shared>, router: Router) -> Self {
        Self { shared, router }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Answers a request. Dropping the future gives reads up; writes go on.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response {
        let started = Instant::now();
        let id = self.shared.request_ids.of(&request);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let mut response = self.admit(request).await;
        log(&id, &method, &uri, &response, started);
        response.headers_mut().insert(REQUEST_ID.clone(), id);
        response
    }

    async fn admit(&self, request: Request<Incoming>) -> Response {
        let mut request = request.map(Body::new);
        // Health is asked for most urgently when there are too many requests.
        if !health::is_health(request.uri().path()) {
            if request.headers().contains_key(ORIGIN) {
                return from_a_browser().into_response();
            }
            match Arc::clone(&self.shared.requests).try_acquire_owned() {
                Ok(permit) => {
                    request.extensions_mut().insert(Permit(Arc::new(permit)));
                }
                Err(_) => return too_many().into_response(),
            }
        }
        let answered: Result<Response, Infallible> = self.router.clone().call(request).await;
        match answered {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Browsers name the page's origin in everything that a page may change things with. No page has
/// business here, and without this rule any page that somebody looks at on the store's machine
/// could reach the listeners on loopback.
fn from_a_browser() -> Refusal {
    Refusal::new(
        Code::Forbidden,
        "requests from web pages (with an Origin header) are not served",
    )
}

fn too_many() -> Refusal {
    Refusal::new(
        Code::Unavailable,
        "the server has as many requests in work as it takes",
    )
    .hint("try again")
}

/// The namespace key as it stands in a data-plane path, percent-encoded.
fn namespace_in(path: &str) -> Option<&str> {
    path.strip_prefix("/v2/ns/")?.split('/').next()
}

/// Each request at debug, refusals at the level of whom they concern, the server's own failures
/// at error. Bodies and header values other than the id are not logged.
fn log(id: &HeaderValue, method: &Method, uri: &Uri, response: &Response, started: Instant) {
    let status = response.status();
    let refused = response.extensions().get::<Refused>();
    let level = match refused.map(|refused| refused.code) {
        Some(Code::Internal | Code::Corrupt) => Level::ERROR,
        Some(Code::Unavailable | Code::Timeout | Code::OutcomeUnknown | Code::StorageFull) => {
            Level::INFO
        }
        _ => Level::DEBUG,
    };
    if !enabled(level) {
        return;
    }
    let id = id.to_str().unwrap_or_default();
    let path = uri.path();
    let namespace = namespace_in(path);
    let status = status.as_u16();
    let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    // As it stands in the reply.
    let code = refused.and_then(|refused| serde_json::to_value(refused.code).ok());
    let code = code.as_ref().and_then(serde_json::Value::as_str);
    let detail = refused.map(|refused| refused.detail.as_str());
    macro_rules! line {
        ($at:ident) => {
            $at!(request_id = id, %method, path, namespace, status, duration_us, code, detail, "request")
        };
    }
    match level {
        Level::ERROR => line!(error),
        Level::INFO => line!(info),
        _ => line!(debug),
    }
}

fn enabled(level: Level) -> bool {
    match level {
        Level::ERROR => true,
        Level::INFO => tracing::enabled!(Level::INFO),
        _ => tracing::enabled!(Level::DEBUG),
    }
}

/// No such path.
pub(super) fn not_found(uri: &Uri) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no '{}' here", uri.path()))
        .hint("a data-plane path is /v2/ns/KEY/CALL, with each '/' in KEY as %2F")
}

/// The path is there, for other methods.
pub(super) fn method_not_allowed(method: &Method, allowed: &'static str) -> Refusal {
    Refusal::malformed(format!("{method} is not what this path takes"))
        .hint(format!("use {allowed}"))
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
        .with_allow(&HeaderValue::from_static(allowed))
}
