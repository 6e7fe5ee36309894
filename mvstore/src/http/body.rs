//! Request bodies within their limits, and the memory that bodies take together.
//!
//! A body up to [`FREE_BYTES`] is bounded by the number of requests. For a larger one memory is
//! reserved before the first byte is read; if there is none, the request waits with its body
//! unread, up to its deadline, which slows its client down and nobody else.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use bytes::Bytes;
use mvsqlite_protocol::{Code, PageSet, page, v1, v2};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Shared;
use super::reply::Refusal;

/// Bodies up to this size are not counted.
pub(super) const FREE_BYTES: u64 = 64 << 10;
/// What one permit of the budget stands for.
const UNIT_BYTES: u64 = 1024;
/// Room for what a message has besides pages and page sets.
const MESSAGE_BYTES: u64 = 16 << 10;
/// Room for the names and versions of a commit's namespaces.
const GROUP_BYTES: u64 = (v2::MAX_GROUP as u64) << 10;
/// A run of pages: an array head and two integers of up to 5 bytes.
const RUN_BYTES: u64 = 11;
/// Most runs of a commit's read set: one for every other page of an 8 GiB database of 8 KiB pages.
const READ_SET_RUNS: u64 = 1 << 19;

/// A page that a commit of protocol v1 names by its hash: 66 bytes with an index of five.
const V1_REFERENCE_BYTES: u64 = 128;

/// The largest body of each kind of call.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    /// begin, resolve, settle.
    pub(super) small: u64,
    pub(super) read: u64,
    pub(super) stage: u64,
    pub(super) commit: u64,
    pub(super) v1_read: u64,
    pub(super) v1_write: u64,
    pub(super) v1_commit: u64,
}

/// The largest body of the admin API, as in the original.
pub(super) const ADMIN_BODY: u64 = 40_960;

impl BodyLimits {
    pub(super) fn new(limits: &v2::Limits) -> Self {
        // Each page comes with its index, two names and two heads: 30 bytes at most, for 512 bytes
        // of content at least.
        let with_heads = |content: u64| content + content / 16 + MESSAGE_BYTES;
        let frames = |count: usize| (count * (v1::FRAME_HEAD + v1::MAX_FRAME)) as u64;
        let pages_of = |bytes: u64| bytes / u64::from(page::MIN_PAGE_SIZE);
        Self {
            small: MESSAGE_BYTES,
            read: MESSAGE_BYTES + u64::from(limits.read_pages) * RUN_BYTES,
            stage: with_heads(limits.stage_batch_bytes)
                + pages_of(limits.stage_batch_bytes) * RUN_BYTES,
            commit: with_heads(limits.inline_bytes) + READ_SET_RUNS * RUN_BYTES + GROUP_BYTES,
            v1_read: frames(v1::MAX_READS),
            v1_write: frames(v1::MAX_WRITES + 1),
            v1_commit: frames(1 + v1::MAX_NAMESPACES + v1::MAX_INLINE_PAGES)
                + v1::MAX_COMMIT_PAGES as u64 * V1_REFERENCE_BYTES,
        }
    }

    fn largest(&self) -> u64 {
        let v2 = self.small.max(self.read).max(self.stage).max(self.commit);
        v2.max(self.v1_read).max(self.v1_write).max(self.v1_commit)
    }
}

/// The memory for bodies, requests' and replies', over all requests.
pub(super) struct Budget {
    units: Arc<Semaphore>,
    pub(super) bodies: BodyLimits,
}

/// Memory reserved for a body; given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Charge(Option<OwnedSemaphorePermit>);

impl Charge {
    /// Gives back what is not needed.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        let Some(permit) = &mut self.0 else { return };
        let needed = usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX);
        let surplus = permit.num_permits().saturating_sub(needed);
        drop(permit.split(surplus));
    }
}

impl Budget {
    /// A budget of so many MiB, or as much as the largest body and reply need.
    pub(super) fn new(mebibytes: u32, limits: &v2::Limits) -> Self {
        let bodies = BodyLimits::new(limits);
        let least = bodies.largest().max(limits.read_bytes);
        let bytes = (u64::from(mebibytes) << 20).max(least + UNIT_BYTES);
        let units = usize::try_from(bytes / UNIT_BYTES).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
            bodies,
        }
    }

    /// Reserves memory, waiting for it up to the deadline.
    pub(super) async fn reserve(&self, bytes: u64, deadline: Instant) -> Result<Charge, Refusal> {
        if bytes <= FREE_BYTES {
            return Ok(Charge::default());
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.units).acquire_many_owned(units);
        match tokio::time::timeout_at(deadline, permit).await {
            Ok(Ok(permit)) => Ok(Charge(Some(permit))),
            _ => Err(Refusal::new(
                Code::Unavailable,
                "the server has no memory for this body now",
            )
            .hint("try again")),
        }
    }

    /// Reserves memory for the reply to a read.
    pub(super) async fn reserve_reply(
        &self,
        pages: &PageSet,
        limits: &v2::Limits,
        deadline: Instant,
    ) -> Result<Charge, Refusal> {
        let most = pages.len().saturating_mul(u64::from(page::MAX_PAGE_SIZE));
        self.reserve(most.min(limits.read_bytes), deadline).await
    }
}

impl Budget {
    /// Reserves memory for the reply to a read of so many pages by protocol v1.
    pub(super) async fn reserve_pages(
        &self,
        pages: usize,
        deadline: Instant,
    ) -> Result<Charge, Refusal> {
        let most = (pages * v1::MAX_PAGE) as u64;
        self.reserve(most, deadline).await
    }
}

/// A body that has arrived, and the memory it takes.
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) charge: Charge,
}

impl Shared {
    /// Receives a body of at most `limit` bytes before the deadline and the body timeout.
    pub(super) async fn receive(
        &self,
        request: Request<Body>,
        limit: u64,
        deadline: Instant,
    ) -> Result<Received, Refusal> {
        let announced = announced_length(&request);
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        let deadline = deadline.min(Instant::now() + self.limits.body_timeout);
        let expected = announced.unwrap_or(limit);
        let charge = self.budget.reserve(expected, deadline).await?;
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let receiving = axum::body::to_bytes(request.into_body(), most);
        match tokio::time::timeout_at(deadline, receiving).await {
            Ok(Ok(bytes)) => Ok(Received { bytes, charge }),
            Ok(Err(error)) if is_length_limit(&error) => Err(too_large(limit)),
            Ok(Err(error)) => Err(Refusal::malformed(format!("the body broke off: {error}"))),
            Err(_) => Err(Refusal::new(
                Code::Timeout,
                format!(
                    "the body did not arrive within {:?}",
                    self.limits.body_timeout
                ),
            )
            .with_status(StatusCode::REQUEST_TIMEOUT)),
        }
    }
}

fn announced_length(request: &Request<Body>) -> Option<u64> {
    let text = request.headers().get(CONTENT_LENGTH)?.to_str().ok()?;
    text.parse().ok()
}

fn too_large(limit: u64) -> Refusal {
    Refusal::new(
        Code::TooLarge,
        format!("the body is larger than the {limit} bytes this call takes"),
    )
    .hint("keep to the limits that begin answers; stage large transactions in several batches")
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
