//! What an open database can be told besides SQLite's calls: to stay at a version, and in whose name
//! it comes to a namespace that is locked.

use std::sync::Arc;

use mvsqlite_protocol::{Moment, Version};

use super::DatabaseFile;
use super::error::{Cause, Error, Operation};
use crate::client::{LockError, OWNER_HEADER, Release};
use crate::config::is_lock_owner;
use crate::environment::Environment;

/// Why a database cannot be told at which version to stay. The texts are those of the original's
/// client.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// SQLite holds a lock on the database, as within a transaction.
    #[error("cannot {0} version while transaction is active")]
    InTransaction(&'static str),
    /// It was opened at a version, for ever.
    #[error("cannot {0} version of a database that was opened at a version")]
    OpenedAtVersion(&'static str),
    /// There is no such version, or no answer.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl DatabaseFile {
    /// Whether SQLite holds a lock on the database, as within a transaction.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Reads the database as it was at a version, from now on and until it is unpinned. Nothing can be
    /// written meanwhile.
    ///
    /// # Errors
    /// If a transaction is open, if the database was opened at a version, or if there is no such
    /// version.
    pub fn pin(&mut self, version: Version) -> Result<(), PinError> {
        self.check_pinnable("pin")?;
        let resolved = self.remote.resolve(Moment::Version(version));
        let snapshot = resolved.and_then(|snapshot| match snapshot.identity == self.identity {
            true => Ok(snapshot),
            false => Err(Cause::Replaced),
        });
        let snapshot = snapshot.map_err(|cause| self.fail(Operation::Read, cause))?;
        self.opening = None;
        self.held = Some(snapshot);
        Ok(())
    }

    /// Reads the newest version again.
    ///
    /// # Errors
    /// If a transaction is open, or if the database was opened at a version.
    pub fn unpin(&mut self) -> Result<(), PinError> {
        self.check_pinnable("unpin")?;
        self.held = None;
        Ok(())
    }

    fn check_pinnable(&self, what: &'static str) -> Result<(), PinError> {
        match (self.is_immutable(), self.in_transaction()) {
            (true, _) => Err(PinError::OpenedAtVersion(what)),
            (false, true) => Err(PinError::InTransaction(what)),
            (false, false) => Ok(()),
        }
    }

    /// Takes the lock of the namespace, and comes as its owner from now on.
    ///
    /// # Errors
    /// If a transaction is open, or if the lock cannot be had.
    pub fn acquire_lock(&mut self, owner: &str, version: Option<Version>) -> Result<(), LockError> {
        if self.in_transaction() {
            return Err(LockError::InTransaction("acquire"));
        }
        if !is_lock_owner(owner) {
            return Err(LockError::InvalidOwner);
        }
        let plane = self.remote.env.plane();
        plane.acquire_lock(&self.remote.key, owner, version)?;
        self.come_as(Some(owner));
        Ok(())
    }

    /// Gives the lock of the namespace back, and comes as nobody in particular from now on.
    ///
    /// # Errors
    /// If a transaction is open, or if the lock is not this owner's.
    pub fn release_lock(&mut self, owner: &str, release: Release) -> Result<(), LockError> {
        if self.in_transaction() {
            return Err(LockError::InTransaction("release"));
        }
        if !is_lock_owner(owner) {
            return Err(LockError::InvalidOwnerOfRelease);
        }
        let plane = self.remote.env.plane();
        plane.release_lock(&self.remote.key, owner, release)?;
        self.come_as(None);
        Ok(())
    }

    fn come_as(&mut self, owner: Option<&str>) {
        self.remote.env = coming_as(&self.remote.env, owner);
        self.opening = None;
        self.remote.forget_recent(self.identity);
    }
}

/// What a database is opened with by this owner of its namespace's lock.
pub(super) fn coming_as(env: &Arc<Environment>, owner: Option<&str>) -> Arc<Environment> {
    let header = owner.map(|owner| (OWNER_HEADER, owner.to_owned()));
    env.with_headers(header.as_slice())
}
