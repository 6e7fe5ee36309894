//! The newest version of a database as SQLite would look at it first: page 1, the sizes of its pages,
//! and the b-tree of its schema. Everything behind that is for an SQLite to check.

use std::collections::BTreeSet;

use mvsqlite_protocol::{NamespaceId, PageIndex, Version};

use super::namespace::Round;
use super::{Check, Finding, FsckError, Kind};
use crate::context::{Context, Failure};
use crate::error::StoreError;
use crate::kv::{Isolation, Transaction};
use crate::layout::PageKey;
use crate::page::{Found, Header, Lineage, View};

/// Pages read at once.
const CHUNK: u32 = 64;
/// Most pages of the schema's b-tree that are looked at.
const MOST_SCHEMA_PAGES: usize = 1000;
/// Types of b-tree pages by their first byte: interior and leaf of a table.
const TABLE_INTERIOR: u8 = 0x05;
const TABLE_LEAF: u8 = 0x0d;
/// Where page 1's b-tree begins.
const FILE_HEADER: usize = 100;

/// Looks at the newest version.
pub(super) async fn check_sqlite(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
) -> Result<(), FsckError> {
    let version = round.facts.head;
    let Some(page_one) = pages(check, round, version, &[0]).await?.pop() else {
        return Ok(());
    };
    let Some(content) = page_one.content else {
        return Ok(());
    };
    let header = match Header::parse(&content) {
        // Not SQLite's; that is nobody's fault.
        Ok(None) => return Ok(()),
        Ok(Some(header)) => header,
        Err(error) => {
            implausible(round, 0, version, error.to_string());
            return Ok(());
        }
    };
    if content.len() != header.page_size as usize {
        let detail = format!(
            "{} bytes, and its header says {}",
            content.len(),
            header.page_size
        );
        implausible(round, 0, version, detail);
        return Ok(());
    }
    let mut first = 0;
    while first < header.page_count {
        let indexes: Vec<_> = (first..header.page_count.min(first.saturating_add(CHUNK))).collect();
        for page in pages(check, round, version, &indexes).await? {
            let length = page.content.as_ref().map(bytes::Bytes::len);
            if length.is_some_and(|length| length != header.page_size as usize) {
                let detail = format!("{length:?} bytes in a database of {}", header.page_size);
                implausible(round, page.index, version, detail);
            }
        }
        first = first.saturating_add(CHUNK);
    }
    check_schema(check, round, version, header).await
}

/// The b-tree of the schema: each page is of a table, and there.
async fn check_schema(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    version: Version,
    header: Header,
) -> Result<(), FsckError> {
    let mut met = BTreeSet::from([0]);
    let mut rest: Vec<PageIndex> = vec![0];
    while let Some(index) = rest.pop() {
        let page = pages(check, round, version, &[index]).await?.pop();
        let Some(content) = page.and_then(|page| page.content) else {
            implausible(
                round,
                index,
                version,
                "the schema's b-tree has it, and it is not there",
            );
            continue;
        };
        match children(&content, index) {
            Err(detail) => implausible(round, index, version, detail),
            Ok(children) => {
                for number in children {
                    let child = number.wrapping_sub(1);
                    if child >= header.page_count {
                        let detail = format!("it leads to page {number} of {}", header.page_count);
                        implausible(round, index, version, detail);
                    } else if met.len() < MOST_SCHEMA_PAGES && met.insert(child) {
                        rest.push(child);
                    }
                }
            }
        }
    }
    Ok(())
}

/// The page numbers below an interior page of a table; none below a leaf.
fn children(page: &[u8], index: PageIndex) -> Result<Vec<u32>, &'static str> {
    let start = if index == 0 { FILE_HEADER } else { 0 };
    let short = "its b-tree header is cut short";
    let header = page.get(start..start + 12).ok_or(short)?;
    match header[0] {
        TABLE_LEAF => return Ok(Vec::new()),
        TABLE_INTERIOR => (),
        _ => return Err("it is no b-tree page of a table"),
    }
    let number = |at: usize| -> Result<u32, &'static str> {
        let bytes = page.get(at..).and_then(<[u8]>::first_chunk).ok_or(short)?;
        Ok(u32::from_be_bytes(*bytes))
    };
    let cells = usize::from(u16::from_be_bytes([header[3], header[4]]));
    let mut children = vec![number(start + 8)?];
    for cell in 0..cells {
        let at = start + 12 + 2 * cell;
        let at = page.get(at..at + 2).ok_or(short)?;
        children.push(number(usize::from(u16::from_be_bytes([at[0], at[1]])))?);
    }
    Ok(children)
}

fn implausible(
    round: &mut Round<'_>,
    index: PageIndex,
    version: Version,
    detail: impl Into<String>,
) {
    let key = PageKey::Page(index, version).to_string();
    let found = Finding::new(Kind::SqliteImplausible, key, detail);
    round.found.push(found.version(version).page(index));
}

/// Pages at a version; none where something that they need is damaged, which is told elsewhere.
async fn pages(
    check: &mut Check<'_>,
    round: &mut Round<'_>,
    version: Version,
    indexes: &[PageIndex],
) -> Result<Vec<Found>, FsckError> {
    loop {
        let txn = round.reader.txn();
        match try_pages(check.ctx, txn, round.facts.id, version, indexes).await {
            Ok(pages) => return Ok(pages),
            Err(Failure::Refused(StoreError::Corrupt { .. })) => return Ok(Vec::new()),
            Err(failure) => round.reader.renew(failure)?,
        }
    }
}

async fn try_pages(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    version: Version,
    indexes: &[PageIndex],
) -> Result<Vec<Found>, Failure> {
    let guard = ctx.guard(txn, id, Isolation::Snapshot).await?;
    let Some(guard) = guard.filter(|guard| guard.horizon <= version) else {
        return Ok(Vec::new());
    };
    let lineage = Lineage::read(ctx, txn, id, &guard).await?;
    View::new(ctx, txn, &lineage)
        .find(id, version, indexes)
        .await
}
