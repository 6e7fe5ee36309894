//! What is known of a namespace at one version: its guard and all that has to agree with it.

use std::collections::BTreeMap;

use bytes::Bytes;
use mvsqlite_protocol::{NamespaceId, ReadVersion, StageId, Version};

use super::reader::Reader;
use super::{Check, Finding, FsckError, Kind};
use crate::context::{Context, Failure};
use crate::kv::{Isolation, RangeOptions, Transaction};
use crate::layout::{
    CatalogEntry, FoldCursor, FoldPass, GENERATION, Guard, LayerKind, LeaseTerm, LockRecord,
    MetadataKey, PageKey, State, UsageKind, decode_version,
};

/// More layers than a namespace can have.
const MANY: usize = 1000;

/// A namespace at one version of the engine.
pub(super) struct Facts {
    pub id: NamespaceId,
    pub read_version: ReadVersion,
    pub guard: Guard,
    /// The version of the last commit, or the id.
    pub head: Version,
    /// How far the folding of each queued layer has come.
    pub queue: BTreeMap<Version, FoldCursor>,
    /// Everything that decides what the counters should say, and the counters, as they are stored.
    pub moving: Vec<Option<Bytes>>,
    /// Versions at which there must be changelog entries, and for whom.
    pub needed: BTreeMap<Version, String>,
}

/// What looking at a guard came to.
pub(super) enum Looked {
    /// Its content can be judged.
    Judge(Box<Facts>),
    /// There is nothing more to look at.
    Done,
}

impl Facts {
    /// The layer that shows a stage.
    pub(super) fn layer_of(&self, stage: StageId) -> Option<(Version, u32)> {
        self.guard.layers.iter().find_map(|layer| match layer.kind {
            LayerKind::Stage {
                stage: Some(shown),
                count,
                ..
            } if shown == stage => Some((layer.at, count)),
            _ => None,
        })
    }

    /// The next staged page of a layer that is not folded.
    pub(super) fn unfolded_from(&self, at: Version) -> u64 {
        match self.queue.get(&at) {
            None => 0,
            Some(cursor) if cursor.pass == FoldPass::Staged => cursor.next,
            Some(_) => u64::MAX,
        }
    }
}

/// Reads and judges what stands in the guard and beside it.
pub(super) async fn look(
    check: &mut Check<'_>,
    reader: &mut Reader<'_>,
    id: NamespaceId,
    name: Option<&str>,
    found: &mut Vec<Finding>,
) -> Result<Looked, FsckError> {
    loop {
        let mut seen = Vec::new();
        let look = Look {
            ctx: check.ctx,
            txn: reader.txn(),
            id,
            found: &mut seen,
        };
        match look.look(name).await {
            Ok(looked) => {
                found.append(&mut seen);
                return Ok(looked);
            }
            Err(failure) => reader.renew(failure)?,
        }
    }
}

/// The values that decide what counters should say, to compare with [`Facts::moving`].
pub(super) async fn moving(
    check: &mut Check<'_>,
    reader: &mut Reader<'_>,
    id: NamespaceId,
) -> Result<Vec<Option<Bytes>>, FsckError> {
    loop {
        match read_moving(check.ctx, reader.txn(), id).await {
            Ok(moving) => return Ok(moving),
            Err(failure) => reader.renew(failure)?,
        }
    }
}

async fn read_moving(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
) -> Result<Vec<Option<Bytes>>, Failure> {
    let keys = &ctx.keys;
    let mut values = Vec::new();
    for key in [
        keys.usage(id, UsageKind::Pages),
        keys.usage(id, UsageKind::Staged),
        keys.head(id),
        keys.guard(id),
    ] {
        values.push(txn.get(&key, Isolation::Snapshot).await?);
    }
    let queue = txn.get_range(&keys.layers_of(id), options(MANY)).await?;
    values.extend(
        queue
            .into_iter()
            .flat_map(|(at, cursor)| [Some(at), Some(cursor)]),
    );
    Ok(values)
}

fn options(limit: usize) -> RangeOptions {
    RangeOptions {
        limit,
        reverse: false,
        isolation: Isolation::Snapshot,
    }
}

struct Look<'a> {
    ctx: &'a Context,
    txn: &'a dyn Transaction,
    id: NamespaceId,
    found: &'a mut Vec<Finding>,
}

