//! The seam under the client: one request to one server, one reply.

use std::sync::Arc;
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

/// A request that is not one of data plane v2: `POST path` with any body.
#[derive(Debug, Clone, Copy)]
pub struct PlainRequest<'a> {
    /// Path, percent-encoded, beginning with a slash.
    pub path: &'a str,
    /// Headers besides those that every request has.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// The reply to a [`PlainRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainReply {
    /// The HTTP status.
    pub status: u16,
    /// Headers by their names in lower case, those that are text.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
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

    /// As [`Transport::call`], for what is not of data plane v2.
    ///
    /// # Errors
    /// As [`Transport::call`]; always if this transport knows nothing but data plane v2.
    fn plain_call(
        &self,
        _server: usize,
        _request: PlainRequest<'_>,
        _timeout: Duration,
    ) -> Result<PlainReply, TransportError> {
        Err(TransportError {
            maybe_sent: false,
            reason: "this transport carries data plane v2 only".to_owned(),
        })
    }

    /// This transport with these headers on every request; `None` if it has no headers.
    fn with_headers(&self, _headers: &[(&'static str, String)]) -> Option<Arc<dyn Transport>> {
        None
    }
}
