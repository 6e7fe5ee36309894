//! Keys: how they are put together and taken apart.

use mvsqlite_protocol::v1::PageHash;
use mvsqlite_protocol::{IdempotencyKey, NamespaceId, PageIndex, StageId, Version};

use super::{Fields, Malformed, Nonce, STAMP_PLACEHOLDER};
use crate::error::StoreError;
use crate::kv::{KeyRange, StampOffset};

/// Builds every key of one store.
#[derive(Debug, Clone)]
pub(crate) struct Keyspace {
    pub(super) metadata: Vec<u8>,
    pub(super) raw: Vec<u8>,
}

/// A key with ten placeholder bytes, and where they begin.
pub(crate) type StampedKey = (Vec<u8>, StampOffset);

/// What a usage counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UsageKind {
    /// Page versions.
    Pages,
    /// Staged pages that no commit refers to yet.
    Staged,
}

/// What kind of thing expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpiryKind {
    /// A commit's outcome under its idempotency key.
    Outcome,
    /// A stage that may have been forgotten.
    Stage,
    /// Pages of protocol v1 whose hashes begin with this name.
    Waiting,
}

/// An entry of the expiry index. It lies in one of [`Expiry::BUCKETS`] buckets, by its random name,
/// so that on a cluster the newest entries are not all written to one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// When, in milliseconds since the Unix epoch.
    pub at_millis: u64,
    /// The namespace it belongs to.
    pub namespace: NamespaceId,
    /// What it is.
    pub kind: ExpiryKind,
    /// The idempotency key, the stage id, or the first half of a page's hash.
    pub name: [u8; 16],
}

/// A place in the queue for a write lease, in the order in which they are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeasePlace {
    /// The read version at which it was taken.
    pub number: u64,
    /// Whose it is.
    pub nonce: Nonce,
}

impl Expiry {
    /// How many buckets the index has.
    pub(crate) const BUCKETS: u8 = 16;

    /// The bucket it lies in.
    pub(crate) fn bucket(&self) -> u8 {
        self.name[0] % Self::BUCKETS
    }
}

impl Keyspace {
    /// Takes the two prefixes.
    pub(crate) fn new(metadata_prefix: &str, raw_data_prefix: &str) -> Result<Self, StoreError> {
        let half = |prefix: &str, half: u8| {
            if prefix.contains('\0') {
                return Err(StoreError::BadOptions {
                    reason: format!("the key prefix {prefix:?} contains a NUL character"),
                });
            }
            let mut bytes = prefix.as_bytes().to_vec();
            bytes.extend_from_slice(&[0, half]);
            Ok(bytes)
        };
        Ok(Self {
            metadata: half(metadata_prefix, b'm')?,
            raw: half(raw_data_prefix, b'd')?,
        })
    }

    /// The longest of the two prefixes as they stand before every key.
    pub(crate) fn prefix_len(&self) -> usize {
        self.metadata.len().max(self.raw.len())
    }

    fn metadata(&self, tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        join(&self.metadata, &[tag], parts)
    }

