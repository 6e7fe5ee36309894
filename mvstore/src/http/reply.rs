//! Answers and refusals as HTTP.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use mvsqlite_protocol::{Code, PageImage, Problem, problem, v2};
use serde::Serialize;

use super::body::Charge;
use crate::error::StoreError;

/// Up to this many bytes of pages are one piece of a body.
const PIECE_BYTES: usize = 64 << 10;

/// A call that is not done. Becomes problem+json on the data plane, text on the admin API.
#[derive(Debug)]
pub(super) struct Refusal {
    problem: Box<Problem>,
    /// With 405: the methods that the path takes.
    allow: Option<HeaderValue>,
}

/// What the log says about a refusal; travels in the response's extensions.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) detail: String,
}

impl Refusal {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    pub(super) fn malformed(detail: impl ToString) -> Self {
        Self::new(Code::Malformed, detail.to_string())
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }

    /// With another status than the code's own.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.problem.status = status.as_u16();
        self
    }

    pub(super) fn with_allow(mut self, methods: &HeaderValue) -> Self {
        self.allow = Some(methods.clone());
        self
    }

    pub(super) fn code(&self) -> Code {
        self.problem.code
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn into_detail(self) -> String {
        self.problem.detail
    }

    /// The refusal as the original's admin API words it: a line of text.
    pub(super) fn into_text(self) -> Response {
        let line = match &self.problem.hint {
            Some(hint) => format!("{}; {hint}\n", self.problem.detail),
            None => format!("{}\n", self.problem.detail),
        };
        let response = (self.status(), line).into_response();
        self.finish(response)
    }

    fn finish(self, mut response: Response) -> Response {
        if self.problem.code.is_retryable() {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(methods) = self.allow {
            response.headers_mut().insert(ALLOW, methods);
        }
        response.extensions_mut().insert(Refused {
            code: self.problem.code,
            detail: self.problem.detail,
        });
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self {
            problem: Box::new(problem),
            allow: None,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // A problem is text and numbers: it always has a JSON form.
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let content_type = HeaderValue::from_static(problem::CONTENT_TYPE);
        let response = (self.status(), [(CONTENT_TYPE, content_type)], body).into_response();
        self.finish(response)
    }
}

/// A message of data plane v2.
pub(super) fn message<T: Serialize>(message: &T) -> Result<Response, Refusal> {
    Ok(packed(Body::from(encode(message)?)))
}

fn packed(body: Body) -> Response {
    let content_type = HeaderValue::from_static(v2::CONTENT_TYPE);
    ([(CONTENT_TYPE, content_type)], body).into_response()
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Refusal> {
    v2::encode(message).map_err(|error| {
        Refusal::new(
            Code::Internal,
            format!("the answer cannot be encoded: {error}"),
        )
    })
}

/// Page images, one behind the other. More than a piece of them is encoded piece by piece while
/// it is sent, and `charge` is given back when the last one is.
pub(super) fn page_images(images: Vec<PageImage>, charge: Charge) -> Result<Response, Refusal> {
    let mut images = images.into_iter();
    let first = next_piece(&mut images)?;
    if images.len() == 0 {
        return Ok(packed(Body::from(first)));
    }
    let pieces = stream::unfold(
        (Some(first), images, charge),
        |(first, mut images, charge)| async move {
            let piece = match first {
                Some(piece) => Ok(piece),
                None if images.len() == 0 => return None,
                None => next_piece(&mut images),
            };
            // An error ends the body before its end, which the client notices.
            let piece = piece.map_err(|refusal| refusal.problem.detail);
            Some((piece, (None, images, charge)))
        },
    );
    Ok(packed(Body::from_stream(pieces)))
}

fn next_piece(images: &mut std::vec::IntoIter<PageImage>) -> Result<Bytes, Refusal> {
    let mut piece = Vec::new();
    while piece.len() < PIECE_BYTES
        && let Some(image) = images.next()
    {
        let encoded = encode(&image)?;
        if piece.is_empty() {
            piece = encoded;
        } else {
            piece.extend_from_slice(&encoded);
        }
    }
    Ok(piece.into())
}
