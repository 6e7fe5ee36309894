//! The store as protocol v1 sees it: a frozen adapter over the functions that serve our own clients.
//!
//! | module | what |
//! |---|---|
//! | `stat` | the newest version, and which pages changed since another |
//! | `read` | pages by version or by content |
//! | `commit`, `gather` | commits, and the contents of what they name |
//! | `slots` | few large commits at once, and each once |
//!
//! What differs from our own protocol:
//! - A version may be any number, also one between commits.
//! - Pages are uploaded by their content and named by its hash; [`crate::page`] keeps them waiting.
//! - Keys may hold any visible character, and a protected one wants a proof ([`admits`]).
//!
//! What is refused becomes a status in `http`.

mod commit;
mod gather;
mod read;
mod slots;
mod stat;

pub use commit::{CommitError, CommitRules, Committed};
pub use read::{ReadItem, ReadPage};
pub(crate) use slots::Slots;
pub use stat::{Stat, StatRequest};

use mvsqlite_protocol::v1::{CommitBody, PageHash};
use mvsqlite_protocol::{NamespaceId, NamespaceKey};

use crate::context::{Context, rerun};
use crate::error::StoreError;
use crate::kv::{Freshness, Isolation};
use crate::namespace::named;
use crate::page::upload_waiting;

/// The store as protocol v1 sees it.
#[derive(Clone, Copy)]
pub struct Original<'a> {
    context: &'a Context,
}

impl<'a> Original<'a> {
    pub(crate) fn new(context: &'a Context) -> Self {
        Self { context }
    }

    /// The namespace that a key names.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotFound`].
    pub async fn find(&self, key: &NamespaceKey) -> Result<NamespaceId, StoreError> {
        let ctx = self.context;
        rerun(async || {
            let txn = ctx.begin(Freshness::Strict);
            let isolation = Isolation::Snapshot;
            let entry = ctx.catalog_entry(&*txn, key.as_str(), isolation).await?;
            Ok(named(key, entry)?.id)
        })
        .await
    }

    /// The newest version, and what changed since the caller's. Strict. `None` if the caller names itself
    /// the holder of a lock that is not held, held by another, or being rolled back.
    ///
    /// # Errors
    /// [`StoreError::NamespaceNotFound`].
    pub async fn stat(
        &self,
        key: &NamespaceKey,
        request: &StatRequest,
    ) -> Result<Option<Stat>, StoreError> {
        stat::stat(self.context, key, request).await
    }

    /// Pages, one for each item, in their order.
    ///
    /// # Errors
    /// [`StoreError::SnapshotTooOld`] below the horizon, [`StoreError::VersionUnknown`] above what was
    /// committed.
    pub async fn read(
        &self,
        key: &NamespaceKey,
        items: &[ReadItem],
    ) -> Result<Vec<Option<ReadPage>>, StoreError> {
        read::read(self.context, key, items).await
    }

    /// Stores pages under the hashes of their content, which it returns. Durable; may be done twice.
    ///
    /// # Errors
    /// [`StoreError::BadPages`] for pages that are empty or too long.
    pub async fn upload(
        &self,
        key: &NamespaceKey,
        pages: &[&[u8]],
    ) -> Result<Vec<PageHash>, StoreError> {
        upload_waiting(self.context, key, pages).await
    }

    /// Commits: all namespaces or none, at one version.
    ///
    /// # Guarantees
    /// A reply means that the commit is durable and visible. What an error means is said where
    /// [`crate::store::Store::commit`] says it.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn commit(
        &self,
        rules: CommitRules,
        body: &CommitBody<'_>,
    ) -> Result<Committed, CommitError> {
        commit::commit(self.context, rules, body).await
    }
}

/// Whether a caller with this proof may use a key. One with a colon is protected: what stands behind it
/// is the BLAKE3 of the secret that the proof is, in hex.
pub fn admits(key: &str, proof: Option<&str>) -> bool {
    let Some(hash) = key.split(':').nth(1) else {
        return true;
    };
    let expected = blake3::Hash::from_hex(hash);
    let secret = decode_hex(proof.unwrap_or_default());
    match (expected, secret) {
        // Hashes compare in constant time.
        (Ok(expected), Some(secret)) => blake3::hash(&secret) == expected,
        _ => false,
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match *pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "903be2a18ceb88cbf94ea0dfcfa8ec2d4e19dab0a30347d9277bb9f8b4425ba8";

    #[test]
    fn a_protected_key_wants_the_secret_behind_its_hash() {
        let key = format!("app:{HASH}");
        assert!(admits(&key, Some("00112233")));
        assert!(admits(&format!("{key}:more"), Some("00112233")));
        assert!(admits(&key.to_uppercase(), Some("00112233")));
        for wrong in [
            None,
            Some(""),
            Some("00112234"),
            Some("0011223"),
            Some("zz"),
            Some("é"),
        ] {
            assert!(!admits(&key, wrong), "{wrong:?}");
        }
        assert!(!admits("app:", Some("00112233")));
        assert!(!admits("app:903b", Some("00112233")));
    }

    #[test]
    fn a_plain_key_wants_nothing() {
        assert!(admits("app", None));
        assert!(admits("app", Some("anything")));
    }

    /// The empty secret is one like any other: no proof and an empty one are the same.
    #[test]
    fn no_proof_is_the_empty_secret() {
        let key = format!("app:{}", blake3::hash(b"").to_hex());
        assert!(admits(&key, None) && admits(&key, Some("")));
    }
}
