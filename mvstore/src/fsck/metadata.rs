//! The metadata: every key of it, and what each says about a namespace compared with that namespace's
//! guard.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use mvsqlite_protocol::{NamespaceId, ReadVersion, Version};
use xxhash_rust::xxh3::xxh3_64;

use super::reader::{Reader, Walk};
use super::{Check, Finding, FsckError, Kind};
use crate::context::{Context, Failure};
use crate::kv::{Isolation, Transaction};
use crate::layout::{
    CatalogEntry, Deadline, Expiry, ExpiryKind, FoldCursor, Guard, LAYERS_GENERATION, LeaseTerm,
    MetadataKey, State, TruncationMark, Usage, decode_version,
};

/// Entries of the expiry index that are kept in memory, 16 bytes each, and objects that are looked
/// for in it once more at the end.
const MOST_EXPIRIES: usize = 2_000_000;
const MOST_PENDING: usize = 50_000;

/// What of the metadata is needed to judge namespaces.
#[derive(Default)]
pub(super) struct Metadata {
    names: HashMap<NamespaceId, String>,
    /// Hashes of what has an entry in the expiry index.
    expiries: HashSet<u64>,
    /// What has none there. It may be younger than the index as it was read.
    pending: Vec<Pending>,
}

/// Something that should expire.
struct Pending {
    hash: u64,
    id: NamespaceId,
    key: Vec<u8>,
}

fn hash_of(id: NamespaceId, kind: ExpiryKind, name: &[u8; 16]) -> u64 {
    let kind = match kind {
        ExpiryKind::Outcome => b'i',
        ExpiryKind::Stage => b's',
        ExpiryKind::Waiting => b'h',
    };
    xxh3_64(&[&id.as_bytes()[..], &[kind], name].concat())
}

impl Metadata {
    pub(super) fn name(&self, id: NamespaceId) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// Looks whether something has an entry in the expiry index; if not, once more at the end.
    pub(super) fn expect_expiry(
        &mut self,
        check: &mut Check<'_>,
        id: NamespaceId,
        kind: ExpiryKind,
        name: &[u8; 16],
        key: &[u8],
    ) {
        let hash = hash_of(id, kind, name);
        if self.expiries.contains(&hash) {
            return;
        }
        if self.pending.len() == MOST_PENDING {
            check.counts.expiries_not_judged += 1;
            return;
        }
        self.pending.push(Pending {
            hash,
            id,
            key: key.to_vec(),
        });
    }
}

/// What the walk has seen so far.
#[derive(Default)]
struct Seen {
    newest_time: Option<(u64, Version)>,
}

/// Looks at every key of the metadata, and at what lies beside it and beside the pages.
pub(super) async fn check_metadata(
    check: &mut Check<'_>,
    metadata: &mut Metadata,
) -> Result<(), FsckError> {
    let keys = &check.ctx.keys;
    for range in keys.foreign() {
        let mut reader = Reader::new(check.ctx);
        let mut walk = Walk::over(range);
        while let Some(pairs) = walk.next(check, &mut reader).await? {
            let strange = |(key, _): &(Bytes, Bytes)| unknown(keys.describe(key));
            check.found(pairs.iter().map(strange).collect())?;
        }
    }
    let mut reader = Reader::new(check.ctx);
    let mut walk = Walk::over(keys.all_metadata());
    let mut seen = Seen::default();
    while let Some(pairs) = walk.next(check, &mut reader).await? {
        for (key, value) in &pairs {
            let Some(parsed) = keys.metadata_key(key) else {
                check.found(vec![unknown(keys.describe(key))])?;
                continue;
            };
            if let MetadataKey::Name(name) = &parsed {
                enter_name(check, metadata, &mut reader, name, value).await?;
            }
            let found = match judge_alone(&parsed, value, &mut seen, metadata) {
                Ok(found) => found,
                Err(bad) => Some(Finding::new(Kind::BadValue, parsed.to_string(), bad)),
            };
            let found = match found {
                Some(found) => Some(found),
                None => judge_together(check, &mut reader, &parsed).await?,
            };
            check.found(found.into_iter().collect())?;
        }
    }
    check_times(check, &mut reader).await
}

fn unknown(key: String) -> Finding {
    Finding::new(Kind::UnknownKey, key, "it is none of the store's keys")
}

