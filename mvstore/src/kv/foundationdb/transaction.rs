//! A transaction of the FoundationDB engine.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use mvsqlite_protocol::{ReadVersion, Version};
use mvstore_fdb_client::foundationdb::options::{
    ConflictRangeType, MutationType, StreamingMode, TransactionOption,
};
use mvstore_fdb_client::foundationdb::{self as fdb, FdbError, RangeOption};
use tokio::sync::OnceCell;

use super::error::{CommitFailure, Failure};
use super::read_version::Known;
use super::{Shared, settle};
use crate::kv::request::{CommitRequest, Draft, Mutation, check_key, check_range};
use crate::kv::{
    Atomic, Freshness, Isolation, KeyRange, KvError, Limits, Pair, RangeOptions, StampOffset,
    Transaction,
};

const LIMITS: Limits = Limits::FOUNDATIONDB;

/// FoundationDB counts the records that hold keys and values as well; none of them is larger.
const RECORD_BYTES: u64 = 64;

/// All reads are snapshot reads to FoundationDB: the conflict ranges are the draft's.
const SNAPSHOT: bool = true;

pub(super) struct FoundationDbTransaction {
    shared: Arc<Shared>,
    freshness: Freshness,
    draft: Draft,
    started: OnceCell<Started>,
}

/// FoundationDB's transaction, with its read version.
struct Started {
    client: fdb::Transaction,
    known: Known,
}

impl Started {
    async fn new(shared: &Shared, freshness: Freshness) -> Result<Self, KvError> {
        let failure = |error: FdbError| shared.cluster.read_failure(&error.into());
        let client = shared.client_transaction().map_err(failure)?;
        let now = shared.now();
        if let Freshness::AtLeast(least) = freshness
            && let Some(known) = shared.read_version.at_least(least, now)
        {
            // It came from the cluster as a signed number.
            client.set_read_version(known.version.0.cast_signed());
            return Ok(Self { client, known });
        }
        let version = client.get_read_version().await.map_err(failure)?;
        let version = ReadVersion(version.cast_unsigned());
        let known = Known { version, at: now };
        shared.read_version.learn(known);
        Ok(Self { client, known })
    }

    fn check_age(&self, shared: &Shared) -> Result<(), KvError> {
        let age = shared.now().saturating_sub(self.known.at);
        if age > LIMITS.transaction_age {
            return Err(KvError::TooOld);
        }
        Ok(())
    }
}

impl FoundationDbTransaction {
    pub(super) fn new(shared: Arc<Shared>, freshness: Freshness, draft: Draft) -> Self {
        Self {
            shared,
            freshness,
            draft,
            started: OnceCell::new(),
        }
    }

    /// FoundationDB's transaction, begun now if it was not before.
    async fn started(&self) -> Result<&Started, KvError> {
        let started = self
            .started
            .get_or_try_init(|| Started::new(&self.shared, self.freshness))
            .await?;
        started.check_age(&self.shared)?;
        Ok(started)
    }

    fn read_failure(&self, started: &Started, error: FdbError) -> KvError {
        // FoundationDB's timeout counts from the transaction's beginning. If it comes when the
        // transaction has had its time, that is the reason and not the cluster.
        match started.check_age(&self.shared) {
            Err(too_old) => too_old,
            Ok(()) => self.shared.cluster.read_failure(&error.into()),
        }
    }

    /// What a failed commit has done, found out as far as it can be.
    async fn commit_failure(
        shared: &Shared,
        error: FdbError,
        bytes: u64,
        token: &KeyRange,
    ) -> KvError {
        let reason = match shared.cluster.commit_failure(&Failure::from(error), bytes) {
            CommitFailure::Refused(error) => return error,
            CommitFailure::Unknown(reason) => reason,
        };
        match settle::commit_nothing(shared, token).await {
            Ok(()) => KvError::MaybeCommitted { reason },
            Err(unsettled) => KvError::MaybeCommitted {
                reason: format!("{reason}; it may still happen: {unsettled}"),
            },
        }
    }
}

#[async_trait]
impl Transaction for FoundationDbTransaction {
    async fn read_version(&self) -> Result<ReadVersion, KvError> {
        Ok(self.started().await?.known.version)
    }

    async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>, KvError> {
        check_key(key, &LIMITS)?;
        let started = self.started().await?;
        let value = started
            .client
            .get(key, SNAPSHOT)
            .await
            .map_err(|error| self.read_failure(started, error))?;
        self.draft.note_get(key, isolation);
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<Vec<Pair>, KvError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        check_range(range, &LIMITS)?;
        let started = self.started().await?;
        let pairs = read_range(&started.client, range, options)
            .await
            .map_err(|error| self.read_failure(started, error))?;
        self.draft.note_range(range, options, &pairs);
        Ok(pairs)
    }

    fn draft(&self) -> &Draft {
        &self.draft
    }

    fn draft_mut(&mut self) -> &mut Draft {
        &mut self.draft
    }

    fn approximate_bytes(&self) -> u64 {
        self.draft.approximate_bytes() + RECORD_BYTES * self.draft.items()
    }

