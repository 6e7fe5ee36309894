//! Pages of protocol v1 by the hash of their content: uploaded ahead of a commit that names them, or
//! brought along by an earlier one.
//!
//! They belong to one namespace. Uploading reads nothing of what is there: it writes the content again,
//! raises its time, and adds an entry to the expiry index. A page goes when an entry comes due and the
//! page's time was not raised since, which is read serializably, so that an upload that comes in between
//! wins. A commit never takes content away from here: others may be about to name it.
//!
//! Content read back has the hash it is asked by, or is refused as corrupt.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use mvsqlite_protocol::v1::{MAX_PAGE, PageHash};
use mvsqlite_protocol::{NamespaceId, NamespaceKey, PageIndex, ReadVersion};

use super::read::pages_at;
use crate::context::{Context, Failure, Reruns, corrupt_in, side_by_side};
use crate::error::StoreError;
use crate::kv::{Atomic, Freshness, Isolation, KeyRange, RangeOptions, Transaction};
use crate::layout::{
    Expiry, ExpiryKind, WaitingPlace, decode_touched, decode_waiting, encode_waiting,
};
use crate::namespace::{Access, admit, expect_generation, named};

/// The part of their time to live that pages stay beyond it, so that a commit that names pages that
/// were touched within that part need not touch them.
const SLACK: u32 = 8;

/// Stores pages by their content. Durable when it returns; may be done twice.
pub(crate) async fn upload(
    ctx: &Context,
    key: &NamespaceKey,
    pages: &[&[u8]],
) -> Result<Vec<PageHash>, StoreError> {
    let wrong = |page: &&&[u8]| page.is_empty() || page.len() > MAX_PAGE;
    if let Some(page) = pages.iter().find(wrong) {
        return Err(StoreError::BadPages {
            reason: format!("a page of {} bytes; pages have 1 to {MAX_PAGE}", page.len()),
            hint: "this is a fault of the client program: update it",
        });
    }
    let pages: Vec<_> = pages.iter().map(|page| (hash_of(page), *page)).collect();
    let mut freshness = Freshness::AtLeast(ReadVersion(0));
    let mut reruns = Reruns::new();
    loop {
        match try_upload(ctx, key, &pages, freshness).await {
            Ok(()) => return Ok(pages.into_iter().map(|(hash, _)| hash).collect()),
            Err(Failure::Refused(_)) if freshness != Freshness::Strict => (),
            Err(failure) => reruns.after(failure)?,
        }
        freshness = Freshness::Strict;
    }
}

pub(crate) fn hash_of(content: &[u8]) -> PageHash {
    *blake3::hash(content).as_bytes()
}

async fn try_upload(
    ctx: &Context,
    key: &NamespaceKey,
    pages: &[(PageHash, &[u8])],
    freshness: Freshness,
) -> Result<(), Failure> {
    let mut txn = ctx.begin(freshness);
    let isolation = Isolation::Serializable;
    let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
    let id = named(key, entry)?.id;
    let guard = ctx.guard(&*txn, id, isolation).await?;
    // Locks keep nobody from uploading.
    if let Some(guard) = &guard {
        expect_generation(key, guard, Access::Write)?;
    }
    admit(key, id, guard, Access::Read)?;
    let mut value = Vec::new();
    for (hash, content) in pages {
        encode_waiting(&mut value, content);
        txn.set(&ctx.keys.waiting_page(id, hash), &value);
        touch(ctx, &mut *txn, id, hash);
    }
    txn.commit().await?;
    Ok(())
}

/// Notes that a page is of use now.
fn touch(ctx: &Context, txn: &mut dyn Transaction, id: NamespaceId, hash: &PageHash) {
    let now = ctx.now();
    let time = ctx.keys.waiting_time(id, hash);
    txn.atomic(Atomic::Max, &time, &now.to_le_bytes());
    let expiry = Expiry {
        at_millis: now.saturating_add(kept_millis(ctx)),
        namespace: id,
        kind: ExpiryKind::Waiting,
        name: name_of(hash),
    };
    txn.set(&ctx.keys.expiry(&expiry), &[]);
}

