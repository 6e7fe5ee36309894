//! What fuzzing asks of URLs.

use super::location::split_url;
use super::{Config, Server};

/// A server's URL: what is taken has a host or an absolute path, and reads the same when it is put
/// together again. A name that begins with one is cut in two, and nothing is lost.
pub fn server(text: &str) {
    let (url, name) = split_url(text);
    assert_eq!(format!("{}{name}", url.unwrap_or_default()), text);
    assert!(url.is_none() || name.is_empty() || name.starts_with('/'));
    let config = Config {
        servers: Vec::new(),
        ..Config::default()
    };
    if let Some(Ok(location)) = config.locate(text) {
        assert_eq!(location.server.is_some(), url.is_some());
    }
    let Ok(server) = super::server(text) else {
        return;
    };
    let again = match &server {
        Server::Tcp { host, port } => {
            assert!(!host.is_empty() && host.is_ascii());
            format!("http://{host}:{port}")
        }
        Server::Unix(path) => {
            assert!(path.is_absolute());
            format!("unix:{}", path.display())
        }
    };
    assert_eq!(super::server(&again), Ok(server));
}
