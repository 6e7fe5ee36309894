//! Names: what a program opens, namespace keys, versions, moments.

use mvsqlite_protocol::{
    DatabaseName, IdempotencyKey, LeaseNonce, Moment, NamespaceId, NamespaceKey, Version, v2,
};

/// - what is taken for a key is text of its alphabet and length, unchanged;
/// - a name is put together from its parts again;
/// - hex is read back as it is written, in lower case;
/// - a key's path is one segment of visible ASCII, and the key is what it decodes to.
pub(super) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    key(text);
    name(text);
    if let Ok(version) = text.parse::<Version>() {
        assert_eq!(version.to_string(), text.to_ascii_lowercase());
        assert_eq!(Version::new(version.commit(), order(version)), version);
    }
    if let Ok(id) = text.parse::<NamespaceId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(key) = text.parse::<IdempotencyKey>() {
        assert_eq!(key.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(nonce) = text.parse::<LeaseNonce>() {
        assert_eq!(nonce.to_string(), text.to_ascii_lowercase());
    }
}

fn order(version: Version) -> u16 {
    let bytes = version.as_bytes();
    u16::from_be_bytes([bytes[8], bytes[9]])
}

fn key(text: &str) {
    if let Ok(key) = text.parse::<NamespaceKey>() {
        assert_eq!(key.as_str(), text);
        assert!((1..=NamespaceKey::MAX_LEN).contains(&text.len()));
        let of_original = NamespaceKey::of_original(text).expect("the original takes more");
        assert_eq!(of_original, key);
    }
    if let Ok(key) = NamespaceKey::of_original(text) {
        let path = v2::path(&key, "read");
        assert!(path.bytes().all(|byte| byte.is_ascii_graphic()));
        let segments: Vec<&str> = path.split('/').collect();
        assert_eq!((segments.len(), segments[4]), (5, "read"));
        assert_eq!(percent_decoded(segments[3]), text);
    }
}

fn name(text: &str) {
    let Ok(name) = text.parse::<DatabaseName>() else {
        return;
    };
    let moment = match name.moment {
        None => String::new(),
        Some(Moment::Version(version)) => format!("@{version}"),
        Some(moment) => panic!("{moment:?} cannot be named"),
    };
    let whole = format!("{}{moment}", name.namespace);
    let without_slashes = text.trim_start_matches('/');
    assert!(whole.eq_ignore_ascii_case(without_slashes));
    assert_eq!(whole.parse::<DatabaseName>(), Ok(name));
}

/// A slow, obvious decoder.
fn percent_decoded(segment: &str) -> String {
    let mut decoded = Vec::new();
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let hex: Vec<u8> = bytes.by_ref().take(2).collect();
                let hex = std::str::from_utf8(&hex).expect("ASCII");
                u8::from_str_radix(hex, 16).expect("two hex digits behind a percent sign")
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).expect("a key is text")
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("path", text("//var/lib/x.db")),
        ("moment", text("test@000000000001E2400000")),
        ("original", text("app:903be2 .00%")),
        ("hex-20", text("000000000001e2400000")),
        ("hex-32", text("000000000001e2400000000000000001")),
        ("empty-moment", text("test@")),
        ("long", text(&"y".repeat(1025))),
    ]
}