/// Notes a namespace's name, unless it has one already.
async fn enter_name(
    check: &mut Check<'_>,
    metadata: &mut Metadata,
    reader: &mut Reader<'_>,
    name: &str,
    value: &Bytes,
) -> Result<(), FsckError> {
    let Ok(entry) = CatalogEntry::decode(value) else {
        return Ok(());
    };
    if let Some(other) = metadata.names.insert(entry.id, name.to_owned()) {
        // It may have been renamed while the catalog was read.
        let key = check.ctx.keys.name(&other);
        let still = reader.get(check, &key).await?;
        let still = still.and_then(|value| CatalogEntry::decode(&value).ok());
        if still.is_some_and(|still| still.id == entry.id) {
            let detail = format!("'{}' names the namespace too", other.escape_debug());
            let key = MetadataKey::Name(name.to_owned()).to_string();
            check.found(vec![
                Finding::new(Kind::NamedTwice, key, detail).of(entry.id),
            ])?;
        }
    }
    Ok(())
}

/// What can be said of a key and its value without looking elsewhere.
fn judge_alone(
    key: &MetadataKey,
    value: &Bytes,
    seen: &mut Seen,
    metadata: &mut Metadata,
) -> Result<Option<Finding>, String> {
    let text = |malformed: crate::layout::Malformed| malformed.to_string();
    match key {
        MetadataKey::Fork(..) | MetadataKey::HighWaterMark => {
            decode_version(value).map_err(text)?;
        }
        MetadataKey::LeaseTerm(_) => drop(LeaseTerm::decode(value).map_err(text)?),
        MetadataKey::LeasePlace(..) => drop(Deadline::decode(value).map_err(text)?),
        MetadataKey::Name(_) => drop(CatalogEntry::decode(value).map_err(text)?),
        MetadataKey::Usage(..) => drop(Usage::decode(Some(value)).map_err(text)?),
        MetadataKey::Layer(..) => drop(FoldCursor::decode(value).map_err(text)?),
        MetadataKey::Truncation(_) => drop(TruncationMark::decode(value).map_err(text)?),
        MetadataKey::Time(millis) => {
            let version = decode_version(value).map_err(text)?;
            let before = seen.newest_time.replace((*millis, version));
            if let Some((_, before)) = before.filter(|(_, before)| *before >= version) {
                let detail = format!("{version} does not lie above {before}, of the time before");
                return Ok(Some(Finding::new(
                    Kind::TimeDisorder,
                    key.to_string(),
                    detail,
                )));
            }
        }
        MetadataKey::Expiry(expiry, bucket) => {
            if !value.is_empty() {
                return Err("an expiry entry has a value".to_owned());
            }
            if expiry.bucket() != *bucket {
                let detail = format!("it belongs into bucket {}", expiry.bucket());
                let kind = Kind::ExpiryMisplaced;
                return Ok(Some(Finding::new(kind, key.to_string(), detail)));
            }
            note_expiry(metadata, expiry);
        }
        // The format was looked at before; a deletion's value is a name, for people.
        MetadataKey::Format | MetadataKey::Deleted(_) => (),
    }
    Ok(None)
}

fn note_expiry(metadata: &mut Metadata, expiry: &Expiry) {
    if metadata.expiries.len() < MOST_EXPIRIES {
        let hash = hash_of(expiry.namespace, expiry.kind, &expiry.name);
        metadata.expiries.insert(hash);
    }
}

/// What a key says about a namespace, compared with that, in one transaction.
async fn judge_together(
    check: &mut Check<'_>,
    reader: &mut Reader<'_>,
    key: &MetadataKey,
) -> Result<Option<Finding>, FsckError> {
    loop {
        let judge = Judge {
            ctx: check.ctx,
            txn: reader.txn(),
            key,
        };
        match judge.judge().await {
            Ok(found) => return Ok(found),
            Err(failure) => reader.renew(failure)?,
        }
    }
}

/// Judges a key in one transaction.
struct Judge<'a> {
    ctx: &'a Context,
    txn: &'a dyn Transaction,
    key: &'a MetadataKey,
}

