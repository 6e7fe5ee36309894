//! The catalog: making, naming, finding and describing namespaces.

use mvsqlite_protocol::admin::{
    ListedNamespace, LockMetadata, NamespaceMetadata, NamespaceStat, OverlayBase,
};
use mvsqlite_protocol::v2::Concurrency;
use mvsqlite_protocol::{NamespaceId, NamespaceKey};
use tokio::try_join;

use super::{Access, admit, lock_of, named};
use crate::context::{Context, Failure, Reruns, corrupt_in, rerun};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, KvError, RangeOptions};
use crate::layout::{CatalogEntry, Guard, Usage, UsageKind};
use crate::page::{Header, page_one_at};
use crate::store::NamespaceUsage;

/// Makes an empty namespace.
///
/// A lost reply of the engine is settled by the nonce in the entry: it tells our own creation
/// from another's.
pub(crate) async fn create(
    ctx: &Context,
    key: &NamespaceKey,
    mode: Concurrency,
) -> Result<NamespaceId, StoreError> {
    let nonce = ctx.random()?;
    rerun(|| try_create(ctx, key, mode, nonce)).await
}

async fn try_create(
    ctx: &Context,
    key: &NamespaceKey,
    mode: Concurrency,
    nonce: [u8; 8],
) -> Result<NamespaceId, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Serializable;
    match ctx.catalog_entry(&*txn, key.as_str(), isolation).await? {
        Some(entry) if entry.nonce == nonce => return Ok(entry.id),
        Some(_) => return Err(exists(key).into()),
        None => (),
    }
    let (entry, offset) = CatalogEntry::encode_new(mode, nonce);
    txn.set_versionstamped_value(&ctx.keys.name(key.as_str()), &entry, offset);
    let (guard, offset) = ctx.keys.new_guard();
    txn.set_versionstamped_key(&guard, offset, &Guard::NEW.encode());
    Ok(txn.commit().await?.into())
}

pub(super) fn exists(key: &NamespaceKey) -> StoreError {
    StoreError::NamespaceExists {
        key: key.to_string(),
    }
}

/// Gives a namespace another key. That the new key is taken is found before that the old one names
/// nothing.
pub(crate) async fn rename(
    ctx: &Context,
    old: &NamespaceKey,
    new: &NamespaceKey,
) -> Result<(), StoreError> {
    let mut reruns = Reruns::new();
    // What a commit of unknown outcome was moving.
    let mut uncertain = None;
    loop {
        let mut moved = None;
        match try_rename(ctx, old, new, uncertain, &mut moved).await {
            Ok(()) => return Ok(()),
            Err(failure) => {
                if matches!(failure, Failure::Engine(KvError::MaybeCommitted { .. })) {
                    uncertain = moved;
                }
                reruns.after(failure)?;
            }
        }
    }
}

async fn try_rename(
    ctx: &Context,
    old: &NamespaceKey,
    new: &NamespaceKey,
    uncertain: Option<NamespaceId>,
    moved: &mut Option<NamespaceId>,
) -> Result<(), Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Serializable;
    let (taken, entry) = try_join!(
        ctx.catalog_entry(&*txn, new.as_str(), isolation),
        ctx.catalog_entry(&*txn, old.as_str(), isolation),
    )?;
    if let Some(taken) = taken {
        if uncertain == Some(taken.id) {
            return Ok(());
        }
        return Err(exists(new).into());
    }
    let entry = named(old, entry)?;
    txn.clear(&ctx.keys.name(old.as_str()));
    txn.set(&ctx.keys.name(new.as_str()), &entry.encode());
    *moved = Some(entry.id);
    txn.commit().await?;
    Ok(())
}

/// Says how writers keep out of each other's way. Every commit reads the entry serializably.
pub(crate) async fn set_concurrency(
    ctx: &Context,
    key: &NamespaceKey,
    mode: Concurrency,
) -> Result<(), StoreError> {
    rerun(|| async {
        let mut txn = ctx.begin(Freshness::Strict);
        let isolation = Isolation::Serializable;
        let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
        let entry = named(key, entry)?;
        if entry.mode == mode {
            return Ok(());
        }
        let changed = CatalogEntry { mode, ..entry };
        txn.set(&ctx.keys.name(key.as_str()), &changed.encode());
        txn.commit().await?;
        Ok(())
    })
    .await
}

