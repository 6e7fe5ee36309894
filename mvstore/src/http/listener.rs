//! Where connections come from: TCP and Unix sockets.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A socket that listens.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    /// The file goes before the socket is closed: as long as the file is ours, a successor finds
    /// somebody listening and does not put its own in its place, which we would remove.
    Unix(SocketFile, UnixListener),
}

/// The file of a Unix socket, removed with its listener.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nobody is left to be told; a file that stays is recognised as stale at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An address that cannot be listened on. One line: what, where, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process listens there.
    #[error(
        "cannot listen on {place}: another process listens there; stop it or choose another one with {flag}"
    )]
    InUse {
        /// The address or path.
        place: String,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// The path is taken by something that is not a socket.
    #[error(
        "cannot listen on {place}: there is a file that is not a socket; remove it or choose another path with {flag}"
    )]
    NotASocket {
        /// The path.
        place: String,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// The system refuses it.
    #[error("cannot listen on {place}: {source}; choose another one with {flag}")]
    Refused {
        /// The address or path.
        place: String,
        /// The flag that sets it.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    fn new(place: String, flag: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { place, flag },
            _ => Self::Refused {
                place,
                flag,
                source,
            },
        }
    }
}

impl Listener {
    /// Listens on a TCP address. Port 0 takes a free one. `flag` is what set the address, for the
    /// error.
    ///
    /// # Errors
    /// If the address is in use or not ours.
    pub async fn tcp(address: SocketAddr, flag: &'static str) -> Result<Self, BindError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| BindError::new(address.to_string(), flag, error))?;
        Ok(Self(Kind::Tcp(listener)))
    }

    /// Listens on a Unix socket. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// If somebody listens there, something else is there, or the directory cannot be written.
    pub async fn unix(path: &Path, flag: &'static str) -> Result<Self, BindError> {
        let place = path.display().to_string();
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(BindError::NotASocket { place, flag });
            }
            match UnixStream::connect(path).await {
                // Nobody listens any more. If this fails, binding fails and says why.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let _ = std::fs::remove_file(path);
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(BindError::new(place, flag, error));
                }
                // Somebody does, and may have no room for another connection now.
                _ => return Err(BindError::InUse { place, flag }),
            }
        }
        let listener =
            UnixListener::bind(path).map_err(|error| BindError::new(place, flag, error))?;
        Ok(Self(Kind::Unix(SocketFile(path.to_owned()), listener)))
    }

    /// The address with its real port, or the path.
    pub fn place(&self) -> String {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map_or_else(
                |_| "an unknown address".into(),
                |address| address.to_string(),
            ),
            Kind::Unix(file, _) => format!("unix:{}", file.0.display()),
        }
    }

    /// The TCP address, if it has one.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().ok(),
            Kind::Unix(..) => None,
        }
    }

    /// The next connection. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<Socket> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Small messages go back and forth: nothing may wait for more to come.
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Kind::Unix(_, listener) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Calls the same method on whichever stream it is.
macro_rules! delegate {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Socket::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symptom: a starting server removed the socket of another program. Cause: whatever kept it from
    /// connecting was taken for "nobody listens". Fix: only a refused connection means that.
    #[tokio::test]
    async fn a_socket_that_cannot_be_connected_to_is_not_taken_for_a_stale_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let refusal = Listener::unix(&path, "--unix-socket").await.unwrap_err();
        assert!(matches!(refusal, BindError::Refused { .. }), "{refusal}");
        assert!(path.exists());
        drop(other);
        Listener::unix(&path, "--unix-socket").await.unwrap();
    }
}
