//! Free loopback ports for servers.
//!
//! They lie below the ephemeral range (32768 and up on Linux): a client that keeps connecting to a
//! dead server's ephemeral port may be given that very port as its own and meet itself.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// A port of 127.0.0.1 that nobody listens on, and that this process has not given away before.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test binaries that run at the same time should not try the same ports in the same order.
    NEXT.compare_exchange(0, seed(), Ordering::Relaxed, Ordering::Relaxed)
        .ok();
    (0..COUNT)
        .map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT)
        .map(|port| u16::try_from(port).unwrap())
        .find(|port| is_free(*port))
        .expect("some port of 12,000 is free")
}

/// Whether nobody listens on this port of 127.0.0.1.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn seed() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    std::process::id()
        .wrapping_mul(7919)
        .wrapping_add(now.subsec_nanos())
        | 1
}
