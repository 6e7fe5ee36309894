//! Data plane v2: the messages between our own client and the server.
//!
//! Every call is `POST /v2/ns/{key}/{call}` with the namespace key percent-encoded as one path
//! segment, and one MessagePack value as its body. Structures travel as maps with the field names
//! below; unknown fields are ignored and missing optional ones take their defaults, so that a
//! server can serve clients of the previous minor version. Byte strings are `bin`.
//!
//! | call | request | reply |
//! |---|---|---|
//! | `begin` | [`BeginRequest`] | [`BeginReply`] |
//! | `resolve` | [`ResolveRequest`] | [`ResolveReply`] |
//! | `read` | [`ReadRequest`] | a sequence of [`PageImage`] values, one behind the other |
//! | `stage` | [`StageRequest`] | [`StageReply`] |
//! | `commit` | [`CommitRequest`] | [`CommitReply`] |
//! | `settle` | [`SettleRequest`] | [`SettleReply`] |
//! | `lease` | [`LeaseRequest`] | [`LeaseReply`] |
//!
//! A transaction over several namespaces ends in a call that names them all: `POST /v2/commit` with
//! a [`GroupCommitRequest`], answered by a [`GroupCommitReply`], and `POST /v2/settle` with a
//! [`GroupSettleRequest`], answered by a [`SettleReply`].
//!
//! A refusal has a status of 400 or above and a [`crate::Problem`] as `application/problem+json`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::name::{Moment, NamespaceKey};
use crate::page::{PageData, PageImage, PageIndex, PageSet, at_most_pages};
use crate::version::{
    IdempotencyKey, Incarnation, LeaseNonce, NamespaceId, ReadVersion, StageId, Version,
};

/// `Content-Type` of every v2 body that is not a problem.
pub const CONTENT_TYPE: &str = "application/vnd.mvsqlite.v2+msgpack";

/// Starts a transaction: takes a snapshot of the newest version. Strict: every commit that was
/// acknowledged by any server before this call began is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginRequest {
    /// What the client's cache holds, if anything: asks for the pages that changed since.
    pub known: Option<KnownState>,
    /// Asks for page 1 (and, as the server likes, other pages worth having) with the answer.
    #[serde(default)]
    pub want_pages: bool,
    /// Asks for the newest commit at or below this instead of the newest of all: the
    /// [`BeginReply::read_version`] of the first database of a transaction over several, so that
    /// all of them show one moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<ReadVersion>,
}

/// The state a client's cache stands at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownState {
    /// The store's incarnation then.
    pub incarnation: Incarnation,
    /// The namespace's id then.
    pub namespace: NamespaceId,
    /// Every change up to here is known: the version of a `begin`, or `seen` of a commit.
    pub version: Version,
    /// The client's own commits above `version`. Their pages are not listed as changed, unless
    /// others changed them too. At most [`MAX_OWN_COMMITS`].
    #[serde(default)]
    pub own: Vec<Version>,
}

/// The most entries of [`KnownState::own`]. A client with more gives up its known state.
pub const MAX_OWN_COMMITS: usize = 256;

/// The snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginReply {
    /// The store's incarnation.
    pub incarnation: Incarnation,
    /// The namespace's id; names the namespace in every further call of the transaction.
    pub namespace: NamespaceId,
    /// The version of the newest commit: the snapshot.
    pub version: Version,
    /// Where in the store's order of commits this was read. Later calls that rely on it send it.
    pub read_version: ReadVersion,
    /// Page size by page 1 at `version`, in bytes; 0 while the namespace has no SQLite header.
    pub page_size: u32,
    /// How writers of this namespace keep out of each other's way.
    pub mode: Concurrency,
    /// What later calls may carry.
    pub limits: Limits,
    /// Pages changed since [`BeginRequest::known`]; `None` is unknown: drop everything cached.
    /// A superset of the truth.
    pub changed: Option<PageSet>,
    /// Pages at `version`: page 1 if it was asked for and exists.
    #[serde(default)]
    pub pages: Vec<PageImage>,
}

/// How writers of a namespace keep out of each other's way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Concurrency {
    /// Writers run side by side; conflicts come out at COMMIT.
    #[default]
    Optimistic,
    /// A writer holds a lease; COMMIT does not conflict.
    Exclusive,
}

/// The server's limits on what one call may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most bytes of page content that a commit may bring inline; more must be staged.
    pub inline_bytes: u64,
    /// Most bytes of page content in one `stage` call.
    pub stage_batch_bytes: u64,
    /// Most pages in one commit, staged or not: as many as a database can have, unless the server
    /// is one that could not yet commit transactions of any size.
    pub commit_pages: u64,
    /// Most pages that one `read` may ask for.
    pub read_pages: u32,
    /// A `read` may stop early once it has answered this many bytes of page content.
    pub read_bytes: u64,
}

/// Asks which version a moment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// The moment as the user gave it.
    pub moment: Moment,
}

