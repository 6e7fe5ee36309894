//! Batches of one stage take turns.
//!
//! Each batch reads and writes its stage's record, so of two at the same time one loses in the
//! engine and runs again; a client with several batches on their way would lose all the time. What
//! comes by this server waits here instead. Batches that come by different servers still meet in
//! the engine: this saves work, the record keeps the stage right.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mvsqlite_protocol::StageId;
use tokio::sync::OwnedMutexGuard;

/// A stage's place to wait.
type Place = Arc<tokio::sync::Mutex<()>>;

/// The stages that are being added to by way of this server.
#[derive(Debug, Default)]
pub(crate) struct Turns(Arc<Places>);

#[derive(Debug, Default)]
struct Places(Mutex<HashMap<StageId, Place>>);

/// A stage is the holder's until this is dropped.
pub(super) struct Turn {
    places: Arc<Places>,
    stage: StageId,
    /// `None` only while it is dropped.
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the stage's turn. First come, first served.
    pub(super) async fn wait(&self, stage: StageId) -> Turn {
        let place = self
            .0
            .with(|places| Arc::clone(places.entry(stage).or_default()));
        Turn {
            held: Some(place.lock_owned().await),
            places: Arc::clone(&self.0),
            stage,
        }
    }
}

impl Places {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<StageId, Place>) -> T) -> T {
        // Nothing that can panic runs under this lock.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.held = None;
        self.places.with(|places| {
            // The one in the map alone: nobody waits.
            let idle = |place: &Place| Arc::strong_count(place) == 1;
            if places.get(&self.stage).is_some_and(idle) {
                places.remove(&self.stage);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    #[tokio::test]
    async fn a_second_batch_waits_for_the_first_and_other_stages_do_not() {
        let turns = Turns::default();
        let (one, other) = (StageId::from_bytes([1; 16]), StageId::from_bytes([2; 16]));
        let first = turns.wait(one).await;
        drop(turns.wait(other).await);
        let mut second = pin!(turns.wait(one));
        let is_waiting = poll_fn(|context| Poll::Ready(second.as_mut().poll(context).is_pending()));
        assert!(is_waiting.await);
        drop(first);
        drop(second.await);
        assert!(turns.0.with(|places| places.is_empty()));
    }
}
