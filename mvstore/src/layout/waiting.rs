//! Pages of protocol v1 by their content: `h`.
//!
//! Three keys for one hash, so that each is written without reading the others: what was uploaded, when
//! that was last of use, and where a commit put content that it brought along.

use bytes::Bytes;
use mvsqlite_protocol::{PageIndex, Version};

use super::{Fields, Malformed, STAMP_PLACEHOLDER};
use crate::kv::StampOffset;

/// Writes uploaded content into `out`, which is emptied first:
///
/// ```text
/// 0   1   tag: 0 raw; others are reserved for compression and encryption
/// 1   -   the content
/// ```
///
/// There is no checksum: the hash in its key is one.
pub(crate) fn encode_waiting(out: &mut Vec<u8>, content: &[u8]) {
    out.clear();
    out.push(0);
    out.extend_from_slice(content);
}

/// The content, which the caller compares with its hash.
pub(crate) fn decode_waiting(bytes: &Bytes) -> Result<Bytes, Malformed> {
    let mut fields = Fields::new("an uploaded page", bytes);
    if fields.u8()? != 0 {
        return Err(fields.bad("tag"));
    }
    Ok(bytes.slice(1..))
}

/// When content was last uploaded or committed.
pub(crate) fn decode_touched(bytes: &[u8]) -> Result<u64, Malformed> {
    let mut fields = Fields::new("the time of an uploaded page", bytes);
    let millis = u64::from_le_bytes(fields.take()?);
    fields.end()?;
    Ok(millis)
}

/// A page version that has the content:
///
/// ```text
/// 0   4   page index
/// 4  10   version
/// ```
///
/// It may be gone by now, and the content with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitingPlace {
    /// Which page.
    pub index: PageIndex,
    /// As of this version.
    pub version: Version,
}

impl WaitingPlace {
    /// The place of a page that the commit writes whose transaction this is.
    pub(crate) fn encode_new(index: PageIndex) -> (Vec<u8>, StampOffset) {
        let mut bytes = index.to_be_bytes().to_vec();
        bytes.extend_from_slice(&STAMP_PLACEHOLDER);
        (bytes, 4)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new("the place of a page", bytes);
        let place = Self {
            index: fields.u32()?,
            version: fields.version()?,
        };
        fields.end()?;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploaded_content_is_a_tag_and_the_content() {
        let mut out = vec![9];
        encode_waiting(&mut out, b"page");
        assert_eq!(out, b"\0page");
        assert_eq!(decode_waiting(&out.into()), Ok(Bytes::from_static(b"page")));
        decode_waiting(&Bytes::new()).expect_err("nothing");
        decode_waiting(&Bytes::from_static(b"\x01page")).expect_err("another tag");
    }

    #[test]
    fn a_place_is_14_bytes_and_a_time_8_as_documented() {
        let (mut bytes, offset) = WaitingPlace::encode_new(0x0102_0304);
        assert_eq!((bytes.len(), offset), (14, 4));
        bytes[offset..].copy_from_slice(Version::new(5, 6).as_bytes());
        let place = WaitingPlace {
            index: 0x0102_0304,
            version: Version::new(5, 6),
        };
        assert_eq!(WaitingPlace::decode(&bytes), Ok(place));
        WaitingPlace::decode(&bytes[..13]).expect_err("cut short");
        assert_eq!(decode_touched(&[1, 2, 0, 0, 0, 0, 0, 0]), Ok(0x0201));
        decode_touched(&[0; 9]).expect_err("too long");
    }
}
