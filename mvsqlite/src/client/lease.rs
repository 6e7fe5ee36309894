//! The write lease's call.

use std::time::Duration;

use mvsqlite_protocol::NamespaceKey;
use mvsqlite_protocol::v2::{self, LeaseReply, LeaseRequest};

use super::DataPlane;
use super::data_plane::{Failure, decode, encode};
use super::error::CallError;
use super::retry::Attempts;

impl DataPlane {
    /// Takes, renews or gives back a write lease, tried again like every call that may be repeated.
    pub(crate) fn lease(
        &self,
        key: &NamespaceKey,
        request: &LeaseRequest,
    ) -> Result<LeaseReply, CallError> {
        self.call(key, "lease", request, decode)
    }

    /// The same, tried once and for no longer than this.
    pub(crate) fn lease_once(
        &self,
        key: &NamespaceKey,
        request: &LeaseRequest,
        longest: Duration,
    ) -> Result<LeaseReply, CallError> {
        let path = v2::path(key, "lease");
        let body = encode(request)?;
        let attempts = Attempts::start(self);
        let timeout = self.timeout.min(longest);
        match self.attempt(attempts.server(), &path, &body, timeout) {
            Ok(body) => decode(&body),
            Err(Failure::Final(error)) => Err(error),
            Err(Failure::Again { reason, .. }) => Err(attempts.unreachable(reason)),
        }
    }
}
