//! Namespaces: the catalog that names them, and the rules by which a call is let in.
//!
//! A namespace's identity is its id, which is never reused. Its key is only a name: it can be
//! changed, and given to another namespace later. Every call names both, and is refused if they
//! do not belong together any more.

mod catalog;
mod delete;
mod fork;
mod lease;
mod lock;

pub(crate) use catalog::{create, list, rename, set_concurrency, stat, usage};
pub(crate) use delete::{Forked, delete, remove_deleted};
pub(crate) use fork::fork;
pub(crate) use lease::{judge_commit, lease};
pub(crate) use lock::{Standing, acquire_lock, judge_lock, lock_of, release_lock, standing};

use mvsqlite_protocol::{NamespaceId, NamespaceKey, Version};

use crate::error::StoreError;
use crate::layout::{CatalogEntry, GENERATION, Guard, State};

/// What a call wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read pages.
    Read,
    /// Change anything.
    Write,
}

/// The namespace a key names.
pub(crate) fn named(
    key: &NamespaceKey,
    entry: Option<CatalogEntry>,
) -> Result<CatalogEntry, StoreError> {
    entry.ok_or_else(|| not_found(key))
}

pub(crate) fn not_found(key: &NamespaceKey) -> StoreError {
    StoreError::NamespaceNotFound {
        key: key.to_string(),
    }
}

/// Whether a call may go on: the key still names the namespace it began on.
pub(crate) fn expect_id(
    key: &NamespaceKey,
    entry: Option<CatalogEntry>,
    expected: NamespaceId,
) -> Result<CatalogEntry, StoreError> {
    let entry = named(key, entry)?;
    if entry.id != expected {
        return Err(StoreError::NamespaceChanged {
            key: key.to_string(),
            expected,
        });
    }
    Ok(entry)
}

/// Whether the namespace lets a call in. Returns its guard with the horizon as it counts: nothing
/// below it is kept. Locks and leases are not looked at: they fence commits, and what else they
/// concern asks for them.
pub(crate) fn admit(
    key: &NamespaceKey,
    id: NamespaceId,
    guard: Option<Guard>,
    access: Access,
) -> Result<Guard, StoreError> {
    let guard = guard.ok_or_else(|| not_found(key))?;
    if guard.state != State::Live {
        return Err(not_found(key));
    }
    expect_generation(key, &guard, access)?;
    Ok(Guard {
        horizon: guard.oldest(id),
        ..guard
    })
}

/// Whether this build may do that to the namespace.
pub(crate) fn expect_generation(
    key: &NamespaceKey,
    guard: &Guard,
    access: Access,
) -> Result<(), StoreError> {
    let needed = match access {
        Access::Read => guard.min_reader,
        Access::Write => guard.min_reader.max(guard.min_writer),
    };
    if needed > GENERATION {
        return Err(StoreError::UnknownFormat {
            what: format!("the namespace '{key}'"),
            found: needed.into(),
            known: GENERATION.into(),
        });
    }
    Ok(())
}

/// Whether a version is still kept.
pub(crate) fn expect_kept(version: Version, horizon: Version) -> Result<(), StoreError> {
    if version < horizon {
        return Err(StoreError::SnapshotTooOld { version, horizon });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: NamespaceId = NamespaceId::from_bytes([1; 10]);

    fn admitted(change: impl FnOnce(&mut Guard), access: Access) -> Result<Guard, StoreError> {
        let mut guard = Guard::NEW;
        change(&mut guard);
        let key = "db".parse().unwrap();
        admit(&key, ID, Some(guard), access)
    }

    #[test]
    fn a_new_namespaces_horizon_is_its_id() {
        let guard = admitted(|_| (), Access::Write).unwrap();
        assert_eq!(guard.horizon, ID.as_version());
    }

    #[test]
    fn namespaces_that_are_going_or_newer_let_nobody_in_who_must_not() {
        for state in [State::Hidden, State::Deleting] {
            let refusal = admitted(|guard| guard.state = state, Access::Read).unwrap_err();
            assert!(matches!(refusal, StoreError::NamespaceNotFound { .. }));
        }
        let newer = |guard: &mut Guard| guard.min_writer = GENERATION + 1;
        admitted(newer, Access::Read).unwrap();
        let refusal = admitted(newer, Access::Write).unwrap_err();
        assert!(matches!(refusal, StoreError::UnknownFormat { .. }));
        let unreadable =
            admitted(|guard| guard.min_reader = GENERATION + 1, Access::Read).unwrap_err();
        assert!(matches!(unreadable, StoreError::UnknownFormat { .. }));
    }
}
