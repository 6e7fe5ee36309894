//! Page versions: their content, and whether the changelog knows of them.

use bytes::Bytes;
use mvsqlite_protocol::{PageIndex, StageId, Version};

use super::changelog::Window;
use super::namespace::Round;
use super::reader::Walk;
use super::{Check, Finding, FsckError, Kind};
use crate::context::{Failure, side_by_side};
use crate::kv::Isolation;
use crate::layout::{Holding, PageKey, PageValue, StageRecord};

/// A page version that refers to staged content.
struct Reference {
    index: PageIndex,
    version: Version,
    stage: StageId,
    checksum: u64,
}

/// The stages that versions of one page refer to.
#[derive(Default)]
struct OfOnePage {
    index: PageIndex,
    stages: Vec<StageId>,
}

/// Looks at every page version. Their content is judged in the first sweep, and each time those are
/// ticked off that the window lists.
pub(super) async fn sweep(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    window: &mut Window,
    is_first: bool,
) -> Result<(), FsckError> {
    let keys = &check.ctx.keys;
    let mut walk = Walk::over(keys.pages(round.facts.id, 0, 1 << 32));
    let mut of_one = OfOnePage::default();
    while let Some(pairs) = walk.next(check, &mut round.reader).await? {
        let mut references = Vec::new();
        for (key, value) in &pairs {
            let Some((_, PageKey::Page(index, version))) = keys.page_key(key) else {
                if is_first {
                    let detail = "it is none of the store's keys";
                    round.find(Kind::UnknownKey, keys.describe(key), detail);
                }
                continue;
            };
            expect_listed(round, window, index, version, value);
            if is_first {
                check.counts.page_versions += 1;
                let reference = judge_content(round, index, version, value);
                references.extend(reference);
            }
        }
        for reference in &references {
            count_reference(round, reference, &mut of_one);
        }
        judge_references(check, round, &references).await?;
    }
    Ok(())
}

fn find(round: &mut Round<'_>, kind: Kind, (index, version): (PageIndex, Version), detail: &str) {
    let found = Finding::new(kind, PageKey::Page(index, version).to_string(), detail);
    round.found.push(found.version(version).page(index));
}

/// Whether the commit that made the version says so.
fn expect_listed(
    round: &mut Round<'_>,
    window: &mut Window,
    index: PageIndex,
    version: Version,
    value: &Bytes,
) {
    let place = (index, version);
    if version <= round.facts.id.as_version() {
        find(
            round,
            Kind::PageOutOfHistory,
            place,
            "it lies before the namespace's creation",
        );
        return;
    }
    if version > round.facts.head {
        if !round.reader.is_torn() {
            find(
                round,
                Kind::PageOutOfHistory,
                place,
                "it lies above the newest commit",
            );
        }
        return;
    }
    if !window.covers(version) {
        return;
    }
    let Some(entry) = window.entry(version) else {
        find(
            round,
            Kind::PageUnlisted,
            place,
            "no commit was made at its version",
        );
        return;
    };
    let Some(pages) = &entry.pages else {
        return;
    };
    if pages.contains(index) {
        entry.seen += 1;
        return;
    }
    // A layer cuts off whatever lies behind, listed or not.
    let last = pages.runs().last().map_or(0, |run| run.end());
    let is_absent = PageValue::holding(value) == Ok(Holding::Nothing);
    if !is_absent || u64::from(index) < last {
        find(
            round,
            Kind::PageUnlisted,
            place,
            "its commit does not list the page",
        );
    }
}

/// Judges what a page version says itself, and counts it. Returns its reference to a stage.
fn judge_content(
    round: &mut Round<'_>,
    index: PageIndex,
    version: Version,
    value: &Bytes,
) -> Option<Reference> {
    round.pages.count += 1;
    if let Ok(Holding::Content(bytes)) = PageValue::holding(value) {
        round.pages.bytes += bytes;
    }
    match PageValue::decode(value, round.facts.id.as_bytes(), index) {
        Ok(PageValue::Raw(_) | PageValue::Absent) => None,
        Ok(PageValue::Staged { stage, checksum }) => Some(Reference {
            index,
            version,
            stage,
            checksum,
        }),
        Err(malformed) => {
            let detail = malformed.to_string();
            find(round, Kind::PageDamaged, (index, version), &detail);
            None
        }
    }
}

/// Counts a reference, unless another version of the page has the same.
fn count_reference(round: &mut Round<'_>, reference: &Reference, of_one: &mut OfOnePage) {
    let &Reference {
        index,
        version,
        stage,
        ..
    } = reference;
    if of_one.index != index {
        of_one.index = index;
        of_one.stages.clear();
    }
    if of_one.stages.contains(&stage) {
        let detail = format!("an older version of the page refers to stage {stage} too");
        find(round, Kind::StagedShared, (index, version), &detail);
        return;
    }
    of_one.stages.push(stage);
    *round.references.entry(stage).or_default() += 1;
}

/// Fetches what references refer to.
async fn judge_references(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    references: &[Reference],
) -> Result<(), FsckError> {
    if references.is_empty() {
        return Ok(());
    }
    let (ctx, id) = (check.ctx, round.facts.id);
    let contents: Vec<Option<Bytes>> = loop {
        let txn = round.reader.txn();
        let reads = references.iter().map(async |at| {
            let key = ctx.keys.staged_page(id, at.stage, at.index);
            Ok::<_, Failure>(txn.get(&key, Isolation::Snapshot).await?)
        });
        match side_by_side(reads.collect()).await {
            Ok(contents) => break contents,
            Err(failure) => round.reader.renew(failure)?,
        }
    };
    let owner = id.as_bytes();
    for (at, content) in references.iter().zip(contents) {
        let place = (at.index, at.version);
        let Some(content) = content else {
            let detail = format!("stage {} does not have the page", at.stage);
            find(round, Kind::StagedMissing, place, &detail);
            round.pages.bytes += page_size(check, round, at.stage).await?;
            continue;
        };
        check.counts.bytes += content.len() as u64;
        round.pages.bytes += content.len().saturating_sub(PageValue::OVERHEAD) as u64;
        let verified = match PageValue::decode(&content, at.stage.as_bytes(), at.index) {
            Ok(PageValue::Raw(content)) => {
                PageValue::verify_staged(owner, at.index, at.checksum, &content)
                    .map_err(|malformed| malformed.to_string())
            }
            Ok(_) => Err("the staged page refers elsewhere".to_owned()),
            Err(malformed) => Err(malformed.to_string()),
        };
        if let Err(detail) = verified {
            find(round, Kind::StagedDamaged, place, &detail);
        }
    }
    Ok(())
}

/// The size of a stage's pages by its record, for one that is missing.
async fn page_size(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    stage: StageId,
) -> Result<u64, FsckError> {
    let key = check.ctx.keys.stage(round.facts.id, stage);
    let record = round.reader.get(check, &key).await?;
    let record = record.and_then(|record| StageRecord::decode(&record).ok());
    Ok(record.map_or(0, |record| record.page_size.into()))
}
