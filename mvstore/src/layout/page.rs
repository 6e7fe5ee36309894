//! Page contents: `p` and what a stage holds.

use bytes::Bytes;
use mvsqlite_protocol::{PageIndex, StageId, page::staged_sum};
use xxhash_rust::xxh3::xxh3_64;

use super::{Fields, Malformed};

/// The sum of a page's content, which binds it to its index. The one that clients add up over a
/// stage, so that it is computed once.
pub(crate) fn page_sum(index: PageIndex, content: &[u8]) -> u64 {
    staged_sum(index, content)
}

/// One page as stored under a `p` or a staged page's key:
///
/// ```text
/// 0   1   tag: 0 raw, 1 zstd (reserved), 2 reference to a stage, 3 absent;
///         bits 4-7 are reserved for encryption
/// 1   8   checksum: XXH3-64 of (owner, tag, page sum)
/// 9   -   raw: the content; reference: the stage's id; absent: nothing
/// ```
///
/// The owner is the 10-byte namespace id for `p`, the 16-byte stage id for a staged page, and the
/// page sum holds the index: content that turns up under another key does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PageValue {
    /// The content.
    Raw(Bytes),
    /// The content lies in a stage, and has this sum.
    Staged {
        /// Which stage.
        stage: StageId,
        /// The checksum its content must have under this `p`.
        checksum: u64,
    },
    /// The page does not exist from this version on.
    Absent,
}

/// What a stored page owns, found without looking at its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// So many bytes of content.
    Content(u64),
    /// A page of this stage.
    Staged(StageId),
    /// Nothing: it says that the page does not exist.
    Nothing,
}

const TAG_RAW: u8 = 0;
const TAG_STAGED: u8 = 2;
const TAG_ABSENT: u8 = 3;

fn checksum(owner: &[u8], tag: u8, sum: u64) -> u64 {
    let mut bound = [0; StageId::LEN + 1 + 8];
    let bytes = &mut bound[..owner.len() + 9];
    bytes[..owner.len()].copy_from_slice(owner);
    bytes[owner.len()] = tag;
    bytes[owner.len() + 1..].copy_from_slice(&sum.to_be_bytes());
    xxh3_64(bytes)
}

impl PageValue {
    const WHAT: &str = "a page";

    /// Bytes that stand before the content.
    pub(crate) const OVERHEAD: usize = 9;

    /// Writes a page with its content into `out`, which is emptied first: one buffer serves all
    /// pages of a commit. `owner` has at most 16 bytes.
    pub(crate) fn encode_raw(out: &mut Vec<u8>, owner: &[u8], sum: u64, content: &[u8]) {
        Self::encode(out, owner, TAG_RAW, sum, content);
    }

    /// Writes a reference to a staged page of this sum.
    pub(crate) fn encode_staged(out: &mut Vec<u8>, owner: &[u8], sum: u64, stage: StageId) {
        Self::encode(out, owner, TAG_STAGED, sum, stage.as_bytes());
    }

    /// Writes that the page does not exist.
    pub(crate) fn encode_absent(out: &mut Vec<u8>, owner: &[u8], index: PageIndex) {
        Self::encode(out, owner, TAG_ABSENT, page_sum(index, &[]), &[]);
    }

    fn encode(out: &mut Vec<u8>, owner: &[u8], tag: u8, sum: u64, rest: &[u8]) {
        out.clear();
        out.reserve(Self::OVERHEAD + rest.len());
        out.push(tag);
        out.extend_from_slice(&checksum(owner, tag, sum).to_be_bytes());
        out.extend_from_slice(rest);
    }

    /// Decodes a page and verifies what can be verified here: everything but the content behind a
    /// reference, for which there is [`Self::verify_staged`].
    pub(crate) fn decode(bytes: &Bytes, owner: &[u8], index: PageIndex) -> Result<Self, Malformed> {
        let mut fields = Fields::new(Self::WHAT, bytes);
        let tag = fields.u8()?;
        let found = fields.u64()?;
        let wrong = Malformed::Field {
            what: Self::WHAT,
            field: "checksum",
        };
        match tag {
            TAG_RAW => {
                let content = bytes.slice(Self::OVERHEAD..);
                if checksum(owner, tag, page_sum(index, &content)) != found {
                    return Err(wrong);
                }
                Ok(Self::Raw(content))
            }
            TAG_STAGED => {
                let stage = StageId::from_bytes(fields.take()?);
                fields.end()?;
                Ok(Self::Staged {
                    stage,
                    checksum: found,
                })
            }
            TAG_ABSENT => {
                if checksum(owner, tag, page_sum(index, &[])) != found {
                    return Err(wrong);
                }
                fields.end()?;
                Ok(Self::Absent)
            }
            _ => Err(fields.bad("tag")),
        }
    }

    /// What the page owns. Its checksum is not looked at: whoever removes a page version removes a
    /// damaged one too.
    pub(crate) fn holding(bytes: &[u8]) -> Result<Holding, Malformed> {
        let mut fields = Fields::new(Self::WHAT, bytes);
        let tag = fields.u8()?;
        fields.u64()?;
        match tag {
            TAG_RAW => Ok(Holding::Content(fields.rest.len() as u64)),
            TAG_STAGED => Ok(Holding::Staged(StageId::from_bytes(fields.take()?))),
            TAG_ABSENT => Ok(Holding::Nothing),
            _ => Err(fields.bad("tag")),
        }
    }

    /// Whether content found in a stage is what the reference was made for.
    pub(crate) fn verify_staged(
        owner: &[u8],
        index: PageIndex,
        expected: u64,
        content: &[u8],
    ) -> Result<(), Malformed> {
        if checksum(owner, TAG_STAGED, page_sum(index, content)) == expected {
            return Ok(());
        }
        Err(Malformed::Field {
            what: "a page's staged content",
            field: "checksum",
        })
    }
}

