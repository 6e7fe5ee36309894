//! Restoring an earlier version: a new version that shows what that one showed.
//!
//! Constant time, whatever the size: a layer says that pages are as they were. It is undone by another
//! restore, and folded in the background.

use mvsqlite_protocol::{NamespaceId, Version};

use crate::context::{Context, Failure};
use crate::error::StoreError;
use crate::kv::Transaction;
use crate::layout::{ChangeEntry, Guard, LayerKind, PageOneClass, Pages, STAMPED_VERSION};

/// Makes the transaction write a version that restores `to`, which must be one that is kept. The
/// guard, read serializably, is written with the layer and whatever else the caller changed in it.
///
/// # Errors
/// [`StoreError::Unavailable`] while there is no room for a layer.
pub(crate) fn write_restore(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    guard: &Guard,
    to: Version,
) -> Result<(), Failure> {
    if !guard.has_room() {
        return Err(StoreError::Unavailable {
            reason: format!("namespace {id} has many large changes that are being worked in"),
        }
        .into());
    }
    let keys = &ctx.keys;
    let (bytes, offset) = guard.encode_with_layer(LayerKind::Restore { to });
    txn.set_versionstamped_value(&keys.guard(id), &bytes, offset);
    let (queued, offset) = keys.new_layer(id);
    txn.set_versionstamped_key(&queued, offset, &[]);
    let entry = ChangeEntry {
        pages: Pages::Everything,
        page_one: PageOneClass::Schema,
        millis: ctx.now(),
        sum: None,
    };
    let bounds = &ctx.bounds;
    let chunks = entry.encode(bounds.changelog_chunk_bytes, bounds.changelog_chunks);
    for (number, chunk) in (0..).zip(&chunks) {
        let (key, offset) = keys.new_change(id, number);
        txn.set_versionstamped_key(&key, offset, chunk);
    }
    txn.set(&keys.schema(id), &[]);
    let (version, offset) = STAMPED_VERSION;
    txn.set_versionstamped_value(&keys.head(id), version, offset);
    Ok(())
}