    fn page(&self, id: NamespaceId, tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.raw.len() + NamespaceId::LEN + 32);
        key.extend_from_slice(&self.raw);
        key.extend_from_slice(id.as_bytes());
        key.push(tag);
        parts.iter().for_each(|part| key.extend_from_slice(part));
        key
    }

    // ---- metadata ----

    /// The store's format and incarnation.
    pub(crate) fn format(&self) -> Vec<u8> {
        self.metadata(b'f', &[])
    }

    /// The high-water mark.
    pub(crate) fn high_water_mark(&self) -> Vec<u8> {
        self.metadata(b'h', &[])
    }

    /// A namespace key's catalog entry.
    pub(crate) fn name(&self, key: &str) -> Vec<u8> {
        self.metadata(b'n', &[key.as_bytes()])
    }

    /// Catalog entries whose key begins with `prefix` and lies behind `after`.
    pub(crate) fn names(&self, prefix: &str, after: Option<&str>) -> KeyRange {
        let mut range = KeyRange::prefix(&self.name(prefix));
        if let Some(after) = after {
            let behind = KeyRange::single(&self.name(after)).end;
            range.begin = range.begin.max(behind);
        }
        range
    }

    /// The namespace key of a catalog entry's key.
    pub(crate) fn parse_name(&self, key: &[u8]) -> Result<String, Malformed> {
        let what = "a catalog key";
        let name = key
            .get(self.metadata.len() + 1..)
            .ok_or(Malformed::Short { what })?;
        let field = "namespace key";
        String::from_utf8(name.to_vec()).map_err(|_| Malformed::Field { what, field })
    }

    /// The time record of a millisecond.
    pub(crate) fn time(&self, millis: u64) -> Vec<u8> {
        self.metadata(b't', &[&millis.to_be_bytes()])
    }

    /// Time records before a millisecond.
    pub(crate) fn times_before(&self, millis: u64) -> KeyRange {
        KeyRange::new(self.metadata(b't', &[]), self.time(millis))
    }

    /// Time records at or behind a millisecond.
    pub(crate) fn times_from(&self, millis: u64) -> KeyRange {
        KeyRange::new(
            self.time(millis),
            KeyRange::prefix(&self.metadata(b't', &[])).end,
        )
    }

    /// The millisecond of a time record's key.
    pub(crate) fn parse_time(&self, key: &[u8]) -> Result<u64, Malformed> {
        let mut fields = self.behind_tag("a time record's key", &self.metadata, key)?;
        let millis = fields.u64()?;
        fields.end()?;
        Ok(millis)
    }

    /// A usage counter.
    pub(crate) fn usage(&self, id: NamespaceId, kind: UsageKind) -> Vec<u8> {
        let kind = match kind {
            UsageKind::Pages => b'p',
            UsageKind::Staged => b's',
        };
        self.metadata(b'u', &[id.as_bytes(), &[kind]])
    }

    /// Until when the write lease is held.
    pub(crate) fn lease_term(&self, id: NamespaceId) -> Vec<u8> {
        self.metadata(b'l', &[id.as_bytes(), b"h"])
    }

    /// A place in the queue for the write lease. Numbers need not differ, nonces do.
    pub(crate) fn lease_place(&self, id: NamespaceId, place: LeasePlace) -> Vec<u8> {
        let number = place.number.to_be_bytes();
        self.metadata(b'l', &[id.as_bytes(), b"q", &number, &place.nonce])
    }

    /// The queue for the write lease.
    pub(crate) fn lease_queue(&self, id: NamespaceId) -> KeyRange {
        KeyRange::prefix(&self.metadata(b'l', &[id.as_bytes(), b"q"]))
    }

    /// The place of a key in the queue.
    pub(crate) fn parse_lease_place(&self, key: &[u8]) -> Result<LeasePlace, Malformed> {
        let mut fields = self.behind_tag("a place's key", &self.metadata, key)?;
        fields.take::<{ NamespaceId::LEN + 1 }>()?;
        let place = LeasePlace {
            number: fields.u64()?,
            nonce: fields.take()?,
        };
        fields.end()?;
        Ok(place)
    }

    /// All there is about a namespace's write lease besides its guard.
    pub(crate) fn leases(&self, id: NamespaceId) -> KeyRange {
        KeyRange::prefix(&self.metadata(b'l', &[id.as_bytes()]))
    }

    /// The queue entry of a deleted namespace.
    pub(crate) fn deleted(&self, id: NamespaceId) -> Vec<u8> {
        self.metadata(b'w', &[b"d", id.as_bytes()])
    }

    /// The queue of deleted namespaces.
    pub(crate) fn all_deleted(&self) -> KeyRange {
        KeyRange::prefix(&self.metadata(b'w', &[b"d"]))
    }

    /// The mark of a truncation that runs.
    pub(crate) fn truncation(&self, id: NamespaceId) -> Vec<u8> {
        self.metadata(b'w', &[b"t", id.as_bytes()])
    }

    /// The namespace of a queue entry's key.
    pub(crate) fn parse_deleted(&self, key: &[u8]) -> Result<NamespaceId, Malformed> {
        let mut fields = self.behind_tag("a deletion's key", &self.metadata, key)?;
        fields.u8()?;
        let id = NamespaceId::from_bytes(fields.take()?);
        fields.end()?;
        Ok(id)
    }

    /// A fork of a namespace.
    pub(crate) fn fork(&self, base: NamespaceId, fork: NamespaceId) -> Vec<u8> {
        self.metadata(b'c', &[base.as_bytes(), fork.as_bytes()])
    }

    /// A fork whose id will be the version of the commit that writes it.
    pub(crate) fn new_fork(&self, base: NamespaceId) -> StampedKey {
        let id = NamespaceId::from_bytes(STAMP_PLACEHOLDER);
        (
            self.fork(base, id),
            self.metadata.len() + 1 + NamespaceId::LEN,
        )
    }

    /// The forks of a namespace.
    pub(crate) fn forks(&self, base: NamespaceId) -> KeyRange {
        KeyRange::prefix(&self.metadata(b'c', &[base.as_bytes()]))
    }

    /// The queue entry of a layer.
    pub(crate) fn layer(&self, id: NamespaceId, at: Version) -> Vec<u8> {
        self.metadata(b'w', &[b"l", id.as_bytes(), at.as_bytes()])
    }

    /// The queue entry of the layer of the commit that writes it.
    pub(crate) fn new_layer(&self, id: NamespaceId) -> StampedKey {
        let key = self.layer(id, Version::from_bytes(STAMP_PLACEHOLDER));
        (key, self.metadata.len() + 2 + NamespaceId::LEN)
    }

    /// The queue of layers, by namespace and then by age, from behind a namespace on.
    pub(crate) fn layers_behind(&self, id: Option<NamespaceId>) -> KeyRange {
        let mut range = KeyRange::prefix(&self.metadata(b'w', &[b"l"]));
        if let Some(id) = id {
            range.begin = self.layers_of(id).end;
        }
        range
    }

    /// The queue entries of a namespace's layers.
    pub(crate) fn layers_of(&self, id: NamespaceId) -> KeyRange {
        KeyRange::prefix(&self.metadata(b'w', &[b"l", id.as_bytes()]))
    }

    /// The namespace and version of a layer's queue entry.
    pub(crate) fn parse_layer(&self, key: &[u8]) -> Result<(NamespaceId, Version), Malformed> {
        let mut fields = self.behind_tag("a layer's queue key", &self.metadata, key)?;
        fields.u8()?;
        let id = NamespaceId::from_bytes(fields.take()?);
        let at = fields.version()?;
        fields.end()?;
        Ok((id, at))
    }

    /// An entry of the expiry index.
    pub(crate) fn expiry(&self, expiry: &Expiry) -> Vec<u8> {
        let kind = match expiry.kind {
            ExpiryKind::Outcome => b'i',
            ExpiryKind::Stage => b's',
            ExpiryKind::Waiting => b'h',
        };
        self.metadata(
            b'x',
            &[
                &[expiry.bucket()],
                &expiry.at_millis.to_be_bytes(),
                expiry.namespace.as_bytes(),
                &[kind],
                &expiry.name,
            ],
        )
    }

    /// Entries of one bucket that expired before a millisecond.
    pub(crate) fn expired(&self, bucket: u8, before_millis: u64) -> KeyRange {
        KeyRange::new(
            self.metadata(b'x', &[&[bucket]]),
            self.metadata(b'x', &[&[bucket], &before_millis.to_be_bytes()]),
        )
    }

    /// The entry of an expiry index key.
    pub(crate) fn parse_expiry(&self, key: &[u8]) -> Result<Expiry, Malformed> {
        let mut fields = self.behind_tag("an expiry key", &self.metadata, key)?;
        fields.u8()?;
        let at_millis = fields.u64()?;
        let namespace = NamespaceId::from_bytes(fields.take()?);
        let kind = match fields.u8()? {
            b'i' => ExpiryKind::Outcome,
            b's' => ExpiryKind::Stage,
            b'h' => ExpiryKind::Waiting,
            _ => return Err(fields.bad("kind")),
        };
        let name = fields.take()?;
        fields.end()?;
        Ok(Expiry {
            at_millis,
            namespace,
            kind,
            name,
        })
    }

    // ---- pages ----

    /// Every key of a namespace.
    pub(crate) fn namespace(&self, id: NamespaceId) -> KeyRange {
        KeyRange::prefix(&join(&self.raw, id.as_bytes(), &[]))
    }

    /// The guard.
    pub(crate) fn guard(&self, id: NamespaceId) -> Vec<u8> {
        self.page(id, b'g', &[])
    }

    /// The guard of a namespace whose id will be the version of the commit that writes it.
    pub(crate) fn new_guard(&self) -> StampedKey {
        let id = NamespaceId::from_bytes(STAMP_PLACEHOLDER);
        (self.guard(id), self.raw.len())
    }

    /// The record of the namespace lock.
    pub(crate) fn lock(&self, id: NamespaceId) -> Vec<u8> {
        self.page(id, b'k', &[])
    }

    /// The version of the last commit.
    pub(crate) fn head(&self, id: NamespaceId) -> Vec<u8> {
        self.page(id, b'v', &[])
    }

    /// The conflict key of schema changes.
    pub(crate) fn schema(&self, id: NamespaceId) -> Vec<u8> {
        self.page(id, b'x', &[])
    }

    /// A commit's outcome.
    pub(crate) fn outcome(&self, id: NamespaceId, key: IdempotencyKey) -> Vec<u8> {
        self.page(id, b'i', &[key.as_bytes()])
    }

    /// A piece of a changelog entry.
    pub(crate) fn change(&self, id: NamespaceId, version: Version, chunk: u16) -> Vec<u8> {
        self.page(id, b'l', &[version.as_bytes(), &chunk.to_be_bytes()])
    }

    /// A piece of the changelog entry of the commit that writes it.
    pub(crate) fn new_change(&self, id: NamespaceId, chunk: u16) -> StampedKey {
        let key = self.page(id, b'l', &[&STAMP_PLACEHOLDER, &chunk.to_be_bytes()]);
        (key, self.raw.len() + NamespaceId::LEN + 1)
    }

    /// Changelog keys from `first` on, up to and including those of `last`.
    pub(crate) fn changes(
        &self,
        id: NamespaceId,
        first: Version,
        last: Option<Version>,
    ) -> KeyRange {
        let end = match last {
            Some(last) => KeyRange::prefix(&self.page(id, b'l', &[last.as_bytes()])).end,
            None => KeyRange::prefix(&self.page(id, b'l', &[])).end,
        };
        KeyRange::new(self.page(id, b'l', &[first.as_bytes()]), end)
    }

    /// The version and chunk number of a changelog key.
    pub(crate) fn parse_change(&self, key: &[u8]) -> Result<(Version, u16), Malformed> {
        let mut fields = self.behind_id("a changelog key", key)?;
        let parsed = (fields.version()?, fields.u16()?);
        fields.end()?;
        Ok(parsed)
    }

    /// A page as of a version.
    pub(crate) fn page_at(&self, id: NamespaceId, index: PageIndex, version: Version) -> Vec<u8> {
        self.page(id, b'p', &[&index.to_be_bytes(), version.as_bytes()])
    }

    /// A page as of the commit that writes it.
    pub(crate) fn new_page(&self, id: NamespaceId, index: PageIndex) -> StampedKey {
        let key = self.page(id, b'p', &[&index.to_be_bytes(), &STAMP_PLACEHOLDER]);
        (key, self.raw.len() + NamespaceId::LEN + 1 + 4)
    }

    /// Versions of a page up to and including one.
    pub(crate) fn page_until(
        &self,
        id: NamespaceId,
        index: PageIndex,
        version: Version,
    ) -> KeyRange {
        self.page_run_until(id, index, index, version)
    }

    /// Every version of the pages from `first` to `last`, except for those of `last` above `version`.
    pub(crate) fn page_run_until(
        &self,
        id: NamespaceId,
        first: PageIndex,
        last: PageIndex,
        version: Version,
    ) -> KeyRange {
        let begin = self.page(id, b'p', &[&first.to_be_bytes()]);
        let last = self.page(id, b'p', &[&last.to_be_bytes(), version.as_bytes()]);
        KeyRange::new(begin, KeyRange::single(&last).end)
    }

    /// Versions of pages from one on (a page and a version of it) to the last page's at `version`.
    pub(crate) fn page_versions(
        &self,
        id: NamespaceId,
        (index, from): (PageIndex, Version),
        last: PageIndex,
        version: Version,
    ) -> KeyRange {
        let begin = self.page(id, b'p', &[&index.to_be_bytes(), from.as_bytes()]);
        KeyRange {
            begin,
            ..self.page_run_until(id, index, last, version)
        }
    }

    /// Every version of the pages from `first` up to, but not including, `end`.
    pub(crate) fn pages(&self, id: NamespaceId, first: PageIndex, end: u64) -> KeyRange {
        let begin = self.page(id, b'p', &[&first.to_be_bytes()]);
        let end = match PageIndex::try_from(end) {
            Ok(end) => self.page(id, b'p', &[&end.to_be_bytes()]),
            Err(_) => KeyRange::prefix(&self.page(id, b'p', &[])).end,
        };
        KeyRange::new(begin, end)
    }

    /// The index and version of a page's key.
    pub(crate) fn parse_page(&self, key: &[u8]) -> Result<(PageIndex, Version), Malformed> {
        let mut fields = self.behind_id("a page's key", key)?;
        let parsed = (fields.u32()?, fields.version()?);
        fields.end()?;
        Ok(parsed)
    }

    /// A stage's record.
    pub(crate) fn stage(&self, id: NamespaceId, stage: StageId) -> Vec<u8> {
        self.page(id, b's', &[stage.as_bytes(), b"r"])
    }

    /// A staged page.
    pub(crate) fn staged_page(&self, id: NamespaceId, stage: StageId, index: PageIndex) -> Vec<u8> {
        self.page(id, b's', &[stage.as_bytes(), b"p", &index.to_be_bytes()])
    }

    /// The staged pages from `first` up to and including `last`.
    pub(crate) fn staged_pages(
        &self,
        id: NamespaceId,
        stage: StageId,
        first: PageIndex,
        last: PageIndex,
    ) -> KeyRange {
        KeyRange::new(
            self.staged_page(id, stage, first),
            KeyRange::single(&self.staged_page(id, stage, last)).end,
        )
    }

    /// A staged page's sum.
    pub(crate) fn staged_sum(&self, id: NamespaceId, stage: StageId, index: PageIndex) -> Vec<u8> {
        self.page(id, b's', &[stage.as_bytes(), b"m", &index.to_be_bytes()])
    }

    /// The sums of a stage's pages, from an index on.
    pub(crate) fn staged_sums(&self, id: NamespaceId, stage: StageId, from: PageIndex) -> KeyRange {
        let all = KeyRange::prefix(&self.page(id, b's', &[stage.as_bytes(), b"m"]));
        KeyRange::new(self.staged_sum(id, stage, from), all.end)
    }

    /// The page of the key of a staged page or of its sum.
    pub(crate) fn parse_staged(&self, key: &[u8]) -> Result<PageIndex, Malformed> {
        let mut fields = self.behind_id("a staged page's key", key)?;
        fields.take::<{ StageId::LEN + 1 }>()?;
        let index = fields.u32()?;
        fields.end()?;
        Ok(index)
    }

    /// Everything of every stage.
    pub(crate) fn all_stages(&self, id: NamespaceId) -> KeyRange {
        KeyRange::prefix(&self.page(id, b's', &[]))
    }

    /// The stage of any key that belongs to one.
    pub(crate) fn parse_stage(&self, key: &[u8]) -> Result<StageId, Malformed> {
        let mut fields = self.behind_id("a stage's key", key)?;
        Ok(StageId::from_bytes(fields.take()?))
    }

    /// Everything of a stage.
    pub(crate) fn whole_stage(&self, id: NamespaceId, stage: StageId) -> KeyRange {
        KeyRange::prefix(&self.page(id, b's', &[stage.as_bytes()]))
    }

    /// Content that waits for a commit of protocol v1.
    pub(crate) fn waiting_page(&self, id: NamespaceId, hash: &PageHash) -> Vec<u8> {
        self.page(id, b'h', &[b"c", hash])
    }

    /// When it was last of use.
    pub(crate) fn waiting_time(&self, id: NamespaceId, hash: &PageHash) -> Vec<u8> {
        self.page(id, b'h', &[b"t", hash])
    }

    /// Where a commit put content that it brought along.
    pub(crate) fn waiting_place(&self, id: NamespaceId, hash: &PageHash) -> Vec<u8> {
        self.page(id, b'h', &[b"v", hash])
    }

    /// The times of pages whose hashes begin with these bytes.
    pub(crate) fn waiting_times(&self, id: NamespaceId, hash_begin: &[u8]) -> KeyRange {
        KeyRange::prefix(&self.page(id, b'h', &[b"t", hash_begin]))
    }

    /// The hash of a page's time.
    pub(crate) fn parse_waiting_time(&self, key: &[u8]) -> Result<PageHash, Malformed> {
        let mut fields = self.behind_id("the key of an uploaded page", key)?;
        fields.u8()?;
        let hash = fields.take()?;
        fields.end()?;
        Ok(hash)
    }

    fn behind_tag<'a>(
        &self,
        what: &'static str,
        prefix: &[u8],
        key: &'a [u8],
    ) -> Result<Fields<'a>, Malformed> {
        let rest = key.get(prefix.len() + 1..);
        Ok(Fields::new(what, rest.ok_or(Malformed::Short { what })?))
    }

    fn behind_id<'a>(&self, what: &'static str, key: &'a [u8]) -> Result<Fields<'a>, Malformed> {
        let rest = key.get(self.raw.len() + NamespaceId::LEN + 1..);
        Ok(Fields::new(what, rest.ok_or(Malformed::Short { what })?))
    }
}

