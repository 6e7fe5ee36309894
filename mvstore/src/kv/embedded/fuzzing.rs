//! What fuzzing asks of the embedded engine's files.

use super::{directory, journal};

/// A journal of any bytes: see [`journal::fuzzing::mending`].
pub fn journal(bytes: &[u8]) {
    journal::fuzzing::mending(bytes);
}

/// A FORMAT file of any bytes: it is refused, or says what it must.
pub fn format_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some((reader, writer)) = directory::generations(&text) {
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("mvsqlite embedded store"));
        let number =
            |line: Option<&str>| line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        assert_eq!(number(lines.next()), Some(reader));
        assert_eq!(number(lines.next()), Some(writer));
    }
}
