//! Sockets under ureq, TCP and Unix, made for many small requests on one connection.
//!
//! A request leaves in one packet: its head waits for its body. Timeouts are set only when they
//! differ by enough to matter. Writes go out with `MSG_NOSIGNAL`, which the standard library's Unix
//! stream lacks: a server that went away must not end the host process with `SIGPIPE`. A socket
//! that the host closed is not used, whatever has its number now.

use std::io::{self, Read};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

use crate::descriptor::Held;

/// What is collected at most before it is sent, in bytes.
const PACKET: usize = 16 << 10;

/// Connects to TCP servers, and to a Unix socket where the URI's authority stands for one.
#[derive(Debug)]
pub(super) struct SocketConnector {
    /// Authorities and the sockets they stand for.
    pub(super) sockets: Vec<(String, PathBuf)>,
}

impl Connector<()> for SocketConnector {
    type Out = SocketTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<SocketTransport>, Error> {
        let authority = details.uri.authority().map(|a| a.as_str());
        let path = self
            .sockets
            .iter()
            .find(|(name, _)| Some(name.as_str()) == authority);
        let limit = limit(&details.timeout);
        let socket = match path {
            Some((_, path)) => connect_unix(path, limit)?,
            None => connect_tcp(&details.addrs, limit)?,
        };
        let config = details.config;
        Ok(Some(SocketTransport {
            socket: Held::new(socket)?,
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            unsent: Vec::new(),
            read_timeout: None,
            write_timeout: None,
        }))
    }
}

fn connect_unix(path: &PathBuf, limit: Option<Duration>) -> Result<Socket, Error> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Also bounds the connect, which waits while the server's backlog is full.
    socket.set_write_timeout(limit)?;
    socket
        .connect(&SockAddr::unix(path)?)
        .map_err(|error| timed_out(error, Timeout::Connect))?;
    Ok(socket)
}

/// Tries one address after the other, each with its share of the time that is left.
fn connect_tcp(addresses: &ResolvedSocketAddrs, limit: Option<Duration>) -> Result<Socket, Error> {
    let limit = limit.unwrap_or(Duration::from_secs(3600));
    let started = Instant::now();
    let mut failure = Error::HostNotFound;
    for (done, address) in addresses.iter().enumerate() {
        let waiting = u32::try_from(addresses.len() - done).unwrap_or(1);
        let left = limit.saturating_sub(started.elapsed()) / waiting;
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(address, left) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream.into());
            }
            Err(error) => failure = timed_out(error, Timeout::Connect),
        }
    }
    Err(failure)
}

/// What is left of a timeout; `None` is no limit.
fn limit(timeout: &NextTimeout) -> Option<Duration> {
    timeout.not_zero().map(|left| *left)
}

fn timed_out(error: io::Error, reason: Timeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {
            Error::Timeout(reason)
        }
        _ => error.into(),
    }
}

/// Whether to go on after a signal: each attempt waits for the socket's whole timeout, and a host
/// with a timer would make it wait for ever.
fn is_interrupted(error: &io::Error, started: Instant, limit: Option<Duration>) -> bool {
    error.kind() == io::ErrorKind::Interrupted
        && limit.is_none_or(|limit| started.elapsed() < limit)
}

/// Whether a socket's timeout of `set` does for `wanted`: at most a twentieth longer, and not much
/// shorter.
fn close_enough(set: Option<Duration>, wanted: Option<Duration>) -> bool {
    match (set, wanted) {
        (Some(set), Some(wanted)) => set <= wanted + wanted / 20 && set >= wanted - wanted / 10,
        (set, wanted) => set == wanted,
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct SocketTransport {
    socket: Held<Socket>,
    buffers: LazyBuffers,
    /// Handed over by ureq and not yet sent.
    unsent: Vec<u8>,
    /// What the socket's timeouts are set to.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl SocketTransport {
    fn send_all(&mut self, timeout: &NextTimeout) -> Result<(), Error> {
        let wanted = limit(timeout);
        let socket = self.socket.get()?;
        if !close_enough(self.write_timeout, wanted) {
            socket.set_write_timeout(wanted)?;
            self.write_timeout = wanted;
        }
        let started = Instant::now();
        let mut rest = self.unsent.as_slice();
        while !rest.is_empty() {
            match socket.send_with_flags(rest, libc::MSG_NOSIGNAL) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(sent) => {
                    rest = &rest[sent..];
                    // The socket's own timeout starts anew with each part that is taken.
                    let late = wanted.is_some_and(|wanted| started.elapsed() >= wanted);
                    if late && !rest.is_empty() {
                        return Err(Error::Timeout(timeout.reason));
                    }
                }
                Err(error) if is_interrupted(&error, started, wanted) => {}
                Err(error) => return Err(timed_out(error, timeout.reason)),
            }
        }
        self.unsent.clear();
        Ok(())
    }
}

impl Transport for SocketTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.unsent
            .extend_from_slice(&self.buffers.output()[..amount]);
        // The rest goes when the reply is awaited.
        match self.unsent.len() > PACKET {
            true => self.send_all(&timeout),
            false => Ok(()),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if !self.unsent.is_empty() {
            self.send_all(&timeout)?;
        }
        let wanted = limit(&timeout);
        let socket = self.socket.get()?;
        if !close_enough(self.read_timeout, wanted) {
            socket.set_read_timeout(wanted)?;
            self.read_timeout = wanted;
        }
        let input = self.buffers.input_append_buf();
        let started = Instant::now();
        let received = loop {
            match (&*socket).read(input) {
                Err(error) if is_interrupted(&error, started, wanted) => {}
                Err(error) => return Err(timed_out(error, timeout.reason)),
                Ok(received) => break received,
            }
        };
        self.buffers.input_appended(received);
        Ok(received > 0)
    }

    fn is_open(&mut self) -> bool {
        let Ok(socket) = self.socket.get() else {
            return false;
        };
        // An idle connection that can be read was closed by the server, or brings what nobody
        // asked for.
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let peeked = socket.recv_with_flags(&mut byte, flags);
        self.unsent.is_empty()
            && matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}