fn name_of(hash: &PageHash) -> [u8; 16] {
    let mut name = [0; 16];
    name.copy_from_slice(&hash[..16]);
    name
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn slack_millis(ctx: &Context) -> u64 {
    millis(ctx.options.fresh_page_ttl / SLACK)
}

fn kept_millis(ctx: &Context) -> u64 {
    millis(ctx.options.fresh_page_ttl).saturating_add(slack_millis(ctx))
}

/// Notes where a commit puts content that it brings along, as part of that commit.
pub(crate) fn note_place(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    hash: &PageHash,
    index: PageIndex,
) {
    let (place, offset) = WaitingPlace::encode_new(index);
    txn.set_versionstamped_value(&ctx.keys.waiting_place(id, hash), &place, offset);
    touch(ctx, txn, id, hash);
}

/// The contents that have these hashes, in their order; `None` where there is none.
pub(crate) async fn find(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    hashes: &[PageHash],
) -> Result<Vec<Option<Bytes>>, Failure> {
    side_by_side(
        hashes
            .iter()
            .map(|hash| find_one(ctx, txn, id, hash))
            .collect(),
    )
    .await
}

async fn find_one(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    hash: &PageHash,
) -> Result<Option<Bytes>, Failure> {
    let place = || corrupt_in(format!("the uploaded pages of namespace {id}"));
    let key = ctx.keys.waiting_page(id, hash);
    if let Some(value) = txn.get(&key, Isolation::Snapshot).await? {
        let content = decode_waiting(&value).map_err(place())?;
        if hash_of(&content) == *hash {
            return Ok(Some(content));
        }
        let reason = format!("an uploaded page of namespace {id} does not have its hash");
        return Err(StoreError::Corrupt { reason }.into());
    }
    let key = ctx.keys.waiting_place(id, hash);
    let Some(value) = txn.get(&key, Isolation::Snapshot).await? else {
        return Ok(None);
    };
    let WaitingPlace { index, version } = WaitingPlace::decode(&value).map_err(place())?;
    let Some(guard) = ctx.guard(txn, id, Isolation::Snapshot).await? else {
        return Ok(None);
    };
    let found = pages_at(ctx, txn, id, &guard, version, &[index]).await?;
    let content = found.into_iter().next().and_then(|page| page.content);
    // That version of the page may be gone; then this is an older one, or nothing.
    Ok(content.filter(|content| hash_of(content) == *hash))
}

/// Keeps pages for as long as if they had been uploaded now. Costs no transaction that writes unless
/// some of them were touched long ago. Pages that are gone meanwhile stay so.
pub(crate) async fn keep(
    ctx: &Context,
    id: NamespaceId,
    hashes: &[PageHash],
) -> Result<(), StoreError> {
    for some in hashes.chunks(HASHES_A_STEP) {
        let mut reruns = Reruns::new();
        while let Err(failure) = try_keep(ctx, id, some).await {
            reruns.after(failure)?;
        }
    }
    Ok(())
}

/// Most pages that one transaction keeps or forgets.
const HASHES_A_STEP: usize = 256;

async fn try_keep(ctx: &Context, id: NamespaceId, hashes: &[PageHash]) -> Result<(), Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let times = hashes.iter().map(|hash| touched(ctx, &*txn, id, hash));
    let times = side_by_side(times.collect()).await?;
    let newest = ctx.now().saturating_sub(slack_millis(ctx));
    let mut old = Vec::new();
    for (hash, time) in hashes.iter().zip(times) {
        if time.is_some_and(|time| time <= newest) {
            old.push(hash);
        }
    }
    if old.is_empty() {
        return Ok(());
    }
    old.iter().for_each(|hash| touch(ctx, &mut *txn, id, hash));
    txn.commit().await?;
    Ok(())
}

/// When a page was last of use; read serializably.
async fn touched(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    hash: &PageHash,
) -> Result<Option<u64>, Failure> {
    let key = ctx.keys.waiting_time(id, hash);
    let value = txn.get(&key, Isolation::Serializable).await?;
    let time = value.map(|value| decode_touched(&value)).transpose();
    Ok(time.map_err(corrupt_in(format_args!("namespace {id}")))?)
}

