//! Data plane v1: the messages of the original (mvSQLite 0.3.22), frozen.
//!
//! | path | request | reply |
//! |---|---|---|
//! | `/stat` | none | [`StatReply`] as JSON |
//! | `/batch/read` | frames of [`ReadRequest`] | frames of [`ReadReply`], one for each, in order |
//! | `/batch/write` | frames of [`WriteRequest`], then an empty frame | frames of [`WriteReply`], one for each, then one with an empty hash |
//! | `/batch/commit` | a [`CommitBody`] as frames | one [`CommitReply`], not framed |
//!
//! A frame is a 4-byte big-endian length and so many bytes. What is in it is a MessagePack map with
//! string keys; in any order, unknown ones ignored, and an array of the values in the order below will
//! do. Byte strings are `bin`. Versions are text.
//!
//! Messages borrow from the body they were decoded from: a body may hold megabytes of pages.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::page::PageIndex;
use crate::version::IdempotencyKey;

/// Most bytes of a frame in a request.
pub const MAX_FRAME: usize = 40_960;
/// Bytes before a frame's own.
pub const FRAME_HEAD: usize = 4;
/// Most pages that one `/batch/read` asks for.
pub const MAX_READS: usize = 200;
/// Most pages that one `/batch/write` brings.
pub const MAX_WRITES: usize = 100;
/// Most namespaces of one commit.
pub const MAX_NAMESPACES: usize = 16;
/// Most pages of one commit, over all namespaces.
pub const MAX_COMMIT_PAGES: usize = 50_000;
/// Most pages that one commit brings along, over all namespaces.
pub const MAX_INLINE_PAGES: usize = 100;
/// Most bytes of a page.
pub const MAX_PAGE: usize = 32_768;
/// Bytes of a page's hash.
pub const HASH_LEN: usize = 32;

/// BLAKE3-256 of a page's bytes: its name until a commit gives it a place.
pub type PageHash = [u8; HASH_LEN];

/// Reply to `/stat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatReply {
    /// The namespace's last commit, or its id.
    pub version: String,
    /// Always empty.
    pub metadata: String,
    /// Whether the server only reads.
    pub read_only: bool,
    /// Pages changed since `from_version`, ascending; `None` is unknown.
    pub interval: Option<Vec<PageIndex>>,
}

/// Body of `/nslock/acquire`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcquireLock {
    /// Whose the lock shall be: 1 to 256 bytes.
    pub owner: String,
    /// What others see meanwhile, 20 hex digits; `None`: the newest version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Body of `/nslock/release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseLock {
    /// Whose the lock is.
    pub owner: String,
    /// What happens to what was written under it.
    pub mode: LockMode,
}

/// What happens to what was written under a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// It stays.
    Commit,
    /// It is undone.
    Rollback,
}

/// Asks for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRequest<'a> {
    /// Which.
    pub page_index: PageIndex,
    /// As of this version: any 20 hex digits.
    pub version: &'a str,
    /// Not by index and version, but by its content.
    #[serde(default, borrow, with = "serde_bytes")]
    pub hash: Option<&'a [u8]>,
    /// Whether the data may come compressed.
    #[serde(default)]
    pub accept_zstd: bool,
}

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReply<'a> {
    /// The version it was written at, or that of the request where it named a hash. Empty: there is no
    /// such page.
    pub version: &'a str,
    /// Its content. Empty: there is no such page.
    #[serde(borrow, with = "serde_bytes")]
    pub data: &'a [u8],
    /// Whether `data` is a zstd frame.
    #[serde(default)]
    pub zstd: bool,
}

/// Uploads a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteRequest<'a> {
    /// Its content.
    #[serde(borrow, with = "serde_bytes")]
    pub data: &'a [u8],
    /// It may resemble this page. Of no use here.
    #[serde(default)]
    pub delta_base: Option<PageIndex>,
}

/// A page was uploaded; or, with an empty hash, all were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteReply<'a> {
    /// Its hash.
    #[serde(borrow, with = "serde_bytes")]
    pub hash: &'a [u8],
}

