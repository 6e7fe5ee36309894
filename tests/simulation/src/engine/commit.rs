//! Commits on their way to the disk.

use std::sync::Arc;

use mvsqlite_planted::{Bug, active};
use mvsqlite_protocol::{ReadVersion, Version};
use mvstore::kv::{Engine, Freshness, KvError, Transaction};
use tokio::sync::oneshot;

use super::{Shared, Waiting, publishes_early};

fn unknown(reason: &str) -> KvError {
    KvError::MaybeCommitted {
        reason: reason.to_owned(),
    }
}

impl Shared {
    /// Commits, if no fault befalls it.
    pub(super) async fn commit(
        self: Arc<Self>,
        transaction: Box<dyn Transaction>,
    ) -> Result<Version, KvError> {
        self.expect_running()?;
        let faults = self.plan.faults.engine;
        if self.lock().full {
            return Err(KvError::StorageFull {
                reason: "a full disk, simulated".to_owned(),
            });
        }
        if self.strikes(faults.conflict) {
            return Err(KvError::Conflict);
        }
        if self.strikes(faults.too_old) {
            return Err(KvError::TooOld);
        }
        if self.strikes(faults.unknown_lost) {
            self.take(&self.plan.fsync).await;
            return Err(unknown("a commit that did not happen, simulated"));
        }
        if publishes_early() {
            return self.publish_early(transaction).await;
        }
        let answer = self
            .enqueue(transaction)
            .await
            .unwrap_or_else(|_| Err(unknown("the engine ended")));
        if answer.is_ok() && self.strikes(faults.unknown_committed) {
            return Err(unknown("a commit that happened, simulated"));
        }
        answer
    }

    /// A planted bug: what is visible is not durable yet.
    async fn publish_early(
        self: Arc<Self>,
        transaction: Box<dyn Transaction>,
    ) -> Result<Version, KvError> {
        let done = transaction.commit().await;
        let nothing = self.durable.begin(Freshness::Strict);
        let synced = self.enqueue(nothing);
        if active(Bug::PublishEarly) && synced.await.is_err() {
            return Err(unknown("the engine ended"));
        }
        done
    }

    fn enqueue(
        self: &Arc<Self>,
        transaction: Box<dyn Transaction>,
    ) -> oneshot::Receiver<Result<Version, KvError>> {
        let (reply, answer) = oneshot::channel();
        let starts = {
            let mut state = self.lock();
            state.queue.push_back(Waiting { transaction, reply });
            !std::mem::replace(&mut state.writes, true)
        };
        if starts {
            let writes = Arc::clone(self).write();
            self.scheduler.spawn(self.group, "engine: fsync", writes);
        }
        answer
    }

    /// Writes what waits, batch by batch, until nothing does.
    async fn write(self: Arc<Self>) {
        loop {
            let batch = {
                let mut state = self.lock();
                if state.queue.is_empty() {
                    state.writes = false;
                    return;
                }
                state.queue.len()
            };
            let visible = self.visible().await;
            self.take(&self.plan.fsync).await;
            if self.strikes(self.plan.faults.engine.fsync_fails) {
                self.scheduler.note("engine: an fsync fails");
                // Nobody knows what of the queue is on the disk: the crash that follows decides.
                self.stopped.send_replace(Some(KvError::Unavailable {
                    reason: "an fsync failed, simulated".to_owned(),
                }));
                return;
            }
            self.lock().synced = visible;
            let synced: Vec<_> = self.lock().queue.drain(..batch).collect();
            for commit in synced {
                let done = commit.transaction.commit().await;
                // Whoever asked may have gone.
                let _ = commit.reply.send(done);
            }
        }
    }

    async fn visible(&self) -> ReadVersion {
        let newest = self.durable.begin(Freshness::Strict);
        newest.read_version().await.unwrap_or_default()
    }
}
