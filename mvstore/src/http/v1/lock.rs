//! `/nslock/acquire` and `/nslock/release`.
//!
//! Their clients send the same again at 5xx, so what is hopeless is 400, a body that is not understood
//! too. (The original answers that with 500, and so any owner whose JSON has an escape in it.)

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use mvsqlite_protocol::v1::{AcquireLock, LockMode, ReleaseLock};
use mvsqlite_protocol::{Code, NamespaceKey, Version};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::info;

use super::caller::expect_key;
use super::reply::{Refused, refused};
use super::{Answer, Server};
use crate::error::StoreError;
use crate::http::Shared;
use crate::http::body::ADMIN_BODY;
use crate::http::exchange::Permit;
use crate::store::{LockAcquired, LockReleased, ReleaseMode, Store};

static OWNER: HeaderName = HeaderName::from_static("x-lock-owner");

pub(super) async fn acquire(State(server): Server, request: Request) -> Answer {
    let (call, message) = Call::receive::<AcquireLock>(&server, request).await?;
    let AcquireLock { owner, version } = message;
    let version: Option<Version> = match version.filter(|version| !version.is_empty()) {
        Some(version) => Some(version.parse().map_err(Refused::bad)?),
        None => None,
    };
    let work = move |store: Arc<Store>, key: NamespaceKey| {
        let owner = owner.clone();
        async move {
            let acquired = store.acquire_lock(&key, &owner, version).await?;
            if acquired == LockAcquired::Acquired {
                info!(%key, owner, "namespace locked");
            }
            Ok(acquired)
        }
    };
    Ok(match call.write(&server, "nslock/acquire", work).await? {
        LockAcquired::Acquired => StatusCode::CREATED.into_response(),
        LockAcquired::InvalidOwner => invalid_owner(),
        LockAcquired::Held { owner } => held_by(StatusCode::CONFLICT, Some(&owner)),
        LockAcquired::Refused { reason } => (StatusCode::CONFLICT, reason + "\n").into_response(),
    })
}

pub(super) async fn release(State(server): Server, request: Request) -> Answer {
    let (call, message) = Call::receive::<ReleaseLock>(&server, request).await?;
    let ReleaseLock { owner, mode } = message;
    let (mode, done) = match mode {
        LockMode::Commit => (ReleaseMode::Commit, StatusCode::CREATED),
        LockMode::Rollback => (ReleaseMode::Rollback, StatusCode::OK),
    };
    let work = move |store: Arc<Store>, key: NamespaceKey| {
        let owner = owner.clone();
        async move {
            let released = store.release_lock(&key, &owner, mode).await?;
            if released == LockReleased::Released {
                info!(%key, owner, ?mode, "namespace unlocked");
            }
            Ok(released)
        }
    };
    Ok(match call.write(&server, "nslock/release", work).await? {
        LockReleased::Released => done.into_response(),
        LockReleased::InvalidOwner => invalid_owner(),
        LockReleased::NotHeld { owner } => {
            held_by(StatusCode::UNPROCESSABLE_ENTITY, owner.as_deref())
        }
        LockReleased::RollingBack => {
            let reason = "the lock is being rolled back\n";
            (StatusCode::CONFLICT, reason).into_response()
        }
        LockReleased::Refused { reason } => (StatusCode::CONFLICT, reason + "\n").into_response(),
        LockReleased::Gone => (StatusCode::GONE, "lock is gone").into_response(),
    })
}

fn invalid_owner() -> Response {
    (StatusCode::BAD_REQUEST, "invalid owner\n").into_response()
}

/// An empty answer that names the lock's owner, if there is one.
fn held_by(status: StatusCode, owner: Option<&str>) -> Response {
    let mut response = status.into_response();
    // An owner has no control characters, so it is legal as a header's value.
    if let Some(Ok(owner)) = owner.map(|owner| HeaderValue::from_bytes(owner.as_bytes())) {
        response.headers_mut().insert(OWNER.clone(), owner);
    }
    response
}

/// A call whose body has arrived.
struct Call {
    key: NamespaceKey,
    deadline: Instant,
    permit: Option<Permit>,
}

impl Call {
    async fn receive<Q: DeserializeOwned>(
        server: &Shared,
        request: Request,
    ) -> Result<(Self, Q), Refused> {
        let deadline = server.deadline();
        let key = expect_key(request.headers())?;
        server.expect_writable()?;
        let permit = request.extensions().get::<Permit>().cloned();
        let received = server.receive(request, ADMIN_BODY, deadline).await?;
        let message = serde_json::from_slice(&received.bytes).map_err(Refused::bad)?;
        let call = Self {
            key,
            deadline,
            permit,
        };
        Ok((call, message))
    }

    /// Makes the call, which runs to its end whether its client waits or not. The namespace is made
    /// first if it is not there and may be made.
    async fn write<T, F>(
        self,
        server: &Arc<Shared>,
        name: &'static str,
        work: impl Fn(Arc<Store>, NamespaceKey) -> F + Send + Sync + 'static,
    ) -> Result<T, Refused>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let shared = Arc::clone(server);
        let key = self.key;
        let work = async move {
            let call = || work(Arc::clone(&shared.store), key.clone());
            let done = async { on_namespace!(shared, &key, call()) };
            Ok(done.await)
        };
        let written = server.write(name, self.deadline, self.permit, Code::Timeout, work);
        written.await?.map_err(refused)
    }
}
