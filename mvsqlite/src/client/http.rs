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
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, Error, Timeout};

use super::socket::SocketConnector;
use super::transport::{Reply, Request, Transport, TransportError};
use crate::config::Server;
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
pub struct HttpTransport {
    /// Names for messages, and the URL up to the path.
    names: Vec<String>,
    urls: Vec<String>,
    agent: PerProcess<Agent>,
    system: Arc<dyn System>,
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
            names,
            urls,
            agent: PerProcess::new(system.process_id(), make),
            system,
        }
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
        let url = self.urls.get(server).ok_or_else(|| TransportError {
            maybe_sent: false,
            reason: format!("there is no server {server}"),
        })?;
        let agent = self.agent.get(self.system.process_id());
        exchange(
            &agent,
            &format!("{url}{}", request.path),
            request.body,
            timeout,
        )
        .map_err(describe)
    }
}

fn exchange(agent: &Agent, url: &str, body: &[u8], timeout: Duration) -> Result<Reply, Error> {
    let response = agent
        .post(url)
        .config()
        .timeout_global(Some(timeout))
        .build()
        .header("content-type", v2::CONTENT_TYPE)
        .send(body)?;
    let status = response.status().as_u16();
    let content_type = response.headers().get("content-type");
    let content_type = content_type.and_then(|value| value.to_str().ok().map(str::to_owned));
    let body = response.into_body().into_with_config().limit(MAX_REPLY);
    Ok(Reply {
        status,
        content_type,
        body: body.read_to_vec()?,
    })
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