/// A moment resolved to a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveReply {
    /// The store's incarnation.
    pub incarnation: Incarnation,
    /// The namespace's id.
    pub namespace: NamespaceId,
    /// The newest commit at or below the moment; the namespace's id when there is none.
    pub version: Version,
    /// Where in the store's order of commits this was read.
    pub read_version: ReadVersion,
    /// Page size by page 1 at `version`, in bytes; 0 while there is no SQLite header.
    pub page_size: u32,
    /// The server's limits.
    pub limits: Limits,
}

/// Reads pages at a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRequest {
    /// The namespace's id as `begin` or `resolve` gave it.
    pub namespace: NamespaceId,
    /// The version to read at: one that `begin`, `resolve` or a commit returned.
    pub version: Version,
    /// The largest read version this client was given for this transaction.
    pub read_version: ReadVersion,
    /// Which pages. The reply has one image for each, in ascending order, and may end early (after
    /// at least one) when the byte budget is used up; the client asks again for the rest.
    pub pages: PageSet,
    /// The store's incarnation as `begin` gave it; another one refuses the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// The transaction's own stage. A page that it holds is answered from there, with
    /// [`PageImage::from`] at `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageId>,
}

/// Uploads pages ahead of the commit that will refer to them, or drops ones uploaded before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRequest {
    /// The namespace's id.
    pub namespace: NamespaceId,
    /// The largest read version this client was given for this transaction.
    pub read_version: ReadVersion,
    /// The stage to add to; `None` makes one.
    pub stage: Option<StageId>,
    /// Pages to add; one that is staged already is replaced.
    #[serde(deserialize_with = "at_most_pages")]
    pub pages: Vec<PageData>,
    /// Pages to drop from the stage.
    #[serde(default)]
    pub unstage: PageSet,
    /// The store's incarnation as `begin` gave it; another one refuses the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
}

/// What the stage holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReply {
    /// The stage.
    pub stage: StageId,
    /// Pages in it.
    pub count: u64,
    /// The xor of [`crate::page::staged_sum`] over them.
    pub sum: u64,
    /// Send at least this as `read_version` from now on.
    pub read_version: ReadVersion,
}

/// Commits a transaction: all or nothing, at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRequest {
    /// The namespace's id as `begin` gave it.
    pub namespace: NamespaceId,
    /// The snapshot that was read.
    pub base: Version,
    /// The largest read version this client was given for this transaction.
    pub read_version: ReadVersion,
    /// Drawn at random for this commit; the same for each retry of it.
    pub key: IdempotencyKey,
    /// True from the second sending on: an earlier one may still be under way, or done.
    #[serde(default)]
    pub retry: bool,
    /// Pages that were read. Written pages count as read without being listed, except for page 1,
    /// which is judged by what changed in it.
    pub read: PageSet,
    /// Pages that were written, inline, each index once. Bytes 24..28 and 92..100 of page 1 are
    /// zero. A page 1 that changed only there is left out.
    #[serde(deserialize_with = "at_most_pages")]
    pub pages: Vec<PageData>,
    /// Pages that were written and staged; an index stands here or in `pages`, never in both.
    pub stage: Option<StageRef>,
    /// The store's incarnation as `begin` gave it; another one refuses the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// The write lease that the transaction holds. The commit gives it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseNonce>,
}

/// A stage as its client believes it to be; the server refuses the commit if it is not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRef {
    /// The stage.
    pub stage: StageId,
    /// Pages in it.
    pub count: u64,
    /// The xor of [`crate::page::staged_sum`] over them.
    pub sum: u64,
}

/// The commit is durable and visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitReply {
    /// The version it made.
    pub version: Version,
    /// Every change by others up to here is in `changed`: the client's next
    /// [`KnownState::version`], with `version` among its own commits.
    pub seen: Version,
    /// Send at least this as `read_version` from now on.
    pub read_version: ReadVersion,
    /// Pages that others changed in (base, seen]; `None` is unknown: drop everything cached.
    pub changed: Option<PageSet>,
}

/// Commits a transaction over several namespaces: all or nothing, at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCommitRequest {
    /// Drawn at random for this commit; the same for each retry of it.
    pub key: IdempotencyKey,
    /// True from the second sending on: an earlier one may still be under way, or done.
    #[serde(default)]
    pub retry: bool,
    /// The store's incarnation as `begin` gave it; another one refuses the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// The largest read version this client was given for this transaction.
    pub read_version: ReadVersion,
    /// What happens to each namespace, each once; at most [`MAX_GROUP`].
    pub members: Vec<GroupMember>,
}

/// The most namespaces of one commit: those of the original, which covers the most databases that
/// SQLite attaches by default.
pub const MAX_GROUP: usize = 16;

/// One namespace's part of a [`GroupCommitRequest`]. The fields mean what they mean in a
/// [`CommitRequest`]. With no page and no stage the namespace was only read: its read set is
/// checked, and it gets no new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// The namespace's key.
    pub ns: NamespaceKey,
    /// The namespace's id as `begin` gave it.
    pub namespace: NamespaceId,
    /// The snapshot that was read.
    pub base: Version,
    /// Pages that were read.
    pub read: PageSet,
    /// Pages that were written, inline.
    #[serde(default, deserialize_with = "at_most_pages")]
    pub pages: Vec<PageData>,
    /// Pages that were written and staged.
    #[serde(default)]
    pub stage: Option<StageRef>,
    /// The write lease that the transaction holds on the namespace. The commit gives it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseNonce>,
}

