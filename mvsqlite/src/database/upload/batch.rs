//! One batch on its way, and how its end is told to the transaction it belongs to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mvsqlite_protocol::page::staged_sum;
use mvsqlite_protocol::v2::StageReply;
use mvsqlite_protocol::{NamespaceKey, PageIndex, PageSet, ReadVersion, StageId};
use serde_bytes::Bytes;

use super::held::{Taken, Writing};
use crate::client::{CallError, StagePage, StageUpload};
use crate::database::cache::Identity;
use crate::environment::Environment;
use crate::system::{Event, System};

/// A wait for a batch is looked at anew after this time, whatever happens.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Pages to be put into a stage, and pages to be taken out.
pub(super) struct Batch {
    pub(super) identity: Identity,
    pub(super) read_version: ReadVersion,
    pub(super) stage: Option<StageId>,
    pub(super) pages: Vec<Taken>,
    pub(super) unstage: PageSet,
}

/// A batch that has ended.
pub(super) struct Ended {
    /// What it put into the stage.
    pub(super) pages: Vec<Stored>,
    /// What it took out.
    pub(super) unstaged: PageSet,
    pub(super) reply: Result<StageReply, CallError>,
}

/// A page in the stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) index: PageIndex,
    pub(super) written: Writing,
    pub(super) sum: u64,
}

/// Where the batches of one transaction report their end.
pub(super) struct Mailbox {
    ended: Mutex<Vec<Ended>>,
    /// How many lie there: to look without the lock.
    count: AtomicUsize,
    arrived: Arc<dyn Event>,
    /// The transaction is over: what is not sent yet need not be.
    abandoned: AtomicBool,
}

impl Mailbox {
    pub(super) fn new(system: &dyn System) -> Self {
        Self {
            ended: Mutex::default(),
            count: AtomicUsize::new(0),
            arrived: system.event(),
            abandoned: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has ended.
    pub(super) fn collect(&self) -> Vec<Ended> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut ended = self.lock();
        self.count.store(0, Ordering::Release);
        std::mem::take(&mut *ended)
    }

    /// As [`Self::collect`]; waits until there is something. Something must be under way: every
    /// batch ends, since its calls have time limits.
    pub(super) fn wait(&self) -> Vec<Ended> {
        let mut ended = self.lock();
        while ended.is_empty() {
            let epoch = self.arrived.epoch();
            drop(ended);
            self.arrived.wait(epoch, LOOK_AGAIN);
            ended = self.lock();
        }
        self.count.store(0, Ordering::Release);
        std::mem::take(&mut *ended)
    }

    /// Takes no lock: a forked child calls this too.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    fn deliver(&self, batch: Ended) {
        let mut ended = self.lock();
        ended.push(batch);
        self.count.store(ended.len(), Ordering::Release);
        drop(ended);
        self.arrived.happen();
    }
}

/// Sends a batch, which may take as long as its call with all repetitions, and reports its end.
pub(super) fn send(env: &Environment, key: &NamespaceKey, batch: Batch, mailbox: Arc<Mailbox>) {
    // Even a panic must not leave the transaction waiting.
    let mut report = Report {
        mailbox: &mailbox,
        ended: Some(Ended {
            pages: Vec::new(),
            unstaged: PageSet::new(),
            reply: Err(CallError::BadReply("an upload ended in a bug".to_owned())),
        }),
    };
    if mailbox.abandoned.load(Ordering::Relaxed) {
        return;
    }
    let upload = StageUpload {
        namespace: batch.identity.namespace,
        read_version: batch.read_version,
        stage: batch.stage,
        pages: batch.pages.iter().map(borrowed).collect(),
        unstage: &batch.unstage,
        incarnation: Some(batch.identity.incarnation),
    };
    let reply = env.plane().stage(key, &upload);
    report.ended = Some(Ended {
        pages: batch.pages.iter().map(stored).collect(),
        unstaged: batch.unstage.clone(),
        reply,
    });
}

fn borrowed(page: &Taken) -> StagePage<'_> {
    StagePage {
        index: page.index,
        data: Bytes::new(&page.content),
    }
}

fn stored(page: &Taken) -> Stored {
    Stored {
        index: page.index,
        written: page.written,
        sum: staged_sum(page.index, &page.content),
    }
}

/// Reports a batch's end when it goes out of scope.
struct Report<'a> {
    mailbox: &'a Mailbox,
    ended: Option<Ended>,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            self.mailbox.deliver(ended);
        }
    }
}
