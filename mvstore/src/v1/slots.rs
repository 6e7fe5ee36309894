//! Large commits, a few at once and each in one place at a time.
//!
//! A client that waits for a large commit for ten seconds sends it again, and again. A sending that
//! comes while another is at work waits for it here and finds its outcome, instead of copying the same
//! pages and getting in its way. Sendings that reach different servers join in the stage instead.

use mvsqlite_protocol::IdempotencyKey;
use tokio::sync::{Mutex, MutexGuard};

/// How many are at work at once, at most; each takes memory for what a commit may bring inline.
const SLOTS: usize = 8;

/// The places for large commits. Which one a commit takes is decided by its key.
#[derive(Debug, Default)]
pub(crate) struct Slots([Mutex<()>; SLOTS]);

impl Slots {
    /// Waits for the commit's place, which it holds until it is done.
    pub(crate) async fn take(&self, key: IdempotencyKey) -> MutexGuard<'_, ()> {
        let number = key
            .as_bytes()
            .iter()
            .fold(0, |sum, byte| sum + usize::from(*byte));
        self.0[number % SLOTS].lock().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_commit_waits_for_its_other_sending_and_not_for_others() {
        let slots = Slots::default();
        let key =
            |byte| IdempotencyKey::from_bytes([byte, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let first = slots.take(key(1)).await;
        let again = slots.take(key(1));
        tokio::pin!(again);
        assert!(futures_util::poll!(&mut again).is_pending());
        drop(slots.take(key(2)).await);
        drop(first);
        drop(again.await);
    }
}