/// Begins a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitGlobalInit<'a> {
    /// 16 random bytes, the same for each sending.
    #[serde(borrow, with = "serde_bytes")]
    pub idempotency_key: &'a [u8],
    /// Promises that there was no earlier sending.
    #[serde(default)]
    pub allow_skip_idempotency_check: bool,
    /// How many namespaces follow.
    pub num_namespaces: u64,
    /// The client's lock on all of them.
    #[serde(default)]
    pub lock_owner: Option<&'a str>,
}

/// Begins a namespace's part of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitNamespaceInit<'a> {
    /// Its key.
    pub ns_key: &'a str,
    /// The secret of a protected key, in hex.
    #[serde(default)]
    pub ns_key_hashproof: Option<&'a str>,
    /// The snapshot that was read: any 20 hex digits.
    pub version: &'a str,
    /// Of no use.
    #[serde(default)]
    pub metadata: Option<&'a str>,
    /// How many pages follow.
    pub num_pages: u32,
    /// Pages that must not have changed since; `None`: the whole namespace.
    #[serde(default)]
    pub read_set: Option<Vec<PageIndex>>,
}

/// One page of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPage<'a> {
    /// Which.
    pub page_index: PageIndex,
    /// Its hash.
    #[serde(borrow, with = "serde_bytes")]
    pub hash: &'a [u8],
    /// Its content, unless it was uploaded.
    #[serde(default, borrow, with = "serde_bytes")]
    pub data: Option<&'a [u8]>,
}

/// The commit happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitReply {
    /// By namespace key as the request wrote it: pages that others changed between the snapshot and the
    /// commit. No entry: unknown.
    pub changelog: BTreeMap<String, Vec<PageIndex>>,
}

/// Bytes that are no message, or not the one expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The body ends within a frame, or before one that has to come.
    #[error("the body ends before the frame does")]
    Short,
    /// The frame is longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is longer than {MAX_FRAME}")]
    TooLong(usize),
    /// What is in it is not the message.
    #[error("malformed message: {0}")]
    Message(#[from] rmp_serde::decode::Error),
}

/// How deep a message may nest; known fields need 2.
const MAX_DEPTH: usize = 32;

/// Decodes a message. What follows it is ignored, as the original does.
///
/// # Errors
/// If the bytes do not begin with the message.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, FrameError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(MAX_DEPTH);
    Ok(T::deserialize(&mut deserializer)?)
}

/// Encodes a message without a frame around it.
///
/// # Errors
/// None for the types of this module; the signature is the serializer's.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(message)
}

/// Adds a message to a body, as a frame.
///
/// # Errors
/// None for the types of this module; the signature is the serializer's.
pub fn push<T: Serialize>(body: &mut Vec<u8>, message: &T) -> Result<(), rmp_serde::encode::Error> {
    let head = body.len();
    body.extend_from_slice(&[0; FRAME_HEAD]);
    rmp_serde::encode::write_named(body, message)?;
    // Pages, and lists of at most as many as the server ever sends, are far below 4 GiB.
    let length = u32::try_from(body.len() - head - FRAME_HEAD).unwrap_or(u32::MAX);
    body[head..head + FRAME_HEAD].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// The frames of a body, one after the other.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
    most: usize,
}

impl<'a> Frames<'a> {
    /// Those of a request: none is longer than [`MAX_FRAME`].
    pub fn of_request(body: &'a [u8]) -> Self {
        Self {
            rest: body,
            most: MAX_FRAME,
        }
    }

    /// Those of a reply.
    pub fn of_reply(body: &'a [u8]) -> Self {
        Self {
            rest: body,
            most: u32::MAX as usize,
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes of the next frame.
    ///
    /// # Errors
    /// If it is too long or not there whole.
    pub fn bytes(&mut self) -> Result<&'a [u8], FrameError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<FRAME_HEAD>()
            .ok_or(FrameError::Short)?;
        let length = u32::from_be_bytes(*head) as usize;
        if length > self.most {
            return Err(FrameError::TooLong(length));
        }
        let (frame, rest) = rest.split_at_checked(length).ok_or(FrameError::Short)?;
        self.rest = rest;
        Ok(frame)
    }

    /// The message of the next frame.
    ///
    /// # Errors
    /// If it is too long, not there whole, or not that message.
    pub fn message<T: Deserialize<'a>>(&mut self) -> Result<T, FrameError> {
        decode(self.bytes()?)
    }
}

