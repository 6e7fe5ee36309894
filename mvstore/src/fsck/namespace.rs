//! One namespace, from the first of its keys to the last.

use std::collections::HashMap;

use mvsqlite_protocol::{NamespaceId, StageId, Version};

use super::changelog::Window;
use super::facts::{Facts, Looked, look, moving};
use super::metadata::Metadata;
use super::pages::sweep;
use super::reader::{Reader, Walk};
use super::{Check, Finding, FsckError, Kind};
use super::{changelog, small, sqlite, stages};
use crate::kv::KeyRange;
use crate::layout::{MetadataKey, Usage, UsageKind};

/// How often a namespace is read that is not read at one version, until all that is found is found
/// each time.
const MOST_ROUNDS: u32 = 4;

/// What is gathered of a namespace while its keys are read.
pub(super) struct Round<'a> {
    pub facts: Facts,
    pub reader: Reader<'a>,
    pub found: Vec<Finding>,
    /// What its page versions and layers hold, and what its open stages.
    pub pages: Usage,
    pub staged: Usage,
    /// How many page versions refer to each stage.
    pub references: HashMap<StageId, u64>,
    /// The newest entry of the changelog so far.
    pub newest: Version,
}

impl Round<'_> {
    pub(super) fn find(&mut self, kind: Kind, key: impl ToString, detail: impl Into<String>) {
        self.found.push(Finding::new(kind, key.to_string(), detail));
    }
}

/// Checks a namespace; what is told is so.
pub(super) async fn check_namespace(
    check: &mut Check<'_>,
    metadata: &mut Metadata,
    id: NamespaceId,
) -> Result<Vec<Finding>, FsckError> {
    let before = check.counts;
    let (mut found, mut is_torn) = check_once(check, metadata, id).await?;
    for round in 1..MOST_ROUNDS {
        if !is_torn || found.is_empty() {
            break;
        }
        // Counted once, however often it is read.
        let counts = check.counts;
        let (again, torn_again) = check_once(check, metadata, id).await?;
        check.counts = super::Counts {
            keys: check.counts.keys,
            bytes: check.counts.bytes,
            counters_not_judged: before.counters_not_judged,
            ..counts
        };
        if !torn_again {
            return Ok(again);
        }
        let known = found.len();
        found.retain(|old| again.iter().any(|new| new.is_same(old)));
        // What is there twice in a row, and nothing else was, stays.
        is_torn = found.len() < known || round == 1;
    }
    Ok(found)
}

/// Reads a namespace once; what was found, and whether it was read at several versions.
async fn check_once(
    check: &mut Check<'_>,
    metadata: &mut Metadata,
    id: NamespaceId,
) -> Result<(Vec<Finding>, bool), FsckError> {
    let mut reader = Reader::new(check.ctx);
    let mut found = Vec::new();
    let looked = look(check, &mut reader, id, metadata.name(id), &mut found).await?;
    let Looked::Judge(facts) = looked else {
        // Read in one transaction.
        return Ok((found, false));
    };
    let mut round = Round {
        facts: *facts,
        reader,
        found,
        pages: Usage::default(),
        staged: Usage::default(),
        references: HashMap::new(),
        newest: id.as_version(),
    };
    check_content(check, metadata, &mut round).await?;
    check_usage(check, &mut round).await?;
    if check.options.sqlite {
        sqlite::check_sqlite(check, &mut round).await?;
    }
    Ok((round.found, round.reader.is_torn()))
}

async fn check_content(
    check: &mut Check<'_>,
    metadata: &mut Metadata,
    round: &mut Round<'_>,
) -> Result<(), FsckError> {
    let keys = &check.ctx.keys;
    let id = round.facts.id;
    let all = keys.namespace(id);
    let (log, pages, stages) = (
        keys.changelog(id),
        keys.pages(id, 0, 1 << 32),
        keys.all_stages(id),
    );
    let between = |begin: &[u8], end: &[u8]| KeyRange::new(begin, end);
    for range in [
        between(&all.begin, &log.begin),
        between(&log.end, &pages.begin),
        between(&pages.end, &stages.begin),
        between(&stages.end, &all.end),
    ] {
        let mut walk = Walk::over(range);
        while let Some(pairs) = walk.next(check, &mut round.reader).await? {
            small::judge(check, metadata, round, &pairs).await?;
        }
    }
    let mut window = Some(Window::first(&round.facts));
    let mut is_first = true;
    while let Some(at) = window {
        let mut loaded = changelog::load(check, round, at).await?;
        sweep(check, round, &mut loaded, is_first).await?;
        changelog::expect_all(check, round, &loaded).await?;
        window = loaded.next();
        is_first = false;
    }
    changelog::expect_needed(check, round).await?;
    stages::check_stages(check, metadata, round).await
}

/// The counters say what was counted, unless they moved meanwhile.
async fn check_usage(check: &mut Check<'_>, round: &mut Round<'_>) -> Result<(), FsckError> {
    let id = round.facts.id;
    if round.reader.is_torn() {
        let now = moving(check, &mut round.reader, id).await?;
        if now != round.facts.moving {
            check.counts.counters_not_judged += 1;
            return Ok(());
        }
    }
    for (at, kind, counted) in [
        (0, UsageKind::Pages, round.pages),
        (1, UsageKind::Staged, round.staged),
    ] {
        let stored = round.facts.moving[at].as_deref();
        // What does not decode is told with the metadata.
        let Ok(stored) = Usage::decode(stored) else {
            continue;
        };
        if stored != counted {
            let detail = format!(
                "it says {} pages of {} bytes, and there are {} of {}",
                stored.count, stored.bytes, counted.count, counted.bytes
            );
            round.find(Kind::UsageWrong, MetadataKey::Usage(id, kind), detail);
        }
    }
    Ok(())
}
