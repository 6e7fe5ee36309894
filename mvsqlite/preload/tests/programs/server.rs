//! The model of the store, served over HTTP/1.1 on a loopback port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mvsqlite::client::{Request, Transport};

use crate::model_store::ModelStore;

/// A server that runs as long as this process.
pub struct Server {
    pub store: Arc<ModelStore>,
    pub url: String,
}

/// The one server of this process.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let store = Arc::new(ModelStore::new());
        let served = Arc::clone(&store);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let store = Arc::clone(&served);
                // A client that goes away in the middle of a request ends its connection only.
                std::thread::spawn(move || serve(&store, &connection).ok());
            }
        });
        Server { store, url }
    })
}

fn serve(store: &ModelStore, connection: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut writer = connection;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut body = vec![0; content_length(&mut reader)?];
        reader.read_exact(&mut body)?;
        let request = Request {
            path: &path,
            body: &body,
        };
        let reply = store
            .call(0, request, Duration::MAX)
            .expect("the model always answers");
        let mut answer = format!(
            "HTTP/1.1 {} -\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
            reply.status,
            reply.content_type.unwrap_or_default(),
            reply.body.len()
        )
        .into_bytes();
        answer.extend(reply.body);
        // In one piece, or the second would wait for the first to be acknowledged.
        writer.write_all(&answer)?;
    }
}

/// Reads the headers and finds out how long the body is.
fn content_length(reader: &mut impl BufRead) -> std::io::Result<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            return Ok(length);
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
}
