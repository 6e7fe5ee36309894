//! Which pages the store says have changed since a version, against the pages themselves.
//!
//! A client keeps cached pages that are not listed. One page too many costs a read; one too few shows
//! the past.

use mvsqlite_protocol::Version;
use mvsqlite_protocol::v2::{BeginReply, BeginRequest, KnownState};

use super::copy;
use crate::process::Process;
use crate::workload::Database;

/// Bytes of page 1 that never count as a change: the change counter, and by which library it was made.
const IGNORED: [std::ops::Range<usize>; 2] = [24..28, 92..100];

/// Compares a version with the newest one.
pub(crate) fn check(process: &Process, database: Database, version: &str) -> Result<(), String> {
    let key = database.key();
    let newest = begin(process, database, None)?;
    let known = KnownState {
        incarnation: newest.incarnation,
        namespace: newest.namespace,
        version: parsed(version)?,
        own: Vec::new(),
    };
    let begun = begin(process, database, Some(known))?;
    let Some(changed) = begun.changed else {
        return Ok(());
    };
    let mut before = copy::read(process, &format!("{key}@{version}"))?;
    let mut after = copy::read(process, &format!("{key}@{}", begun.version))?;
    for bytes in [&mut before, &mut after] {
        for ignored in IGNORED {
            if let Some(ignored) = bytes.get_mut(ignored) {
                ignored.fill(0);
            }
        }
    }
    let size = begun.page_size.max(512) as usize;
    let pages = before.len().max(after.len()) / size;
    for index in 0..pages {
        // Behind the end, and where nothing was ever written, a page reads as zeros.
        let page = |bytes: &[u8]| {
            let page = bytes.get(index * size..(index + 1) * size);
            page.map_or_else(|| vec![0; size], <[u8]>::to_vec)
        };
        let number = u32::try_from(index).map_err(|error| error.to_string())?;
        if page(&before) != page(&after) && !changed.contains(number) {
            return Err(format!(
                "page {} of '{key}' differs between {version} and {}, but is not among those that \
                 changed: {changed:?}",
                index + 1,
                begun.version
            ));
        }
    }
    Ok(())
}

fn begin(
    process: &Process,
    database: Database,
    known: Option<KnownState>,
) -> Result<BeginReply, String> {
    let key = database.key().parse().expect("a key");
    let request = BeginRequest {
        known,
        want_pages: false,
        as_of: None,
    };
    let begun = process.administer("begin", move |store| async move {
        store.begin(&key, request).await
    });
    match begun {
        Some(Ok(begun)) => Ok(begun),
        Some(Err(error)) => Err(format!("begin of '{database}': {error}")),
        None => Err(format!("begin of '{database}' was not answered")),
    }
}

fn parsed(version: &str) -> Result<Version, String> {
    version
        .parse()
        .map_err(|_| format!("'{version}' is no version"))
}
