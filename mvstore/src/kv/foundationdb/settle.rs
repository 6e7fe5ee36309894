//! Finding out that a commit whose outcome is lost does not happen any more.
//!
//! When a commit's reply is lost, the request may still be on its way to the cluster and be carried
//! out later on. FoundationDB's client rules that out itself before it says `commit_unknown_result`
//! (1021), but not before `transaction_timed_out` (1031) and `cluster_version_changed` (1039).
//!
//! So every transaction reads and writes, as conflict ranges only, a token of its own. When its
//! outcome is lost, a second transaction that does the same with the same token is committed at a
//! fresh read version. Once that one has committed, the first either has as well, at a lower
//! version, or will be refused: the token was written after it had read it. FoundationDB's client
//! works in the same way.

use mvstore_fdb_client::foundationdb::options::{ConflictRangeType, TransactionOption};
use mvstore_fdb_client::foundationdb::{self as fdb, FdbError};

use super::error::Failure;
use super::{KvError, Shared, milliseconds};
use crate::kv::KeyRange;

/// Where tokens lie. Nothing is ever stored there; it is the end of the keys that a client may
/// name, away from everything that is.
const PREFIX: &[u8] = b"\xfe/mvstore/commit/";

/// A conflict range that no other transaction has.
pub(super) fn token() -> Result<KeyRange, KvError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| KvError::Unavailable {
        reason: format!("the operating system gives no random numbers: {error}"),
    })?;
    Ok(KeyRange::single(&[PREFIX, &random].concat()))
}

/// Lets a transaction of FoundationDB's conflict with every other one that has the token.
pub(super) fn add_token(transaction: &fdb::Transaction, token: &KeyRange) -> Result<(), FdbError> {
    for kind in [ConflictRangeType::Read, ConflictRangeType::Write] {
        transaction.add_conflict_range(&token.begin, &token.end, kind)?;
    }
    Ok(())
}

/// Commits a transaction that has nothing but the token. Success means that the cluster commits, and
/// that no transaction with this token will commit any more that had begun before.
///
/// Tries again, with FoundationDB's own pauses, until `settle_timeout`
/// is over.
pub(super) async fn commit_nothing(shared: &Shared, token: &KeyRange) -> Result<(), KvError> {
    let unavailable = |error: FdbError| shared.cluster.unavailable(&Failure::from(error));
    let mut transaction = shared.client_transaction().map_err(unavailable)?;
    // It counts from the transaction's creation, over all tries.
    let timeout = TransactionOption::Timeout(milliseconds(shared.options.settle_timeout));
    transaction.set_option(timeout).map_err(unavailable)?;
    loop {
        add_token(&transaction, token).map_err(unavailable)?;
        let Err(failed) = transaction.commit().await else {
            return Ok(());
        };
        let failure = Failure::from(*failed);
        match failed.on_error().await {
            Ok(reset) => transaction = reset,
            Err(_) => return Err(shared.cluster.unavailable(&failure)),
        }
    }
}
