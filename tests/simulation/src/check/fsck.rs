//! The store itself, key by key: what `mvstore fsck` finds, while its servers keep house.

use std::ops::ControlFlow;

use mvstore::error::StoreError;
use mvstore::fsck::{Event, Finding, FsckError};

use crate::process::Process;

/// Nothing is wrong with the store, whatever happened to it. Leftovers are allowed: a store that is
/// killed at the wrong moment leaves some.
///
/// # Errors
/// What is wrong.
pub(super) fn check(process: &Process) -> Result<(), String> {
    let checked = process.administer("fsck", |store| async move {
        let mut findings: Vec<Finding> = Vec::new();
        let checked = store.fsck(false, None, |event| {
            if let Event::Found(finding) = event {
                findings.push(finding);
            }
            ControlFlow::Continue(())
        });
        match checked.await {
            Ok(_) => Ok(findings),
            Err(FsckError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::Unavailable {
                reason: error.to_string(),
            }),
        }
    });
    let findings = match checked {
        Some(Ok(findings)) => findings,
        Some(Err(error)) => return Err(format!("the store cannot be checked: {error}")),
        None => return Err("the store was killed while it was checked".to_owned()),
    };
    let is_wrong = |finding: &&Finding| finding.severity > mvstore::fsck::Severity::Leftover;
    match findings.iter().find(is_wrong) {
        Some(finding) => Err(format!("fsck: {finding}")),
        None => Ok(()),
    }
}
