//! Where a database is, by its name: at the configured servers, or at one that the name begins with.

use mvsqlite_protocol::DatabaseName;
use mvsqlite_protocol::name::NameError;

use super::Server;

/// What a program means by a name.
pub(crate) struct Location {
    /// Its server, if the name says which.
    pub(crate) server: Option<Server>,
    pub(crate) name: DatabaseName,
}

/// A name that no database can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocateError {
    /// The name itself.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The server's URL that it begins with: what is wrong.
    #[error("{0}")]
    Server(String),
}

/// A name that begins with a server's URL, taken apart.
pub(super) fn split_url(name: &str) -> (Option<&str>, &str) {
    for scheme in ["http://", "https://"] {
        if let Some(rest) = name.strip_prefix(scheme) {
            let authority = rest.find('/').unwrap_or(rest.len());
            let (url, path) = name.split_at(scheme.len() + authority);
            return (Some(url), path);
        }
    }
    (None, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_cut_off_in_front_of_the_path() {
        let cases = [
            ("orders", (None, "orders")),
            (
                "http://host:7000/a/b@c",
                (Some("http://host:7000"), "/a/b@c"),
            ),
            ("https://host", (Some("https://host"), "")),
            ("httpd/logs", (None, "httpd/logs")),
        ];
        for (name, parts) in cases {
            assert_eq!(split_url(name), parts);
        }
    }
}
