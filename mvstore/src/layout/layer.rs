//! Layers: what lies over the page versions of a namespace, and the namespace below them all.
//!
//! A layer is listed in the guard, so that one write of it shows or removes any number of pages.

use mvsqlite_protocol::{NamespaceId, PageIndex, StageId, Version};

use super::{Fields, Malformed};
use crate::kv::StampOffset;

/// Most layers of a namespace, and most namespaces below one.
pub(crate) const MAX_LAYERS: usize = 8;

/// A layer. It speaks for versions at and above `at`, and for pages that have no version of their
/// own at or above `at`. Stored as
///
/// ```text
/// 0   1   kind: 1 stage, 2 restore
/// 1  10   the version of the commit that made it
///
/// a stage:                                 a restore:
/// 11  1   flags: 1 there is a stage,       11 10  the version restored
///                2 cuts off
/// 12 16   the stage (zeros: none)
/// 28  4   count
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layer {
    /// The version of the commit that made it.
    pub at: Version,
    /// What it does.
    pub kind: LayerKind,
}

/// What a layer does to the pages it speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerKind {
    /// The commit changed too many pages to write a version of each.
    Stage {
        /// Holds the pages that were written, if there are any.
        stage: Option<StageId>,
        /// The stage's pages from here on do not count: they were cut off again before the commit.
        count: PageIndex,
        /// All pages from `count` on ceased to exist. A commit that does not shorten the database
        /// must not say so: another may have made it longer meanwhile.
        cuts: bool,
    },
    /// Pages are what they were at an earlier version.
    Restore {
        /// That version.
        to: Version,
    },
}

const KIND_STAGE: u8 = 1;
const KIND_RESTORE: u8 = 2;
const HAS_STAGE: u8 = 1;
const CUTS: u8 = 2;

impl Layer {
    const WHAT: &str = "a layer";

    /// Appends the layer; returns where its version stands.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) -> StampOffset {
        let kind = match self.kind {
            LayerKind::Stage { .. } => KIND_STAGE,
            LayerKind::Restore { .. } => KIND_RESTORE,
        };
        bytes.push(kind);
        let offset = bytes.len();
        bytes.extend_from_slice(self.at.as_bytes());
        match self.kind {
            LayerKind::Stage { stage, count, cuts } => {
                let flags = if stage.is_some() { HAS_STAGE } else { 0 };
                bytes.push(flags | if cuts { CUTS } else { 0 });
                let stage = stage.unwrap_or(StageId::from_bytes([0; StageId::LEN]));
                bytes.extend_from_slice(stage.as_bytes());
                bytes.extend_from_slice(&count.to_be_bytes());
            }
            LayerKind::Restore { to } => bytes.extend_from_slice(to.as_bytes()),
        }
        offset
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let bad = |field| Malformed::Field {
            what: Self::WHAT,
            field,
        };
        let kind = fields.u8()?;
        let at = fields.version()?;
        let kind = match kind {
            KIND_STAGE => {
                let flags = fields.u8()?;
                if flags & !(HAS_STAGE | CUTS) != 0 || flags == 0 {
                    return Err(bad("flag"));
                }
                let stage = StageId::from_bytes(fields.take()?);
                LayerKind::Stage {
                    stage: Some(stage).filter(|_| flags & HAS_STAGE != 0),
                    count: fields.u32()?,
                    cuts: flags & CUTS != 0,
                }
            }
            KIND_RESTORE => {
                let to = fields.version()?;
                if to >= at {
                    return Err(bad("version restored"));
                }
                LayerKind::Restore { to }
            }
            _ => return Err(bad("kind")),
        };
        Ok(Self { at, kind })
    }
}

/// A namespace below another: where no page version and no layer has an answer, the page is what it
/// was there. Stored as its id (10 bytes) and the version (10 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ancestor {
    /// The namespace.
    pub id: NamespaceId,
    /// The version of it that is seen.
    pub at: Version,
}

impl Ancestor {
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(self.at.as_bytes());
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let ancestor = Self {
            id: NamespaceId::from_bytes(fields.take()?),
            at: fields.version()?,
        };
        if ancestor.at < ancestor.id.as_version() {
            return Err(Malformed::Field {
                what: "an ancestor",
                field: "version",
            });
        }
        Ok(ancestor)
    }
}

/// How far the folding of a layer has come: the value of its entry in the work queue. Empty at
/// first, then
///
/// ```text
/// 0   1   pass: 0 pages of the stage, 1 pages cut off or restored, 2 done
/// 1   8   the next page index
/// ```
///
/// Each step moves it in the transaction that does the step, so no page is counted twice, however
/// often and by however many servers the step is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoldCursor {
    /// What is being done.
    pub pass: FoldPass,
    /// The next page index to look at; one more than the last there can be where all are done.
    pub next: u64,
}

/// The passes over a layer that is folded, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FoldPass {
    /// Pages of the stage become page versions.
    Staged,
    /// Pages that were cut off, or that a restore brings back, become page versions.
    Older,
    /// Nothing is left but to drop the layer.
    Done,
}

impl FoldCursor {
    /// Nothing is done yet.
    pub(crate) const START: Self = Self {
        pass: FoldPass::Staged,
        next: 0,
    };

    /// Everything is.
    pub(crate) const DONE: Self = Self {
        pass: FoldPass::Done,
        next: 0,
    };

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![match self.pass {
            FoldPass::Staged => 0,
            FoldPass::Older => 1,
            FoldPass::Done => 2,
        }];
        bytes.extend_from_slice(&self.next.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Ok(Self::START);
        }
        let mut fields = Fields::new("a layer's entry in the work queue", bytes);
        let pass = match fields.u8()? {
            0 => FoldPass::Staged,
            1 => FoldPass::Older,
            2 => FoldPass::Done,
            _ => return Err(fields.bad("pass")),
        };
        let next = fields.u64()?;
        fields.end()?;
        Ok(Self { pass, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fold_cursor_is_9_bytes_as_documented_and_empty_at_first() {
        assert_eq!(FoldCursor::decode(&[]), Ok(FoldCursor::START));
        let cursor = FoldCursor {
            pass: FoldPass::Older,
            next: 0x0102,
        };
        assert_eq!(cursor.encode(), [1, 0, 0, 0, 0, 0, 0, 1, 2]);
        for pass in [FoldPass::Staged, FoldPass::Older, FoldPass::Done] {
            let cursor = FoldCursor { pass, ..cursor };
            assert_eq!(FoldCursor::decode(&cursor.encode()), Ok(cursor));
        }
        FoldCursor::decode(&[3; 9]).expect_err("an impossible pass");
        FoldCursor::decode(&[1; 8]).expect_err("cut short");
        FoldCursor::decode(&[1; 10]).expect_err("too long");
    }
}
