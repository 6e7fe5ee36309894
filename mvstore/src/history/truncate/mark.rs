//! One truncation of a namespace at a time.
//!
//! The mark is a lease in the store's own terms: its holder writes it in every transaction, another
//! one takes it over when nothing was written for a while. Time only decides how long a mark that
//! was left behind keeps others waiting; that no two truncations remove the same thing follows from
//! the mark being read serializably and written by both.

use std::time::Duration;

use mvsqlite_protocol::{NamespaceId, NamespaceKey};

use crate::context::{Context, Failure, corrupt_in, rerun};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation, Transaction};
use crate::layout::TruncationMark;

/// After so long without a sign of life another truncation may take over.
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// A truncation's claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    nonce: [u8; 16],
}

impl Running {
    pub(super) fn new(ctx: &Context) -> Result<Self, StoreError> {
        Ok(Self {
            nonce: ctx.random()?,
        })
    }

    /// Claims the namespace, unless another truncation is at work there.
    pub(super) async fn begin(
        self,
        ctx: &Context,
        txn: &mut dyn Transaction,
        key: &NamespaceKey,
        id: NamespaceId,
    ) -> Result<(), Failure> {
        let alive = |mark: &TruncationMark| {
            let silent = ctx.now().abs_diff(mark.touched_millis);
            u128::from(silent) < DEAD_AFTER.as_millis()
        };
        match mark(ctx, txn, id).await? {
            Some(mark) if mark.nonce != self.nonce && alive(&mark) => {
                Err(StoreError::Unavailable {
                    reason: format!("another truncation of the namespace '{key}' is running"),
                }
                .into())
            }
            _ => {
                self.write(ctx, txn, id);
                Ok(())
            }
        }
    }

    /// Gives a sign of life in a transaction that removes something; refused if another truncation
    /// took over.
    pub(super) async fn touch(
        self,
        ctx: &Context,
        txn: &mut dyn Transaction,
        key: &NamespaceKey,
        id: NamespaceId,
    ) -> Result<(), Failure> {
        let mark = mark(ctx, txn, id).await?;
        if mark.is_none_or(|mark| mark.nonce != self.nonce) {
            return Err(StoreError::Unavailable {
                reason: format!("another truncation of the namespace '{key}' took over"),
            }
            .into());
        }
        self.write(ctx, txn, id);
        Ok(())
    }

    /// Lets the next truncation begin.
    pub(super) async fn end(self, ctx: &Context, id: NamespaceId) -> Result<(), StoreError> {
        rerun(|| async {
            let mut txn = ctx.begin(Freshness::Strict);
            let mark = mark(ctx, &*txn, id).await?;
            if mark.is_some_and(|mark| mark.nonce == self.nonce) {
                txn.clear(&ctx.keys.truncation(id));
                txn.commit().await?;
            }
            Ok(())
        })
        .await
    }

    fn write(self, ctx: &Context, txn: &mut dyn Transaction, id: NamespaceId) {
        let mark = TruncationMark {
            nonce: self.nonce,
            touched_millis: ctx.now(),
        };
        txn.set(&ctx.keys.truncation(id), &mark.encode());
    }
}

async fn mark(
    ctx: &Context,
    txn: &dyn Transaction,
    id: NamespaceId,
) -> Result<Option<TruncationMark>, Failure> {
    let key = ctx.keys.truncation(id);
    let value = txn.get(&key, Isolation::Serializable).await?;
    let mark = value
        .map(|value| TruncationMark::decode(&value))
        .transpose();
    Ok(mark.map_err(corrupt_in(format_args!("namespace {id}")))?)
}
