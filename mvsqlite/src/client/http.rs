//! HTTP/1.1 over TCP and Unix sockets, with connections kept alive.
//!
//! The pool of connections belongs to one process; a forked child has its own and leaves its
//! parent's alone. Names are looked up by the C library without a thread of ours, so a look-up
//! takes as long as `/etc/resolv.conf` allows; its result is kept for [`LOOKUP_TTL`].

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mvsqlite_protocol::v2;
use ureq::http::{Response, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, Body, Error, Timeout};

use super::socket::SocketConnector;
use super::token::TokenSource;
use super::transport::{PlainReply, PlainRequest, Reply, Request, Transport, TransportError};
use crate::config::{Server, Token};
use crate::per_process::PerProcess;
use crate::system::System;

/// Idle connections kept per server, and for how long.
const IDLE_CONNECTIONS: usize = 16;
const IDLE_AGE: Duration = Duration::from_secs(30);
/// How long a host name's addresses are used before they are looked up again.
const LOOKUP_TTL: Duration = Duration::from_secs(10);
/// The longest reply that is taken, in bytes: far above what `Limits::read_bytes` allows a server.
const MAX_REPLY: u64 = 256 << 20;

/// The transport of a real process.
#[derive(Clone)]
pub struct HttpTransport {
    /// Names for messages, and the URL up to the path.
    names: Arc<[String]>,
    urls: Arc<[String]>,
    agent: Arc<PerProcess<Agent>>,
    system: Arc<dyn System>,
    token: Option<Arc<TokenSource>>,
    /// On every request.
    headers: Vec<(&'static str, String)>,
}

impl HttpTransport {
    /// Connects to nothing yet.
    pub fn new(servers: &[Server], system: Arc<dyn System>) -> Self {
        let mut sockets = Vec::new();
        let mut names = Vec::new();
        let mut urls = Vec::new();
        for (number, server) in servers.iter().enumerate() {
            let authority = match server {
                Server::Tcp { host, port } => {
                    names.push(format!("http://{host}:{port}"));
                    format!("{host}:{port}")
                }
                Server::Unix(path) => {
                    names.push(format!("unix:{}", path.display()));
                    // Stands for the socket; ".invalid" is never a host (RFC 6761).
                    let authority = format!("socket-{number}.invalid:80");
                    sockets.push((authority.clone(), path.clone()));
                    authority
                }
            };
            urls.push(format!("http://{authority}"));
        }
        let make = move || make_agent(&sockets);
        Self {
            names: names.into(),
            urls: urls.into(),
            agent: Arc::new(PerProcess::new(system.process_id(), make)),
            system,
            token: None,
            headers: Vec::new(),
        }
    }

    /// Shows this token to the servers.
    pub fn with_token(mut self, token: &Token) -> Self {
        self.token = Some(Arc::new(TokenSource::new(token)));
        self
    }

    /// Sends a request once; the reply is not read yet.
    fn send(
        &self,
        server: usize,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<Response<Body>, TransportError> {
        let not_sent = |reason| TransportError {
            maybe_sent: false,
            reason,
        };
        let url = self.urls.get(server);
        let url = url.ok_or_else(|| not_sent(format!("there is no server {server}")))?;
        let agent = self.agent.get(self.system.process_id());
        let request = agent.post(format!("{url}{path}"));
        let mut request = request.config().timeout_global(Some(timeout)).build();
        if let Some(token) = &self.token {
            let token = token.get(self.system.now()).map_err(not_sent)?;
            request = request.header("authorization", format!("Bearer {}", token.reveal()));
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send(body).map_err(describe)
    }
}

fn make_agent(sockets: &[(String, std::path::PathBuf)]) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // The data plane is not something to be reached through the host's web proxy.
        .proxy(None)
        .user_agent(concat!("mvsqlite/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections(4 * IDLE_CONNECTIONS)
        .max_idle_connections_per_host(IDLE_CONNECTIONS)
        .max_idle_age(IDLE_AGE)
        .build();
    let connector = SocketConnector {
        sockets: sockets.to_vec(),
    };
    Agent::with_parts(config, connector, Lookup::default())
}

impl Transport for HttpTransport {
    fn servers(&self) -> &[String] {
        &self.names
    }

    fn call(
        &self,
        server: usize,
        request: Request<'_>,
        timeout: Duration,
    ) -> Result<Reply, TransportError> {
        let content_type = [("content-type", v2::CONTENT_TYPE)];
        let response = self.send(server, request.path, &content_type, request.body, timeout)?;
        let content_type = response.headers().get("content-type");
        let content_type = content_type.and_then(|value| value.to_str().ok().map(str::to_owned));
        Ok(Reply {
            status: response.status().as_u16(),
            content_type,
            body: whole_body(response)?,
        })
    }

    fn plain_call(
        &self,
        server: usize,
        request: PlainRequest<'_>,
        timeout: Duration,
    ) -> Result<PlainReply, TransportError> {
        let response = self.send(server, request.path, request.headers, request.body, timeout)?;
        let headers = response.headers().iter().filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        });
        Ok(PlainReply {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: whole_body(response)?,
        })
    }

    fn with_headers(&self, headers: &[(&'static str, String)]) -> Option<Arc<dyn Transport>> {
        let mut with = self.clone();
        with.headers = headers.to_vec();
        Some(Arc::new(with))
    }
}

fn whole_body(response: Response<Body>) -> Result<Vec<u8>, TransportError> {
    let body = response.into_body().into_with_config().limit(MAX_REPLY);
    body.read_to_vec().map_err(describe)
}

fn describe(error: Error) -> TransportError {
    TransportError {
        maybe_sent: maybe_sent(&error),
        reason: match error {
            Error::Timeout(_) => "no answer in time".to_owned(),
            error => error.to_string(),
        },
    }
}

/// Only errors that arise before there is a connection rule out that the request went out.
fn maybe_sent(error: &Error) -> bool {
    match error {
        Error::HostNotFound
        | Error::BadUri(_)
        | Error::ConnectionFailed
        | Error::Timeout(Timeout::Resolve | Timeout::Connect) => false,
        Error::Io(error) => !matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::NotFound
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::AddrNotAvailable
        ),
        _ => true,
    }
}

/// Host names to addresses, without ureq's thread per look-up.
#[derive(Debug, Default)]
struct Lookup {
    /// Not held during a look-up.
    known: Mutex<HashMap<String, (Instant, Vec<SocketAddr>)>>,
}

impl Lookup {
    fn addresses(&self, authority: &str) -> io::Result<Vec<SocketAddr>> {
        // An address needs no look-up.
        if let Ok(address) = authority.parse() {
            return Ok(vec![address]);
        }
        let fresh = |at: &Instant| at.elapsed() < LOOKUP_TTL;
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, addresses)) = lock().get(authority)
            && fresh(at)
        {
            return Ok(addresses.clone());
        }
        let addresses: Vec<_> = authority.to_socket_addrs()?.collect();
        lock().insert(authority.to_owned(), (Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
        let mut resolved = self.empty();
        if authority.ends_with(".invalid:80") {
            return Ok(resolved);
        }
        // A name that cannot be looked up is as a host that cannot be reached: nothing was sent.
        let addresses = self.addresses(authority).map_err(|error| {
            io::Error::new(
                io::ErrorKind::HostUnreachable,
                format!("host name not found: {error}"),
            )
        })?;
        // ureq takes no more than 16.
        addresses
            .into_iter()
            .take(16)
            .for_each(|address| resolved.push(address));
        match resolved.is_empty() {
            true => Err(Error::HostNotFound),
            false => Ok(resolved),
        }
    }
}