/// Forgets the pages of expiry entries that came due, unless they were touched since. Returns how many
/// pages went.
pub(crate) async fn collect(ctx: &Context, due: &[Expiry]) -> Result<u64, StoreError> {
    let mut gone = 0;
    for some in due.chunks(HASHES_A_STEP) {
        let mut reruns = Reruns::new();
        gone += loop {
            match try_collect(ctx, some).await {
                Ok(gone) => break gone,
                Err(failure) => reruns.after(failure)?,
            }
        };
    }
    Ok(gone)
}

async fn try_collect(ctx: &Context, due: &[Expiry]) -> Result<u64, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    let named = due.iter().map(|expiry| old_pages(ctx, &*txn, expiry));
    let named = side_by_side(named.collect()).await?;
    // A page that was touched several times has as many entries.
    let mut gone = BTreeSet::new();
    for (expiry, hashes) in due.iter().zip(named) {
        gone.extend(hashes.into_iter().map(|hash| (expiry.namespace, hash)));
        txn.clear(&ctx.keys.expiry(expiry));
    }
    for (id, hash) in &gone {
        forget(ctx, &mut *txn, *id, hash);
    }
    txn.commit().await?;
    Ok(gone.len() as u64)
}

/// Looks at the uploaded pages of one namespace, behind a hash and in a bounded number, and forgets
/// those whose time is up, or only counts them. Returns how many, and the hash to go on behind.
pub(crate) async fn sweep(
    ctx: &Context,
    id: NamespaceId,
    behind: Option<PageHash>,
    apply: bool,
) -> Result<(u64, Option<PageHash>), Failure> {
    let place = || corrupt_in(format!("the uploaded pages of namespace {id}"));
    let mut txn = ctx.begin(Freshness::Strict);
    let mut range = ctx.keys.waiting_times(id, &[]);
    if let Some(behind) = behind {
        range.begin = KeyRange::single(&ctx.keys.waiting_time(id, &behind)).end;
    }
    if range.is_empty() {
        return Ok((0, None));
    }
    let options = RangeOptions {
        limit: HASHES_A_STEP,
        reverse: false,
        isolation: Isolation::Serializable,
    };
    let times = txn.get_range(&range, options).await?;
    let mut gone = 0;
    let mut last = None;
    for (key, value) in &times {
        let hash = ctx.keys.parse_waiting_time(key).map_err(place())?;
        let touched = decode_touched(value).map_err(place())?;
        last = Some(hash);
        if touched.saturating_add(kept_millis(ctx)) <= ctx.now() {
            forget(ctx, &mut *txn, id, &hash);
            gone += 1;
        }
    }
    if apply && gone > 0 {
        txn.commit().await?;
    }
    Ok((gone, last.filter(|_| times.len() == HASHES_A_STEP)))
}

fn forget(ctx: &Context, txn: &mut dyn Transaction, id: NamespaceId, hash: &PageHash) {
    txn.clear(&ctx.keys.waiting_page(id, hash));
    txn.clear(&ctx.keys.waiting_time(id, hash));
    txn.clear(&ctx.keys.waiting_place(id, hash));
}

/// The pages that an entry is about and that nobody touched for their time to live.
async fn old_pages(
    ctx: &Context,
    txn: &dyn Transaction,
    expiry: &Expiry,
) -> Result<Vec<PageHash>, Failure> {
    let id = expiry.namespace;
    let place = || corrupt_in(format!("the uploaded pages of namespace {id}"));
    // One, unless somebody found two contents whose hashes share their first half.
    let options = RangeOptions {
        limit: HASHES_A_STEP,
        reverse: false,
        isolation: Isolation::Serializable,
    };
    let range = ctx.keys.waiting_times(id, &expiry.name);
    let mut old = Vec::new();
    for (key, value) in txn.get_range(&range, options).await? {
        let touched = decode_touched(&value).map_err(place())?;
        if touched.saturating_add(kept_millis(ctx)) <= expiry.at_millis.max(ctx.now()) {
            old.push(ctx.keys.parse_waiting_time(&key).map_err(place())?);
        }
    }
    Ok(old)
}
