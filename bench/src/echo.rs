//! The floor: a bare HTTP exchange on loopback, with a client like ours and a server that does
//! nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;

use crate::stats::Measured;

const EXCHANGES: usize = 3_000;
/// About what a small request and a small reply of the data plane carry.
const REQUEST_BYTES: usize = 200;
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n8 bytes!";

/// The median time of one exchange over a kept connection.
pub fn median() -> Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/echo", listener.local_addr()?);
    // Ends when the client closes its connection; the process does not wait for it.
    std::thread::spawn(move || listener.accept().map(|(stream, _)| serve(&stream)));
    let agent = ureq::agent();
    let body = [7_u8; REQUEST_BYTES];
    let mut samples = Vec::with_capacity(EXCHANGES);
    for _ in 0..EXCHANGES {
        let start = std::time::Instant::now();
        agent.post(&url).send(&body[..])?.body_mut().read_to_vec()?;
        samples.push(start.elapsed());
    }
    let measured = Measured::from_samples(samples);
    Ok(Duration::from_secs_f64(measured.typical_us / 1e6))
}

/// Answers every request on one connection with the same few bytes.
fn serve(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    let mut line = String::new();
    let mut body = [0; REQUEST_BYTES];
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            reader.read_exact(&mut body)?;
            writer.write_all(REPLY)?;
        }
    }
}