/// Where a stage is in its life. It only ever moves downwards in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StageState {
    /// Pages may be added.
    Open,
    /// A commit refers to its pages.
    Committed,
    /// Expired; its pages are about to be removed.
    Dead,
}

/// A stage's record:
///
/// ```text
/// 0   1   state: 0 open, 1 committed, 2 dead
/// 1   4   size of its pages in bytes, all the same; 0 before the first
/// 5   8   count of pages
/// 13  8   xor of the pages' sums
/// 21  8   time of the last batch, milliseconds since the Unix epoch
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StageRecord {
    /// Where it is in its life.
    pub state: StageState,
    /// Size of its pages; 0 before the first.
    pub page_size: u32,
    /// How many.
    pub count: u64,
    /// The xor of their sums.
    pub sum: u64,
    /// When the last batch came.
    pub touched_millis: u64,
}

impl StageRecord {
    const WHAT: &str = "a stage's record";

    pub(crate) fn encode(&self) -> Vec<u8> {
        let state = match self.state {
            StageState::Open => 0,
            StageState::Committed => 1,
            StageState::Dead => 2,
        };
        let mut bytes = vec![state];
        bytes.extend_from_slice(&self.page_size.to_be_bytes());
        bytes.extend_from_slice(&self.count.to_be_bytes());
        bytes.extend_from_slice(&self.sum.to_be_bytes());
        bytes.extend_from_slice(&self.touched_millis.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(Self::WHAT, bytes);
        let state = match fields.u8()? {
            0 => StageState::Open,
            1 => StageState::Committed,
            2 => StageState::Dead,
            _ => return Err(fields.bad("state")),
        };
        let record = Self {
            state,
            page_size: fields.u32()?,
            count: fields.u64()?,
            sum: fields.u64()?,
            touched_millis: fields.u64()?,
        };
        fields.end()?;
        Ok(record)
    }
}

/// Decodes a staged page's sum.
pub(crate) fn decode_sum(bytes: &[u8]) -> Result<u64, Malformed> {
    let mut fields = Fields::new("a staged page's sum", bytes);
    let sum = fields.u64()?;
    fields.end()?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvsqlite_protocol::NamespaceId;

    const OWNER: NamespaceId = NamespaceId::from_bytes([7; 10]);
    const STAGE: StageId = StageId::from_bytes([9; 16]);

    fn raw(owner: &[u8], index: PageIndex, content: &[u8]) -> Bytes {
        let mut out = Vec::new();
        PageValue::encode_raw(&mut out, owner, page_sum(index, content), content);
        out.into()
    }

    #[test]
    fn a_page_is_tag_checksum_content() {
        let mut out = Vec::new();
        let golden_raw = raw(OWNER.as_bytes(), 3, b"page");
        assert_eq!(hex(&golden_raw), "00015660369ef6486170616765");
        PageValue::encode_staged(&mut out, OWNER.as_bytes(), page_sum(3, b"page"), STAGE);
        assert_eq!(
            hex(&out),
            "02670213e8cbb5562909090909090909090909090909090909"
        );
        PageValue::encode_absent(&mut out, OWNER.as_bytes(), 3);
        assert_eq!(hex(&out), "0350ecef8b1761abdb");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn pages_decode_to_what_was_encoded() {
        let owner = OWNER.as_bytes();
        let decoded = PageValue::decode(&raw(owner, 3, b"page"), owner, 3);
        assert_eq!(decoded, Ok(PageValue::Raw(Bytes::from_static(b"page"))));

        let mut out = Vec::new();
        PageValue::encode_absent(&mut out, owner, 3);
        let decoded = PageValue::decode(&out.clone().into(), owner, 3);
        assert_eq!(decoded, Ok(PageValue::Absent));

        PageValue::encode_staged(&mut out, owner, page_sum(3, b"page"), STAGE);
        let Ok(PageValue::Staged { stage, checksum }) = PageValue::decode(&out.into(), owner, 3)
        else {
            panic!("a reference must decode as one");
        };
        assert_eq!(stage, STAGE);
        PageValue::verify_staged(owner, 3, checksum, b"page").unwrap();
        PageValue::verify_staged(owner, 3, checksum, b"Page").expect_err("other content");
        PageValue::verify_staged(owner, 4, checksum, b"page").expect_err("another index");
    }

    #[test]
    fn a_page_under_another_owner_or_index_or_with_any_byte_changed_is_refused() {
        let owner = OWNER.as_bytes();
        let good = raw(owner, 3, b"page");
        PageValue::decode(&good, owner, 4).expect_err("another index");
        PageValue::decode(&good, &[8; 10], 3).expect_err("another namespace");
        PageValue::decode(&good.slice(..8), owner, 3).expect_err("cut short");
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            PageValue::decode(&bad.into(), owner, 3).expect_err("a changed byte");
        }
    }

    #[test]
    fn a_stage_record_is_29_bytes_as_documented() {
        let record = StageRecord {
            state: StageState::Committed,
            page_size: 4096,
            count: 2,
            sum: 0x0102_0304_0506_0708,
            touched_millis: 5,
        };
        let golden = "0100001000000000000000000201020304050607080000000000000005";
        assert_eq!(hex(&record.encode()), golden);
        assert_eq!(StageRecord::decode(&record.encode()), Ok(record));
        assert_eq!(record.encode().len(), 29);
        StageRecord::decode(&[3; 29]).expect_err("an impossible state");
    }
}