    async fn commit(self: Box<Self>) -> Result<Version, KvError> {
        if self.draft.is_read_only() {
            let read = self.started.get().map(|started| started.known.version);
            return Ok(Version::new(read.unwrap_or_default().0, 0));
        }
        let bytes = self.approximate_bytes();
        let request = self.draft.finish()?;
        within_limit(bytes)?;
        let shared = self.shared;
        let started = match self.started.into_inner() {
            Some(started) => started,
            None => Started::new(&shared, self.freshness).await?,
        };
        started.check_age(&shared)?;
        let client = started.client;
        let token = settle::token()?;
        hand_over(&client, request)
            .and_then(|()| settle::add_token(&client, &token))
            .map_err(|error| shared.cluster.read_failure(&error.into()))?;
        let stamp = client.get_versionstamp();
        let at = shared.now();
        if let Err(failed) = client.commit().await {
            return Err(Self::commit_failure(&shared, *failed, bytes, &token).await);
        }
        let version = stamp
            .await
            .ok()
            .and_then(|stamp| Version::from_slice(&stamp))
            .ok_or_else(|| KvError::MaybeCommitted {
                reason: "it was, but FoundationDB's client does not say at which version"
                    .to_owned(),
            })?;
        let version_read = ReadVersion(version.commit());
        shared.read_version.learn(Known {
            version: version_read,
            at,
        });
        Ok(version)
    }
}

fn within_limit(bytes: u64) -> Result<(), KvError> {
    let limit = LIMITS.transaction_bytes;
    if bytes > limit {
        return Err(KvError::TooLarge {
            what: "a transaction",
            bytes,
            limit,
        });
    }
    Ok(())
}

/// Reads a range in as many replies as it takes.
async fn read_range(
    client: &fdb::Transaction,
    range: &KeyRange,
    options: RangeOptions,
) -> Result<Vec<Pair>, FdbError> {
    let mut pairs = Vec::new();
    let mut rest = Some(RangeOption {
        limit: Some(options.limit),
        // Whoever asks for a range wants it all; the limit says how much that is.
        mode: StreamingMode::WantAll,
        reverse: options.reverse,
        ..RangeOption::from((range.begin.as_slice(), range.end.as_slice()))
    });
    let mut reply = 1;
    while let Some(part) = rest {
        let found = client.get_range(&part, reply, SNAPSHOT).await?;
        pairs.extend(found.iter().map(|pair| {
            (
                Bytes::copy_from_slice(pair.key()),
                Bytes::copy_from_slice(pair.value()),
            )
        }));
        rest = part.next_range(&found);
        reply += 1;
    }
    Ok(pairs)
}

/// Puts a request into FoundationDB's transaction.
///
/// A write conflicts over what it writes by itself, which is what the draft asks for in most cases;
/// where it does not, FoundationDB is told so, and what is left of the ranges is added.
fn hand_over(client: &fdb::Transaction, request: CommitRequest) -> Result<(), FdbError> {
    let (reads, write_conflicts, mutations) = request.into_parts();
    for range in reads.ranges() {
        client.add_conflict_range(&range.begin, &range.end, ConflictRangeType::Read)?;
    }
    let mut conflicts: HashSet<KeyRange> = write_conflicts.into_iter().collect();
    for mutation in &mutations {
        let by_itself = conflict_of(mutation);
        if by_itself.is_some_and(|range| !conflicts.remove(&range)) {
            client.set_option(TransactionOption::NextWriteNoWriteConflictRange)?;
        }
        write(client, mutation);
    }
    for range in &conflicts {
        client.add_conflict_range(&range.begin, &range.end, ConflictRangeType::Write)?;
    }
    Ok(())
}

/// The range over which FoundationDB lets a write conflict; that of a versionstamped key is its
/// final key, and is known at commit.
fn conflict_of(mutation: &Mutation) -> Option<KeyRange> {
    match mutation {
        Mutation::StampKey { .. } => None,
        Mutation::ClearRange { range } => Some(range.clone()),
        Mutation::Set { key, .. }
        | Mutation::Clear { key }
        | Mutation::StampValue { key, .. }
        | Mutation::Atomic { key, .. } => Some(KeyRange::single(key)),
    }
}

fn write(client: &fdb::Transaction, mutation: &Mutation) {
    match mutation {
        Mutation::Set { key, value } => client.set(key, value),
        Mutation::Clear { key } => client.clear(key),
        Mutation::ClearRange { range } => client.clear_range(&range.begin, &range.end),
        Mutation::StampKey { key, offset, value } => {
            let key = with_offset(key, *offset);
            client.atomic_op(&key, value, MutationType::SetVersionstampedKey);
        }
        Mutation::StampValue { key, value, offset } => {
            let value = with_offset(value, *offset);
            client.atomic_op(key, &value, MutationType::SetVersionstampedValue);
        }
        Mutation::Atomic { op, key, operand } => {
            let op = match op {
                Atomic::Add => MutationType::Add,
                Atomic::Xor => MutationType::BitXor,
                Atomic::Max => MutationType::Max,
            };
            client.atomic_op(key, operand, op);
        }
    }
}

/// Where the versionstamp goes, as FoundationDB takes it since API 520: the offset in four bytes,
/// little-endian, behind the bytes.
fn with_offset(bytes: &[u8], offset: StampOffset) -> Vec<u8> {
    // The draft has made sure that it lies within the bytes, whose number is limited.
    let offset = u32::try_from(offset).unwrap_or(u32::MAX);
    [bytes, offset.to_le_bytes().as_slice()].concat()
}