impl Judge<'_> {
    async fn judge(&self) -> Result<Option<Finding>, Failure> {
        let keys = &self.ctx.keys;
        match self.key {
            MetadataKey::Name(name) => self.name(name).await,
            MetadataKey::Fork(base, fork) => self.fork(*base, *fork).await,
            MetadataKey::Layer(id, at) => self.layer(*id, *at).await,
            MetadataKey::Deleted(id) => self.deleted(*id).await,
            MetadataKey::LeaseTerm(id) => self.anybody(*id, keys.lease_term(*id)).await,
            MetadataKey::LeasePlace(id, at) => self.anybody(*id, keys.lease_place(*id, *at)).await,
            MetadataKey::Usage(id, kind) => self.anybody(*id, keys.usage(*id, *kind)).await,
            MetadataKey::Truncation(id) => self.anybody(*id, keys.truncation(*id)).await,
            _ => Ok(None),
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Failure> {
        Ok(self.txn.get(key, Isolation::Snapshot).await?)
    }

    /// A guard that can be judged; a damaged one is told with its namespace.
    async fn guard(&self, id: NamespaceId) -> Result<Option<Option<Guard>>, Failure> {
        let value = self.get(&self.ctx.keys.guard(id)).await?;
        Ok(value.map(|value| Guard::decode(&value).ok()))
    }

    fn found(&self, kind: Kind, id: NamespaceId, detail: impl Into<String>) -> Option<Finding> {
        Some(Finding::new(kind, self.key.to_string(), detail).of(id))
    }

    async fn name(&self, name: &str) -> Result<Option<Finding>, Failure> {
        let value = self.get(&self.ctx.keys.name(name)).await?;
        let entry = value.and_then(|value| CatalogEntry::decode(&value).ok());
        let Some(entry) = entry else {
            return Ok(None);
        };
        let found = match self.guard(entry.id).await? {
            None => self.found(Kind::GuardMissing, entry.id, "the namespace has no guard"),
            Some(Some(guard)) if guard.state != State::Live => {
                self.found(Kind::NamedButDeleted, entry.id, "the namespace is deleted")
            }
            Some(_) => None,
        };
        Ok(found.map(|mut found| {
            found.name = Some(name.to_owned());
            found
        }))
    }

    /// The namespace exists.
    async fn anybody(&self, id: NamespaceId, key: Vec<u8>) -> Result<Option<Finding>, Failure> {
        if self.guard(id).await?.is_some() || self.get(&key).await?.is_none() {
            return Ok(None);
        }
        Ok(self.found(Kind::MetadataOfNobody, id, "the namespace does not exist"))
    }

    async fn layer(&self, id: NamespaceId, at: Version) -> Result<Option<Finding>, Failure> {
        let found = match self.guard(id).await? {
            None => self.found(Kind::MetadataOfNobody, id, "the namespace does not exist"),
            Some(Some(guard)) if guard.layers.iter().all(|layer| layer.at != at) => {
                self.found(Kind::LayerQueuedInVain, id, "the guard has no such layer")
            }
            Some(_) => None,
        };
        if found.is_some() && self.get(&self.ctx.keys.layer(id, at)).await?.is_none() {
            return Ok(None);
        }
        Ok(found)
    }

    async fn deleted(&self, id: NamespaceId) -> Result<Option<Finding>, Failure> {
        let guard = self.guard(id).await?.flatten();
        if guard.is_none_or(|guard| guard.state == State::Deleting)
            || self.get(&self.ctx.keys.deleted(id)).await?.is_none()
        {
            return Ok(None);
        }
        Ok(self.found(Kind::QueuedAlive, id, "the namespace is not deleted"))
    }

    async fn fork(&self, base: NamespaceId, fork: NamespaceId) -> Result<Option<Finding>, Failure> {
        let keys = &self.ctx.keys;
        let Some(value) = self.get(&keys.fork(base, fork)).await? else {
            return Ok(None);
        };
        let Ok(at) = decode_version(&value) else {
            return Ok(None);
        };
        let Some(child) = self.guard(fork).await? else {
            return Ok(self.found(Kind::ForkDangling, base, "the fork does not exist"));
        };
        let Some(child) = child else {
            return Ok(None);
        };
        if child.state == State::Deleting {
            return Ok(self.found(Kind::ForkDangling, base, "the fork is deleted"));
        }
        let below = child.base();
        if below.is_none_or(|below| (below.id, below.at) != (base, at)) {
            let detail = "the fork does not name this base and version";
            return Ok(self.found(Kind::ForkDangling, base, detail));
        }
        // That the base is missing is told with the fork.
        let Some(guard) = self.guard(base).await?.flatten() else {
            return Ok(None);
        };
        if guard.min_writer < LAYERS_GENERATION {
            let detail = "the base's guard lets writers in that know no forks";
            return Ok(self.found(Kind::BaseUnprotected, base, detail));
        }
        if guard.horizon > at {
            let detail = format!("its horizon {} is above what the fork sees", guard.horizon);
            return Ok(self.found(Kind::HorizonWrong, base, detail));
        }
        if at != base.as_version() && self.get(&keys.change(base, at, 0)).await?.is_none() {
            let detail = format!("the fork sees {at}, which is no commit of its base");
            return Ok(self.found(Kind::ChangelogMissing, base, detail));
        }
        Ok(None)
    }
}

/// The newest time record is the high-water mark, and both are of the past.
async fn check_times(check: &mut Check<'_>, reader: &mut Reader<'_>) -> Result<(), FsckError> {
    loop {
        match judge_times(check.ctx, reader.txn()).await {
            Ok(found) => return check.found(found.into_iter().collect()),
            Err(failure) => reader.renew(failure)?,
        }
    }
}

async fn judge_times(ctx: &Context, txn: &dyn Transaction) -> Result<Option<Finding>, Failure> {
    let newest = crate::kv::RangeOptions {
        limit: 1,
        reverse: true,
        isolation: Isolation::Snapshot,
    };
    let times = txn.get_range(&ctx.keys.times_from(0), newest).await?;
    let mark = txn
        .get(&ctx.keys.high_water_mark(), Isolation::Snapshot)
        .await?;
    let time = times
        .first()
        .and_then(|(_, value)| decode_version(value).ok());
    let Some(time) = time else {
        return Ok(None);
    };
    let now = txn.read_version().await?;
    let wrong = |detail: String| {
        Ok(Some(Finding::new(
            Kind::HighWaterWrong,
            MetadataKey::HighWaterMark.to_string(),
            detail,
        )))
    };
    match mark.as_deref().map(decode_version) {
        None => wrong(format!("there is none, and a time record at {time}")),
        Some(Ok(mark)) if mark != time => wrong(format!(
            "it is {mark}, and the newest time record's version {time}"
        )),
        Some(Ok(mark)) if !now.sees(mark) => wrong(format!(
            "it is {mark}, and the engine has reached {}",
            now.0
        )),
        _ => Ok(None),
    }
}

/// Looks for what had no entry in the expiry index when that was read. Something younger has its
/// entry by now, and whatever is collected loses both at once.
pub(super) async fn check_expiries(
    check: &mut Check<'_>,
    metadata: &mut Metadata,
) -> Result<(), FsckError> {
    if metadata.pending.is_empty() {
        return Ok(());
    }
    let keys = &check.ctx.keys;
    let mut missing: HashSet<u64> = metadata.pending.iter().map(|at| at.hash).collect();
    let mut reader = Reader::new(check.ctx);
    for bucket in 0..Expiry::BUCKETS {
        let mut walk = Walk::over(keys.expiry_bucket(bucket));
        while let Some(pairs) = walk.next(check, &mut reader).await? {
            for (key, _) in &pairs {
                if let Ok(expiry) = keys.parse_expiry(key) {
                    let hash = hash_of(expiry.namespace, expiry.kind, &expiry.name);
                    missing.remove(&hash);
                }
            }
        }
    }
    let mut reader = Reader::new(check.ctx);
    for pending in std::mem::take(&mut metadata.pending) {
        if missing.contains(&pending.hash) && reader.get(check, &pending.key).await?.is_some() {
            let detail = "it has no entry in the expiry index";
            let key = keys.describe(&pending.key);
            let found = Finding::new(Kind::NeverExpires, key, detail);
            check.found_in(metadata, pending.id, vec![found])?;
        }
    }
    Ok(())
}

/// Whether a version is of the past of a read version.
pub(super) fn is_past(now: ReadVersion, version: Version) -> bool {
    now.sees(version)
}
