//! Stages: their records, pages and sums, and whether page versions and layers refer to them as their
//! states say.

use bytes::Bytes;
use mvsqlite_protocol::{PageIndex, StageId, Version};

use super::metadata::Metadata;
use super::namespace::Round;
use super::reader::Walk;
use super::{Check, Finding, FsckError, Kind};
use crate::layout::{
    ExpiryKind, Holding, LayerKind, PageKey, PageValue, StageRecord, StageState, decode_sum,
    page_sum,
};
use crate::page::staged_usage;

/// What was seen of a stage.
struct Seen {
    stage: StageId,
    /// The layer that shows it, the count there, and the first page that is not folded.
    layer: Option<(Version, PageIndex, u64)>,
    record: Option<StageRecord>,
    /// Pages that should have sums: how many, and the xor of what these should be.
    pages: u64,
    pages_sum: u64,
    /// Sums that are there.
    sums: u64,
    sums_sum: u64,
    /// Pages that page versions should refer to.
    owned: u64,
    /// Pages that only the layer shows so far.
    shown: u64,
    /// The size of its pages; they differ, or one could not be read.
    size: Option<usize>,
    sizes_differ: bool,
    is_damaged: bool,
}

impl Seen {
    fn new(round: &Round<'_>, stage: StageId) -> Self {
        let layer = round.facts.layer_of(stage);
        Self {
            stage,
            layer: layer.map(|(at, count)| (at, count, round.facts.unfolded_from(at))),
            record: None,
            pages: 0,
            pages_sum: 0,
            sums: 0,
            sums_sum: 0,
            owned: 0,
            shown: 0,
            size: None,
            sizes_differ: false,
            is_damaged: false,
        }
    }

    /// Whether the page's sum was taken away already: page versions refer to it.
    fn is_owned(&self, is_committed: bool, index: PageIndex) -> bool {
        match self.layer {
            Some((_, _, unfolded)) => u64::from(index) < unfolded,
            None => is_committed,
        }
    }

    fn key(&self) -> PageKey {
        PageKey::Stage(self.stage)
    }
}

/// Looks at every stage of the namespace.
pub(super) async fn check_stages(
    check: &mut Check<'_>,
    metadata: &mut Metadata,
    round: &mut Round<'_>,
) -> Result<(), FsckError> {
    let keys = &check.ctx.keys;
    let mut walk = Walk::over(keys.all_stages(round.facts.id));
    let mut open: Option<Seen> = None;
    let mut met = Vec::new();
    while let Some(pairs) = walk.next(check, &mut round.reader).await? {
        for (key, value) in &pairs {
            let Some((_, parsed)) = keys.page_key(key) else {
                let detail = "it is none of the store's keys";
                round.find(Kind::UnknownKey, keys.describe(key), detail);
                continue;
            };
            let (PageKey::Stage(stage)
            | PageKey::StagedPage(stage, _)
            | PageKey::StagedSum(stage, _)) = parsed
            else {
                continue;
            };
            if open.as_ref().is_none_or(|seen| seen.stage != stage) {
                if let Some(seen) = open.take() {
                    finish(check, metadata, round, seen).await?;
                }
                met.push(stage);
                open = Some(begin(check, round, stage).await?);
            }
            if let Some(seen) = &mut open {
                note(check, round, seen, &parsed, value);
            }
        }
    }
    if let Some(seen) = open {
        finish(check, metadata, round, seen).await?;
    }
    for layer in round.facts.guard.layers.clone() {
        if let LayerKind::Stage {
            stage: Some(stage), ..
        } = layer.kind
            && !met.contains(&stage)
        {
            let detail = format!(
                "the layer at {} shows it, and nothing of it is there",
                layer.at
            );
            round.find(Kind::StageMissing, PageKey::Stage(stage), detail);
        }
    }
    Ok(())
}

/// The record decides how the pages are judged, and comes behind them.
async fn begin(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    stage: StageId,
) -> Result<Seen, FsckError> {
    let mut seen = Seen::new(round, stage);
    let key = check.ctx.keys.stage(round.facts.id, stage);
    if let Some(record) = round.reader.get(check, &key).await? {
        match StageRecord::decode(&record) {
            Ok(record) => seen.record = Some(record),
            Err(malformed) => {
                seen.is_damaged = true;
                round.find(Kind::BadValue, seen.key(), malformed.to_string());
            }
        }
    }
    Ok(seen)
}

fn note(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    seen: &mut Seen,
    key: &PageKey,
    value: &Bytes,
) {
    match *key {
        PageKey::StagedSum(..) => match decode_sum(value) {
            Ok(sum) => {
                seen.sums += 1;
                seen.sums_sum ^= sum;
            }
            Err(malformed) => {
                seen.is_damaged = true;
                round.find(Kind::BadValue, key, malformed.to_string());
            }
        },
        PageKey::StagedPage(_, index) => {
            check.counts.staged_pages += 1;
            note_page(round, seen, key, index, value);
        }
        _ => (),
    }
}

