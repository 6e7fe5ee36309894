//! The calls of data plane v2, typed, tried again where that is harmless.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mvsqlite_protocol::v2::{
    self, BeginReply, BeginRequest, ReadRequest, ResolveReply, ResolveRequest,
};
use mvsqlite_protocol::{Code, NamespaceKey, PageImage, Problem, problem};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::CallError;
use super::retry::Attempts;
use super::transport::{Reply, Request, Transport};
use crate::system::System;

/// One data plane: its servers and how they are called.
pub(crate) struct DataPlane {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) system: Arc<dyn System>,
    pub(super) timeout: Duration,
    /// The server that answered last; drawn at random at first, so that clients spread.
    preferred: AtomicUsize,
}

/// One attempt that did not bring what was asked for.
pub(super) enum Failure {
    /// Worth another attempt.
    Again {
        /// Whether the call may have had its effect all the same.
        maybe_done: bool,
        /// What went wrong.
        reason: String,
    },
    /// The server gave an answer, and another attempt would bring the same.
    Final(CallError),
}

impl DataPlane {
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        system: Arc<dyn System>,
        timeout: Duration,
    ) -> Self {
        let mut random = [0; 4];
        let start = match system.fill_random(&mut random) {
            Ok(()) => u32::from_ne_bytes(random) as usize,
            Err(_) => 0,
        };
        Self {
            preferred: AtomicUsize::new(start % transport.servers().len().max(1)),
            transport,
            system,
            timeout,
        }
    }

    pub(super) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    pub(super) fn prefer(&self, server: usize) {
        self.preferred.store(server, Ordering::Relaxed);
    }

    pub(crate) fn begin(
        &self,
        key: &NamespaceKey,
        request: &BeginRequest,
    ) -> Result<BeginReply, CallError> {
        self.call(key, "begin", request, decode)
    }

    pub(crate) fn resolve(
        &self,
        key: &NamespaceKey,
        request: &ResolveRequest,
    ) -> Result<ResolveReply, CallError> {
        self.call(key, "resolve", request, decode)
    }

    /// One image for each page asked for, ascending; perhaps not to the end, but at least one.
    pub(crate) fn read(
        &self,
        key: &NamespaceKey,
        request: &ReadRequest,
    ) -> Result<Vec<PageImage>, CallError> {
        expected(self.call(key, "read", request, decode_images)?, request)
    }

    /// As [`Self::read`], with a single attempt.
    pub(crate) fn read_once(
        &self,
        key: &NamespaceKey,
        request: &ReadRequest,
    ) -> Result<Vec<PageImage>, CallError> {
        let path = v2::path(key, "read");
        let body = encode(request)?;
        let sent = self.attempt(self.preferred(), &path, &body, self.timeout);
        match sent {
            Ok(body) => expected(decode_images(&body)?, request),
            Err(Failure::Final(error)) => Err(error),
            Err(Failure::Again { reason, .. }) => Err(CallError::BadReply(reason)),
        }
    }

    /// A call that may be sent as often as one likes.
    pub(super) fn call<Q: Serialize, R>(
        &self,
        key: &NamespaceKey,
        call: &str,
        request: &Q,
        decode: fn(&[u8]) -> Result<R, CallError>,
    ) -> Result<R, CallError> {
        self.call_encoded(&v2::path(key, call), &encode(request)?, decode)
    }

    /// As [`Self::call`], of a request that is encoded.
    pub(super) fn call_encoded<R>(
        &self,
        path: &str,
        body: &[u8],
        decode: fn(&[u8]) -> Result<R, CallError>,
    ) -> Result<R, CallError> {
        let mut attempts = Attempts::start(self);
        loop {
            match self.attempt(attempts.server(), path, body, self.timeout) {
                Ok(body) => {
                    attempts.answered();
                    return decode(&body);
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again { reason, .. }) => {
                    if !attempts.again() {
                        return Err(attempts.unreachable(reason));
                    }
                }
            }
        }
    }

    /// Sends a request once.
    pub(super) fn attempt(
        &self,
        server: usize,
        path: &str,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let request = Request { path, body };
        match self.transport.call(server, request, timeout) {
            Ok(reply) => judge(reply),
            Err(error) => Err(Failure::Again {
                maybe_done: error.maybe_sent,
                reason: error.reason,
            }),
        }
    }
}

/// Tells answers from refusals, and refusals from failures on the way.
fn judge(reply: Reply) -> Result<Vec<u8>, Failure> {
    let content_type = reply.content_type.as_deref().unwrap_or_default();
    if reply.status == 200 && content_type.starts_with(v2::CONTENT_TYPE) {
        return Ok(reply.body);
    }
    if reply.status >= 400 && content_type.starts_with(problem::CONTENT_TYPE) {
        return Err(match serde_json::from_slice::<Problem>(&reply.body) {
            Ok(problem) => judge_problem(problem),
            Err(error) => bad_reply(format!(
                "the server answered with status {} and an unreadable problem: {error}",
                reply.status
            )),
        });
    }
    // Not from mvstore: something on the way to it.
    if matches!(reply.status, 408 | 429 | 502..=504) {
        return Err(Failure::Again {
            maybe_done: true,
            reason: format!("status {} from something on the way", reply.status),
        });
    }
    Err(bad_reply(format!(
        "an answer with status {} and content type '{content_type}'",
        reply.status
    )))
}

fn judge_problem(problem: Problem) -> Failure {
    match problem.code {
        Code::Unavailable => Failure::Again {
            maybe_done: false,
            reason: problem.detail,
        },
        Code::Timeout | Code::OutcomeUnknown => Failure::Again {
            maybe_done: true,
            reason: problem.detail,
        },
        _ => Failure::Final(CallError::Refused(Box::new(problem))),
    }
}

fn bad_reply(text: String) -> Failure {
    Failure::Final(CallError::BadReply(text))
}

pub(super) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CallError> {
    v2::encode(message)
        .map_err(|error| CallError::BadReply(format!("a request could not be encoded: {error}")))
}

pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    v2::decode(body).map_err(|error| CallError::BadReply(error.to_string()))
}

/// The images of a read, if they are of the pages asked for, from the first on.
fn expected(images: Vec<PageImage>, request: &ReadRequest) -> Result<Vec<PageImage>, CallError> {
    let mut asked = request.pages.iter();
    if images.is_empty() || !images.iter().all(|image| asked.next() == Some(image.index)) {
        let text = "the answer to a read holds other pages than were asked for";
        return Err(CallError::BadReply(text.to_owned()));
    }
    Ok(images)
}

fn decode_images(mut body: &[u8]) -> Result<Vec<PageImage>, CallError> {
    let mut images = Vec::new();
    while !body.is_empty() {
        let image = v2::decode_next(&mut body);
        images.push(image.map_err(|error| CallError::BadReply(error.to_string()))?);
    }
    Ok(images)
}
