//! What became of a commit, made definite.
//!
//! An attempt may be anywhere: in this server, in another one, in the network. Under its idempotency
//! key stands nothing until it commits. Settling reads that key and, if nothing is there, writes an
//! abort marker in the same transaction. Attempts read the key serializably, so one still under way
//! either committed before the marker, and is found, or meets the marker and fails.
//!
//! A commit over several namespaces has its key in the one of the smallest id, which is why settling
//! it takes all their names.

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::v2::{GroupSettleRequest, MAX_GROUP, SettleReply, SettleRequest};
use mvsqlite_protocol::{IdempotencyKey, NamespaceId, NamespaceKey, ReadVersion, Version};

use crate::context::{Context, Failure, Reruns, corrupt_in};
use crate::error::StoreError;
use crate::failpoint;
use crate::kv::{Freshness, Isolation, Transaction};
use crate::layout::{Expiry, ExpiryKind, Outcome, State};
use crate::namespace::not_found;

/// Makes a commit's outcome definite.
///
/// The namespace is taken by its id alone: a commit stays what it is when the key is given to
/// another namespace.
pub(crate) async fn settle(
    ctx: &Context,
    key: &NamespaceKey,
    request: SettleRequest,
) -> Result<SettleReply, StoreError> {
    let outcome = settled(ctx, key, request.namespace, request.key).await?;
    Ok(reply(outcome))
}

/// Makes the outcome of a commit over several namespaces definite.
///
/// # Errors
/// As for one namespace, where that is the one of the smallest id; [`StoreError::BadGroup`].
pub(crate) async fn settle_group(
    ctx: &Context,
    request: GroupSettleRequest,
) -> Result<SettleReply, StoreError> {
    let members = &request.members;
    let home = members.iter().min_by_key(|member| member.namespace);
    let Some(home) = home.filter(|_| members.len() <= MAX_GROUP) else {
        return Err(StoreError::BadGroup {
            reason: format!(
                "{} namespaces of one commit; it has 1 to {MAX_GROUP}",
                members.len()
            ),
        });
    };
    let outcome = settled(ctx, &home.ns, home.namespace, request.key).await?;
    Ok(reply(outcome))
}

fn reply(outcome: Option<Version>) -> SettleReply {
    match outcome {
        Some(version) => SettleReply::Committed {
            version,
            read_version: ReadVersion(version.commit()),
        },
        None => SettleReply::Aborted,
    }
}

/// The version of a commit that happened; `None` if it never will.
pub(super) async fn settled(
    ctx: &Context,
    key: &NamespaceKey,
    id: NamespaceId,
    idempotency: IdempotencyKey,
) -> Result<Option<Version>, StoreError> {
    let mut reruns = Reruns::new();
    loop {
        let failure = match try_settle(ctx, key, id, idempotency).await {
            Ok(outcome) => return Ok(outcome),
            Err(Failure::Refused(error)) => return Err(error),
            Err(failure) => failure,
        };
        reruns
            .after(failure)
            .map_err(|error| StoreError::OutcomeUnknown {
                key: idempotency,
                reason: error.to_string(),
            })?;
    }
}

async fn try_settle(
    ctx: &Context,
    key: &NamespaceKey,
    id: NamespaceId,
    idempotency: IdempotencyKey,
) -> Result<Option<Version>, Failure> {
    let mut txn = ctx.begin(Freshness::Strict);
    match outcome(ctx, &*txn, id, idempotency).await? {
        Some(Outcome::Committed { version, .. }) => return Ok(Some(version)),
        Some(Outcome::Aborted) => return Ok(None),
        None => (),
    }
    let guard = ctx.guard(&*txn, id, Isolation::Serializable).await?;
    if guard.is_none_or(|guard| guard.state == State::Deleting) {
        // Whatever it was, it went with the namespace; and nothing may be written there any more.
        return Err(not_found(key).into());
    }
    if active(Bug::NoAbortMarker) {
        // An attempt that is still under way would get through afterwards.
        return Ok(None);
    }
    let marker = Outcome::encode_aborted();
    txn.set(&ctx.keys.outcome(id, idempotency), &marker);
    forget_later(ctx, &mut *txn, id, idempotency);
    txn.commit().await?;
    failpoint::pass(failpoint::SETTLED);
    Ok(None)
}

/// What stands under an idempotency key.
pub(crate) async fn outcome(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
    idempotency: IdempotencyKey,
) -> Result<Option<Outcome>, Failure> {
    let key = ctx.keys.outcome(id, idempotency);
    let value = txn.get(&key, Isolation::Serializable).await?;
    let outcome = value.map(|value| Outcome::decode(&value)).transpose();
    Ok(outcome.map_err(corrupt_in(format_args!("commit {idempotency} of {id}")))?)
}

/// Notes when the outcome may be forgotten.
pub(crate) fn forget_later(
    ctx: &Context,
    txn: &mut dyn Transaction,
    id: NamespaceId,
    idempotency: IdempotencyKey,
) {
    let ttl = ctx.options.idempotency_ttl.as_millis();
    let expiry = Expiry {
        at_millis: ctx
            .now()
            .saturating_add(u64::try_from(ttl).unwrap_or(u64::MAX)),
        namespace: id,
        kind: ExpiryKind::Outcome,
        name: *idempotency.as_bytes(),
    };
    txn.set(&ctx.keys.expiry(&expiry), &[]);
}