fn note_page(
    round: &mut Round<'_>,
    seen: &mut Seen,
    key: &PageKey,
    index: PageIndex,
    value: &Bytes,
) {
    let record = seen.record;
    let is_committed = record.is_some_and(|record| record.state == StageState::Committed);
    let is_owned = seen.is_owned(is_committed, index);
    if is_owned {
        seen.owned += 1;
    } else {
        seen.pages += 1;
        let is_shown = seen.layer.is_some_and(|(_, count, _)| index < count);
        seen.shown += u64::from(is_shown);
    }
    match PageValue::decode(value, seen.stage.as_bytes(), index) {
        Ok(PageValue::Raw(content)) => {
            seen.sizes_differ |= seen.size.is_some_and(|size| size != content.len());
            seen.size = Some(content.len());
            if !is_owned {
                seen.pages_sum ^= page_sum(index, &content);
            }
        }
        other => {
            seen.is_damaged = true;
            let detail = match other {
                Err(malformed) => malformed.to_string(),
                Ok(_) => "a staged page refers elsewhere".to_owned(),
            };
            round.find(Kind::StagedDamaged, key, detail);
        }
    }
}

/// Judges a stage of which everything was seen.
async fn finish(
    check: &mut Check<'_>,
    metadata: &mut Metadata,
    round: &mut Round<'_>,
    seen: Seen,
) -> Result<(), FsckError> {
    let references = round.references.get(&seen.stage).copied().unwrap_or(0);
    let Some(record) = seen.record else {
        if !seen.is_damaged {
            round.find(
                Kind::StageMissing,
                seen.key(),
                "it has pages or sums, and no record",
            );
        }
        return Ok(());
    };
    let is_committed = record.state == StageState::Committed;
    if !is_committed && (references > 0 || seen.layer.is_some()) {
        let detail = format!(
            "a commit refers to it, and its record says {:?}",
            record.state
        );
        round.find(Kind::StageStateWrong, seen.key(), detail);
        return Ok(());
    }
    if !is_committed {
        let usage = staged_usage(&record);
        round.staged.count += usage.count;
        round.staged.bytes = round.staged.bytes.saturating_add(usage.bytes);
        let key = check.ctx.keys.stage(round.facts.id, seen.stage);
        let (id, name) = (round.facts.id, seen.stage);
        metadata.expect_expiry(check, id, ExpiryKind::Stage, name.as_bytes(), &key);
    }
    round.pages.count += seen.shown;
    round.pages.bytes += seen.shown.saturating_mul(record.page_size.into());
    if !seen.is_damaged {
        expect_counts(round, &seen, record, is_committed);
    }
    if is_committed && seen.owned > references {
        find_unreferenced(check, round, &seen).await?;
    }
    if is_committed && seen.layer.is_none() && seen.owned == 0 && seen.sums == 0 && references == 0
    {
        round.find(Kind::StageEmpty, seen.key(), "its pages are gone");
    }
    Ok(())
}

/// Count, sum and page size are those of the pages.
fn expect_counts(round: &mut Round<'_>, seen: &Seen, record: StageRecord, is_committed: bool) {
    if (seen.pages, seen.pages_sum) != (seen.sums, seen.sums_sum) {
        let detail = format!(
            "{} pages of sum {:016x}, and {} sums that make {:016x}",
            seen.pages, seen.pages_sum, seen.sums, seen.sums_sum
        );
        round.find(Kind::StageCountWrong, seen.key(), detail);
        return;
    }
    // What a commit took over is no longer what the record counts.
    let is_whole = match seen.layer {
        Some((_, _, unfolded)) => unfolded == 0,
        None => !is_committed,
    };
    let recorded = (record.count, record.sum);
    if is_whole && (seen.pages, seen.pages_sum) != recorded {
        let detail = format!(
            "its record says {} pages of sum {:016x}, and there are {} of {:016x}",
            record.count, record.sum, seen.pages, seen.pages_sum
        );
        round.find(Kind::StageCountWrong, seen.key(), detail);
        return;
    }
    let is_size = seen
        .size
        .is_none_or(|size| size as u64 == u64::from(record.page_size));
    if seen.sizes_differ || !is_size {
        let detail = format!("its pages are not all of {} bytes", record.page_size);
        round.find(Kind::StageCountWrong, seen.key(), detail);
    }
}

/// Finds the pages of a committed stage that no page version refers to.
async fn find_unreferenced(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    seen: &Seen,
) -> Result<(), FsckError> {
    let keys = &check.ctx.keys;
    let (id, stage) = (round.facts.id, seen.stage);
    let mut walk = Walk::over(keys.staged_pages(id, stage, 0, PageIndex::MAX));
    while let Some(pairs) = walk.next(check, &mut round.reader).await? {
        for (key, _) in &pairs {
            let Ok(index) = keys.parse_staged(key) else {
                continue;
            };
            if !seen.is_owned(true, index) || is_referenced(check, round, stage, index).await? {
                continue;
            }
            let detail = "no version of the page refers to it";
            let key = PageKey::StagedPage(stage, index).to_string();
            let found = Finding::new(Kind::StagedUnreferenced, key, detail);
            round.found.push(found.page(index));
        }
    }
    Ok(())
}

async fn is_referenced(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    stage: StageId,
    index: PageIndex,
) -> Result<bool, FsckError> {
    let versions = check
        .ctx
        .keys
        .pages(round.facts.id, index, u64::from(index) + 1);
    let mut walk = Walk::over(versions);
    while let Some(pairs) = walk.next(check, &mut round.reader).await? {
        let refers = |value: &Bytes| PageValue::holding(value) == Ok(Holding::Staged(stage));
        if pairs.iter().any(|(_, value)| refers(value)) {
            return Ok(true);
        }
    }
    Ok(false)
}