/// A commit that has arrived whole, within its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitBody<'a> {
    /// The same for each sending.
    pub key: IdempotencyKey,
    /// There may have been an earlier sending.
    pub retry: bool,
    /// The client's lock on all of its namespaces.
    pub lock_owner: Option<&'a str>,
    /// What happens to each namespace.
    pub namespaces: Vec<CommitNamespace<'a>>,
}

/// A namespace's part of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitNamespace<'a> {
    /// Which one, and what was read.
    pub init: CommitNamespaceInit<'a>,
    /// What is written.
    pub pages: Vec<WrittenPage<'a>>,
}

/// A page that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenPage<'a> {
    /// Which.
    pub index: PageIndex,
    /// Its hash as the client says.
    pub hash: PageHash,
    /// Its content, unless it was uploaded.
    pub data: Option<&'a [u8]>,
}

/// Why a commit's body is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The idempotency key is not of 16 bytes.
    #[error("an idempotency key has {} bytes", IdempotencyKey::LEN)]
    IdempotencyKey,
    /// None, or more than [`MAX_NAMESPACES`].
    #[error("num_namespaces out of bound")]
    Namespaces,
    /// A namespace appears twice.
    #[error("namespace not distinct")]
    NotDistinct,
    /// More than [`MAX_COMMIT_PAGES`].
    #[error("too many pages in commit")]
    Pages,
    /// More than [`MAX_INLINE_PAGES`].
    #[error("too many fast writes")]
    InlinePages,
    /// A page brought along is longer than [`MAX_PAGE`].
    #[error("fast write page too large")]
    InlinePage,
    /// A hash is not of [`HASH_LEN`] bytes.
    #[error("invalid hash")]
    Hash,
}

impl<'a> CommitBody<'a> {
    /// Takes a body apart. What follows the last page is not looked at.
    ///
    /// # Errors
    /// If a frame is missing or malformed, or a limit is exceeded.
    pub fn decode(body: &'a [u8]) -> Result<Self, CommitError> {
        let mut frames = Frames::of_request(body);
        let init: CommitGlobalInit<'a> = frames.message()?;
        let key = IdempotencyKey::from_slice(init.idempotency_key);
        let key = key.ok_or(CommitError::IdempotencyKey)?;
        if !(1..=MAX_NAMESPACES as u64).contains(&init.num_namespaces) {
            return Err(CommitError::Namespaces);
        }
        let mut pages = PageCount::default();
        let mut names = HashSet::new();
        let mut namespaces = Vec::new();
        for _ in 0..init.num_namespaces {
            let namespace = CommitNamespace::decode(&mut frames, &mut pages)?;
            if !names.insert(namespace.init.ns_key) {
                return Err(CommitError::NotDistinct);
            }
            namespaces.push(namespace);
        }
        Ok(Self {
            key,
            retry: !init.allow_skip_idempotency_check,
            lock_owner: init.lock_owner,
            namespaces,
        })
    }
}

/// What is counted over all namespaces of a commit.
#[derive(Debug, Default)]
struct PageCount {
    all: usize,
    inline: usize,
}

impl<'a> CommitNamespace<'a> {
    fn decode(frames: &mut Frames<'a>, count: &mut PageCount) -> Result<Self, CommitError> {
        let init: CommitNamespaceInit<'a> = frames.message()?;
        count.all = count.all.saturating_add(init.num_pages as usize);
        if count.all > MAX_COMMIT_PAGES {
            return Err(CommitError::Pages);
        }
        // Not with room for what is only claimed.
        let mut pages = Vec::new();
        for _ in 0..init.num_pages {
            let page: CommitPage<'a> = frames.message()?;
            count.inline += usize::from(page.data.is_some());
            if count.inline > MAX_INLINE_PAGES {
                return Err(CommitError::InlinePages);
            }
            if page.data.is_some_and(|data| data.len() > MAX_PAGE) {
                return Err(CommitError::InlinePage);
            }
            pages.push(WrittenPage {
                index: page.page_index,
                hash: page.hash.try_into().map_err(|_| CommitError::Hash)?,
                data: page.data,
            });
        }
        Ok(Self { init, pages })
    }
}
