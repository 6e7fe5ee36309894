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

use mvsqlite_protocol::v2::Concurrency;
use mvsqlite_protocol::{NamespaceId, NamespaceKey, Version};
use tokio::try_join;

use super::catalog::exists;
use super::{Access, admit, expect_kept};
use crate::context::{Context, Failure, rerun};
use crate::error::StoreError;
use crate::failpoint;
use crate::kv::{Freshness, Isolation, Transaction};
use crate::layout::{Ancestor, CatalogEntry, Guard, LAYERS_GENERATION, MAX_LAYERS};
use crate::page::{newest_until, version_unknown};

/// Makes a namespace that begins as `base` was at its newest commit up to a version.
///
/// A lost reply of the engine is settled by the nonce in the entry.
pub(crate) async fn fork(
    ctx: &Context,
    key: &NamespaceKey,
    base: NamespaceId,
    at: Version,
    mode: Concurrency,
) -> Result<NamespaceId, StoreError> {
    let nonce = ctx.random()?;
    rerun(|| try_fork(ctx, key, Ancestor { id: base, at }, mode, nonce)).await
}

async fn try_fork(
    ctx: &Context,
    key: &NamespaceKey,
    asked: Ancestor,
    mode: Concurrency,
    nonce: [u8; 8],
) -> Result<NamespaceId, Failure> {
    let id = asked.id;
    let mut txn = ctx.begin(Freshness::Strict);
    let isolation = Isolation::Serializable;
    let (entry, guard, head) = try_join!(
        ctx.catalog_entry(&*txn, key.as_str(), isolation),
        ctx.guard(&*txn, id, isolation),
        ctx.head(&*txn, id),
    )?;
    match entry {
        Some(entry) if entry.nonce == nonce => return Ok(entry.id),
        Some(_) => return Err(exists(key).into()),
        None => (),
    }
    // The base is named by its id: which key it has does not matter here.
    let name = base_name(id)?;
    let guard = admit(&name, id, guard, Access::Read)?;
    if guard.lock.is_some() {
        return Err(StoreError::Locked {
            key: name.to_string(),
            reason: "its namespace lock is held, and nothing is forked from it meanwhile",
        }
        .into());
    }
    expect_kept(asked.at, guard.horizon)?;
    if asked.at > head {
        return Err(version_unknown(&name, asked.at).into());
    }
    let base = Ancestor {
        id,
        at: newest_until(ctx, &*txn, id, asked.at).await?,
    };
    if guard.ancestors.len() >= MAX_LAYERS {
        return Err(StoreError::TooLarge {
            what: "forks of forks, one below the other",
            amount: guard.ancestors.len() as u64 + 1,
            limit: MAX_LAYERS as u64,
        }
        .into());
    }
    let (entry, offset) = CatalogEntry::encode_new(mode, nonce);
    txn.set_versionstamped_value(&ctx.keys.name(key.as_str()), &entry, offset);
    write_fork(ctx, &mut *txn, base, guard);
    let version = txn.commit().await?;
    failpoint::pass(failpoint::FORKED);
    Ok(version.into())
}

fn write_fork(ctx: &Context, txn: &mut dyn Transaction, base: Ancestor, guard: Guard) {
    let keys = &ctx.keys;
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