impl Look<'_> {
    async fn look(mut self, name: Option<&str>) -> Result<Looked, Failure> {
        let keys = &self.ctx.keys;
        let Some(value) = self.get(&keys.guard(self.id)).await? else {
            let first = self
                .txn
                .get_range(&keys.namespace(self.id), options(1))
                .await?;
            if let Some((key, _)) = first.first() {
                let detail = "the namespace has no guard";
                self.found
                    .push(Finding::new(Kind::KeysOfNobody, keys.describe(key), detail));
            }
            return Ok(Looked::Done);
        };
        let guard = match Guard::decode(&value) {
            Ok(guard) => guard,
            Err(malformed) => {
                self.find(Kind::BadValue, PageKey::Guard, malformed.to_string());
                return Ok(Looked::Done);
            }
        };
        self.state(&guard, name).await?;
        if guard.state == State::Deleting {
            return Ok(Looked::Done);
        }
        if guard.min_reader > GENERATION {
            let detail = format!("it needs generation {}", guard.min_reader);
            self.find(Kind::NewerFormat, PageKey::Guard, detail);
            return Ok(Looked::Done);
        }
        let facts = self.facts(guard).await?;
        Ok(Looked::Judge(Box::new(facts)))
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Failure> {
        Ok(self.txn.get(key, Isolation::Snapshot).await?)
    }

    fn find(&mut self, kind: Kind, key: impl ToString, detail: impl Into<String>) {
        self.found.push(Finding::new(kind, key.to_string(), detail));
    }

    /// Whether the catalog and the queue of deletions agree with the guard's state.
    async fn state(&mut self, guard: &Guard, name: Option<&str>) -> Result<(), Failure> {
        let (keys, id) = (&self.ctx.keys, self.id);
        match guard.state {
            State::Live if !self.is_named(name).await? => {
                self.find(Kind::Nameless, PageKey::Guard, "no catalog entry names it");
            }
            State::Live => (),
            State::Hidden => {
                let forks = self.txn.get_range(&keys.forks(id), options(1)).await?;
                if forks.is_empty() {
                    self.find(Kind::HiddenWithoutForks, PageKey::Guard, "it has no forks");
                }
            }
            State::Deleting => {
                if self.get(&keys.deleted(id)).await?.is_none() {
                    let detail = "it is not queued for removal";
                    self.find(Kind::DeletionUnqueued, PageKey::Guard, detail);
                }
            }
        }
        Ok(())
    }

    /// Whether the catalog names the namespace: by the name it had when the catalog was read, or by
    /// any.
    async fn is_named(&self, name: Option<&str>) -> Result<bool, Failure> {
        let keys = &self.ctx.keys;
        let names =
            |value: &Bytes| CatalogEntry::decode(value).is_ok_and(|entry| entry.id == self.id);
        if let Some(name) = name {
            let entry = self.get(&keys.name(name)).await?;
            if entry.as_ref().is_some_and(names) {
                return Ok(true);
            }
        }
        let mut range = keys.names("", None);
        loop {
            let entries = self.txn.get_range(&range, options(MANY)).await?;
            if entries.iter().any(|(_, value)| names(value)) {
                return Ok(true);
            }
            match entries.last() {
                Some((last, _)) if entries.len() == MANY => {
                    range.begin = [last, &[0][..]].concat();
                }
                _ => return Ok(false),
            }
        }
    }

    async fn facts(&mut self, guard: Guard) -> Result<Facts, Failure> {
        let (ctx, id) = (self.ctx, self.id);
        let head = match self
            .get(&ctx.keys.head(id))
            .await?
            .as_deref()
            .map(decode_version)
        {
            None => id.as_version(),
            Some(Ok(head)) => head,
            Some(Err(malformed)) => {
                self.find(Kind::BadValue, PageKey::Head, malformed.to_string());
                id.as_version()
            }
        };
        let mut facts = Facts {
            id,
            read_version: self.txn.read_version().await?,
            guard,
            head,
            queue: BTreeMap::new(),
            moving: read_moving(ctx, self.txn, id).await?,
            needed: BTreeMap::new(),
        };
        self.locks(&mut facts).await?;
        self.family(&facts).await?;
        self.layers(&mut facts).await?;
        self.horizon(&mut facts);
        Ok(facts)
    }

    async fn locks(&mut self, facts: &mut Facts) -> Result<(), Failure> {
        let (keys, id) = (&self.ctx.keys, self.id);
        let record = self.get(&keys.lock(id)).await?;
        let record = record.map(|record| LockRecord::decode(&record));
        match (facts.guard.lock, record) {
            (None, None) => (),
            (_, Some(Err(malformed))) => {
                self.find(Kind::BadValue, PageKey::Lock, malformed.to_string());
            }
            (Some(nonce), Some(Ok(record))) if record.nonce == nonce => {
                if record.snapshot < facts.guard.horizon {
                    let detail = format!("the lock's snapshot {} is below it", record.snapshot);
                    self.find(Kind::HorizonWrong, PageKey::Guard, detail);
                }
                facts
                    .needed
                    .insert(record.snapshot, "the lock's snapshot".to_owned());
            }
            (Some(_), _) => {
                let detail = "the guard tells of a lock that has no record of its nonce";
                self.find(Kind::LockWithoutRecord, PageKey::Lock, detail);
            }
            (None, Some(Ok(_))) => {
                self.find(Kind::LockLeftBehind, PageKey::Lock, "the guard has no lock");
            }
        }
        if let Some(holder) = facts.guard.lease {
            let term = self.get(&keys.lease_term(id)).await?;
            let term = term.and_then(|term| LeaseTerm::decode(&term).ok());
            if term.is_none_or(|term| term.nonce != holder) {
                let detail = "the guard tells of a lease that has no term of its nonce";
                self.find(Kind::LeaseWithoutTerm, MetadataKey::LeaseTerm(id), detail);
            }
        }
        Ok(())
    }

    /// Whether the base agrees that this is a fork of it. What it says of itself is judged there.
    async fn family(&mut self, facts: &Facts) -> Result<(), Failure> {
        let (keys, id) = (&self.ctx.keys, self.id);
        let Some(base) = facts.guard.base() else {
            return Ok(());
        };
        let listed = self.get(&keys.fork(base.id, id)).await?;
        let key = MetadataKey::Fork(base.id, id);
        if listed.is_none() {
            self.find(
                Kind::ForkUnlisted,
                key,
                "the fork is not on its base's list",
            );
        }
        let below = self.get(&keys.guard(base.id)).await?;
        let below = below.map(|below| Guard::decode(&below));
        match below {
            None => self.find(
                Kind::BaseMissing,
                PageKey::Guard,
                format!("{} is gone", base.id),
            ),
            Some(Ok(below)) if below.state == State::Deleting => {
                let detail = format!("{} is being removed", base.id);
                self.find(Kind::BaseMissing, PageKey::Guard, detail);
            }
            Some(Ok(below)) if below.ancestors[..] != facts.guard.ancestors[1..] => {
                let detail = format!("{} has other ancestors", base.id);
                self.find(Kind::AncestryWrong, PageKey::Guard, detail);
            }
            // A damaged guard is told with its namespace.
            Some(_) => (),
        }
        Ok(())
    }

    async fn layers(&mut self, facts: &mut Facts) -> Result<(), Failure> {
        let (keys, id) = (&self.ctx.keys, self.id);
        let queue = self
            .txn
            .get_range(&keys.layers_of(id), options(MANY))
            .await?;
        for (key, value) in &queue {
            // What does not decode is told with the metadata.
            if let (Ok((_, at)), Ok(cursor)) = (keys.parse_layer(key), FoldCursor::decode(value)) {
                facts.queue.insert(at, cursor);
            }
        }
        let mut stages = Vec::new();
        for layer in facts.guard.layers.clone() {
            let at = layer.at;
            if !queue
                .iter()
                .any(|(key, _)| key[..] == keys.layer(id, at)[..])
            {
                let detail = "the guard has the layer, the work queue has not";
                self.find(Kind::LayerUnqueued, MetadataKey::Layer(id, at), detail);
            }
            if at <= facts.guard.horizon || at <= id.as_version() || at > facts.head {
                let detail = format!("the layer at {at} is not between horizon and head");
                self.find(Kind::LayerWrong, PageKey::Guard, detail);
            }
            facts.needed.insert(at, "a layer".to_owned());
            match layer.kind {
                LayerKind::Restore { to } => {
                    facts.needed.insert(to, format!("the restore at {at}"));
                }
                LayerKind::Stage {
                    stage: Some(stage), ..
                } if stages.contains(&stage) => {
                    let detail = format!("the layer at {at} shows a stage that another one shows");
                    self.find(Kind::LayerWrong, PageKey::Guard, detail);
                }
                LayerKind::Stage { stage, .. } => stages.extend(stage),
            }
        }
        Ok(())
    }

    fn horizon(&mut self, facts: &mut Facts) {
        let (id, horizon) = (self.id.as_version(), facts.guard.horizon);
        if horizon == Version::ZERO || horizon == id {
            return;
        }
        if horizon < id || horizon > facts.head {
            let detail = format!(
                "the horizon {horizon} is not between {id} and {}",
                facts.head
            );
            self.find(Kind::HorizonWrong, PageKey::Guard, detail);
            return;
        }
        facts.needed.insert(horizon, "the horizon".to_owned());
    }
}
