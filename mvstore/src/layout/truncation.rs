//! The mark of a truncation that runs.

use super::guard::Nonce;
use super::{Fields, Malformed};

/// Who truncates a namespace's history now:
///
/// ```text
/// 0   16  drawn by the truncation
/// 16  8   when it last did something, milliseconds since the Unix epoch
/// ```
///
/// Every transaction of a truncation reads the mark serializably and writes it, so that no two of
/// them can subtract the same page version from the usage counters, however late one arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TruncationMark {
    /// Which truncation.
    pub nonce: Nonce,
    /// When it last did something.
    pub touched_millis: u64,
}

impl TruncationMark {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.nonce.to_vec();
        bytes.extend_from_slice(&self.touched_millis.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new("a truncation's mark", bytes);
        let mark = Self {
            nonce: fields.take()?,
            touched_millis: fields.u64()?,
        };
        fields.end()?;
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_24_bytes_as_documented() {
        let mark = TruncationMark {
            nonce: [7; 16],
            touched_millis: 0x0102,
        };
        let golden = [&[7; 16][..], &[0, 0, 0, 0, 0, 0, 1, 2]].concat();
        assert_eq!(mark.encode(), golden);
        assert_eq!(TruncationMark::decode(&golden), Ok(mark));
        TruncationMark::decode(&golden[..23]).expect_err("cut short");
        TruncationMark::decode(&[&golden[..], &[0]].concat()).expect_err("too long");
    }
}
