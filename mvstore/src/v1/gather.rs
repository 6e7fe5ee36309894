//! The contents of a commit: brought along with it, or uploaded before and named by their hashes.
//!
//! What fits into one transaction is brought inline. More goes into a stage, copied from the uploaded
//! pages a batch at a time. The stage's id derives from the idempotency key, so that a second sending
//! fills the same one: it joins or continues the first.

use std::collections::BTreeMap;

use super::commit::{CommitError, Target};
use crate::context::{Context, Failure, Reruns};
use crate::error::StoreError;
use crate::kv::Freshness;
use crate::page::{find_waiting, hash_of, keep_waiting, stage_as};
use bytes::Bytes;
use mvsqlite_protocol::page::staged_sum;
use mvsqlite_protocol::v1::PageHash;
use mvsqlite_protocol::v2::{PAGE_1, StageRef, StageRequest};
use mvsqlite_protocol::{
    IdempotencyKey, NamespaceId, PageData, PageIndex, PageSet, ReadVersion, StageId,
};

/// Uploaded pages read in one transaction.
pub(super) const PAGES_A_BATCH: usize = 64;

/// What a commit puts into a namespace.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Pages inline.
    pub pages: Vec<PageData>,
    /// Of these, which were brought along, and by what hash they are known.
    pub noted: Vec<(PageIndex, PageHash)>,
    /// The others.
    pub stage: Option<StageRef>,
    /// The commit has to see the stage.
    pub read_version: ReadVersion,
}

/// Where a page's content comes from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Brought(&'a [u8], PageHash),
    Uploaded(PageHash),
}

/// Pages by index; where a commit names one twice, the later counts.
type Sources<'a> = BTreeMap<PageIndex, Source<'a>>;

/// What may still come inline.
#[derive(Debug, Clone, Copy)]
struct Room {
    bytes: u64,
    pages: u64,
}

/// Gathers the contents of all namespaces.
pub(super) async fn gather(
    ctx: &Context,
    key: IdempotencyKey,
    targets: &[Target<'_>],
) -> Result<Vec<Contents>, CommitError> {
    let mut room = Room {
        bytes: ctx.limits.inline_bytes,
        pages: ctx.bounds.transaction_pages,
    };
    let mut all = Vec::new();
    for target in targets {
        let sources = sources_of(target)?;
        keep_waiting(ctx, target.id, &hashes(&sources)).await?;
        let contents = match inline(ctx, target.id, &sources, &mut room).await? {
            Some(contents) => contents,
            None => staged(ctx, key, target, &sources, &mut room).await?,
        };
        all.push(contents);
    }
    Ok(all)
}

fn sources_of<'a>(target: &Target<'a>) -> Result<Sources<'a>, CommitError> {
    let mut sources = Sources::new();
    for page in &target.part.pages {
        let source = match page.data {
            Some([]) => {
                return Err(StoreError::BadPages {
                    reason: "a page of no bytes cannot be stored".to_owned(),
                    hint: "this is a fault of the client program: update it",
                }
                .into());
            }
            // The hash decides: content that has another one says nothing.
            Some(data) if hash_of(data) == page.hash => Source::Brought(data, page.hash),
            _ => Source::Uploaded(page.hash),
        };
        sources.insert(page.index, source);
    }
    Ok(sources)
}

fn hashes(sources: &Sources<'_>) -> Vec<PageHash> {
    let hash = |source: &Source<'_>| match source {
        Source::Uploaded(hash) => Some(*hash),
        Source::Brought(..) => None,
    };
    sources.values().filter_map(hash).collect()
}

/// Uploaded contents, which all have to be there.
async fn uploaded(
    ctx: &Context,
    id: NamespaceId,
    hashes: &[PageHash],
) -> Result<Vec<Bytes>, CommitError> {
    let mut freshness = Freshness::AtLeast(ReadVersion(0));
    let mut reruns = Reruns::new();
    loop {
        let txn = ctx.begin(freshness);
        match find_waiting(ctx, &*txn, id, hashes).await {
            Ok(found) => {
                let found: Option<Vec<Bytes>> = found.into_iter().collect();
                if let Some(found) = found {
                    return Ok(found);
                }
                if freshness == Freshness::Strict {
                    return Err(CommitError::BadReference);
                }
            }
            Err(Failure::Refused(_)) if freshness != Freshness::Strict => (),
            Err(failure) => reruns.after(failure)?,
        }
        // Another server may have taken it in after that read version.
        freshness = Freshness::Strict;
    }
}

