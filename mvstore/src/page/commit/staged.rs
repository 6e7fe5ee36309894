//! The list of a stage's pages, which a commit needs to know what it changes.

use mvsqlite_protocol::{NamespaceId, PageIndex, StageId};

use crate::context::{Context, Failure, corrupt_in};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, KvError, RangeOptions, Transaction};
use crate::layout::{StageRecord, decode_sum};

/// A staged page, by index and sum.
pub(super) type StagedPage = (PageIndex, u64);

/// Sums of staged pages read at once.
const SUMS_A_BATCH: usize = 10_000;
/// Batches that one transaction reads: so many do not make it too old to commit.
const BATCHES_A_TRANSACTION: usize = 16;

/// Lists what a stage holds, by index. The list of a stage of any size is read in as many
/// transactions as it takes: it is checked against the record that the committing one reads
/// serializably.
pub(super) async fn staged_pages(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    stage: StageId,
    record: StageRecord,
) -> Result<Vec<StagedPage>, Failure> {
    let place = || corrupt_in(format!("stage {stage} of {id}"));
    let options = RangeOptions {
        limit: SUMS_A_BATCH,
        reverse: false,
        isolation: Isolation::Snapshot,
    };
    let seen = Freshness::AtLeast(txn.read_version().await?);
    let mut younger: Option<Box<dyn Transaction>> = None;
    let mut pages: Vec<StagedPage> = Vec::new();
    let mut next: PageIndex = 0;
    for batch in 1.. {
        let range = ctx.keys.staged_sums(id, stage, next);
        let pairs = younger
            .as_deref()
            .unwrap_or(txn)
            .get_range(&range, options)
            .await?;
        for (key, value) in &pairs {
            let index = ctx.keys.parse_staged(key).map_err(place())?;
            pages.push((index, decode_sum(value).map_err(place())?));
            next = index.saturating_add(1);
        }
        if pairs.len() < SUMS_A_BATCH {
            break;
        }
        if batch % BATCHES_A_TRANSACTION == 0 {
            younger = Some(ctx.begin(seen));
        }
    }
    let sum = pages.iter().fold(0, |sum, (_, page)| sum ^ page);
    if (pages.len() as u64, sum) == (record.count, record.sum) {
        return Ok(pages);
    }
    if younger.is_some() {
        // A batch may have come between; then the record tells the next attempt.
        return Err(KvError::Conflict.into());
    }
    let reason = format!("stage {stage} of {id} does not hold what its record says");
    Err(StoreError::Corrupt { reason }.into())
}
