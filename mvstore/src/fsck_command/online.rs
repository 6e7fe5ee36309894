//! Asking a running server to check its store.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::report::{Done, Line, Report};
use super::{CommandError, FsckCommand};

/// Most bytes of a line. One finding is far below that.
const MOST_LINE: usize = 1 << 20;
/// Most bytes of a refusal that are shown.
const MOST_REFUSAL: usize = 2000;

/// Prints what the server finds, as it comes.
pub(super) async fn check(
    command: &FsckCommand,
    url: &str,
    report: &mut Report,
) -> Result<Done, CommandError> {
    let failed = |reason: String| CommandError::Server {
        url: url.to_owned(),
        reason,
    };
    let reply = ask(command, url).await.map_err(&failed)?;
    let status = reply.status();
    let mut body = reply.into_body();
    if !status.is_success() {
        let refusal = start_of(&mut body).await;
        return Err(failed(format!("{status}: {}", refusal.trim())));
    }
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed(format!("the answer broke off: {error}")))?;
        rest.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line: Line = serde_json::from_slice(&line)
                .map_err(|error| failed(format!("the answer is not understood: {error}")))?;
            match line {
                Line::Done(done) => return Ok(done),
                Line::Error(reason) => return Err(failed(reason)),
                line => report.line(&line)?,
            }
        }
        if rest.len() > MOST_LINE {
            return Err(failed("the answer is not one of a check".to_owned()));
        }
    }
    Err(failed("the answer broke off before its end".to_owned()))
}

async fn ask(command: &FsckCommand, url: &str) -> Result<Response<Incoming>, String> {
    let hint = "give the address of an admin API, such as http://127.0.0.1:7001";
    let address: Uri = url.parse().map_err(|error| format!("{error}; {hint}"))?;
    if address.scheme_str() != Some("http") {
        return Err(format!("it is not reached by http; {hint}"));
    }
    let host = address.host().ok_or(hint)?;
    let port = address.port_u16().unwrap_or(80);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await;
    let stream = stream.map_err(|error| format!("{error}; is the server running? {hint}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let mut path = format!("/v2/admin/fsck?sqlite={}", command.sqlite);
    if let Some(rate) = command.bytes_per_second {
        path += &format!("&bytes_per_second={rate}");
    }
    let request = Request::post(path)
        .header("host", format!("{host}:{port}"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())
}

/// The beginning of a refusal.
async fn start_of(body: &mut Incoming) -> String {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.extend_from_slice(&frame.into_data().unwrap_or_default());
        if text.len() > MOST_REFUSAL {
            text.truncate(MOST_REFUSAL);
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}
