//! The seam under the client: one request to one server, one reply.

use std::time::Duration;

/// One request: `POST path` with a MessagePack body.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Path, percent-encoded, beginning with a slash.
    pub path: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// What came back, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`, if there is one.
    pub content_type: Option<String>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// No reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TransportError {
    /// Whether the server may have received the request. False only when that is impossible, as
    /// when no connection could be made.
    pub maybe_sent: bool,
    /// What went wrong.
    pub reason: String,
}

/// Carries requests to the servers of one data plane.
pub trait Transport: Send + Sync {
    /// The servers, as they are named in messages; never empty.
    fn servers(&self) -> &[String];

    /// Sends one request to `servers()[server]` and waits for the whole reply, no longer than
    /// `timeout`. Never retries by itself.
    ///
    /// # Errors
    /// If there was no complete reply.
    fn call(
        &self,
        server: usize,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<Reply, TransportError>;
}