/// The commit is durable and visible, in all of its namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCommitReply {
    /// The version it made, in every namespace that was written.
    pub version: Version,
    /// Send at least this as `read_version` from now on.
    pub read_version: ReadVersion,
    /// What others did, in the order of [`GroupCommitRequest::members`].
    pub members: Vec<GroupChanges>,
}

/// What others did to one namespace of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupChanges {
    /// As [`CommitReply::seen`].
    pub seen: Version,
    /// As [`CommitReply::changed`].
    pub changed: Option<PageSet>,
}

/// Settles a commit over several namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSettleRequest {
    /// The commit's key.
    pub key: IdempotencyKey,
    /// All of its namespaces, in any order.
    pub members: Vec<GroupName>,
}

/// A namespace of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupName {
    /// The namespace's key.
    pub ns: NamespaceKey,
    /// The namespace's id.
    pub namespace: NamespaceId,
}

/// Asks for, keeps or gives back the write lease of a namespace. Each may be sent as often as one
/// likes: the nonce is the client's, so that a repetition is told from another's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The namespace's id.
    pub namespace: NamespaceId,
    /// The store's incarnation as `begin` gave it; another one refuses the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// Names the lease, and the place in the queue for it: 16 random bytes that are not all zero,
    /// drawn for each lease that is asked for.
    pub nonce: LeaseNonce,
    /// What to do.
    pub action: LeaseAction,
}

/// What to do about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseAction {
    /// Takes it, or queues for it. Never waits. Who holds it already keeps it for another term.
    Acquire {
        /// The place that an earlier answer gave, if any.
        place: Option<u64>,
    },
    /// Keeps it for another term. Refused as [`crate::Code::Locked`] if the caller has lost it.
    Renew,
    /// Gives it back, and the place in the queue: one who has neither changes nothing.
    Release {
        /// The place, if there is one.
        place: Option<u64>,
    },
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseReply {
    /// The caller holds the lease.
    Granted {
        /// It ends this long after the request was sent unless renewed, in milliseconds.
        ttl_millis: u64,
        /// The namespace's newest commit. A snapshot older than this cannot be written on.
        head: Version,
        /// Send at least this as `read_version` from now on.
        read_version: ReadVersion,
    },
    /// Somebody else holds it, or is before the caller in the queue.
    Busy {
        /// The caller's place in the queue; lower ones come first.
        place: u64,
        /// When asking again is worth while, in milliseconds.
        retry_millis: u64,
        /// The place is given up this long after the last request, in milliseconds.
        place_millis: u64,
    },
    /// Given back.
    Released,
}

/// Settles a commit whose outcome the client does not know: after the reply, it either happened
/// or never will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleRequest {
    /// The namespace's id.
    pub namespace: NamespaceId,
    /// The commit's key.
    pub key: IdempotencyKey,
}

/// The outcome, now definite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettleReply {
    /// It had been committed, at this version.
    Committed {
        /// The version it made.
        version: Version,
        /// Send at least this as `read_version` from now on.
        read_version: ReadVersion,
    },
    /// It had not been, and no attempt still under way can succeed any more.
    Aborted,
}

/// A body that is not the message it should be.
#[derive(Debug, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct DecodeError(#[from] rmp_serde::decode::Error);

/// Encodes a message as MessagePack, structures as maps.
///
/// # Errors
/// None for the types of this module; the signature is the serializer's.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(message)
}

/// How deep a body may nest. Our messages need 6; unknown fields may bring more. The decoder
/// recurses, so its own limit of 1,024 is more than a 2 MiB stack holds in a debug build.
const MAX_DEPTH: usize = 64;

/// Decodes a body that holds exactly one message.
///
/// # Errors
/// If the bytes are not that message, or if others follow it.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    let mut rest = body;
    let message = decode_next(&mut rest)?;
    if rest.is_empty() {
        return Ok(message);
    }
    let extra = format!("{} bytes follow the message", rest.len());
    Err(DecodeError(rmp_serde::decode::Error::Uncategorized(extra)))
}

/// Decodes the next message of a sequence and moves `rest` behind it.
///
/// # Errors
/// If the bytes do not begin with that message; `rest` is unspecified then.
pub fn decode_next<T: DeserializeOwned>(rest: &mut &[u8]) -> Result<T, DecodeError> {
    let mut deserializer = rmp_serde::Deserializer::new(&mut *rest);
    deserializer.set_max_depth(MAX_DEPTH);
    Ok(T::deserialize(&mut deserializer)?)
}

/// The path of a call, with the key percent-encoded as one segment.
pub fn path(key: &crate::NamespaceKey, call: &str) -> String {
    // A slash would end the segment; the original's keys may have anything.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let segment = key.as_str().bytes().map(|byte| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    format!("/v2/ns/{}/{call}", segment.collect::<String>())
}

/// The zero-based index of SQLite's page 1.
pub const PAGE_1: PageIndex = 0;
