//! Forks: a namespace that begins as another one was at some version, made in constant time.
//!
//! The fork's guard names its base; reads that find nothing in the fork go on there. What keeps the
//! base: its entry in the list of forks, which deletion and collection of the base read serializably;
//! and creating a fork reads the base's guard serializably, so that nothing of it is taken away
//! meanwhile.
//!
//! Servers that know nothing of forks must not write to a base, or they might delete it: its guard
//! asks for a writer that does. A chain of forks of forks has a length limit, since a page at its end
//! is asked for in all of them.

use mvsqlite_protocol::{NamespaceId, NamespaceKey, Version};
use tokio::try_join;

use super::catalog::exists;
use super::{Access, admit, expect_kept};
use crate::context::{Context, Failure, rerun};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, Transaction};
use crate::layout::{Ancestor, CatalogEntry, Guard, LAYERS_GENERATION, MAX_LAYERS};
use crate::page::{is_commit, version_unknown};

/// Makes a namespace that begins as `base` was at a version.
///
/// A lost reply of the engine is settled by the nonce in the entry.
pub(crate) async fn fork(
    ctx: &Context,
    key: &NamespaceKey,
    base: NamespaceId,
    at: Version,
) -> Result<NamespaceId, StoreError> {
    let nonce = ctx.random()?;
    rerun(|| try_fork(ctx, key, Ancestor { id: base, at }, nonce)).await
}

async fn try_fork(
    ctx: &Context,
    key: &NamespaceKey,
    base: Ancestor,
    nonce: [u8; 8],
) -> Result<NamespaceId, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Serializable;
    let (entry, guard, head) = try_join!(
        ctx.catalog_entry(&*txn, key.as_str(), isolation),
        ctx.guard(&*txn, base.id, isolation),
        ctx.head(&*txn, base.id),
    )?;
    match entry {
        Some(entry) if entry.nonce == nonce => return Ok(entry.id),
        Some(_) => return Err(exists(key).into()),
        None => (),
    }
    // The base is named by its id: which key it has does not matter here.
    let name = base_name(base.id)?;
    let guard = admit(&name, base.id, guard, Access::Read)?;
    expect_kept(base.at, guard.horizon)?;
    if base.at > head || !is_commit(ctx, &*txn, base.id, base.at).await? {
        return Err(version_unknown(&name, base.at).into());
    }
    if guard.ancestors.len() >= MAX_LAYERS {
        return Err(StoreError::TooLarge {
            what: "forks of forks, one below the other",
            amount: guard.ancestors.len() as u64 + 1,
            limit: MAX_LAYERS as u64,
        }
        .into());
    }
    write_fork(ctx, &mut *txn, key, base, guard, nonce);
    Ok(txn.commit().await?.into())
}

fn write_fork(
    ctx: &Context,
    txn: &mut dyn Transaction,
    key: &NamespaceKey,
    base: Ancestor,
    guard: Guard,
    nonce: [u8; 8],
) {
    let keys = &ctx.keys;
    let (entry, offset) = CatalogEntry::encode_new(nonce);
    txn.set_versionstamped_value(&keys.name(key.as_str()), &entry, offset);
    let mut ancestors = vec![base];
    ancestors.extend(&guard.ancestors);
    let fork = Guard {
        ancestors,
        ..Guard::NEW
    };
    let (place, offset) = keys.new_guard();
    txn.set_versionstamped_key(&place, offset, &fork.encode());
    let (place, offset) = keys.new_fork(base.id);
    txn.set_versionstamped_key(&place, offset, base.at.as_bytes());
    if guard.min_writer < LAYERS_GENERATION {
        let guarded = Guard {
            min_writer: LAYERS_GENERATION,
            ..guard
        };
        txn.set(&keys.guard(base.id), &guarded.encode());
    }
}

/// A name for a namespace that is only known by its id.
fn base_name(id: NamespaceId) -> Result<NamespaceKey, StoreError> {
    id.to_string()
        .parse()
        .map_err(|error| StoreError::Internal {
            reason: format!("the id {id} is not a name: {error}"),
        })
}