/// A page of the listing, in byte order of the keys.
pub(crate) async fn list(
    ctx: &Context,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<ListedNamespace>, StoreError> {
    let range = ctx.keys.names(prefix, after);
    if limit == 0 || range.is_empty() {
        return Ok(Vec::new());
    }
    let options = RangeOptions {
        limit,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let mut reruns = Reruns::new();
    let pairs = loop {
        match ctx
            .begin(Freshness::Strict)
            .get_range(&range, options)
            .await
        {
            Ok(pairs) => break pairs,
            Err(error) => reruns.after(error.into())?,
        }
    };
    let listed = pairs.iter().map(|(name, value)| {
        let nskey = ctx.keys.parse_name(name);
        let nskey = nskey.map_err(corrupt_in("the catalog"))?;
        let entry = CatalogEntry::decode(value);
        let entry = entry.map_err(corrupt_in(format_args!("the entry of '{nskey}'")))?;
        Ok(ListedNamespace {
            nsid: entry.id,
            nskey,
        })
    });
    listed.collect()
}

/// Describes a namespace.
pub(crate) async fn stat(ctx: &Context, key: &NamespaceKey) -> Result<NamespaceStat, StoreError> {
    rerun(|| try_stat(ctx, key)).await
}

async fn try_stat(ctx: &Context, key: &NamespaceKey) -> Result<NamespaceStat, Failure> {
    let txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Snapshot;
    let entry = named(
        key,
        ctx.catalog_entry(&*txn, key.as_str(), isolation).await?,
    )?;
    let (guard, version) = try_join!(
        ctx.guard(&*txn, entry.id, isolation),
        ctx.head(&*txn, entry.id),
    )?;
    let guard = admit(key, entry.id, guard, Access::Read)?;
    let (lock, page_one) = try_join!(
        lock_of(ctx, &*txn, entry.id, &guard, isolation),
        page_one_at(ctx, &*txn, entry.id, &guard, version),
    )?;
    let header = match &page_one {
        Some(page) => Header::parse(&page.content)?,
        None => None,
    };
    let truncated = Some(guard.horizon).filter(|horizon| *horizon != entry.id.as_version());
    Ok(NamespaceStat {
        metadata: NamespaceMetadata {
            lock: lock.map(|lock| LockMetadata {
                nonce: format!("{:032x}", u128::from_be_bytes(lock.nonce)),
                owner: lock.owner,
                rolling_back: lock.rolling_back,
                snapshot_version: lock.snapshot,
            }),
            overlay_base: guard.base().map(|base| OverlayBase {
                ns_id: base.id.to_string(),
                snapshot_version: base.at.to_string(),
            }),
            truncated_before: truncated,
        },
        nsid: entry.id,
        nskey: key.to_string(),
        version,
        page_size: header.map_or(0, |header| header.page_size),
        page_count: header.map_or(0, |header| header.page_count),
        layers: u32::try_from(guard.layers.len()).unwrap_or(u32::MAX),
    })
}

/// What a namespace occupies.
pub(crate) async fn usage(ctx: &Context, key: &NamespaceKey) -> Result<NamespaceUsage, StoreError> {
    rerun(|| try_usage(ctx, key)).await
}

async fn try_usage(ctx: &Context, key: &NamespaceKey) -> Result<NamespaceUsage, Failure> {
    let txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Snapshot;
    let entry = named(
        key,
        ctx.catalog_entry(&*txn, key.as_str(), isolation).await?,
    )?;
    let (pages, staged) = (
        ctx.keys.usage(entry.id, UsageKind::Pages),
        ctx.keys.usage(entry.id, UsageKind::Staged),
    );
    let (pages, staged) = try_join!(txn.get(&pages, isolation), txn.get(&staged, isolation))?;
    let place = || corrupt_in(format!("namespace {}", entry.id));
    let pages = Usage::decode(pages.as_deref()).map_err(place())?;
    let staged = Usage::decode(staged.as_deref()).map_err(place())?;
    Ok(NamespaceUsage {
        page_versions: pages.count,
        page_bytes: pages.bytes,
        staged_pages: staged.count,
        staged_bytes: staged.bytes,
    })
}
