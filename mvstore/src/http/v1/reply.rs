//! Answers and refusals as the original's clients know them.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use mvsqlite_protocol::Code;
use mvsqlite_protocol::v1::{self, ReadReply, ReadRequest, push};

use crate::error::StoreError;
use crate::http::body::{Charge, FREE_BYTES};
use crate::http::reply::{self, Refusal};
use crate::v1::{CommitError, ReadPage};

/// How hard pages are compressed: as little as possible, for it has to be quick.
const ZSTD_LEVEL: i32 = 1;

/// A call that is not done: a status and a few words.
#[derive(Debug)]
pub(in crate::http) struct Refused {
    status: StatusCode,
    text: String,
    /// For the log.
    code: Code,
}

impl Refused {
    pub(super) fn new(status: StatusCode, text: impl ToString) -> Self {
        let code = match status {
            StatusCode::CONFLICT => Code::Conflict,
            status if status.is_server_error() => Code::Unavailable,
            _ => Code::Malformed,
        };
        Self {
            status,
            text: text.to_string(),
            code,
        }
    }

    /// What makes a client send the same again.
    pub(super) fn again(text: impl ToString) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    /// What is hopeless to send again.
    pub(super) fn bad(text: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn internal(error: impl ToString) -> Self {
        Self {
            code: Code::Internal,
            ..Self::again(error)
        }
    }

    /// `/stat` is refused with 404 or 410, or to be sent again.
    pub(super) fn for_stat(self) -> Self {
        match self.status {
            StatusCode::NOT_FOUND | StatusCode::GONE => self,
            status if status.is_server_error() => self,
            _ => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                ..self
            },
        }
    }

    /// A page that is damaged stays so: its reader is told, and does not ask for ever.
    pub(super) fn for_read(self) -> Self {
        match self.code {
            Code::Corrupt => Self {
                status: StatusCode::GONE,
                ..self
            },
            _ => self,
        }
    }
}

/// The store's refusal of a call that is no commit.
pub(super) fn refused(error: StoreError) -> Refused {
    let code = error.code();
    let (status, text) = match &error {
        StoreError::NamespaceNotFound { .. } => {
            (StatusCode::NOT_FOUND, "namespace not found".to_owned())
        }
        StoreError::SnapshotTooOld { .. } | StoreError::VersionUnknown { .. } => {
            (StatusCode::GONE, error.to_string())
        }
        StoreError::BadPages { .. } => (StatusCode::BAD_REQUEST, error.to_string()),
        StoreError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        _ => (at_least_500(code.status()), error.to_string()),
    };
    Refused { status, text, code }
}

fn at_least_500(status: u16) -> StatusCode {
    let status = StatusCode::from_u16(status).ok();
    let status = status.filter(StatusCode::is_server_error);
    status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl From<Refusal> for Refused {
    /// Of a body that did not arrive, or a deadline: what may go better next time.
    fn from(refusal: Refusal) -> Self {
        let code = refusal.code();
        let status = match code {
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            _ => at_least_500(refusal.status().as_u16()),
        };
        Self {
            status,
            text: refusal.into_detail(),
            code,
        }
    }
}

impl From<v1::CommitError> for Refused {
    fn from(error: v1::CommitError) -> Self {
        let status = match error {
            v1::CommitError::Namespaces => StatusCode::PRECONDITION_FAILED,
            v1::CommitError::NotDistinct | v1::CommitError::Hash => StatusCode::BAD_REQUEST,
            v1::CommitError::Pages | v1::CommitError::InlinePages | v1::CommitError::InlinePage => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self {
            code: Code::Malformed,
            ..Self::new(status, error)
        }
    }
}

impl From<CommitError> for Refused {
    fn from(error: CommitError) -> Self {
        let gone = |text: &str| Self {
            code: Code::StageInvalid,
            ..Self::new(StatusCode::GONE, text)
        };
        let error = match error {
            CommitError::BadReference => return gone("bad page reference"),
            CommitError::Store(StoreError::LockNotHeld { .. }) => return gone(""),
            CommitError::Version(_) => return Self::again(error),
            CommitError::Store(error) => error,
        };
        match error {
            // What ends a transaction and not its process.
            StoreError::Conflict { .. }
            | StoreError::Locked { .. }
            | StoreError::Aborted { .. }
            | StoreError::KeyReused { .. }
            | StoreError::SnapshotTooOld { .. }
            | StoreError::VersionUnknown { .. }
            | StoreError::NamespaceChanged { .. } => Self {
                code: error.code(),
                ..Self::new(StatusCode::CONFLICT, "")
            },
            error => refused(error),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.text.clone()));
        *response.status_mut() = self.status;
        response.extensions_mut().insert(reply::Refused {
            code: self.code,
            detail: self.text,
        });
        response
    }
}

/// Frames as a body. While more than a little of it waits to be sent, it counts as memory.
pub(super) fn body(bytes: Vec<u8>, charge: Charge) -> Response {
    if bytes.len() as u64 <= FREE_BYTES {
        return Response::new(Body::from(bytes));
    }
    let pieces = stream::unfold(
        (Some(Bytes::from(bytes)), charge),
        |(bytes, charge)| async { Some((Ok::<_, String>(bytes?), (None, charge))) },
    );
    Response::new(Body::from_stream(pieces))
}

/// The reply to a read: a frame for each item, in order.
pub(super) fn pages<'a>(
    asked: impl Iterator<Item = &'a ReadRequest<'a>>,
    found: &[Option<ReadPage>],
    wire_zstd: bool,
) -> Result<Vec<u8>, Refused> {
    let mut reply = Vec::new();
    let mut compressor = None;
    for (request, page) in asked.zip(found) {
        let Some(page) = page else {
            let none = ReadReply {
                version: "",
                data: &[],
                zstd: false,
            };
            push(&mut reply, &none).map_err(Refused::internal)?;
            continue;
        };
        let from = page.from.map(|from| from.to_string());
        let compressed = match wire_zstd && request.accept_zstd {
            true => compress(&mut compressor, &page.content),
            false => None,
        };
        let message = ReadReply {
            version: from.as_deref().unwrap_or(request.version),
            data: compressed.as_deref().unwrap_or(&page.content),
            zstd: compressed.is_some(),
        };
        push(&mut reply, &message).map_err(Refused::internal)?;
    }
    Ok(reply)
}

/// Content as a zstd frame, if that is shorter. One compressor serves a reply: making one costs more
/// than a page.
fn compress(
    compressor: &mut Option<zstd::bulk::Compressor<'static>>,
    content: &[u8],
) -> Option<Vec<u8>> {
    if compressor.is_none() {
        *compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
    }
    let compressed = compressor.as_mut()?.compress(content).ok()?;
    (compressed.len() < content.len()).then_some(compressed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_refused_with_404_or_410_only() {
        for (status, expected) in [(400, 500), (403, 500), (404, 404), (410, 410), (503, 503)] {
            let refused = Refused::new(StatusCode::from_u16(status).unwrap(), "");
            assert_eq!(refused.for_stat().status.as_u16(), expected);
        }
    }
}
