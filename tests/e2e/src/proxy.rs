//! A TCP proxy between clients and a store that fails on demand.
//!
//! Two threads a connection, one for each direction. They look at the current fault before each
//! piece of data they pass on, so that a fault strikes open connections as well as new ones.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::Store;

const POLL: Duration = Duration::from_millis(5);

/// What goes wrong on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Connections are cut, open ones and new ones.
    Down,
    /// Everything sent disappears; connections stay open and silent.
    Silence,
    /// Everything arrives this much later, in both directions.
    Delay(Duration),
    /// Of what is sent, in either direction, half a piece arrives; then the connection is cut.
    Tear,
    /// Requests of these calls (such as `commit`) are cut before the server sees them.
    LoseRequest(&'static [&'static str]),
    /// Requests of these calls reach the server; its replies do not come back.
    LoseReply(&'static [&'static str]),
    /// Requests of these calls do not get on until the fault is another; then they are cut.
    Hold(&'static [&'static str]),
}

impl Fault {
    /// What it does to a network, for counting.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::None => "networks without a fault",
            Self::Down => "networks cut",
            Self::Silence => "networks half-open",
            Self::Delay(_) => "networks slow",
            Self::Tear => "networks tearing messages",
            Self::LoseRequest(_) => "networks losing requests",
            Self::LoseReply(_) => "networks losing replies",
            Self::Hold(_) => "networks holding requests",
        }
    }
}

/// A running proxy; it ends when dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    fault: Mutex<Fault>,
    struck: AtomicU32,
    /// How often it passes over what it could strike.
    spared: AtomicU32,
    budget: AtomicU32,
    ended: AtomicBool,
}

impl Proxy {
    /// Starts a proxy in front of the store's data plane.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn before(store: &Store) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", crate::free_port())).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            upstream: store.data_plane_address(),
            fault: Mutex::new(Fault::None),
            struck: AtomicU32::new(0),
            spared: AtomicU32::new(0),
            budget: AtomicU32::new(u32::MAX),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accepting.accept(&listener));
        Self { port, shared }
    }

    /// The URL that clients take as MVSQLITE_DATA_PLANE.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on this goes wrong, each time.
    pub fn set(&self, fault: Fault) {
        self.set_times(fault, u32::MAX);
    }

    /// From now on this goes wrong, but only the first `times` times.
    ///
    /// # Panics
    /// Never.
    pub fn set_times(&self, fault: Fault, times: u32) {
        self.set_after(fault, 0, times);
    }

    /// From now on this goes wrong, but not the first `spared` times that it could, and then only
    /// `times` times.
    ///
    /// # Panics
    /// Never.
    pub fn set_after(&self, fault: Fault, spared: u32, times: u32) {
        let mut current = self.shared.fault.lock().unwrap();
        self.shared.spared.store(spared, Ordering::SeqCst);
        self.shared.struck.store(0, Ordering::SeqCst);
        self.shared.budget.store(times, Ordering::SeqCst);
        *current = fault;
    }

    /// How often the fault has struck since it was set.
    pub fn struck(&self) -> u32 {
        self.shared.struck.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
    }
}

/// One client's connection and the one to the store that belongs to it.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    /// The reply that comes next is to be lost.
    swallow: AtomicBool,
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while !self.ended() {
            match listener.accept() {
                Ok((client, _)) => self.serve(client),
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    fn serve(self: &Arc<Self>, client: TcpStream) {
        if self.fault() == Fault::Down {
            self.strike();
            return;
        }
        let Ok(server) = TcpStream::connect(&self.upstream) else {
            return;
        };
        for stream in [&client, &server] {
            stream.set_nonblocking(false).unwrap();
            stream.set_nodelay(true).ok();
            // Also how often a quiet connection notices a fault.
            stream.set_read_timeout(Some(POLL)).unwrap();
        }
        let pair = Arc::new(Pair {
            client,
            server,
            swallow: AtomicBool::new(false),
        });
        let (up, down) = (Arc::clone(&pair), pair);
        let (upward, downward) = (Arc::clone(self), Arc::clone(self));
        std::thread::spawn(move || upward.pump(&up, &up.client, &up.server, Shared::request));
        std::thread::spawn(move || {
            downward.pump(&down, &down.server, &down.client, Shared::reply);
        });
    }

    /// Passes data on until either side ends or a fault cuts the connection.
    fn pump(
        &self,
        pair: &Pair,
        mut from: &TcpStream,
        mut to: &TcpStream,
        admit: fn(&Self, &Pair, &[u8]) -> bool,
    ) {
        let mut buffer = vec![0; 64 * 1024];
        while !self.ended() && self.fault() != Fault::Down {
            let length = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if is_timeout(&error) => continue,
                Err(_) => break,
            };
            if self.fault() == Fault::Tear && self.strike() {
                to.write_all(&buffer[..length / 2]).ok();
                break;
            }
            if !admit(self, pair, &buffer[..length]) || to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        pair.client.shutdown(Shutdown::Both).ok();
        pair.server.shutdown(Shutdown::Both).ok();
    }

    /// Whether this piece of a request may go on; `false` cuts the connection.
    fn request(&self, pair: &Pair, piece: &[u8]) -> bool {
        match self.fault() {
            Fault::LoseRequest(calls) if begins(piece, calls) => !self.strike(),
            Fault::LoseReply(calls) if begins(piece, calls) => {
                if self.strike() {
                    pair.swallow.store(true, Ordering::SeqCst);
                }
                true
            }
            Fault::Hold(calls) if begins(piece, calls) => match self.strike() {
                true => self.wait_while(&Fault::Hold(calls)),
                false => true,
            },
            fault => self.hold(&fault),
        }
    }

    /// Whether this piece of a reply may go on; `false` cuts the connection.
    fn reply(&self, pair: &Pair, _piece: &[u8]) -> bool {
        !pair.swallow.load(Ordering::SeqCst) && self.hold(&self.fault())
    }

    /// Keeps a piece for as long as the fault says.
    fn hold(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Delay(time) => std::thread::sleep(*time),
            Fault::Silence => {
                self.strike();
                return self.wait_while(fault);
            }
            _ => {}
        }
        true
    }

    /// What was swallowed does not come back to life.
    fn wait_while(&self, fault: &Fault) -> bool {
        while self.fault() == *fault && !self.ended() {
            std::thread::sleep(POLL);
        }
        false
    }

    /// Takes one from the number of times that the fault may still strike.
    fn strike(&self) -> bool {
        let take = |left: u32| left.checked_sub(1);
        let order = Ordering::SeqCst;
        if self.spared.fetch_update(order, order, take).is_ok() {
            return false;
        }
        let struck = self.budget.fetch_update(order, order, take).is_ok();
        if struck {
            self.struck.fetch_add(1, order);
        }
        struck
    }

    fn fault(&self) -> Fault {
        self.fault.lock().unwrap().clone()
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

/// Whether a request for `/v2/ns/{key}/{call}`, for one of these calls, begins in this piece.
fn begins(piece: &[u8], calls: &[&str]) -> bool {
    calls.iter().any(|call| {
        let line = format!("/{call} HTTP/1.1\r\n");
        piece
            .windows(line.len())
            .any(|part| part == line.as_bytes())
    })
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
