//! One connection, from accept to close.
//!
//! HTTP/1.1 with keep-alive, or HTTP/2 with prior knowledge, told apart by the first bytes.
//!
//! One clock watches each connection: it is closed when no request is in work and no byte was
//! written for the idle timeout, or when its first request's header has not come within the header
//! timeout. That covers clients that connect and say nothing, that send a header byte by byte,
//! that keep idle connections for ever, and that stop reading in the middle of a reply. (hyper's
//! own header timeout would also run between requests, and costs a timer for each.) The clock is
//! looked at when it might have run out, so a request costs no timer.
//!
//! Closing lingers: a socket that is closed while the client still sends is answered by a reset,
//! which can destroy the reply on its way. So our side is shut down first, and what still comes is
//! read and thrown away for a moment.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::exchange::Plane;
use super::listener::{Listener, Socket};

/// Most bytes of a request's header. Also the most that one read takes from the socket.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Most header fields of a request.
const MAX_HEADERS: usize = 64;
/// Most requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// How long a closed socket is read for what the client still sends, and how much of it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 64 << 20;
/// Connections at once that are told that there are too many; further ones are just closed.
const MAX_TURNED_AWAY: usize = 64;

/// Lets connections in, up to their limit.
pub(super) struct Gate {
    plane: Arc<Plane>,
    connections: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    http: Builder<TokioExecutor>,
}

impl Gate {
    pub(super) fn new(plane: Arc<Plane>, connections: Arc<Semaphore>) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEADER_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(16 << 10);
        Self {
            plane,
            connections,
            turned_away: Arc::new(Semaphore::new(MAX_TURNED_AWAY)),
            http,
        }
    }

    /// Serves a listener's connections until the server stops.
    pub(super) async fn accept_from(self, listener: Listener) {
        let gate = Arc::new(self);
        let shared = gate.plane.shared();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shared.stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(socket) => gate.admit(socket),
                // The connection was gone before it was accepted.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    warn!(place = listener.place(), %error, "cannot accept connections");
                    // Most likely out of file descriptors: some have to be given back first.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, socket: Socket) {
        let tasks = &self.plane.shared().tasks;
        match Arc::clone(&self.connections).try_acquire_owned() {
            Ok(permit) => {
                let gate = Arc::clone(self);
                tasks.spawn(async move { gate.serve(socket, permit).await });
            }
            Err(_) => {
                debug!("a connection was turned away: there are too many");
                if let Ok(permit) = Arc::clone(&self.turned_away).try_acquire_owned() {
                    tokio::spawn(turn_away(socket, permit));
                }
            }
        }
    }

    async fn serve(&self, socket: Socket, permit: OwnedSemaphorePermit) {
        let shared = self.plane.shared();
        let activity = Arc::new(Activity::new());
        let io = TokioIo::new(Watched::new(socket, permit, Arc::clone(&activity)));
        let service = service_fn(|request| {
            let in_work = activity.enter();
            let plane = Arc::clone(&self.plane);
            async move {
                let response = plane.answer(request).await;
                drop(in_work);
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(self.http.serve_connection(io, service));
        let mut quiet = pin!(activity.quiet(&shared.limits));
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(%error, "a connection ended badly");
                    }
                    return;
                }
                () = shared.aborting.cancelled() => return,
                () = shared.stopping.cancelled(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = quiet.as_mut() => {
                    debug!("a connection was closed: it was quiet for too long");
                    return;
                }
            }
        }
    }
}

/// Whether accepting failed because of the connection and not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}

/// Tells a client that there are too many connections, without reading its request.
async fn turn_away(mut socket: Socket, permit: OwnedSemaphorePermit) {
    const BODY: &str = r#"{"status":503,"code":"unavailable","detail":"the server has as many connections as it takes","hint":"try again"}"#;
    let response = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len(),
    );
    let told = tokio::time::timeout(LINGER, socket.write_all(response.as_bytes())).await;
    if matches!(told, Ok(Ok(()))) {
        linger(socket).await;
    }
    drop(permit);
}

/// Shuts our side down, and reads what still comes until the client closes or it is enough.
async fn linger(mut socket: Socket) {
    let close = async {
        socket.shutdown().await?;
        let mut rest = socket.take(LINGER_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Whatever comes of it, the socket is closed now.
    let _ = tokio::time::timeout(LINGER, close).await;
}

/// What a connection is doing, and since when it is not.
struct Activity {
    opened: Instant,
    /// Milliseconds from `opened` to the end of the last request or the last write.
    last: AtomicU64,
    in_work: AtomicU32,
    /// Whether a request has come.
    served: AtomicBool,
}

/// A request in work.
struct InWork(Arc<Activity>);

impl Activity {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            last: AtomicU64::new(0),
            in_work: AtomicU32::new(0),
            served: AtomicBool::new(false),
        }
    }

    fn enter(self: &Arc<Self>) -> InWork {
        self.in_work.fetch_add(1, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        InWork(Arc::clone(self))
    }

    fn touch(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Ends when nothing has happened for too long.
    async fn quiet(&self, limits: &crate::config::Limits) {
        loop {
            let (limit, since) = if self.served.load(Ordering::Relaxed) {
                let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
                (limits.idle_timeout, self.opened + last)
            } else {
                (limits.header_timeout, self.opened)
            };
            let wait = if self.in_work.load(Ordering::Relaxed) > 0 {
                limit
            } else {
                limit.saturating_sub(since.elapsed())
            };
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_work.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that notes when it was written to, and lingers when it is dropped.
struct Watched {
    /// Gone only while it is dropped.
    open: Option<(Socket, OwnedSemaphorePermit)>,
    activity: Arc<Activity>,
    /// The client has closed its side, or the connection is broken: nothing to linger for.
    ended: bool,
}

impl Watched {
    fn new(socket: Socket, permit: OwnedSemaphorePermit, activity: Arc<Activity>) -> Self {
        Self {
            open: Some((socket, permit)),
            activity,
            ended: false,
        }
    }

    fn socket(&mut self) -> Pin<&mut Socket> {
        let (socket, _) = self.open.as_mut().expect("taken only by drop");
        Pin::new(socket)
    }

    fn written(&mut self, result: &io::Result<usize>) {
        match result {
            Ok(_) => self.activity.touch(),
            Err(_) => self.ended = true,
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(self.socket().poll_read(cx, buffer));
        let at_end = buffer.filled().len() == before && buffer.remaining() > 0;
        self.ended |= result.is_err() || at_end;
        Poll::Ready(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(self.socket().poll_write(cx, bytes));
        self.written(&result);
        Poll::Ready(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(self.socket().poll_write_vectored(cx, slices));
        self.written(&result);
        Poll::Ready(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_shutdown(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        if let (false, Some((socket, permit)), Ok(runtime)) =
            (self.ended, self.open.take(), runtime)
        {
            runtime.spawn(async move {
                linger(socket).await;
                drop(permit);
            });
        }
    }
}
