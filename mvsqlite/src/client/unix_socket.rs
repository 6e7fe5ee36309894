//! Unix sockets under ureq.
//!
//! Writes go out with `MSG_NOSIGNAL`: the standard library's Unix stream lacks it, and a server
//! that went away must not end the host process with `SIGPIPE`.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

/// Connects to a Unix socket where the URI's authority stands for one.
#[derive(Debug)]
pub(super) struct UnixConnector {
    /// Authorities and the sockets they stand for.
    pub(super) sockets: Vec<(String, PathBuf)>,
}

impl Connector<()> for UnixConnector {
    type Out = UnixTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<UnixTransport>, Error> {
        let authority = details
            .uri
            .authority()
            .map(|a| a.as_str())
            .unwrap_or_default();
        let Some((_, path)) = self.sockets.iter().find(|(name, _)| name == authority) else {
            return Ok(None);
        };
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Also bounds the connect, which waits while the server's backlog is full.
        let timeout = limit(&details.timeout);
        socket.set_write_timeout(timeout)?;
        socket.connect(&SockAddr::unix(path)?)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(UnixTransport { socket, buffers }))
    }
}

/// What is left of a timeout; `None` is no limit.
fn limit(timeout: &NextTimeout) -> Option<Duration> {
    timeout.not_zero().map(|left| *left)
}

/// One connection.
#[derive(Debug)]
pub(super) struct UnixTransport {
    socket: Socket,
    buffers: LazyBuffers,
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.socket.set_write_timeout(limit(&timeout))?;
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            match self.socket.send_with_flags(rest, libc::MSG_NOSIGNAL) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timed_out(error, &timeout)),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.socket.set_read_timeout(limit(&timeout))?;
        let input = self.buffers.input_append_buf();
        let received = loop {
            match (&self.socket).read(input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timed_out(error, &timeout)),
                Ok(received) => break received,
            }
        };
        self.buffers.input_appended(received);
        Ok(received > 0)
    }

    fn is_open(&mut self) -> bool {
        // An idle connection that can be read was closed by the server, or brings what nobody
        // asked for.
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        matches!(self.socket.recv_with_flags(&mut byte, flags),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

fn timed_out(error: io::Error, timeout: &NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}