/// All pages inline; `None` if there is no room for them.
async fn inline(
    ctx: &Context,
    id: NamespaceId,
    sources: &Sources<'_>,
    room: &mut Room,
) -> Result<Option<Contents>, CommitError> {
    let Some(pages) = room.pages.checked_sub(sources.len() as u64) else {
        return Ok(None);
    };
    let mut contents = Contents::default();
    let mut bytes = room.bytes;
    let entries: Vec<_> = sources.iter().collect();
    for batch in entries.chunks(PAGES_A_BATCH) {
        let mut found = uploaded(ctx, id, &hashes_of(batch)).await?.into_iter();
        for (index, source) in batch {
            let content = match source {
                Source::Brought(content, hash) => {
                    contents.noted.push((**index, *hash));
                    Bytes::copy_from_slice(content)
                }
                Source::Uploaded(_) => found.next().ok_or(CommitError::BadReference)?,
            };
            let Some(rest) = bytes.checked_sub(content.len() as u64) else {
                return Ok(None);
            };
            bytes = rest;
            contents.pages.push(page(**index, &content));
        }
    }
    *room = Room { bytes, pages };
    Ok(Some(contents))
}

fn hashes_of(batch: &[(&PageIndex, &Source<'_>)]) -> Vec<PageHash> {
    let hash = |(_, source): &(&PageIndex, &Source<'_>)| match source {
        Source::Uploaded(hash) => Some(*hash),
        Source::Brought(..) => None,
    };
    batch.iter().filter_map(hash).collect()
}

fn page(index: PageIndex, content: &[u8]) -> PageData {
    PageData {
        index,
        data: content.to_vec().into(),
    }
}

/// Page 1 inline and the others in a stage, as far as they are of one size, which the pages of a
/// database are; what is left inline too.
async fn staged(
    ctx: &Context,
    key: IdempotencyKey,
    target: &Target<'_>,
    sources: &Sources<'_>,
    room: &mut Room,
) -> Result<Contents, CommitError> {
    let mut contents = Contents::default();
    let mut stage = Filling::new(ctx, key, target);
    let entries: Vec<_> = sources.iter().collect();
    for batch in entries.chunks(PAGES_A_BATCH) {
        let mut found = uploaded(ctx, target.id, &hashes_of(batch))
            .await?
            .into_iter();
        for (index, source) in batch {
            let content = match source {
                Source::Brought(content, _) => Bytes::copy_from_slice(content),
                Source::Uploaded(_) => found.next().ok_or(CommitError::BadReference)?,
            };
            if **index != PAGE_1 && stage.takes(&content) {
                stage.add(**index, &content).await?;
                continue;
            }
            let length = content.len() as u64;
            room.bytes = room.bytes.checked_sub(length).ok_or(StoreError::TooLarge {
                what: "bytes of pages of another size than most of the commit's",
                amount: length,
                limit: room.bytes,
            })?;
            room.pages = room.pages.saturating_sub(1);
            contents.pages.push(page(**index, &content));
        }
    }
    stage.flush().await?;
    contents.stage = Some(stage.filled);
    contents.read_version = stage.read_version;
    Ok(contents)
}

/// A stage that is being filled.
struct Filling<'a> {
    ctx: &'a Context,
    target: &'a Target<'a>,
    /// Of its pages; 0 before the first.
    page_size: usize,
    batch: Vec<PageData>,
    bytes: u64,
    filled: StageRef,
    read_version: ReadVersion,
}

impl<'a> Filling<'a> {
    fn new(ctx: &'a Context, key: IdempotencyKey, target: &'a Target<'a>) -> Self {
        Self {
            ctx,
            target,
            page_size: 0,
            batch: Vec::new(),
            bytes: 0,
            filled: StageRef {
                stage: stage_of(key),
                count: 0,
                sum: 0,
            },
            read_version: ReadVersion(target.base.commit()),
        }
    }

    fn takes(&self, content: &[u8]) -> bool {
        self.page_size == 0 || self.page_size == content.len()
    }

    async fn add(&mut self, index: PageIndex, content: &[u8]) -> Result<(), StoreError> {
        let length = content.len() as u64;
        let is_full = self.batch.len() as u64 >= self.ctx.bounds.transaction_pages;
        if is_full || self.bytes + length > self.ctx.limits.stage_batch_bytes {
            self.flush().await?;
        }
        self.page_size = content.len();
        self.bytes += length;
        self.filled.count += 1;
        self.filled.sum ^= staged_sum(index, content);
        self.batch.push(page(index, content));
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        self.bytes = 0;
        let request = StageRequest {
            namespace: self.target.id,
            read_version: self.read_version,
            stage: Some(self.filled.stage),
            pages: std::mem::take(&mut self.batch),
            unstage: PageSet::new(),
            incarnation: None,
        };
        let reply = stage_as(self.ctx, &self.target.key, self.filled.stage, request).await?;
        self.read_version = self.read_version.max(reply.read_version);
        Ok(())
    }
}

/// Each sending of a commit has the same stage, and no other commit has it.
fn stage_of(key: IdempotencyKey) -> StageId {
    let hash = blake3::derive_key("mvsqlite 2026-11-22 stage of a v1 commit", key.as_bytes());
    let mut id = [0; StageId::LEN];
    id.copy_from_slice(&hash[..StageId::LEN]);
    StageId::from_bytes(id)
}
