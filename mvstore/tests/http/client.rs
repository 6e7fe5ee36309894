//! Clients: hyper's for well-formed requests, a bare socket for the others.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::PATIENCE;

/// A reply that has arrived whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("(not text)")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    async fn collect(response: Response<hyper::body::Incoming>) -> hyper::Result<Self> {
        let (parts, body) = response.into_parts();
        Ok(Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    }
}

/// A request with these headers.
pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

/// A connection that is kept.
pub(crate) struct Http1(http1::SendRequest<Full<Bytes>>);

impl Http1 {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Reply> {
        self.0.ready().await?;
        let exchange = async { Reply::collect(self.0.send_request(request).await?).await };
        timeout(PATIENCE, exchange).await.expect("a reply in time")
    }
}

pub(crate) async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Reply {
    let mut connection = Http1::connect(address).await.unwrap();
    connection.send(request).await.unwrap()
}

pub(crate) async fn post(address: SocketAddr, path: &str, body: impl Into<Bytes>) -> Reply {
    send(address, request("POST", path, &[], body)).await
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Reply {
    send(address, request("GET", path, &[], "")).await
}

/// Sends requests at once over one HTTP/2 connection with prior knowledge.
pub(crate) async fn send_over_h2(
    address: SocketAddr,
    requests: Vec<Request<Full<Bytes>>>,
) -> Vec<Reply> {
    let stream = TcpStream::connect(address).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let exchanges = requests.into_iter().map(|mut request| {
        let mut sender = sender.clone();
        let path = request.uri().to_string();
        *request.uri_mut() = format!("http://{address}{path}").parse().unwrap();
        request.headers_mut().remove("host");
        async move {
            sender.ready().await.unwrap();
            let response = sender.send_request(request).await.unwrap();
            Reply::collect(response).await.unwrap()
        }
    });
    timeout(PATIENCE, futures_util::future::join_all(exchanges))
        .await
        .expect("all replies in time")
}

/// Sends bytes as they are and reads what comes back until the server closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    rest(&mut stream).await
}

/// What comes until the server closes, which must not be a reset.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut text))
        .await
        .expect("the server closes in time")
        .expect("the connection is closed and not reset");
    String::from_utf8_lossy(&text).into_owned()
}