fn join(prefix: &[u8], tag: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend_from_slice(tag);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: NamespaceId = NamespaceId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    const VERSION: Version = Version::from_bytes([0xaa; 10]);
    const STAGE: StageId = StageId::from_bytes([0xbb; 16]);
    const EXPIRY: Expiry = Expiry {
        at_millis: 0x0102,
        namespace: ID,
        kind: ExpiryKind::Stage,
        name: [0x1f; 16],
    };

    const PLACE: LeasePlace = LeasePlace {
        number: 0x0102,
        nonce: [0xdd; 16],
    };

    fn keys() -> Keyspace {
        Keyspace::new("M", "R").unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn every_key_has_the_bytes_that_are_documented() {
        let keys = keys();
        let id = "0102030405060708090a";
        let version = "aa".repeat(10);
        let stage = "bb".repeat(16);
        let idempotency = IdempotencyKey::from_bytes([0xcc; 16]);
        let golden = [
            (keys.format(), "4d006d 66".to_owned()),
            (keys.high_water_mark(), "4d006d 68".to_owned()),
            (keys.name("a/b"), "4d006d 6e 612f62".to_owned()),
            (keys.time(258), "4d006d 74 0000000000000102".to_owned()),
            (
                keys.usage(ID, UsageKind::Pages),
                format!("4d006d 75 {id} 70"),
            ),
            (
                keys.usage(ID, UsageKind::Staged),
                format!("4d006d 75 {id} 73"),
            ),
            (keys.deleted(ID), format!("4d006d 77 64 {id}")),
            (keys.fork(ID, ID), format!("4d006d 63 {id} {id}")),
            (
                keys.layer(ID, VERSION),
                format!("4d006d 77 6c {id} {version}"),
            ),
            (keys.truncation(ID), format!("4d006d 77 74 {id}")),
            (
                keys.expiry(&EXPIRY),
                format!("4d006d 78 0f 0000000000000102 {id} 73 {}", "1f".repeat(16)),
            ),
            (keys.lease_term(ID), format!("4d006d 6c {id} 68")),
            (
                keys.lease_place(ID, PLACE),
                format!("4d006d 6c {id} 71 0000000000000102 {}", "dd".repeat(16)),
            ),
            (keys.guard(ID), format!("520064 {id} 67")),
            (keys.lock(ID), format!("520064 {id} 6b")),
            (
                keys.waiting_page(ID, &[0xee; 32]),
                format!("520064 {id} 68 63 {}", "ee".repeat(32)),
            ),
            (
                keys.waiting_time(ID, &[0xee; 32]),
                format!("520064 {id} 68 74 {}", "ee".repeat(32)),
            ),
            (
                keys.waiting_place(ID, &[0xee; 32]),
                format!("520064 {id} 68 76 {}", "ee".repeat(32)),
            ),
            (
                keys.outcome(ID, idempotency),
                format!("520064 {id} 69 {}", "cc".repeat(16)),
            ),
            (
                keys.change(ID, VERSION, 3),
                format!("520064 {id} 6c {version} 0003"),
            ),
            (
                keys.new_page(ID, 7).0,
                format!("520064 {id} 70 00000007 {}", "00".repeat(10)),
            ),
            (keys.stage(ID, STAGE), format!("520064 {id} 73 {stage} 72")),
            (
                keys.staged_sum(ID, STAGE, 7),
                format!("520064 {id} 73 {stage} 6d 00000007"),
            ),
            (
                keys.staged_page(ID, STAGE, 7),
                format!("520064 {id} 73 {stage} 70 00000007"),
            ),
            (keys.head(ID), format!("520064 {id} 76")),
            (keys.schema(ID), format!("520064 {id} 78")),
        ];
        for (key, expected) in golden {
            assert_eq!(hex(&key), expected.replace(' ', ""));
        }
    }

    #[test]
    fn a_place_in_a_queue_is_found_there_and_read_back() {
        let keys = keys();
        let key = keys.lease_place(ID, PLACE);
        assert_eq!(keys.parse_lease_place(&key), Ok(PLACE));
        assert!(keys.lease_queue(ID).contains(&key));
        assert!(!keys.lease_queue(ID).contains(&keys.lease_term(ID)));
        assert!(keys.leases(ID).contains(&key));
        assert!(keys.leases(ID).contains(&keys.lease_term(ID)));
    }

    #[test]
    fn stamped_keys_are_the_plain_ones_once_stamped() {
        let keys = keys();
        let stamped = |(mut key, offset): StampedKey, version: &[u8]| {
            key[offset..offset + 10].copy_from_slice(version);
            key
        };
        assert_eq!(stamped(keys.new_guard(), ID.as_bytes()), keys.guard(ID));
        let change = stamped(keys.new_change(ID, 3), VERSION.as_bytes());
        assert_eq!(change, keys.change(ID, VERSION, 3));
        let layer = stamped(keys.new_layer(ID), VERSION.as_bytes());
        assert_eq!(layer, keys.layer(ID, VERSION));
        assert_eq!(stamped(keys.new_fork(ID), ID.as_bytes()), keys.fork(ID, ID));
        let page = stamped(keys.new_page(ID, 7), VERSION.as_bytes());
        assert_eq!(page, keys.page_at(ID, 7, VERSION));
        assert_eq!(keys.parse_page(&page), Ok((7, VERSION)));
        assert!(keys.page_until(ID, 7, VERSION).contains(&page));
        assert!(
            !keys
                .page_until(ID, 7, Version::from_bytes([0xa9; 10]))
                .contains(&page)
        );
        assert!(!keys.page_until(ID, 8, VERSION).contains(&page));
    }

    #[test]
    fn keys_parse_back_and_others_are_refused() {
        let keys = keys();
        assert_eq!(keys.parse_name(&keys.name("a/b")), Ok("a/b".to_owned()));
        assert_eq!(keys.parse_time(&keys.time(258)), Ok(258));
        assert_eq!(keys.parse_deleted(&keys.deleted(ID)), Ok(ID));
        assert_eq!(keys.parse_expiry(&keys.expiry(&EXPIRY)), Ok(EXPIRY));
        let layer = keys.layer(ID, VERSION);
        assert_eq!(keys.parse_layer(&layer), Ok((ID, VERSION)));
        for cut in 0..layer.len() {
            keys.parse_layer(&layer[..cut]).expect_err("cut short");
        }
        let change = keys.change(ID, VERSION, 3);
        assert_eq!(keys.parse_change(&change), Ok((VERSION, 3)));
        assert_eq!(keys.parse_staged(&keys.staged_sum(ID, STAGE, 7)), Ok(7));
        let time = keys.waiting_time(ID, &[0xee; 32]);
        assert_eq!(keys.parse_waiting_time(&time), Ok([0xee; 32]));
        assert!(keys.waiting_times(ID, &[0xee; 16]).contains(&time));
        for cut in 0..change.len() {
            keys.parse_change(&change[..cut]).expect_err("cut short");
        }
        keys.parse_page(&change).expect_err("another key");
    }

    #[test]
    fn equal_or_nested_prefixes_keep_apart() {
        let equal = Keyspace::new("m", "m").unwrap();
        let nested = Keyspace::new("mvstore", "m").unwrap();
        for keys in [equal, nested] {
            let pages = KeyRange::prefix(&keys.raw);
            assert!(!pages.contains(&keys.format()));
            assert!(pages.contains(&keys.guard(ID)));
        }
        Keyspace::new("a\0b", "m").expect_err("a NUL would end the prefix early");
    }

    #[test]
    fn ranges_hold_what_they_should() {
        let keys = keys();
        let names = keys.names("a", Some("ab"));
        assert!(names.contains(&keys.name("ab/c")) && !names.contains(&keys.name("b")));
        assert!(!names.contains(&keys.name("ab")) && !names.contains(&keys.name("aa")));
        let all = keys.namespace(ID);
        assert!(all.contains(&keys.guard(ID)) && all.contains(&keys.schema(ID)));
        let changes = keys.changes(ID, Version::ZERO, Some(VERSION));
        assert!(changes.contains(&keys.change(ID, VERSION, u16::MAX)));
        assert!(!changes.contains(&keys.change(ID, Version::from_bytes([0xab; 10]), 0)));
        let last = keys.pages(ID, u32::MAX - 1, 1 << 32);
        assert!(last.contains(&keys.new_page(ID, u32::MAX).0));
        assert!(keys.times_before(258).contains(&keys.time(257)));
        assert!(!keys.times_before(258).contains(&keys.time(258)));
        assert!(keys.times_from(258).contains(&keys.time(258)));
        assert!(keys.expired(15, 259).contains(&keys.expiry(&EXPIRY)));
        assert!(!keys.expired(15, 258).contains(&keys.expiry(&EXPIRY)));
        let staged = keys.staged_pages(ID, STAGE, 3, 5);
        assert!(staged.contains(&keys.staged_page(ID, STAGE, 5)));
        assert!(!staged.contains(&keys.staged_page(ID, STAGE, 6)));
        assert!(!staged.contains(&keys.staged_page(ID, STAGE, 2)));
        assert!(keys.forks(ID).contains(&keys.fork(ID, ID)));
        assert!(keys.layers_behind(None).contains(&keys.layer(ID, VERSION)));
        assert!(
            !keys
                .layers_behind(Some(ID))
                .contains(&keys.layer(ID, VERSION))
        );
        assert!(!keys.layers_behind(None).contains(&keys.deleted(ID)));
        let versions = keys.page_versions(ID, (7, VERSION), 8, VERSION);
        assert!(versions.contains(&keys.page_at(ID, 7, VERSION)));
        assert!(!versions.contains(&keys.page_at(ID, 7, Version::from_bytes([0xa9; 10]))));
        assert!(versions.contains(&keys.page_at(ID, 8, VERSION)));
        assert!(!versions.contains(&keys.page_at(ID, 8, Version::from_bytes([0xab; 10]))));
        assert_eq!(keys.parse_stage(&keys.staged_page(ID, STAGE, 5)), Ok(STAGE));
        assert!(keys.all_stages(ID).contains(&keys.stage(ID, STAGE)));
        assert!(!keys.all_stages(ID).contains(&keys.head(ID)));
        let stage = keys.whole_stage(ID, STAGE);
        assert!(stage.contains(&keys.stage(ID, STAGE)));
    }
}
